"""Words that rhyme in one colour, on a terminal and on a page."""

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from nanorap.rap.colour import annotate, ansi, page, rhyme_spans

TEXT = ('[Verse 1]\nThe cat was on a <mat>,\nA flat hat in the hall,\nI fell & I fall\n\n'
        '[Hook]\nMy day,\nno way,\na wall\n')


def words(text, spans):
    return [(text[start:end], number, internal) for start, end, number, internal in spans]


def test_which_words_by_hand():
    found = words(TEXT, rhyme_spans(TEXT))
    assert ('hall', 0, False) in found and ('fall', 0, False) in found
    days = [number for word, number, internal in found if word in ('day', 'way') and not internal]
    assert len(days) == 2 and days[0] == days[1] != 0  # the next stanza has colours of its own
    assert not {'Verse', 'Hook', 'My', 'wall'} & {word for word, _, _ in found}
    inner = words('A fine line in the wine\nand a sign', rhyme_spans('A fine line in the wine\nand a sign'))
    assert ('fine', 0, True) in inner and ('wine', 0, False) in inner and ('sign', 0, False) in inner


def test_each_line_of_an_editor():
    text = 'I was a born poet,\nand I know it (yeah)\n\n[Hook]\nno day\nmy way'
    lines = annotate(text)
    assert [line['syllables'] for line in lines] == [6, 5, 0, 0, 2, 2]
    assert [line['letter'] for line in lines] == ['A', 'A', '', '', 'A', 'A']
    marks = [[(line[start:end], number, internal) for start, end, number, internal in mark['spans']]
             for line, mark in zip(text.split('\n'), lines, strict=True)]
    assert marks[:2] == [[('poet', 0, False)], [('know', 0, True), ('it', 0, False)]]
    assert marks[2:] == [[], [], [('day', 1, False)], [('way', 1, False)]]
    # long ones in blocks, each with rhymes of its own
    lines = annotate('\n'.join([text] * 40))
    assert len(lines) == 240 and len({line['spans'][-1][2] for line in lines if line['spans']}) == 80


def plain(text):
    return re.sub(r'\x1b\[[0-9;]*m', '', text)


def test_terminal():
    assert plain(ansi(TEXT)) == TEXT
    assert '\x1b[1;38;2;230;25;75mhall\x1b[0m' in ansi(TEXT)


def test_page_is_whole_and_escaped():
    parser, seen = HTMLParser(), []
    parser.handle_data = seen.append
    document = page([TEXT, 'a <script>alert(1)</script>'], 'A & B')
    parser.feed(document)
    assert TEXT in ''.join(seen) and '<script' not in document and '<title>A &amp; B</title>' in document
    assert document.count('<span') == document.count('</span>') == 4 and 'http' not in document


@given(st.text(alphabet='aeiou tns\n[]<>&’\x1b-', max_size=80))
def test_any_text_comes_back(text):
    assert plain(ansi(text)) == plain(text)
    spans = rhyme_spans(text)
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
