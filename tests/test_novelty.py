"""Copied runs of words against a search that tries every pair of places, and cosines computed by hand."""

import subprocess
import sys
from math import log, sqrt

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from nanorap.rap.novelty import Songs, copied_lines, copies, novelty, plain_words

SONGS = ["[Verse 1]\nThe rent is due and the kettle is on,\nI count my steps until the dark is gone",
         "[Hook]\nRing the bell, ring the bell, ring the bell twice", "Nothing here is alike"]


def test_plain_words():
    assert plain_words("[Verse 1]\nI’m runnin', it's 24_7! [yo]\n  [Hook: all] \nÉté") == (
        ["i'm", 'runnin', "it's", '24', '7', 'yo', 'été'])
    assert plain_words('') == []


def test_a_copy_by_hand():
    songs = Songs(SONGS)
    #         0   1      2     3  4    5   6   7      8  9   the last three are its own
    text = "[Hook]\nMy rent is due, and the\n[Bridge]\nKETTLE is on fire again today"
    found = novelty(songs, text)
    # rent … on: 8 words of 12, so 5 of its 9 four-grams, 1 of its 5 eight-grams, none of its one twelve-gram
    shares = [found[f'copied_{n}'] for n in (4, 8, 12)]
    assert found['longest'] == 8 and shares == [5 / 9, 1 / 5, 0]
    assert found['nearest_song'] == 0
    (copy,) = copies(songs, text)
    assert copy == (8, 'My rent is due, and the', 0, 'The rent is due and the kettle is on,')
    assert copies(songs, text, least=9) == []


def test_short_matches_by_hand():
    songs = Songs(SONGS)
    # a run doesn't go over from one song into the next
    assert novelty(songs, "until the dark is gone ring the bell ring")['longest'] == 5
    # fewer than four words in common
    assert novelty(songs, "the rent is late")['longest'] == 3
    assert novelty(songs, "the rent is late")['copied_4'] == 0
    assert novelty(songs, "rent a bell")['longest'] == 1
    # a word that no song has; no text, no songs
    assert novelty(songs, "zig zag zig zag zig zag")['longest'] == 0
    empty = dict(longest=0, copied_4=0, copied_8=0, copied_12=0, nearest=0, nearest_song=None)
    assert novelty(songs, '') == empty and novelty(Songs([]), 'a b c d e') == empty


def test_nearest_song_by_hand():
    songs = Songs(["cat cat hat", "hat bat"])
    # two songs: idf of cat and bat is ln(3/2) + 1, of hat 1, of a word that no song has ln 3 + 1
    rare, new = log(1.5) + 1, log(3) + 1
    assert novelty(songs, "cat hat zig")['nearest'] == pytest.approx(
        (2 * rare**2 + 1) / sqrt(4 * rare**2 + 1) / sqrt(rare**2 + 1 + new**2), abs=1e-6)
    assert novelty(songs, "bat hat")['nearest'] == pytest.approx(1, abs=1e-6)
    assert novelty(songs, "bat")['nearest_song'] == 1


words = st.lists(st.sampled_from('a b c'.split()), max_size=30).map(' '.join)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(words, max_size=4), words)
def test_against_every_pair(texts, text):
    """Three words in all, so that nearly everything is repeated."""
    def grams(text, n):
        return [tuple(text.split()[i : i + n]) for i in range(len(text.split()) - n + 1)]

    found = novelty(Songs(texts), text)
    known = {n: {gram for song in texts for gram in grams(song, n)} for n in range(1, 31)}
    assert found['longest'] == max((n for n in known if known[n] & set(grams(text, n))), default=0)
    for n in (4, 8, 12):
        assert found[f'copied_{n}'] == pytest.approx(
            sum(gram in known[n] for gram in grams(text, n)) / max(1, len(grams(text, n))))
    for copy in copies(Songs(texts), text, least=4):
        assert copy.line == text and copy.source == texts[copy.song]


def test_no_torch():
    code = "import nanorap.rap.novelty, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


def test_copied_lines():
    songs = Songs(['[Verse 1]\nOne two three four five,\nsix seven', 'a b c d e f g h i j\nk l m n'])
    text = '[Verse 1]\none two three four five\nsix seven\nnew a b c d e f g\nNew: a b c d e f g h!\nk l m n'
    found = copied_lines(songs, text)
    lengths = {number: (copy.words, copy.song) for number, copy in found.items()}
    assert lengths == {1: (5, 0), 4: (8, 1), 5: (4, 1)}
    assert found[4].source == 'a b c d e f g h i j' and found[1].line == 'one two three four five'
    assert copied_lines(songs, '') == copied_lines(Songs([]), text) == {}
