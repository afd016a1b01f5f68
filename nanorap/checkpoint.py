"""
Checkpoints of a run in its out_dir. It knows no architecture: it is handed state dicts and settings.

    best/            model.safetensors, config.json (architecture, tokenizer, step, val_loss): the lowest loss so far
    step-00000500/   the same, and what resuming needs: optimizer.safetensors, state.json; the last two are kept

A folder is complete or absent: it is written under a temporary name, synced to disk, and renamed. Its SHA256SUMS names
every other file, as `sha256sum --check` reads it. No pickle anywhere.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nanorap.common import SUMS, UserError, check_sums, model_folder, replaced_folder, sha256

KEEP = 2  # step folders
STEP = 'step-' + '[0-9]' * 8  # a copy under another name is the user's own


def write_folder(folder, tensors, documents, tokenizer):
    """Write a folder of {name: state dict} as safetensors, {name: dict} as JSON, and the tokenizer's file if it has one."""
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
        raise UserError(f"can't save to {folder} ({getattr(e, 'strerror', None) or e}): earlier checkpoints are unchanged; "
                        "make room there, and go on with --init_from=resume") from e


def save_step(out_dir, step, tensors, documents, tokenizer):
    newest = Path(out_dir) / f'step-{step:08d}'
    write_folder(newest, tensors, documents, tokenizer)
    steps = _steps(out_dir)
    keep = [folder for name, folder in steps.items() if name <= newest.name][-KEEP:]
    for folder in {*steps.values(), *Path(out_dir).glob(f'.{STEP}.old')}.difference(keep):
        shutil.rmtree(folder, ignore_errors=True)  # older ones, and later ones that an earlier run left here


def load_step(out_dir):
    """The newest whole checkpoint of a run: (model state dict, optimizer tensors, config.json, state.json)."""
    for folder in reversed(_steps(out_dir).values()):
        try:
            check_sums(folder)
            config, state = (json.loads((folder / f'{name}.json').read_text()) for name in ('config', 'state'))
            return load_file(folder / 'model.safetensors'), load_file(folder / 'optimizer.safetensors'), config, state
        except (OSError, ValueError, SafetensorError) as e:
            reason = f"{Path(e.filename).name} is missing" if isinstance(e, FileNotFoundError) else e
            if os.environ.get('RANK', '0') == '0':  # of several processes, one prints
                print(f"warning: skipping {folder}, which is damaged: {reason}", file=sys.stderr)
    raise UserError(f"no checkpoint to resume in {out_dir}: it has no whole step-* folder; leave out --init_from=resume to "
                    "start anew, or name the --out_dir of the run")


# options that leave a run's numbers as they are
NO_MATTER = {'out_dir', 'init_from', 'init', 'eval_only', 'plot', 'log_interval', 'log_maxima', 'recompute', 'wandb_log',
             'wandb_project', 'wandb_run_name', 'max_minutes'}


def compare_settings(out_dir, before, now, ignore, is_main):
    """Before a resume: a warning that names what is set otherwise than `before`, and an error where it can't be."""
    if now['optimizer'] != before.get('optimizer'):
        raise UserError(f"optimizer={now['optimizer']}, but the run in {out_dir} uses {before.get('optimizer')}: leave the "
                        f"option out, or begin a new run from its best/: --init_from={out_dir} and another --out_dir")
    changed = [f"{key} was {before.get(key)!r} and is {value!r}" for key, value in now.items()
               if key not in NO_MATTER | ignore and before.get(key) != value]
    if changed and is_main:
        print("warning: resuming with other settings: " + "; ".join(changed), file=sys.stderr)


def was_run(out_dir, run_id):
    """Whether the run of this id has left a step folder: then it can go on, where another run's must not."""
    for folder in _steps(out_dir).values():
        try:
            if json.loads((folder / 'state.json').read_text())['run_id'] == run_id:
                return True
        except (OSError, ValueError, KeyError, TypeError):
            pass  # load_step() will say
    return False


def best(out_dir, run):
    """(validation loss, step) of best/, if this run has written it; else (None, None)."""
    try:
        config = json.loads((model_folder(out_dir) / 'config.json').read_text())
        return (config['val_loss'], config['step']) if config['run'] == run else (None, None)
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


def optimizer_tensors(model, optimizer):
    """The optimizer's state as {parameter's name.key: tensor}."""
    names = {p: name for name, p in model.named_parameters()}
    return {f'{names[p]}.{key}': tensor for p, state in optimizer.state.items() for key, tensor in state.items()}


def load_optimizer(model, optimizer, tensors):
    """The reverse of optimizer_tensors(), into an optimizer of the same kind; for sharded parameters it takes their part."""
    params = dict(model.named_parameters())
    states = {}
    for key, tensor in tensors.items():
        name, _, key = key.rpartition('.')
        p = params[name]
        if hasattr(p, 'full_tensor') and tensor.dim():  # a DTensor
            from torch.distributed.tensor import distribute_tensor

            # every process has read the file: no exchange
            tensor = distribute_tensor(tensor.to(p.device), p.device_mesh, p.placements, src_data_rank=None)
        states.setdefault(p, {})[key] = tensor
    state_dict = optimizer.state_dict()
    in_order = [p for group in optimizer.param_groups for p in group['params']]
    state_dict['state'] = {i: states[p] for i, p in enumerate(in_order) if p in states}
    optimizer.load_state_dict(state_dict)


def has_steps(out_dir):
    return bool(_steps(out_dir))


def _steps(out_dir):
    """{name: folder}, in order. One that was being replaced when the run was killed may have its .old name only."""
    folders = [*Path(out_dir).glob(f'.{STEP}.old'), *Path(out_dir).glob(STEP)]
    return dict(sorted((folder.name.lstrip('.').removesuffix('.old'), folder) for folder in folders))
