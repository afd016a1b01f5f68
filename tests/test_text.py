"""Prompts as they are given, and a sample's text as its tokens come: what is handed on, and when."""

import pytest
import torch

from model import GPT, GPTConfig
from nanorap.common import UserError
from nanorap.text import Sample, decoded, read_prompt, typed_text, write
from nanorap.tokenizer import CharTokenizer, GPT2Tokenizer


def hand_on(sample, ids):
    pieces = []
    for i in ids:
        stopped = sample.add(i, 0.0)
        pieces.append(sample.new_text())
        if stopped:
            break
    sample.close()
    return [*pieces, sample.new_text()]


def test_a_beginning_of_a_stop_text_waits():
    tokenizer = CharTokenizer('abcdefg')
    ids = tokenizer.encode('abcdefg')
    assert hand_on(Sample(tokenizer, '', [], ['cde']), ids) == ['', '', 'a', 'b', '', '']
    assert hand_on(Sample(tokenizer, '', [], ['abcdex']), ids) == ['', '', '', '', '', 'a', 'b', 'cdefg']


def test_whole_characters():
    tokenizer = GPT2Tokenizer()
    pieces = hand_on(Sample(tokenizer, '', []), ids := tokenizer.encode('aé🎤'))
    assert len(ids) > 3 and ''.join(pieces) == 'aé🎤' and not any('\ufffd' in piece for piece in pieces)
    cut = hand_on(Sample(tokenizer, '', []), ids[:-1])
    assert '\ufffd' in cut[-1] and ''.join(cut).startswith('aé')


@pytest.mark.parametrize(('typed', 'text'), [
    (r'[Verse 1]\nKettle', '[Verse 1]\nKettle'), ('a\r\nb\rc', 'a\nb\nc'),
    (r'a\n\nb', 'a\n\nb'), ('\ufeffa', 'a'),
    ('caf\udcc3\udca9', 'café'),  # UTF-8 under LC_ALL=C
    ('caf\udce9 é', 'caf\ufffd é'),  # Latin 1
    ('通 é', '通 é'), ('', ''),
])
def test_an_options_text(typed, text):
    assert typed_text(typed) == read_prompt(typed) == text
    assert decoded(text) == text


def test_a_prompt_file(tmp_path):
    (tmp_path / 'a.txt').write_bytes('\ufeff[Hook]\r\ncafé \\n'.encode())
    assert read_prompt(f'FILE:{tmp_path}/a.txt') == '[Hook]\ncafé \\n'  # as it is written
    (tmp_path / 'a.txt').write_bytes(b'caf\xe9')
    for path, words in (('a.txt', 'not text in UTF-8'), ('b.txt', 'No such file'), ('.', 'Is a directory')):
        with pytest.raises(UserError, match=f"can't read the prompt file .*: .*{words}"):
            read_prompt(f'FILE:{tmp_path}/{path}')


@pytest.fixture
def write_abc():
    """write() for a tiny model of the characters a, b and c."""
    tokenizer = CharTokenizer('abc')
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=4)).eval()
    return lambda **options: write(model, tokenizer, ['a', 'b'], seed=0, **options)


@pytest.mark.parametrize('sizes', [(1, 10**11), (10**11, 1), (10**5, 10**5), (1, 10**400)])
def test_more_tokens_than_any_memory_holds(write_abc, sizes):
    num_samples, max_new_tokens = sizes
    with pytest.raises(UserError, match='are more than 100,000,000 tokens in all: lower one of them'):
        write_abc(num_samples=num_samples, max_new_tokens=max_new_tokens)


@pytest.mark.parametrize('error', [
    MemoryError('Unable to allocate 373. GiB'), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    RuntimeError('MPS backend out of memory'), torch.OutOfMemoryError('CUDA out of memory'),
])
def test_too_little_memory_is_said_in_a_line(write_abc, error):
    def search(*args, **options):
        raise error

    with pytest.raises(UserError, match="memory doesn't hold 6 sample.* of up to 9 tokens: lower"):
        write_abc(num_samples=3, max_new_tokens=9, search=search)


def test_another_error_of_the_model_stays_what_it_is(write_abc):
    def search(*args, **options):
        raise RuntimeError('shapes do not fit')

    with pytest.raises(RuntimeError, match='shapes do not fit'):
        write_abc(num_samples=3, max_new_tokens=9, search=search)
