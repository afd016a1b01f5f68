"""Words that rhyme in one colour, on a terminal and on a page."""

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from nanorap.rap.colour import annotate, ansi, page, rhyme_spans

TEXT = ('[Verse 1]\nThe cat was on a <mat>,\nA flat hat in the hall,\nI fell & I fall\n\n'
        '[Hook]\nMy day,\nno way,\na wall\n')


def words(text):
    """[(word, number of its rhyme, whether it is inside its line), ...]."""
    return [(text[start:end], number, internal) for start, end, number, internal in rhyme_spans(text)]


def test_rhymes_at_line_ends_by_hand():
    coloured = words(TEXT)
    assert ('hall', 0, False) in coloured and ('fall', 0, False) in coloured
    days = [number for word, number, internal in coloured if word in ('day', 'way') and not internal]
    assert len(days) == 2 and days[0] == days[1] != 0  # the next stanza has colours of its own
    assert not {'Verse', 'Hook', 'My', 'wall'} & {word for word, _, _ in coloured}


def test_rhymes_inside_a_line_by_hand():
    coloured = words('A fine line in the wine\nand a sign')
    assert ('fine', 0, True) in coloured
    assert ('wine', 0, False) in coloured and ('sign', 0, False) in coloured


POEM = 'I was a born poet,\nand I know it (yeah)\n\n[Hook]\nno day\nmy way'


def test_annotations_of_each_line():
    lines = annotate(POEM)
    assert [line['syllables'] for line in lines] == [6, 5, 0, 0, 2, 2]
    assert [line['letter'] for line in lines] == ['A', 'A', '', '', 'A', 'A']
    marks = [[(line[start:end], number, internal) for start, end, number, internal in mark['spans']]
             for line, mark in zip(POEM.split('\n'), lines, strict=True)]
    assert marks[:2] == [[('poet', 0, False)], [('know', 0, True), ('it', 0, False)]]
    assert marks[2:] == [[], [], [('day', 1, False)], [('way', 1, False)]]


def test_a_long_text_is_annotated_in_blocks_with_rhymes_of_their_own():
    lines = annotate('\n'.join([POEM] * 40))
    assert len(lines) == 240
    assert len({line['spans'][-1][2] for line in lines if line['spans']}) == 80


def plain(text):
    return re.sub(r'\x1b\[[0-9;]*m', '', text)


def test_terminal_colours_change_no_text():
    assert plain(ansi(TEXT)) == TEXT
    assert '\x1b[1;38;2;230;25;75mhall\x1b[0m' in ansi(TEXT)


def test_page_is_whole_and_escaped():
    parser, texts = HTMLParser(), []
    parser.handle_data = texts.append
    document = page([TEXT, 'a <script>alert(1)</script>'], 'A & B')
    parser.feed(document)
    assert TEXT in ''.join(texts)
    assert '<script' not in document and 'http' not in document
    assert '<title>A &amp; B</title>' in document
    assert document.count('<span') == document.count('</span>') == 4


@given(st.text(alphabet='aeiou tns\n[]<>&’\x1b-', max_size=80))
def test_no_text_is_changed_and_no_spans_overlap(text):
    assert plain(ansi(text)) == plain(text)
    spans = rhyme_spans(text)
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
