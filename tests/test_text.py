"""A sample's text as its tokens come: what is handed on, and when."""

from nanorap.text import Sample
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
