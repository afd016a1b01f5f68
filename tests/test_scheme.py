"""Where a text stands in its rhyme scheme, counted by hand, and the words of a real vocabulary that rhyme."""

import pytest

from nanorap.common import UserError
from nanorap.rap.rhyme import rhymes
from nanorap.rap.scheme import Endings, Section, check_scheme, rhyme_counts, rhymes_by_dictionary
from nanorap.tokenizer import load_tokenizer


def test_where_a_text_stands_in_its_scheme():
    section = Section('ABAB', '[Hook]\nold line\n\n[Verse 1]\none\ntwo\nthree so f')
    assert section.lines == ['one', 'two'] and section.open_line == 'three so f'
    assert section.partners() == ['one']
    assert not section.is_complete() and section.is_complete(more=2)
    section.add('three')
    assert section.partners() == ['two']
    section.add('four')
    assert section.partners() == [] and section.is_complete()
    section.add('five')
    assert section.partners() == [] and not section.is_complete()
    section.add('  ')
    assert section.lines == [] and section.is_complete()


def test_free_lines_need_no_rhyme():
    free = Section('XAXA', 'one\ntwo\nthree\n')
    assert free.partners() == ['two'] and Section('XAXA', 'one\n').is_complete()


def test_the_nearest_partner_comes_first():
    assert Section('AAAA', 'a\nb\nc\n').partners() == ['c', 'b', 'a']


def test_usual_syllables():
    assert Section('XX', 'I know it\nyes\n[Hook]\nI know it now\n').usual_syllables() == 3
    assert Section('XX', '[Hook]\n').usual_syllables() is None


def test_rhyme_counts_by_hand():
    text = '[Verse 1]\nthe cat\nthe hat\na line of time\nnothing else\n\n[Hook]\nthe dog\nthe dog\n'
    assert rhyme_counts(text, 'AABB') == (3, 1, 1)  # cat / hat; the same word is no rhyme
    assert rhyme_counts(text, 'XX') == (0, 0, 0)


def test_rhymes_by_dictionary():
    assert rhymes_by_dictionary('a cat', 'the hat') and rhymes_by_dictionary('station', 'nation')
    assert not rhymes_by_dictionary('sea', 'see')  # homophones
    assert not rhymes_by_dictionary('time', 'line')
    assert not rhymes_by_dictionary('a zorble', 'the korble')  # not in the dictionary


@pytest.mark.parametrize('scheme', ['', 'aabb', 'A B', 'A' * 17])
def test_invalid_schemes(scheme):
    with pytest.raises(UserError, match='one letter per line'):
        check_scheme(scheme)


@pytest.mark.slow
def test_words_of_a_vocabulary_that_rhyme():
    endings = Endings(load_tokenizer('smollm2'), 49152)
    words = {endings.texts[i] for i in endings.rhyming('along the river every day,', used={'pay'})}
    assert {' way', ' say', ' today'} <= words and not {' pay', ' day', ' days', ' dog'} & words
    assert all(rhymes('day', word).kind in ('perfect', 'multisyllabic') for word in words)
