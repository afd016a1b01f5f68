"""
Pretrained weights of the families of families.py, to model.py's names and back.

    config, state_dict = load('gpt2')      # or 'smollm2', a folder or hub name, or an out_dir of train.py

Weights are read tensor by tensor, each converted as it comes, so that the files' contents are never in memory
twice.
"""

from functools import partial
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open

from nanorap import gguf_files
from nanorap.common import UserError, check_sums, gguf_file, model_folder, read_json, reason
from nanorap.families import (
    FAMILIES,
    Family,
    Unsupported,
    family_of,
    key_rows,
    to_ours,
    to_theirs,
)


def load(name: str, dtype: torch.dtype | None = torch.float32) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return the GPTConfig fields (a dict) and the state dict (CPU, model.py's names) of a model.

    name: 'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl', 'smollm2', a folder or hub name of a model in the
    transformers format, a GGUF file, or an out_dir of train.py. dtype: of the weights; None: as the files
    have them. Raises UserError for a model that isn't there or doesn't fit.
    """
    if path := gguf_file(name):
        return gguf_files.load(path, dtype)
    config, family = load_config(name)
    folder = model_folder(name)
    if family is None:
        return config, {key: read().to(dtype) for key, read in _tensors(folder).items()}
    return config, from_transformers(family.keys, _tensors(folder), config, folder, dtype)


def load_config(name: str) -> tuple[dict, Family | None]:
    """Return the GPTConfig fields (a dict) of a model of load(), and its Family, None for a run of train.py.

    Its weights need not be there.
    """
    if path := gguf_file(name):
        return gguf_files.read_config(path)[:2]
    folder = model_folder(name)
    if not (folder / 'config.json').exists():
        raise UserError(f"{folder} has no config.json: give a folder in the transformers format, or an "
                        "out_dir of train.py")
    theirs = read_json(folder / 'config.json')
    if 'model' in theirs:  # a checkpoint of ours
        try:
            check_sums(folder)
        except (OSError, ValueError) as e:
            what = f"{e.filename} is missing" if isinstance(e, FileNotFoundError) else reason(e)
            raise UserError(f"{folder} is damaged ({what}): take it from its source again, or go on with "
                            "the training, which starts from the newest whole checkpoint") from None
        return theirs['model'], None

    kind = theirs.get('model_type')
    if kind == 'gemma3':  # with an image encoder, which is left out
        theirs, kind = theirs.get('text_config', {}), 'gemma3_text'
    if kind not in FAMILIES:
        raise UserError(f"{folder}: model_type={kind!r} is not supported; {', '.join(FAMILIES)} are")
    family = FAMILIES[kind]
    try:
        config = family.read(theirs)
        _check_numbers(config)
    except Unsupported as e:
        raise UserError(f"{folder}: {e}") from None
    except KeyError as e:
        raise UserError(f"{folder}/config.json lacks {e}: download the folder again") from None
    except (TypeError, AttributeError, ValueError, ZeroDivisionError):
        raise UserError(f"{folder}/config.json: a value is not what it must be, a whole number above 0 for a "
                        "size: download the folder again") from None
    return config, family


def _check_numbers(config):
    """Raise TypeError for a value of a model's config that is no number, or no size."""
    sizes = 'n_layer', 'n_head', 'n_kv_head', 'head_dim', 'n_embd', 'n_hidden', 'block_size', 'vocab_size'
    are_sizes = all(type(config[key]) is int and config[key] > 0 for key in sizes)
    are_numbers = all(type(config.get(key, 1.0)) in (int, float) for key in ('norm_eps', 'rope_theta'))
    if not (are_sizes and are_numbers):
        raise TypeError


def from_transformers(keys, theirs, config, folder, dtype=torch.float32) -> dict[str, torch.Tensor]:
    """Return the state dict under model.py's names.

    theirs: {transformers' name: a function that reads the tensor}.
    """
    state_dict = {}
    for our_key, their_keys, how in key_rows(keys, config):
        try:
            # the hub's gpt2 files leave out the prefix that save_pretrained() writes
            parts = [(theirs.get(key) or theirs[key.removeprefix('transformer.')])() for key in their_keys]
            weight = to_ours([part.to(dtype or part.dtype) for part in parts], how, config)
        except KeyError as e:
            raise UserError(f"{folder}: the weights lack {e.args[0]!r}: download the folder again") from None
        except RuntimeError:
            raise UserError(f"{folder}: the shape of {their_keys[0]!r} doesn't fit config.json: download the "
                            "folder again") from None
        state_dict[our_key] = weight.to(dtype or parts[0].dtype).contiguous()
    return state_dict


def family(config):
    """Return the name of the family that can express a model of GPTConfig's fields; UserError if none can."""
    return family_of(config).name


def to_transformers(config: dict, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return model.py's state dict under transformers' names, for load() to read. config: GPTConfig's fields.

    GPT-2 has biases everywhere: a model without them gets zeros, with the same logits.
    """
    family = family_of(config)
    theirs = {}
    for our_key, their_keys, how in key_rows(family.keys, config | family.constants):
        if our_key in state_dict:
            weight = state_dict[our_key]
        else:
            weight = torch.zeros(len(state_dict[our_key.removesuffix('bias') + 'weight']))
        parts = to_theirs(weight, how, config, len(their_keys))
        theirs.update((key, part.contiguous()) for key, part in zip(their_keys, parts, strict=True))
    return theirs


def transformers_config(config, eot):
    """Return transformers' config.json for GPTConfig's fields, the reverse of Family.read()."""
    return family_of(config).write(config) | dict(
        dtype='float32', bos_token_id=eot, eos_token_id=eot, pad_token_id=None)


def _read_tensor(path, key):
    """Read one tensor. The file is opened anew, for an open one would keep in memory all that was read."""
    with safe_open(path, framework='pt') as file:
        return file.get_tensor(key)


def _tensors(folder):
    """Return {name: a function that reads the tensor} of a folder in any of transformers' file layouts.

    Nothing but tensors is ever unpickled.
    """
    for name in ('model.safetensors', 'pytorch_model.bin'):
        shards = [name]
        if (folder / f'{name}.index.json').exists():
            shards = sorted(set(read_json(folder / f'{name}.index.json')['weight_map'].values()))
        elif not (folder / name).exists():
            continue
        tensors = {}
        try:
            for shard in shards:
                if name.endswith('.safetensors'):
                    with safe_open(folder / shard, framework='pt') as file:
                        tensors |= {key: partial(_read_tensor, folder / shard, key) for key in file.keys()}
                else:
                    file = torch.load(folder / shard, map_location='cpu', weights_only=True, mmap=True)
                    tensors |= {key: partial(file.get, key) for key in file}
        except (SafetensorError, OSError, EOFError, RuntimeError, UnpicklingError):
            raise UserError(f"the weights in {folder} are damaged, half-written or in a format that can't be "
                            "read: take them from their source again") from None
        # models with an image encoder have their text model one level further down
        return {key.replace('language_model.', ''): read for key, read in tensors.items()}
    raise UserError(f"{folder} has no model.safetensors: it is half-written, or the model's weights are to "
                    "be added")
