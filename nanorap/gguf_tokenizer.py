"""The tokenizer of a GGUF file, both ways: byte-level BPE, or SentencePiece with scores. No torch.

    tokenizer, eot, ends = load_tokenizer(path)      # a Tokenizer of the library tokenizers
    write_tokenizer(writer, tokenizer, vocab_size)   # into a GGUFWriter
"""

from json import loads

from nanorap.common import UserError


def open_gguf(path):
    """Return a GGUFReader; UserError for a file that is none, or cut off."""
    from gguf import GGUFReader

    try:
        return GGUFReader(path)
    except PermissionError:
        raise UserError(f"{path}: you have no permission to read it: chmod +r {path}") from None
    except Exception:  # numpy's, struct's and the package's own errors
        raise UserError(f"{path} is damaged, half-written or no GGUF file: take it from its source "
                        "again") from None


def fields_of(reader, of_tokenizer=False):
    """Return {name: value} of a file's fields, of the model or of its tokenizer.

    Without the architecture's name, which is 'architecture'. Those of the tokenizer take a second to read.
    """
    values = {name: field.contents() for name, field in reader.fields.items()
              if name.startswith('tokenizer.') == of_tokenizer}
    architecture = values.get('general.architecture')
    return {name.removeprefix(f'{architecture}.'): value for name, value in values.items()} | {
        'architecture': architecture}


CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
PUNCTUATION = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# how a text is split into words before the merges, by llama.cpp's names: the models' own patterns
PATTERNS = {
    'llama-bpe': CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + PUNCTUATION,
    'qwen2': CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + PUNCTUATION,
    'tekken': (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
               r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
               r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
}
SAME_AS = {'llama3': 'llama-bpe', 'llama-v3': 'llama-bpe', 'smaug-bpe': 'llama-bpe', 'dbrx': 'llama-bpe',
           'deepseek-r1-qwen': 'qwen2', 'olmo': 'gpt-2', 'phi-2': 'gpt-2', 'gpt2': 'gpt-2'}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # GGUF's types of tokens
SPACE = '▁'  # SentencePiece's


def pre_tokenizer(name):
    """Return the pre-tokenizer of llama.cpp's name, or None for one that is not known."""
    from tokenizers import Regex, pre_tokenizers

    name = SAME_AS.get(name, name)
    if name == 'gpt-2':
        return pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if name == 'smollm':
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if name not in PATTERNS:
        return None
    split = pre_tokenizers.Split(Regex(PATTERNS[name]), 'isolated')
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def load_tokenizer(path):
    """Return (a Tokenizer of the library tokenizers, the id that ends a text, the ids that end a sample)."""
    from tokenizers import Tokenizer, models, processors

    fields = fields_of(open_gguf(path), of_tokenizer=True)
    try:
        kind, tokens, types = (fields[f'tokenizer.ggml.{key}'] for key in ('model', 'tokens', 'token_type'))
        vocab = {token: i for i, token in enumerate(tokens)}
        if kind == 'gpt2':
            tokenizer = _byte_level(path, fields, vocab)
        elif kind == 'llama':
            merges = _merges_by_score(vocab, fields['tokenizer.ggml.scores'])
            unknown = tokens[types.index(UNKNOWN)] if UNKNOWN in types else None
            tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True,
                                             byte_fallback=True))
            _add_spaces(tokenizer, fields.get('tokenizer.ggml.add_space_prefix', True))
        else:
            raise UserError(f"{path}: tokenizer.ggml.model={kind!r} is not supported, only gpt2 and llama")
    except KeyError as e:
        raise UserError(f"{path} lacks {e}: take it from its source again") from None
    typed = list(zip(tokens, types, strict=True))
    tokenizer.add_special_tokens([token for token, type in typed if type == CONTROL])
    tokenizer.add_tokens([token for token, type in typed if type == USER_DEFINED])

    is_llama3 = fields.get('tokenizer.ggml.pre') in ('llama-bpe', 'llama3', 'llama-v3')
    bos = fields.get('tokenizer.ggml.bos_token_id')
    if fields.get('tokenizer.ggml.add_bos_token', kind == 'llama' or is_llama3) and bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single='$BOS $A'.replace('$BOS', tokens[bos]), special_tokens=[(tokens[bos], bos)])
    ends = [fields[key] for key in ('tokenizer.ggml.eos_token_id', 'tokenizer.ggml.eot_token_id')
            if fields.get(key) is not None]
    eot = vocab.get('<|endoftext|>', ends[0] if ends else None)
    if eot is None:
        raise UserError(f"{path} names no eos_token_id: take another file of this model")
    return tokenizer, eot, ends


def _byte_level(path, fields, vocab):
    from tokenizers import Tokenizer, decoders, models, normalizers

    name = fields.get('tokenizer.ggml.pre', 'gpt-2')
    splitter = pre_tokenizer(name)
    if splitter is None:
        raise UserError(f"{path}: the pre-tokenizer {name!r} is not supported: use the model's folder in the "
                        "transformers format")
    merges = [tuple(merge.split(' ')) for merge in fields['tokenizer.ggml.merges']]
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    if SAME_AS.get(name, name) == 'qwen2':
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _merges_by_score(vocab, scores):
    """Return the merges of a SentencePiece vocabulary, the pair with the likeliest result first."""
    merges = [(-scores[i], i, token[:cut], token[cut:]) for token, i in vocab.items()
              for cut in range(1, len(token)) if token[:cut] in vocab and token[cut:] in vocab]
    return [(left, right) for *_, left, right in sorted(merges)]


def _add_spaces(tokenizer, has_prefix):
    """Write spaces as SentencePiece does; has_prefix: one before the text, too."""
    from tokenizers import decoders, normalizers

    prefix = [normalizers.Prepend(SPACE)] if has_prefix else []
    strip = [decoders.Strip(' ', 1, 0)] if has_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(' ', SPACE)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, ' '), decoders.ByteFallback(),
                                           decoders.Fuse(), *strip])


def _split_steps(content):
    """Return what a pre-tokenizer of a tokenizer.json splits by, without what makes no difference here."""
    steps = content['pretokenizers'] if content and content['type'] == 'Sequence' else [content]
    return [(step['type'], step.get('pattern'), step.get('individual_digits'), step.get('use_regex'))
            for step in steps if step]


def pre_tokenizer_name(content):
    """Return llama.cpp's name of the pre-tokenizer of a tokenizer.json, or None."""
    for name in ('gpt-2', 'smollm', *PATTERNS):
        known = loads(pre_tokenizer(name).__getstate__())
        if _split_steps(known) == _split_steps(content):
            return name
    return None


def write_tokenizer(writer, tokenizer, vocab_size):
    """Write the tokenizer's fields. vocab_size: rows of the embeddings, which may be more than there are
    tokens."""
    library = tokenizer.as_library()
    content = loads(library.to_str())
    model, special = content['model'], {token['id'] for token in content['added_tokens'] if token['special']}
    is_sentencepiece = model['type'] == 'BPE' and model.get('byte_fallback')
    pre = None if is_sentencepiece else pre_tokenizer_name(content['pre_tokenizer'])
    if model['type'] != 'BPE' or not is_sentencepiece and pre is None:
        raise UserError(f"tokenizer='{tokenizer.name}': llama.cpp knows none that splits words like it: use "
                        "--format=hf")
    names = [library.id_to_token(i) for i in range(vocab_size)]
    types = []
    for i, token in enumerate(names):
        is_byte = token is not None and len(token) == 6 and token.startswith('<0x')
        types.append(UNUSED if token is None else UNKNOWN if token == model.get('unk_token') else
                     CONTROL if i in special else BYTE if is_byte and is_sentencepiece else NORMAL)
    merges = [merge if isinstance(merge, str) else ' '.join(merge) for merge in model['merges']]
    writer.add_tokenizer_model('llama' if is_sentencepiece else 'gpt2')
    if pre:
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges(merges)
    writer.add_token_list([token or f'[PAD{i}]' for i, token in enumerate(names)])
    writer.add_token_types(types)
    if is_sentencepiece:
        ranks = {}
        for rank, merge in enumerate(merges):
            ranks.setdefault(merge.replace(' ', ''), rank)
        writer.add_token_scores([-float(ranks.get(token, 1e6)) for token in names])
        prefix = '"Prepend"' in library.to_str()
        writer.add_add_space_prefix(prefix)
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.eot)
    writer.add_add_bos_token(tokenizer.bos != tokenizer.eot)


