"""
Checkpoints of a run in its out_dir. It knows no architecture: it is handed state dicts and settings.

    best/            model.safetensors, config.json (architecture, tokenizer, step, val_loss): the lowest loss so far
    step-00000500/   the same, and what resuming needs: optimizer.safetensors, state.json; the last two are kept

A folder is complete or absent: it is written under a temporary name, synced to disk, and renamed. No pickle anywhere.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nanorap import UserError

KEEP = 2  # step folders


def write_folder(folder, tensors, documents, tokenizer):
    """Write a folder of {name: state dict} as safetensors, {name: dict} as JSON, and the tokenizer's file if it has one."""
    folder = Path(folder)
    temporary, old = folder.with_name(f'.{folder.name}.tmp'), folder.with_name(f'.{folder.name}.old')
    try:
        for left in folder.parent.glob('.*.tmp'):  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        if old.exists() and not folder.exists():  # killed between the two renames below
            old.rename(folder)
        temporary.mkdir(parents=True)
        for name, state_dict in tensors.items():
            save_file(state_dict, temporary / f'{name}.safetensors')
        tokenizer.save(temporary)
        sha256 = {file.name: _sha256(file) for file in sorted(temporary.iterdir())}
        for name, document in documents.items():
            text = json.dumps(document | dict(sha256=sha256), indent=1)
            (temporary / f'{name}.json').write_text(text + '\n', encoding='utf-8')
        for path in [*temporary.iterdir(), temporary]:
            _sync(path)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as e:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"can't save to {folder} ({getattr(e, 'strerror', None) or e}): earlier checkpoints are as they "
                        "were; make room there, and go on with --init_from=resume") from e


def save_step(out_dir, step, tensors, documents, tokenizer):
    newest = Path(out_dir) / f'step-{step:08d}'
    write_folder(newest, tensors, documents, tokenizer)
    keep = [folder for folder in _steps(out_dir) if folder <= newest][-KEEP:]
    for folder in _steps(out_dir):
        if folder not in keep:  # older ones, and later ones that an earlier run left here
            shutil.rmtree(folder)


def load_step(out_dir):
    """The newest whole checkpoint of a run: (model state dict, optimizer tensors, config.json, state.json)."""
    for folder in reversed(_steps(out_dir)):
        try:
            config, state = (json.loads((folder / f'{name}.json').read_text()) for name in ('config', 'state'))
            for name, sha256 in state['sha256'].items():
                if _sha256(folder / name) != sha256:
                    raise ValueError(f"{name} has changed since it was written")
            return load_file(folder / 'model.safetensors'), load_file(folder / 'optimizer.safetensors'), config, state
        except (OSError, ValueError, KeyError, SafetensorError) as e:
            print(f"warning: skipping {folder}, which is damaged: {e}")
    raise UserError(f"no checkpoint to resume in {out_dir}: it has no whole step-* folder; leave out --init_from=resume to "
                    "start anew, or name the --out_dir of the run")


def optimizer_tensors(model, optimizer):
    """The optimizer's state as {parameter's name.key: tensor}."""
    names = {p: name for name, p in model.named_parameters()}
    return {f'{names[p]}.{key}': tensor for p, state in optimizer.state.items() for key, tensor in state.items()}


def load_optimizer(model, optimizer, tensors):
    """The reverse of optimizer_tensors(), into an optimizer of the same kind."""
    names = {p: name for name, p in model.named_parameters()}
    states = {}
    for key, tensor in tensors.items():
        name, _, key = key.rpartition('.')
        states.setdefault(name, {})[key] = tensor
    params = [p for group in optimizer.param_groups for p in group['params']]
    state_dict = optimizer.state_dict()
    state_dict['state'] = {i: states[names[p]] for i, p in enumerate(params) if names[p] in states}
    optimizer.load_state_dict(state_dict)


def _steps(out_dir):
    return sorted(Path(out_dir).glob('step-*'))


def _sha256(path):
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()


def _sync(path):
    """Force a file or a folder's entries to disk."""
    if os.name == 'nt' and path.is_dir():
        return  # Windows can't open a folder
    fd = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
