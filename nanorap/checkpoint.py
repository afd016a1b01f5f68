"""
Checkpoints of a run in its out_dir. This file knows no architecture: it gets state dicts and settings.

    best/            the weights with the lowest validation loss so far: model.safetensors, and config.json
                     (architecture, tokenizer, step, val_loss)
    step-00000500/   the same two files, and what a resume needs besides: optimizer.safetensors, state.json.
                     The last two of these folders are kept

A folder is complete or absent: it is written under a temporary name, synced to disk, and renamed. Its
SHA256SUMS covers every other file, in the format of `sha256sum --check`. No pickle anywhere.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nanorap.common import (
    SUMS,
    UNREADABLE,
    UserError,
    check_readable,
    check_sums,
    load_json,
    model_folder,
    reason,
    replaced_folder,
    sha256,
)

N_KEPT = 2  # step folders
STEP_GLOB = 'step-' + '[0-9]' * 8  # a copy under another name is the user's own, and never removed


def write_folder(folder, tensors, documents, tokenizer):
    """Write a folder of tensors, {name: state dict}, as safetensors, and documents, {name: dict}, as JSON.

    The tokenizer's file is added if it has one.
    """
    try:
        with replaced_folder(folder) as new:
            for name, state_dict in tensors.items():
                save_file(state_dict, new / f'{name}.safetensors')
            for name, document in documents.items():
                (new / f'{name}.json').write_text(json.dumps(document, indent=1) + '\n', encoding='utf-8')
            tokenizer.save(new)
            sums = ''.join(f'{sha256(file)}  {file.name}\n' for file in sorted(new.iterdir()))
            (new / SUMS).write_text(sums, encoding='utf-8')
    except (OSError, SafetensorError) as e:
        raise UserError(f"can't save to {folder} ({getattr(e, 'strerror', None) or e}): earlier checkpoints "
                        "are unchanged; make room there, and go on with --init_from=resume") from e


def save_step(out_dir, step, tensors, documents, tokenizer):
    """Write a step folder (see write_folder), and remove all others but the newest ones before it."""
    newest = Path(out_dir) / f'step-{step:08d}'
    write_folder(newest, tensors, documents, tokenizer)
    steps = _steps(out_dir)
    keep = [folder for name, folder in steps.items() if name <= newest.name][-N_KEPT:]
    # older ones, and later ones that an earlier run left here
    for folder in {*steps.values(), *Path(out_dir).glob(f'.{STEP_GLOB}.old')}.difference(keep):
        shutil.rmtree(folder, ignore_errors=True)


def load_step(out_dir):
    """Return the newest whole checkpoint: model state dict, optimizer tensors, config.json, state.json."""
    for folder in reversed(_steps(out_dir).values()):
        try:
            check_readable(folder)
            check_sums(folder)
            config, state = load_json(folder / 'config.json'), load_json(folder / 'state.json')
            weights = load_file(folder / 'model.safetensors')
            return weights, load_file(folder / 'optimizer.safetensors'), config, state
        except (*UNREADABLE, SafetensorError) as e:
            what = f"{Path(e.filename).name} is missing" if isinstance(e, FileNotFoundError) else reason(e)
            if os.environ.get('RANK', '0') == '0':  # of several processes, one prints
                print(f"warning: skipping {folder}, which is damaged: {what}", file=sys.stderr)
    raise UserError(f"no checkpoint to resume in {out_dir}: it has no whole step-* folder; leave out "
                    "--init_from=resume to start anew, or name the --out_dir of the run")


# options that don't change a resumed run's numbers
HARMLESS_OPTIONS = {'out_dir', 'init_from', 'init', 'eval_only', 'plot', 'log_interval', 'log_maxima',
                    'recompute', 'wandb_log', 'wandb_project', 'wandb_run_name', 'max_minutes'}


def compare_settings(out_dir, before, now, ignore, is_main):
    """Warn of options that a resume changes; raise UserError for one that it can't change.

    before, now: dicts of options and their values. ignore: names of options that a loaded model brings with
    it.
    """
    if now['optimizer'] != before.get('optimizer'):
        raise UserError(f"optimizer={now['optimizer']}, but the run in {out_dir} uses "
                        f"{before.get('optimizer')}: leave the option out, or begin a new run from its "
                        f"best/: --init_from={out_dir} and another --out_dir")
    changed = [f"{key} was {before.get(key)!r} and is {value!r}" for key, value in now.items()
               if key not in HARMLESS_OPTIONS | ignore and before.get(key) != value]
    if changed and is_main:
        print("warning: resuming with other settings: " + "; ".join(changed), file=sys.stderr)


def was_run(out_dir, run_id):
    """Return whether the run of this id has left a step folder in out_dir, from which it can then resume."""
    for folder in _steps(out_dir).values():
        try:
            check_readable(folder)
            if load_json(folder / 'state.json')['run_id'] == run_id:
                return True
        except UNREADABLE:
            pass  # load_step() warns of damage
    return False


def best(out_dir, run):
    """Return (validation loss, step) of best/ if this run has written it, else (None, None)."""
    try:
        config = load_json(model_folder(out_dir) / 'config.json')
        return (config['val_loss'], config['step']) if config['run'] == run else (None, None)
    except UNREADABLE:
        return None, None


def optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's state as {"<parameter's name>.<key>": tensor}."""
    names = {p: name for name, p in model.named_parameters()}
    return {f'{names[p]}.{key}': tensor
            for p, state in optimizer.state.items() for key, tensor in state.items()}


def load_optimizer(model: torch.nn.Module, optimizer: torch.optim.Optimizer,
                   tensors: dict[str, torch.Tensor]):
    """Load what optimizer_tensors() returned into an optimizer of the same kind, sharded like its model."""
    params = dict(model.named_parameters())
    states = {}
    for key, tensor in tensors.items():
        name, _, key = key.rpartition('.')
        p = params[name]
        if hasattr(p, 'full_tensor') and tensor.dim():  # a DTensor
            from torch.distributed.tensor import distribute_tensor

            # every process has read the file, so there is no exchange
            tensor = distribute_tensor(tensor.to(p.device), p.device_mesh, p.placements, src_data_rank=None)
        states.setdefault(p, {})[key] = tensor
    state_dict = optimizer.state_dict()
    in_order = [p for group in optimizer.param_groups for p in group['params']]
    state_dict['state'] = {i: states[p] for i, p in enumerate(in_order) if p in states}
    optimizer.load_state_dict(state_dict)


def has_steps(out_dir):
    return bool(_steps(out_dir))


def _steps(out_dir):
    """Return {name: folder} of the step folders, oldest first.

    A folder that was being replaced when the run was killed may have its .old name only.
    """
    check_readable(out_dir, names=['best'])
    folders = [*Path(out_dir).glob(f'.{STEP_GLOB}.old'), *Path(out_dir).glob(STEP_GLOB)]
    return dict(sorted((folder.name.lstrip('.').removesuffix('.old'), folder) for folder in folders))
