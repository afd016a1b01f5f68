"""
The model families that model.py can express: their names in transformers for weights and config, both ways.

    family = family_of(config)                       # by GPTConfig's fields
    config = FAMILIES['qwen3'].read(theirs)          # from transformers' config.json, a dict
    theirs = FAMILIES['qwen3'].write(config)         # and back

A family is a table of key names, a table of config names, what all its models have, and two functions for
what tables can't say. Reading what a family would write for a model tells whether it can express the model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nanorap.common import UserError
from nanorap.positions import ROPE_TYPES

# ---- the weights

# (our name, their names, how): {i} is the layer. Several of their matrices are joined along the rows to one
# of ours; 'T' transposes (GPT-2 keeps its linear weights as (in, out)); '+1' adds one (Gemma's norms multiply
# by 1 + w); 'by head' reorders GPT-NeoX's rows, which have query, key and value of a head side by side;
# 'offset' leaves out OPT's two positions before the first. Our names are GPT-2's own, and one without .weight
# stands for that and for .bias.
GPT2_KEYS = [
    ('transformer.wte.weight', ['transformer.wte.weight'], ''),
    ('transformer.wpe.weight', ['transformer.wpe.weight'], ''),
    ('transformer.h.{i}.ln_1', ['transformer.h.{i}.ln_1'], ''),
    ('transformer.h.{i}.attn.c_attn.weight', ['transformer.h.{i}.attn.c_attn.weight'], 'T'),
    ('transformer.h.{i}.attn.c_attn.bias', ['transformer.h.{i}.attn.c_attn.bias'], ''),
    ('transformer.h.{i}.attn.c_proj.weight', ['transformer.h.{i}.attn.c_proj.weight'], 'T'),
    ('transformer.h.{i}.attn.c_proj.bias', ['transformer.h.{i}.attn.c_proj.bias'], ''),
    ('transformer.h.{i}.ln_2', ['transformer.h.{i}.ln_2'], ''),
    ('transformer.h.{i}.mlp.c_fc.weight', ['transformer.h.{i}.mlp.c_fc.weight'], 'T'),
    ('transformer.h.{i}.mlp.c_fc.bias', ['transformer.h.{i}.mlp.c_fc.bias'], ''),
    ('transformer.h.{i}.mlp.c_proj.weight', ['transformer.h.{i}.mlp.c_proj.weight'], 'T'),
    ('transformer.h.{i}.mlp.c_proj.bias', ['transformer.h.{i}.mlp.c_proj.bias'], ''),
    ('transformer.ln_f', ['transformer.ln_f'], ''),
    ('lm_head.weight', ['lm_head.weight'], ''),
]
# Llama, Mistral, Qwen2, Qwen3, SmolLM3
LLAMA_KEYS = [
    ('transformer.wte.weight', ['model.embed_tokens.weight'], ''),
    ('transformer.h.{i}.ln_1', ['model.layers.{i}.input_layernorm'], ''),
    ('transformer.h.{i}.attn.c_attn', ['model.layers.{i}.self_attn.q_proj',
    'model.layers.{i}.self_attn.k_proj',
                                       'model.layers.{i}.self_attn.v_proj'], ''),
    ('transformer.h.{i}.attn.q_norm', ['model.layers.{i}.self_attn.q_norm'], ''),
    ('transformer.h.{i}.attn.k_norm', ['model.layers.{i}.self_attn.k_norm'], ''),
    ('transformer.h.{i}.attn.c_proj', ['model.layers.{i}.self_attn.o_proj'], ''),
    ('transformer.h.{i}.ln_2', ['model.layers.{i}.post_attention_layernorm'], ''),
    ('transformer.h.{i}.mlp.c_fc', ['model.layers.{i}.mlp.gate_proj', 'model.layers.{i}.mlp.up_proj'], ''),
    ('transformer.h.{i}.mlp.c_proj', ['model.layers.{i}.mlp.down_proj'], ''),
    ('transformer.ln_f', ['model.norm'], ''),
    ('lm_head.weight', ['lm_head.weight'], ''),
]


def changed(keys, *rows):
    """Return a key table with other rows in place of those of the same names, and the rest at its end."""
    names = [name for name, _, _ in rows]
    return [row for row in keys if row[0] not in names] + list(rows)


OLMO2_KEYS = changed(
    LLAMA_KEYS,
    ('transformer.h.{i}.post_1', ['model.layers.{i}.post_attention_layernorm'], ''),
    ('transformer.h.{i}.post_2', ['model.layers.{i}.post_feedforward_layernorm'], ''))
GEMMA3_KEYS = [
    (ours, theirs, '+1' if 'ln_' in ours or 'norm' in ours or 'post_' in ours else how)
    for ours, theirs, how in changed(
        OLMO2_KEYS, ('transformer.h.{i}.ln_2', ['model.layers.{i}.pre_feedforward_layernorm'], ''))]
PHI3_KEYS = changed(
    LLAMA_KEYS,
    ('transformer.h.{i}.attn.c_attn', ['model.layers.{i}.self_attn.qkv_proj'], ''),
    ('transformer.h.{i}.mlp.c_fc', ['model.layers.{i}.mlp.gate_up_proj'], ''))
NEOX_KEYS = [
    ('transformer.wte.weight', ['gpt_neox.embed_in.weight'], ''),
    ('transformer.h.{i}.ln_1', ['gpt_neox.layers.{i}.input_layernorm'], ''),
    ('transformer.h.{i}.attn.c_attn', ['gpt_neox.layers.{i}.attention.query_key_value'], 'by head'),
    ('transformer.h.{i}.attn.c_proj', ['gpt_neox.layers.{i}.attention.dense'], ''),
    ('transformer.h.{i}.ln_2', ['gpt_neox.layers.{i}.post_attention_layernorm'], ''),
    ('transformer.h.{i}.mlp.c_fc', ['gpt_neox.layers.{i}.mlp.dense_h_to_4h'], ''),
    ('transformer.h.{i}.mlp.c_proj', ['gpt_neox.layers.{i}.mlp.dense_4h_to_h'], ''),
    ('transformer.ln_f', ['gpt_neox.final_layer_norm'], ''),
    ('lm_head.weight', ['embed_out.weight'], ''),
]
OPT_KEYS = [
    ('transformer.wte.weight', ['model.decoder.embed_tokens.weight'], ''),
    ('transformer.wpe.weight', ['model.decoder.embed_positions.weight'], 'offset'),
    ('transformer.h.{i}.ln_1', ['model.decoder.layers.{i}.self_attn_layer_norm'], ''),
    ('transformer.h.{i}.attn.c_attn', ['model.decoder.layers.{i}.self_attn.q_proj',
                                       'model.decoder.layers.{i}.self_attn.k_proj',
                                       'model.decoder.layers.{i}.self_attn.v_proj'], ''),
    ('transformer.h.{i}.attn.c_proj', ['model.decoder.layers.{i}.self_attn.out_proj'], ''),
    ('transformer.h.{i}.ln_2', ['model.decoder.layers.{i}.final_layer_norm'], ''),
    ('transformer.h.{i}.mlp.c_fc', ['model.decoder.layers.{i}.fc1'], ''),
    ('transformer.h.{i}.mlp.c_proj', ['model.decoder.layers.{i}.fc2'], ''),
    ('transformer.ln_f', ['model.decoder.final_layer_norm'], ''),
    ('lm_head.weight', ['lm_head.weight'], ''),
]


def has_parameter(name, config):
    """Return whether a model of GPTConfig's fields has a parameter: 'transformer.h.0.ln_1.bias'."""
    module, _, kind = name.rpartition('.')
    last = module.rpartition('.')[2]
    if last in ('q_norm', 'k_norm') and not config['qk_norm']:
        return False
    if last in ('ln_1', 'ln_2') and config['norms'] == 'after':
        return False
    if last in ('post_1', 'post_2') and config['norms'] == 'before':
        return False
    if last == 'lm_head':
        return not config['tie_weights']
    if kind == 'weight':
        return True
    if module.endswith('attn.c_attn'):
        return config['qkv_bias']
    if module.endswith('attn.c_proj'):
        return config['proj_bias']
    is_norm = last.startswith(('ln_', 'post_')) or last.endswith('norm')
    return config['bias'] and not (is_norm and config['norm'] == 'rmsnorm')


def key_rows(keys, config):
    """Yield a key table's rows (our name, their names, how), one per parameter of a model of this config."""
    for ours, theirs, how in keys:
        for suffix in ('',) if ours.endswith(('.weight', '.bias')) else ('.weight', '.bias'):
            for i in range(config['n_layer']) if '{i}' in ours else [0]:
                our_key = (ours + suffix).format(i=i)
                if has_parameter(our_key, config):
                    yield our_key, [(key + suffix).format(i=i) for key in theirs], how


def to_ours(parts, how, config):
    """Return our tensor of their tensors, a list, without a copy where there is but one."""
    weight = torch.cat(parts) if len(parts) > 1 else parts[0]
    if how == 'T':
        return weight.t()
    if how == '+1':
        return weight.float() + 1
    if how == 'by head':
        by_head = weight.view(config['n_head'], 3, config['head_dim'], -1)
        return by_head.transpose(0, 1).reshape(weight.shape)
    return weight[2:] if how == 'offset' else weight


def to_theirs(weight, how, config, n_parts):
    """Return their tensors, a list, of ours; the reverse of to_ours()."""
    if n_parts > 1:
        n_query, n_key = (config[heads] * config['head_dim'] for heads in ('n_head', 'n_kv_head'))
        return weight.split([n_query, n_key, n_key] if n_parts == 3 else [config['n_hidden']] * 2)
    if how == 'T':
        weight = weight.t()
    elif how == '+1':
        weight = weight.float() - 1
    elif how == 'by head':
        by_kind = weight.view(3, config['n_head'], config['head_dim'], -1)
        weight = by_kind.transpose(0, 1).reshape(weight.shape)
    elif how == 'offset':
        weight = torch.cat((weight.new_zeros(2, weight.size(1)), weight))
    return [weight]


# ---- the config

# fields of GPTConfig that have a name in transformers' config
NAMES = dict(n_layer='num_hidden_layers', n_head='num_attention_heads', n_kv_head='num_key_value_heads',
             n_embd='hidden_size', n_hidden='intermediate_size', block_size='max_position_embeddings',
             vocab_size='vocab_size', norm_eps='rms_norm_eps')
# what most models have; a family names what differs
USUAL = dict(bias=False, qkv_bias=False, proj_bias=False, pos='rotary', rope_scaling=None, rope_fraction=1.0,
             nope_layers=None, window=None, local_layers=None, rope_local_theta=None, attn_scale=None,
             qk_norm=False, norm='rmsnorm', norms='before', parallel_mlp=False, mlp='swiglu', smear=0,
             embed_scale=1.0, logit_softcap=None, rope_theta=10000.0)


class Unsupported(UserError):
    """A model that model.py would compute differently."""

    def __init__(self, key, value, wanted=None):
        only = '' if wanted is None else f", only {wanted!r}"
        super().__init__(f"{key}={value!r} is not supported{only}")


def require(theirs, **values):
    """Raise Unsupported unless a config has these values, or lacks the keys."""
    for key, value in values.items():
        if theirs.get(key, value) != value:
            raise Unsupported(key, theirs[key], value)


def read_rope(theirs, may_be_partial=False):
    """Return the rotary fields of GPTConfig of a transformers config, of version 5 or older."""
    rope = theirs.get('rope_parameters') or theirs.get('rope_scaling') or {}
    kind = rope.get('rope_type', rope.get('type', 'default'))
    fraction = rope.get('partial_rotary_factor', theirs.get('partial_rotary_factor', 1.0))
    theta = rope.get('rope_theta', theirs.get('rope_theta', theirs.get('rotary_emb_base', 10000.0)))
    if fraction != 1 and not may_be_partial:
        raise Unsupported('partial_rotary_factor', fraction, 1.0)
    fields = dict(rope_theta=float(theta), rope_fraction=float(fraction), rope_scaling=None)
    if kind in ('default', None):
        return fields
    if kind not in ROPE_TYPES:
        raise Unsupported('rope_type', kind, ', '.join(('default', *ROPE_TYPES)))
    if rope.get('mscale') or rope.get('mscale_all_dim'):
        raise Unsupported('mscale', rope.get('mscale'), "rope_scaling without it")
    names = ('factor', 'original_max_position_embeddings', 'low_freq_factor', 'high_freq_factor', 'beta_fast',
             'beta_slow', 'attention_factor', 'truncate')
    scaling = dict(rope_type=kind) | {key: rope[key] for key in names if rope.get(key) is not None}
    context = theirs.get('original_max_position_embeddings') or theirs['max_position_embeddings']
    if kind != 'linear':
        scaling.setdefault('original_max_position_embeddings', context)
    scaling.setdefault('factor', theirs['max_position_embeddings'] / context)
    return fields | dict(rope_scaling=scaling)


def write_rope(config):
    """Return the rotary fields of a transformers config, for versions 5 and older."""
    scaling, theta = config['rope_scaling'], config['rope_theta']
    parameters = (scaling or dict(rope_type='default')) | dict(rope_theta=theta)
    if config['rope_fraction'] != 1:
        parameters['partial_rotary_factor'] = config['rope_fraction']
    older = dict(rope_scaling=scaling) if scaling else {}
    return dict(rope_parameters=parameters, rope_theta=theta,
                partial_rotary_factor=config['rope_fraction']) | older


def read_window(theirs, default_types=None):
    """Return the window's fields of GPTConfig."""
    window, n_layer = theirs.get('sliding_window'), theirs['num_hidden_layers']
    types = theirs.get('layer_types') or default_types or ['sliding_attention'] * n_layer
    local = [i for i, kind in enumerate(types) if kind == 'sliding_attention']
    if set(types) - {'sliding_attention', 'full_attention'}:
        raise Unsupported('layer_types', types[:4])
    if not window or not theirs.get('use_sliding_window', True) or not local:
        return dict(window=None, local_layers=None)
    return dict(window=window, local_layers=None if len(local) == n_layer else local)


def write_window(config):
    layers = range(config['n_layer'])
    local = layers if config['local_layers'] is None else config['local_layers']
    is_local = [config['window'] is not None and i in local for i in layers]
    return dict(sliding_window=config['window'], use_sliding_window=config['window'] is not None,
                layer_types=['sliding_attention' if i else 'full_attention' for i in is_local])


def read_llama(theirs):
    require(theirs, hidden_act='silu', mlp_bias=False)
    bias = theirs.get('attention_bias', False)
    return read_rope(theirs) | dict(qkv_bias=bias, proj_bias=bias)


def write_llama(config):
    return write_rope(config) | dict(hidden_act='silu', mlp_bias=False, attention_bias=config['qkv_bias'],
                                     head_dim=config['head_dim'])


def read_mistral(theirs):
    require(theirs, hidden_act='silu')
    return read_rope(theirs) | read_window(theirs)


def write_mistral(config):
    return write_rope(config) | dict(hidden_act='silu', head_dim=config['head_dim'],
                                     sliding_window=config['window'])


def read_qwen2(theirs):
    require(theirs, hidden_act='silu')
    n_full = theirs.get('max_window_layers', 28)
    types = ['full_attention' if i < n_full else 'sliding_attention'
             for i in range(theirs['num_hidden_layers'])]
    return read_rope(theirs) | read_window(dict(use_sliding_window=False) | theirs, types)


def write_qwen2(config):
    return write_rope(config) | write_window(config) | dict(hidden_act='silu')


def read_qwen3(theirs):
    bias = theirs.get('attention_bias', False)
    return read_qwen2(theirs) | dict(qkv_bias=bias, proj_bias=bias)


def write_qwen3(config):
    return write_qwen2(config) | dict(head_dim=config['head_dim'], attention_bias=config['qkv_bias'])


def read_smollm3(theirs):
    layers = range(theirs['num_hidden_layers'])
    interval = theirs.get('no_rope_layer_interval', 4)
    has_rope = theirs.get('no_rope_layers') or [int((i + 1) % interval != 0) for i in layers]
    types = ['full_attention' if has_rope[i] else 'sliding_attention' for i in layers]
    window = read_window(dict(use_sliding_window=False) | theirs, types)
    return read_llama(theirs) | window | dict(nope_layers=[i for i in layers if not has_rope[i]] or None)


def write_smollm3(config):
    has_rope = [int(i not in (config['nope_layers'] or ())) for i in range(config['n_layer'])]
    return write_llama(config) | write_window(config) | dict(no_rope_layers=has_rope)


def read_olmo2(theirs):
    require(theirs, hidden_act='silu', attention_bias=False)
    return read_rope(theirs)


def write_olmo2(config):
    return write_rope(config) | dict(hidden_act='silu', attention_bias=False)


def read_gemma3(theirs):
    require(theirs, hidden_activation='gelu_pytorch_tanh', attention_bias=False, attn_logit_softcapping=None,
            use_bidirectional_attention=False)
    pattern = theirs.get('sliding_window_pattern', 6)
    types = ['full_attention' if (i + 1) % pattern == 0 else 'sliding_attention'
             for i in range(theirs['num_hidden_layers'])]
    rope = theirs.get('rope_parameters') or {}
    if 'full_attention' in rope:
        local_theta = rope['sliding_attention']['rope_theta']
        fields = read_rope(theirs | dict(rope_parameters=rope['full_attention'], rope_scaling=None))
    else:
        local_theta = theirs.get('rope_local_base_freq', 10000.0)
        fields = read_rope(dict(rope_theta=1e6) | theirs)
    return fields | read_window(dict(sliding_window=4096) | theirs, types) | dict(
        rope_local_theta=float(local_theta), embed_scale=theirs['hidden_size'] ** 0.5,
        attn_scale=theirs.get('query_pre_attn_scalar', 256) ** -0.5,
        logit_softcap=theirs.get('final_logit_softcapping'))


def write_gemma3(config):
    rope = write_rope(config)
    local_theta = config['rope_local_theta'] or config['rope_theta']
    local = dict(rope_type='default', rope_theta=local_theta)
    rope['rope_parameters'] = dict(full_attention=rope['rope_parameters'], sliding_attention=local)
    scale = config['attn_scale'] or config['head_dim'] ** -0.5
    return rope | write_window(config) | dict(
        hidden_activation='gelu_pytorch_tanh', head_dim=config['head_dim'], attention_bias=False,
        query_pre_attn_scalar=round(scale**-2), rope_local_base_freq=local_theta,
        final_logit_softcapping=config['logit_softcap'])


def read_phi3(theirs):
    require(theirs, hidden_act='silu')
    return read_rope(theirs, may_be_partial=True) | read_window(theirs)


def write_phi3(config):
    return write_rope(config) | dict(hidden_act='silu', sliding_window=config['window'],
                                     original_max_position_embeddings=config['block_size'])


def read_neox(theirs):
    require(theirs, attention_bias=True)
    act = theirs.get('hidden_act', 'gelu')
    activations = dict(gelu='gelu_exact', gelu_new='gelu', gelu_fast='gelu', gelu_pytorch_tanh='gelu',
                       relu='relu')
    if act not in activations:
        raise Unsupported('hidden_act', act)
    # its fraction is 0.25 where the config doesn't say
    theirs = dict(partial_rotary_factor=theirs.get('rotary_pct', 0.25)) | theirs
    return read_rope(theirs, may_be_partial=True) | dict(
        mlp=activations[act], parallel_mlp=theirs.get('use_parallel_residual', True))


def write_neox(config):
    activations = dict(gelu_exact='gelu', gelu='gelu_pytorch_tanh', relu='relu')
    rope = write_rope(config)
    rope['rope_parameters'].setdefault('partial_rotary_factor', config['rope_fraction'])
    return rope | dict(rotary_pct=config['rope_fraction'], rotary_emb_base=config['rope_theta'],
                       hidden_act=activations.get(config['mlp']),
                       use_parallel_residual=config['parallel_mlp'], attention_bias=True)


def read_gpt2(theirs):
    require(theirs, activation_function='gelu_new', scale_attn_weights=True, add_cross_attention=False,
            scale_attn_by_inverse_layer_idx=False)
    return dict(n_hidden=theirs.get('n_inner') or 4 * theirs['n_embd'])


def write_gpt2(config):
    return dict(activation_function='gelu_new', n_inner=config['n_hidden'])


def read_opt(theirs):
    require(theirs, activation_function='relu', do_layer_norm_before=True, enable_bias=True,
            _remove_final_layer_norm=False, layer_norm_elementwise_affine=True)
    require(theirs, word_embed_proj_dim=theirs['hidden_size'])
    return {}


def write_opt(config):
    return dict(activation_function='relu', word_embed_proj_dim=config['n_embd'], do_layer_norm_before=True)


@dataclass
class Family:
    name: str  # transformers' model_type
    architecture: str  # transformers' class
    keys: list
    constants: dict  # fields of GPTConfig that all its models have
    read_more: Callable
    write_more: Callable
    names: dict | None = None  # of config fields. None: NAMES
    is_tied: bool = False  # whether the head is tied where the config doesn't say
    defaults: dict | None = None  # of transformers' config
    ignored: tuple = ()  # fields that make no difference to the file

    def read(self, theirs):
        """Return GPTConfig's fields of a transformers config, a dict.

        Raises Unsupported for a model that model.py would compute differently, KeyError for a missing field.
        """
        nulls = {key for key, value in theirs.items() if value is None}
        theirs = (self.defaults or {}) | {key: value for key, value in theirs.items() if key not in nulls}
        config = USUAL | self.constants
        for ours, name in (self.names or NAMES).items():
            if ours == 'n_kv_head' and name not in theirs:
                continue
            if name in nulls:
                raise TypeError(f"{name} is null")
            config[ours] = theirs[name]
        config.setdefault('n_kv_head', config['n_head'])
        config['head_dim'] = theirs.get('head_dim') or config['n_embd'] // config['n_head']
        config['tie_weights'] = theirs.get('tie_word_embeddings', self.is_tied)
        return config | self.read_more(theirs)

    def write(self, config):
        """Return a transformers config, a dict, of GPTConfig's fields."""
        return {name: config[ours] for ours, name in (self.names or NAMES).items()} | dict(
            architectures=[self.architecture], model_type=self.name,
            tie_word_embeddings=config['tie_weights']) | self.write_more(config)

    def misfits(self, config):
        """Return the fields of GPTConfig that this family can't express."""
        back = self.read(self.write(config))
        return [field for field, value in config.items()
                if field in back and field not in self.ignored and not same(back[field], value)]


def same(a, b):
    return math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float) and isinstance(b, float) else a == b


WITH_BIASES = dict(bias=True, qkv_bias=True, proj_bias=True, norm='layernorm')
GPT2_NAMES = {field: field for field in ('n_layer', 'n_head', 'n_embd', 'vocab_size')} | dict(
    block_size='n_positions', norm_eps='layer_norm_epsilon')
NEOX_NAMES = {field: name for field, name in NAMES.items() if field != 'n_kv_head'} | dict(
    norm_eps='layer_norm_eps')
OPT_NAMES = {field: name for field, name in NAMES.items() if field not in ('n_kv_head', 'norm_eps')} | dict(
    n_hidden='ffn_dim')
FAMILIES = {family.name: family for family in [
    Family('gpt2', 'GPT2LMHeadModel', GPT2_KEYS, WITH_BIASES | dict(pos='learned', mlp='gelu'), read_gpt2,
           write_gpt2, GPT2_NAMES, is_tied=True, defaults=dict(layer_norm_epsilon=1e-5),
           ignored=('bias', 'qkv_bias', 'proj_bias', 'rope_theta')),  # without biases it gets zeros
    Family('llama', 'LlamaForCausalLM', LLAMA_KEYS, {}, read_llama, write_llama,
           defaults=dict(rms_norm_eps=1e-6)),
    Family('mistral', 'MistralForCausalLM', LLAMA_KEYS, {}, read_mistral, write_mistral,
           defaults=dict(rms_norm_eps=1e-6)),
    Family('qwen2', 'Qwen2ForCausalLM', LLAMA_KEYS, dict(qkv_bias=True), read_qwen2, write_qwen2,
           defaults=dict(rms_norm_eps=1e-6)),
    Family('qwen3', 'Qwen3ForCausalLM', LLAMA_KEYS, dict(qk_norm=True), read_qwen3, write_qwen3,
           defaults=dict(rms_norm_eps=1e-6, head_dim=128)),
    Family('smollm3', 'SmolLM3ForCausalLM', LLAMA_KEYS, {}, read_smollm3, write_smollm3, is_tied=True,
           defaults=dict(rms_norm_eps=1e-6)),
    Family('olmo2', 'Olmo2ForCausalLM', OLMO2_KEYS, dict(qk_norm='all', norms='after'),
    read_olmo2, write_olmo2,
           defaults=dict(rms_norm_eps=1e-5)),
    Family('gemma3_text', 'Gemma3ForCausalLM', GEMMA3_KEYS, dict(qk_norm=True, norms='both', mlp='geglu'),
           read_gemma3, write_gemma3, is_tied=True, defaults=dict(rms_norm_eps=1e-6, head_dim=256)),
    Family('phi3', 'Phi3ForCausalLM', PHI3_KEYS, {}, read_phi3, write_phi3, defaults=dict(rms_norm_eps=1e-5)),
    Family('gpt_neox', 'GPTNeoXForCausalLM', NEOX_KEYS, WITH_BIASES, read_neox, write_neox, NEOX_NAMES,
           defaults=dict(layer_norm_eps=1e-5)),
    Family('opt', 'OPTForCausalLM', OPT_KEYS, WITH_BIASES | dict(pos='learned', mlp='relu', norm_eps=1e-5),
           read_opt, write_opt, OPT_NAMES, is_tied=True, ignored=('rope_theta',)),
]}


def family_of(config):
    """Return the Family that can express a model of GPTConfig's fields; UserError if none can."""
    def misfits(family):
        try:
            return family.misfits(config)
        except UserError as e:
            return [str(e).partition('=')[0]]

    nearest = min(FAMILIES.values(), key=lambda family: len(misfits(family)))
    if wrong := misfits(nearest):
        values = ', '.join(f'{field}={config.get(field)!r}' for field in wrong)
        raise UserError(f"a {nearest.name} model, to which this one is nearest, has no {values}: the format "
                        "can't express it")
    return nearest
