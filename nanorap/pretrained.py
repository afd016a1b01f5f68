"""
Pretrained weights of the GPT-2 and Llama families, to model.py's names and back.

    config, state_dict = load('gpt2')      # or 'smollm2', a folder or hub name, or an out_dir of train.py

One table of key names per family serves both directions: load() goes from the right column to the left,
to_transformers() from the left to the right.
"""

import re
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from nanorap.common import UserError, check_sums, model_folder, read_json, reason, smollm2_file

# (our name, their names, how): {i} is the layer; 'T' transposes (GPT-2 keeps its linear weights as (in,
# out)), 'cat' joins several matrices into our one along the rows. Our names are GPT-2's own.
GPT2_KEYS = [
    ('transformer.wte.weight', ['transformer.wte.weight'], ''),
    ('transformer.wpe.weight', ['transformer.wpe.weight'], ''),
    ('transformer.h.{i}.ln_1.weight', ['transformer.h.{i}.ln_1.weight'], ''),
    ('transformer.h.{i}.ln_1.bias', ['transformer.h.{i}.ln_1.bias'], ''),
    ('transformer.h.{i}.attn.c_attn.weight', ['transformer.h.{i}.attn.c_attn.weight'], 'T'),
    ('transformer.h.{i}.attn.c_attn.bias', ['transformer.h.{i}.attn.c_attn.bias'], ''),
    ('transformer.h.{i}.attn.c_proj.weight', ['transformer.h.{i}.attn.c_proj.weight'], 'T'),
    ('transformer.h.{i}.attn.c_proj.bias', ['transformer.h.{i}.attn.c_proj.bias'], ''),
    ('transformer.h.{i}.ln_2.weight', ['transformer.h.{i}.ln_2.weight'], ''),
    ('transformer.h.{i}.ln_2.bias', ['transformer.h.{i}.ln_2.bias'], ''),
    ('transformer.h.{i}.mlp.c_fc.weight', ['transformer.h.{i}.mlp.c_fc.weight'], 'T'),
    ('transformer.h.{i}.mlp.c_fc.bias', ['transformer.h.{i}.mlp.c_fc.bias'], ''),
    ('transformer.h.{i}.mlp.c_proj.weight', ['transformer.h.{i}.mlp.c_proj.weight'], 'T'),
    ('transformer.h.{i}.mlp.c_proj.bias', ['transformer.h.{i}.mlp.c_proj.bias'], ''),
    ('transformer.ln_f.weight', ['transformer.ln_f.weight'], ''),
    ('transformer.ln_f.bias', ['transformer.ln_f.bias'], ''),
    ('lm_head.weight', ['lm_head.weight'], ''),  # only where it isn't tied to wte
]
LLAMA_KEYS = [
    ('transformer.wte.weight', ['model.embed_tokens.weight'], ''),
    ('transformer.h.{i}.ln_1.weight', ['model.layers.{i}.input_layernorm.weight'], ''),
    ('transformer.h.{i}.attn.c_attn.weight', ['model.layers.{i}.self_attn.q_proj.weight',
                                              'model.layers.{i}.self_attn.k_proj.weight',
                                              'model.layers.{i}.self_attn.v_proj.weight'], 'cat'),
    ('transformer.h.{i}.attn.c_proj.weight', ['model.layers.{i}.self_attn.o_proj.weight'], ''),
    ('transformer.h.{i}.ln_2.weight', ['model.layers.{i}.post_attention_layernorm.weight'], ''),
    ('transformer.h.{i}.mlp.c_fc.weight', ['model.layers.{i}.mlp.gate_proj.weight',
                                           'model.layers.{i}.mlp.up_proj.weight'], 'cat'),
    ('transformer.h.{i}.mlp.c_proj.weight', ['model.layers.{i}.mlp.down_proj.weight'], ''),
    ('transformer.ln_f.weight', ['model.norm.weight'], ''),
    ('lm_head.weight', ['lm_head.weight'], ''),
]
# GGUF has Llama's matrices under names of its own
GGUF_NAMES = {
    'token_embd': 'model.embed_tokens', 'output_norm': 'model.norm', 'output': 'lm_head',
    'attn_norm': 'input_layernorm', 'ffn_norm': 'post_attention_layernorm',
    'attn_q': 'self_attn.q_proj', 'attn_k': 'self_attn.k_proj', 'attn_v': 'self_attn.v_proj',
    'attn_output': 'self_attn.o_proj',
    'ffn_gate': 'mlp.gate_proj', 'ffn_up': 'mlp.up_proj', 'ffn_down': 'mlp.down_proj',
}


def load(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return the GPTConfig fields (a dict) and the state dict (fp32, CPU, model.py's names) of a model.

    name: 'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl', 'smollm2', a folder or hub name of a GPT-2 or Llama
    model in the transformers format, or an out_dir of train.py. Raises UserError for a model that isn't there
    or doesn't fit.
    """
    if name == 'smollm2':
        return _load_gguf(smollm2_file())
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
        return theirs['model'], _read_weights(folder)
    try:
        config, keys = _config_from_transformers(theirs, folder)
        _check_numbers(config)
    except KeyError as e:
        raise UserError(f"{folder}/config.json lacks {e}: download the folder again") from None
    except (TypeError, AttributeError, ZeroDivisionError):
        raise UserError(f"{folder}/config.json: a value is not what it must be, a whole number above 0 for a "
                        "size: download the folder again") from None
    return config, _from_transformers(keys, _read_weights(folder), config, folder)


def _check_numbers(config):
    """Raise TypeError for a value of a model's config that is no number, or no size."""
    sizes = 'n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_hidden', 'block_size', 'vocab_size'
    are_sizes = all(type(config[key]) is int and config[key] > 0 for key in sizes)
    are_numbers = all(type(config.get(key, 1.0)) in (int, float) for key in ('norm_eps', 'rope_theta'))
    if not (are_sizes and are_numbers):
        raise TypeError


def _config_from_transformers(theirs, folder):
    """Return GPTConfig fields and the key table for a transformers config, a dict.

    Raises UserError for an architecture that model.py would compute differently.
    """

    def unsupported(key, value):
        return UserError(f"{folder}: {key}={value!r} is not supported; models of the GPT-2 and Llama "
                         "families are")

    kind = theirs.get('model_type')
    is_tied = theirs.get('tie_word_embeddings', kind == 'gpt2')
    if kind == 'gpt2':
        required = dict(activation_function='gelu_new', scale_attn_weights=True, add_cross_attention=False,
                        scale_attn_by_inverse_layer_idx=False)
        for key, value in required.items():
            if theirs.get(key, value) != value:
                raise unsupported(key, theirs[key])
        config = dict(
            n_layer=theirs['n_layer'], n_head=theirs['n_head'], n_kv_head=theirs['n_head'],
            n_embd=theirs['n_embd'], n_hidden=theirs.get('n_inner') or 4 * theirs['n_embd'],
            block_size=theirs['n_positions'], vocab_size=theirs['vocab_size'],
            bias=True, pos='learned', norm='layernorm', mlp='gelu',
            norm_eps=theirs.get('layer_norm_epsilon', 1e-5), tie_weights=is_tied)
        return config, GPT2_KEYS
    if kind == 'llama':
        # rope_parameters is its name since transformers 5
        rope = theirs.get('rope_parameters') or theirs.get('rope_scaling') or {}
        n_head, n_embd = theirs['num_attention_heads'], theirs['hidden_size']
        if not type(n_head) is type(n_embd) is int:
            raise TypeError  # before head_dim is compared with them
        for key, value, required in [
            ('hidden_act', theirs.get('hidden_act', 'silu'), 'silu'),
            ('attention_bias', theirs.get('attention_bias', False), False),
            ('mlp_bias', theirs.get('mlp_bias', False), False),
            ('rope_type', rope.get('rope_type', rope.get('type', 'default')), 'default'),
            ('head_dim', (theirs.get('head_dim') or n_embd // n_head) * n_head, n_embd),
        ]:
            if value != required:
                raise unsupported(key, value)
        config = dict(
            n_layer=theirs['num_hidden_layers'], n_head=n_head,
            n_kv_head=theirs.get('num_key_value_heads') or n_head, n_embd=n_embd,
            n_hidden=theirs['intermediate_size'], block_size=theirs['max_position_embeddings'],
            vocab_size=theirs['vocab_size'], bias=False, pos='rotary', norm='rmsnorm', mlp='swiglu',
            norm_eps=theirs.get('rms_norm_eps', 1e-6), tie_weights=is_tied,
            rope_theta=rope.get('rope_theta', theirs.get('rope_theta', 10000.0)))
        return config, LLAMA_KEYS
    raise unsupported('model_type', kind)


def _key_rows(keys, config):
    """Yield a key table's rows, with layer numbers, for the parameters that a model of this config has."""
    for ours, theirs, how in keys:
        if ours == 'lm_head.weight' and config['tie_weights']:
            continue
        for i in range(config['n_layer']) if '{i}' in ours else [0]:
            yield ours.format(i=i), [key.format(i=i) for key in theirs], how


def _from_transformers(keys, theirs: dict[str, torch.Tensor], config, folder) -> dict[str, torch.Tensor]:
    """Return the state dict under model.py's names for `theirs`, one under transformers' names."""
    state_dict = {}
    for our_key, their_keys, how in _key_rows(keys, config):
        try:
            # the hub's gpt2 files leave out the prefix that save_pretrained() writes
            parts = [theirs[key] if key in theirs else theirs[key.removeprefix('transformer.')]
                     for key in their_keys]
        except KeyError as e:
            raise UserError(f"{folder}: the weights lack {e.args[0]!r}: download the folder again") from None
        if how == 'cat':
            weight = torch.cat(parts)
        else:
            weight = parts[0].t() if how == 'T' else parts[0]
        state_dict[our_key] = weight.float().contiguous()
    return state_dict


# what each family has; no format can express model.py's other options
PLAIN = dict(qk_norm=False, logit_softcap=None, smear=0)
FAMILIES = {
    'gpt2': (dict(pos='learned', norm='layernorm', mlp='gelu') | PLAIN, GPT2_KEYS),
    'llama': (dict(pos='rotary', norm='rmsnorm', mlp='swiglu', bias=False) | PLAIN, LLAMA_KEYS),
}


def family(config):
    """Return 'gpt2' or 'llama' for a GPTConfig's fields; raise UserError for a model that is neither."""
    misfits = {name: [field for field, value in fields.items() if config.get(field, value) != value]
               for name, (fields, _) in FAMILIES.items()}
    if config['n_kv_head'] != config['n_head']:
        misfits['gpt2'].append('n_kv_head')
    name = min(misfits, key=lambda name: len(misfits[name]))
    if misfits[name]:
        wrong = ', '.join(f'{field}={config[field]!r}' for field in misfits[name])
        raise UserError(f"a {name} model, to which this one is nearest, has no {wrong}: the format can't "
                        "express it")
    return name


def to_transformers(config: dict, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return model.py's state dict under transformers' names, for load() to read. config: GPTConfig's fields.

    GPT-2 has biases everywhere: a model without them gets zeros, with the same logits.
    """
    kind = family(config)
    head_dim = config['n_embd'] // config['n_head']
    n_query, n_key = config['n_embd'], config['n_kv_head'] * head_dim
    rows = {'c_attn': [n_query, n_key, n_key], 'c_fc': [config['n_hidden']] * 2}  # of stacked matrices
    theirs = {}
    for our_key, their_keys, how in _key_rows(FAMILIES[kind][1], config):
        if our_key.endswith('.bias') and not config['bias']:
            weight = torch.zeros(len(state_dict[our_key.removesuffix('bias') + 'weight']))
        else:
            weight = state_dict[our_key]
        if how == 'cat':
            parts = weight.split(rows[our_key.split('.')[-2]])
        else:
            parts = [weight.t() if how == 'T' else weight]
        theirs.update((key, part.contiguous()) for key, part in zip(their_keys, parts, strict=True))
    return theirs


def transformers_config(config, eot):
    """Return transformers' config.json for GPTConfig's fields, the reverse of _config_from_transformers()."""
    shared = dict(vocab_size=config['vocab_size'], tie_word_embeddings=config['tie_weights'], dtype='float32',
                  bos_token_id=eot, eos_token_id=eot)
    if family(config) == 'gpt2':
        return dict(
            architectures=['GPT2LMHeadModel'], model_type='gpt2',
            n_layer=config['n_layer'], n_head=config['n_head'], n_embd=config['n_embd'],
            n_inner=config['n_hidden'], n_positions=config['block_size'],
            activation_function='gelu_new', layer_norm_epsilon=config['norm_eps'], **shared)
    return dict(
        architectures=['LlamaForCausalLM'], model_type='llama', num_hidden_layers=config['n_layer'],
        num_attention_heads=config['n_head'], num_key_value_heads=config['n_kv_head'],
        hidden_size=config['n_embd'], intermediate_size=config['n_hidden'],
        max_position_embeddings=config['block_size'], hidden_act='silu', rms_norm_eps=config['norm_eps'],
        attention_bias=False, mlp_bias=False, attention_dropout=0.0,
        rope_parameters=dict(rope_type='default', rope_theta=config['rope_theta']),
        rope_theta=config['rope_theta'], **shared)


# llama.cpp has GPT-2's matrices under names of its own, and not transposed
GGUF_GPT2_NAMES = {
    'transformer.wte': 'token_embd', 'transformer.wpe': 'position_embd',
    'transformer.ln_f': 'output_norm', 'lm_head': 'output',
    'ln_1': 'attn_norm', 'ln_2': 'ffn_norm', 'attn.c_attn': 'attn_qkv', 'attn.c_proj': 'attn_output',
    'mlp.c_fc': 'ffn_up', 'mlp.c_proj': 'ffn_down',
}


def to_gguf(config: dict, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return {llama.cpp's name: tensor}, for GPT-2 and Llama; for the latter it reverses _load_gguf()."""
    kind = family(config)
    if kind == 'llama':
        names = {theirs: name for name, theirs in GGUF_NAMES.items()}
        transposed = set()
    else:
        names = GGUF_GPT2_NAMES
        transposed = {key for _, keys, how in _key_rows(GPT2_KEYS, config) for key in keys if how == 'T'}
    tensors = {}
    for key, weight in to_transformers(config, state_dict).items():
        module, _, suffix = key.rpartition('.')
        block = re.match(r'(?:transformer\.h|model\.layers)\.(\d+)\.(.*)', module)
        name = names[block[2] if block else module]
        if name in ('attn_q', 'attn_k') and kind == 'llama':  # rows in llama.cpp's order of rotation
            n = config['n_head'] if name == 'attn_q' else config['n_kv_head']
            halves = weight.view(n, 2, weight.size(0) // n // 2, weight.size(1))
            weight = halves.transpose(1, 2).reshape(weight.shape)
        weight = weight.t() if key in transposed else weight
        prefix = f'blk.{block[1]}.' if block else ''
        tensors[f'{prefix}{name}.{suffix}'] = weight.contiguous()
    return tensors


def _read_weights(folder) -> dict[str, torch.Tensor]:
    """Return {name: tensor} of a folder in any of transformers' file layouts.

    Nothing but tensors is ever unpickled.
    """
    for name in ('model.safetensors', 'pytorch_model.bin'):
        shards = [name]
        if (folder / f'{name}.index.json').exists():
            shards = sorted(set(read_json(folder / f'{name}.index.json')['weight_map'].values()))
        elif not (folder / name).exists():
            continue
        try:
            if name.endswith('.safetensors'):
                files = [load_file(folder / shard) for shard in shards]
            else:
                files = [torch.load(folder / shard, map_location='cpu', weights_only=True)
                         for shard in shards]
        except (SafetensorError, OSError, EOFError, RuntimeError, UnpicklingError):
            raise UserError(f"the weights in {folder} are damaged, half-written or in a format that can't be "
                            "read: take them from their source again") from None
        return {key: tensor for file in files for key, tensor in file.items()}
    raise UserError(f"{folder} has no model.safetensors: it is half-written, or the model's weights are to "
                    "be added")


def _load_gguf(path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return config and state dict of a Llama model in llama.cpp's GGUF format, dequantized to fp32."""
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(path)
    field = {key.removeprefix('llama.'): value.contents()
             for key, value in reader.fields.items() if key.startswith('llama.')}
    n_head, n_kv_head = field['attention.head_count'], field['attention.head_count_kv']
    theirs = {}
    for t in reader.tensors:
        *block, name, _ = t.name.split('.')  # blk.0.attn_q.weight, or output_norm.weight
        weight = torch.from_numpy(dequantize(t.data, t.tensor_type).copy())
        if name in ('attn_q', 'attn_k'):
            # llama.cpp rotates neighbouring rows of a head, Llama and model.py rows of its two halves: undo
            # its reordering
            n = n_head if name == 'attn_q' else n_kv_head
            pairs = weight.view(n, weight.size(0) // n // 2, 2, weight.size(1))
            weight = pairs.transpose(1, 2).reshape(weight.shape)
        prefix = f'model.layers.{block[1]}.' if block else ''
        theirs[f'{prefix}{GGUF_NAMES[name]}.weight'] = weight
    config = dict(
        n_layer=field['block_count'], n_head=n_head, n_kv_head=n_kv_head, n_embd=field['embedding_length'],
        n_hidden=field['feed_forward_length'], block_size=field['context_length'],
        vocab_size=field['vocab_size'], bias=False, pos='rotary', norm='rmsnorm', mlp='swiglu',
        rope_theta=field['rope.freq_base'],
        norm_eps=field['attention.layer_norm_rms_epsilon'], tie_weights='lm_head.weight' not in theirs,
    )
    return config, _from_transformers(LLAMA_KEYS, theirs, config, path)
