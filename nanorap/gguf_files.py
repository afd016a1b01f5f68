"""
GGUF, the format of llama.cpp (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), both ways.

    config, state_dict = load(path)           # weights of any quantisation, dequantised tensor by tensor
    write(path, config, state_dict, tokenizer, name, number_format)

The names of tensors come from the package gguf, those of settings from families.py: a file's fields are read
as a transformers config. Reading what would be written tells whether llama.cpp can express a model.
"""


import torch

from nanorap.common import UserError
from nanorap.families import FAMILIES, NAMES, Unsupported, family_of, key_rows, same
from nanorap.gguf_tokenizer import fields_of, open_gguf, write_tokenizer
from nanorap.positions import rope_frequencies

# llama.cpp's architectures; it reads Mistral's models as Llama's, without a window
ARCHITECTURES = {'gpt2': 'gpt2', 'llama': 'llama', 'mistral': 'llama', 'qwen2': 'qwen2', 'qwen3': 'qwen3',
                 'gemma3_text': 'gemma3', 'smollm3': 'smollm3', 'olmo2': 'olmo2', 'phi3': 'phi3',
                 'gpt_neox': 'gptneox'}
FAMILY_OF = {architecture: family for family, architecture in reversed(ARCHITECTURES.items())}
PERMUTED = 'llama', 'smollm3'  # they rotate neighbouring rows of a head, the others rows of its two halves
# our name of a setting -> its field, below the architecture's name
FIELDS = dict(n_layer='block_count', n_head='attention.head_count', n_kv_head='attention.head_count_kv',
              n_embd='embedding_length', n_hidden='feed_forward_length', block_size='context_length')
# Llama 3's numbers, of which a file has only the product; the factor is in it
LLAMA3 = dict(rope_type='llama3', low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)


def config_of(fields, tensors, factors=None):
    """Return (GPTConfig fields, Family) of a file's fields and its tensors' {name: shape}.

    factors: of the tensor rope_freqs, by which Llama 3 divides its frequencies, or None.
    """
    architecture = fields['architecture']
    if architecture not in FAMILY_OF:
        raise Unsupported('general.architecture', architecture, ', '.join(FAMILY_OF))
    family = FAMILIES[FAMILY_OF[architecture]]

    def number(name, default=None):
        value = fields.get(name, default)
        if isinstance(value, list):  # one per layer
            if len(set(value)) != 1:
                raise Unsupported(name, value[:4])
            value = value[0]
        return float(f'{value:.7g}') if isinstance(value, float) else value

    values = {ours: number(name) for ours, name in FIELDS.items()}
    values['n_kv_head'] = values['n_kv_head'] or values['n_head']
    values['vocab_size'] = tensors['token_embd.weight'][0]
    values['norm_eps'] = number('attention.layer_norm_rms_epsilon', number('attention.layer_norm_epsilon'))
    names = family.names or NAMES
    theirs = {name: values[ours] for ours, name in names.items()}

    head_dim = number('attention.key_length', values['n_embd'] // values['n_head'])
    theirs |= dict(head_dim=head_dim, tie_word_embeddings='output.weight' not in tensors)
    if family.name == 'gpt2':
        theirs['n_inner'] = values['n_hidden']
    if family.name == 'llama':
        theirs['attention_bias'] = 'blk.0.attn_q.bias' in tensors
    theirs |= _rope(number, values, head_dim, factors)
    if family.name in ('phi3', 'gpt_neox'):
        theirs['partial_rotary_factor'] = number('rope.dimension_count', head_dim) / head_dim
    if family.name in ('phi3', 'gemma3_text'):
        theirs['sliding_window'] = number('attention.sliding_window')
    if family.name == 'gpt_neox':
        theirs['use_parallel_residual'] = number('use_parallel_residual', True)
    if family.name == 'gemma3_text':
        # the largest of them scales by its width, as llama.cpp knows by its number of layers
        scalar = values['n_embd'] // values['n_head'] if values['n_layer'] == 62 else head_dim
        theirs |= dict(query_pre_attn_scalar=scalar, sliding_window_pattern=6,
                       rope_local_base_freq=number('rope.freq_base_swa', 10000.0),
                       final_logit_softcapping=number('final_logit_softcapping'))
    return family.read(theirs), family


def _rope(number, values, head_dim, factors):
    """Return a transformers config's settings of rotary positions."""
    theta = number('rope.freq_base', 10000.0)
    kind = number('rope.scaling.type', 'none')
    if kind not in ('none', 'linear', 'yarn'):
        raise Unsupported('rope.scaling.type', kind, 'none, linear, yarn')
    scaling = None
    if kind != 'none':
        scaling = dict(rope_type=kind, factor=number('rope.scaling.factor'))
        if kind == 'yarn':
            scaling['original_max_position_embeddings'] = number(
                'rope.scaling.original_context_length', values['block_size'])
    if factors is not None:
        context = number('rope.scaling.original_context_length',
                         LLAMA3['original_max_position_embeddings'])
        scaling = LLAMA3 | dict(factor=float(factors.max()), original_max_position_embeddings=context)
        if not torch.allclose(_llama3_factors(theta, head_dim, scaling), factors, rtol=1e-3):
            raise Unsupported('rope_freqs', 'numbers that are not those of Llama 3')
    return dict(rope_theta=theta) | (dict(rope_scaling=scaling) if scaling else {})


def _llama3_factors(theta, head_dim, scaling):
    plain, _ = rope_frequencies(theta, head_dim, None, 'cpu')
    return plain / rope_frequencies(theta, head_dim, scaling, 'cpu')[0]


def tensor_rows(config, family):
    """Yield (our name, the file's names, whether rows are permuted) of each parameter."""
    import gguf

    architecture = ARCHITECTURES[family.name]
    names = gguf.get_tensor_name_map(
        next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture), config['n_layer'])
    for our_key, their_keys, _ in key_rows(family.keys, config):
        files = []
        for key in their_keys:
            module, _, suffix = key.rpartition('.')
            files.append(f'{names.get_name(module)}.{suffix}')
        yield our_key, files, architecture in PERMUTED and 'c_attn' in our_key


def permute(weight, n_head, to_file):
    """Reorder the rows of queries or keys: neighbours in the file are a row of each half of a head here."""
    n_rows = weight.size(0)
    shape = (n_head, 2, n_rows // n_head // 2, -1) if to_file else (n_head, n_rows // n_head // 2, 2, -1)
    return weight.view(shape).transpose(1, 2).reshape(weight.shape)


def read_config(path):
    """Return (GPTConfig fields, Family, GGUFReader) of a file."""
    from gguf import dequantize

    reader = open_gguf(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    try:
        factors = tensors.get('rope_freqs.weight')
        if factors is not None:
            factors = torch.from_numpy(dequantize(factors.data, factors.tensor_type).copy())
        shapes = {name: [int(n) for n in reversed(tensor.shape)] for name, tensor in tensors.items()}
        return *config_of(fields_of(reader), shapes, factors), reader
    except Unsupported as e:
        raise UserError(f"{path}: {e}") from None
    except KeyError as e:
        raise UserError(f"{path} lacks {e}: take it from its source again") from None
    except (TypeError, ValueError, ZeroDivisionError):
        raise UserError(f"{path}: a setting is missing, or not what it must be: take the file from its "
                        "source again") from None


def load(path, dtype: torch.dtype | None = torch.float32) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return GPTConfig's fields and the state dict of a file; dtype None stands for float32, too."""
    from gguf import dequantize

    config, family, reader = read_config(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    state_dict = {}
    for our_key, names, is_permuted in tensor_rows(config, family):
        parts = []
        for i, name in enumerate(names):
            if name not in tensors:
                raise UserError(f"{path}: the weights lack {name!r}: take the file from its source again")
            tensor = tensors[name]
            # a copy, since what needs no dequantising is the file itself, which can't be written to
            numbers = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
            part = numbers.to(dtype or torch.float32)
            if is_permuted and i < 2:
                part = permute(part, config['n_head' if i == 0 else 'n_kv_head'], to_file=False)
            parts.append(part)
        state_dict[our_key] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return config, state_dict


# ---- writing


def fields_to_write(config, family):
    """Return the fields of a file for a model; UserError for one that llama.cpp would compute differently."""
    config = dict(config)
    if config['window'] and config['window'] >= config['block_size'] and family.name != 'gemma3_text':
        config |= dict(window=None, local_layers=None)  # it makes no difference
    norm = 'layer_norm_epsilon' if config['norm'] == 'layernorm' else 'layer_norm_rms_epsilon'
    fields = {name: config[ours] for ours, name in FIELDS.items()} | {
        'architecture': ARCHITECTURES[family.name], 'vocab_size': config['vocab_size'],
        f'attention.{norm}': float(config['norm_eps'])}
    if config['pos'] == 'rotary':
        fields |= {'attention.key_length': config['head_dim'], 'attention.value_length': config['head_dim'],
                   'rope.freq_base': float(config['rope_theta']),
                   'rope.dimension_count': int(config['head_dim'] * config['rope_fraction'])}
    scaling, factors = config['rope_scaling'], None
    if scaling and scaling['rope_type'] == 'llama3':
        factors = _llama3_factors(config['rope_theta'], config['head_dim'], scaling)
        fields['rope.scaling.original_context_length'] = scaling['original_max_position_embeddings']
    elif scaling:
        fields |= {'rope.scaling.type': scaling['rope_type'], 'rope.scaling.factor': float(scaling['factor'])}
        if scaling['rope_type'] == 'yarn':
            fields['rope.scaling.original_context_length'] = scaling['original_max_position_embeddings']
    if family.name == 'gemma3_text':
        fields['attention.sliding_window'] = config['window']
    if family.name == 'gpt_neox':
        fields['use_parallel_residual'] = config['parallel_mlp']
    if config['logit_softcap']:
        fields['final_logit_softcapping'] = float(config['logit_softcap'])

    tensors = {name: [config['vocab_size']] for _, names, _ in tensor_rows(config, family) for name in names}
    back, _ = config_of(fields, tensors, factors)
    misfits = [field for field, value in config.items()
               if field in back and field not in family.ignored and not same(back[field], value)]
    if misfits:
        values = ', '.join(f'{field}={config[field]!r}' for field in misfits)
        raise UserError(f"llama.cpp's {fields['architecture']} has no {values}: use --format=hf")
    return fields, factors


def write(path, config, state_dict, tokenizer, name, number_format):
    """Write a model's file. number_format: of the matrices, a torch dtype; vectors stay in float32."""
    import gguf

    family = family_of(config)
    if family.name not in ARCHITECTURES:
        raise UserError(f"llama.cpp knows no {family.name} models: use --format=hf")
    fields, factors = fields_to_write(config, family)
    architecture = fields.pop('architecture')
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(name)
    types = {bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32,
             str: gguf.GGUFValueType.STRING}
    for key, value in fields.items():
        writer.add_key_value(f'{architecture}.{key}', value, types[type(value)])
    write_tokenizer(writer, tokenizer, config['vocab_size'])

    formats = {torch.float32: gguf.GGMLQuantizationType.F32, torch.float16: gguf.GGMLQuantizationType.F16,
               torch.bfloat16: gguf.GGMLQuantizationType.BF16}

    def add(key, tensor):
        file_type = formats[number_format if tensor.dim() > 1 else torch.float32]
        data = gguf.quants.quantize(tensor.float().contiguous().numpy(), file_type)
        writer.add_tensor(key, data, raw_dtype=file_type)

    if factors is not None:
        add('rope_freqs.weight', factors)
    for our_key, names, is_permuted in tensor_rows(config | family.constants, family):
        if our_key in state_dict:
            weight = state_dict[our_key]
        else:  # GPT-2 without biases
            weight = torch.zeros(len(state_dict[our_key.removesuffix('bias') + 'weight']))
        n_query, n_key = (config[heads] * config['head_dim'] for heads in ('n_head', 'n_kv_head'))
        sizes = {1: [len(weight)], 2: [config['n_hidden']] * 2, 3: [n_query, n_key, n_key]}[len(names)]
        for i, (key, part) in enumerate(zip(names, weight.split(sizes), strict=True)):
            if is_permuted and i < 2:
                part = permute(part, config['n_head' if i == 0 else 'n_kv_head'], to_file=True)
            add(key, part)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
