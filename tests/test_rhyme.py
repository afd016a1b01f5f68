"""Phonemes, rhymes, schemes and densities, against words and stanzas made up here, and by hand.

VERSE=FOLDER pytest tests/test_rhyme.py takes a folder of verse in the format of the Chicago Rhyming Poetry
Corpus (github.com/sravanareddy/rhymedata, english_gold); python tests/test_rhyme.py FOLDER prints the table
of it.
"""

import collections
import glob
import json
import os
import random
import re
import subprocess
import sys
import timeit
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from nanorap.rap import colour
from nanorap.rap import phonemes as phonemes_module
from nanorap.rap.novelty import Songs, copies, novelty
from nanorap.rap.numbers import readings_of
from nanorap.rap.phonemes import VOWELS, known, lexicon, phonemes, vowels
from nanorap.rap.rhyme import (
    density,
    measures,
    rhyme_scheme,
    rhymes,
    rhyming_words,
    split_words,
    syllables,
    without_ad_lib,
)
from nanorap.rap.sections import structure

# texts of words that may rhyme, and of anything at all
WORDS = ("time rhyme lady baby poet know it me eternity runnin' '90s 2pac café heav'n (yeah) [Hook] love "
         "prove \n").split(' ')
texts = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(WORDS)).map(' '.join))


def songs():
    """The lyrics of the songs that the project ships."""
    files = sorted(glob.glob(str(ROOT / 'data/lyrics/demo/*/*.json')))
    contents = [json.loads(Path(file).read_text(encoding='utf-8')) for file in files]
    return [song['lyrics'] for song in contents if 'lyrics' in song]


def frequent_words(n):
    text = '\n'.join(songs()).lower()
    words = collections.Counter(re.findall("[a-z]+(?:'[a-z]+)*", text))
    return [word for word, _ in words.most_common(n)]


# ---- phonemes

@pytest.mark.parametrize('word, sounds', [
    ('poet', 'P OW1 AH0 T'), ('POET', 'P OW1 AH0 T'), ('love', 'L AH1 V'),
    # slang, most of it in no dictionary
    ('finna', 'F IH1 N AH0'), ('tryna', 'T R AY1 N AH0'), ('hunnid', 'HH AH1 N IH0 D'),
    ('shawty', 'SH AO1 T IY0'),
    ("'bout", 'B AW1 T'), ("runnin'", 'R AH1 N IH0 N'), ('runnin’', 'R AH1 N IH0 N'), ('cuz', 'K AH1 Z'),
    ("wit'", 'W IH1 T'),
    ("'em", 'EH1 M'), ('homie', 'HH OW1 M IY0'), ('bruh', 'B R AH1'), ('yeahhh', 'Y AE1'),
    # numbers
    ('24', 'T W EH1 N T IY0 F AO1 R'), ('1999', 'N AY1 N T IY1 N N AY1 N T IY0 N AY1 N'),
    ('50', 'F IH1 F T IY0'),
    ('2005', 'T UW1 TH AW1 Z AH0 N D F AY1 V'), ('1906', 'N AY1 N T IY1 N OW1 S IH1 K S'),
    ('2pac', 'T UW1 P AE1 K'), ("'90s", 'N AY1 N T IY0 Z'), ('3rd', 'TH ER1 D'),
    ('20th', 'T W EH1 N T IY0 IH0 TH'), ('100k', 'W AH1 N HH AH1 N D R IH0 D K EY1'),
    # apostrophes and accents, endings and compounds that the lexicon lacks
    ("heav'n", 'HH EH1 V AH0 N'), ("wander'd", 'W AO1 N D ER0 D'), ('naïve', 'N AY2 IY1 V'),
    ('woodways', 'W UH1 D W EY2 Z'),
    ('encloses', 'IH0 NG K L OW1 Z IH0 Z'), ("homie's", 'HH OW1 M IY0 Z'),
    ("don't-care", 'D OW1 N T K EH1 R'),
])
def test_phonemes(word, sounds):
    assert phonemes(word)[0] == tuple(sounds.split())


def test_all_pronunciations_of_a_word():
    assert {('W', 'IH1', 'N', 'D'), ('W', 'AY1', 'N', 'D')} == set(phonemes('wind'))


@pytest.mark.parametrize('word, sounds', [
    # -in' is -ing, by the lexicon or by the word below it, also where the lexicon has a name (lovin)
    ("ridin'", 'R AY1 D IH0 N'), ('ridin’', 'R AY1 D IH0 N'), ('hatin', 'HH EY1 T IH0 N'),
    ("lovin'", 'L AH1 V IH0 N'), ("nothin'", 'N AH1 TH IH0 N'), ("vibin'", 'V AY1 B IH0 N'),
    ("finessin'", 'F IH0 N EH1 S IH0 N'), ("flexin'", 'F L EH1 K S IH0 N'), ("feelin's", 'F IY1 L IH0 N Z'),
    ('vibing', 'V AY1 B IH0 NG'), ('cabin', 'K AE1 B AH0 N'), ('begin', 'B IH0 G IH1 N'),
    # -a is -er
    ('brotha', 'B R AH1 DH AH0'), ('killah', 'K IH1 L AH0'), ('playa', 'P L EY1 AH0'),
    ('gangstaz', 'G AE1 NG S T AH0 Z'), ('suga', 'SH UH1 G AH0'), ('rappa', 'R AE1 P AH0'),
    ('banana', 'B AH0 N AE1 N AH0'),
    # letter by letter
    ('NYC', 'EH2 N W AY2 S IY1'), ('n.y.c.', 'EH2 N W AY2 S IY1'), ('TV', 'T IY2 V IY1'),
    ('tv', 'T IY2 V IY1'),
    ('BMW', 'B IY2 EH2 M D AH1 B AH0 L Y UW2'), ("DJ's", 'D IY2 JH EY1 Z'), ('MCs', 'EH2 M S IY1 Z'),
    ('GPS', 'JH IY2 P IY2 EH1 S'), ('PhD', 'P IY2 EY2 CH D IY1'), ('MP3', 'EH2 M P IY1 TH R IY1'),
    ('LA', 'EH2 L EY1'), ('la', 'L AA1'),
    ('NASA', 'N AE1 S AH0'), ('COVID', 'K OW1 V IH0 D'), ('GOAT', 'G OW1 T'),
    # numbers and money
    ('10,000', 'T EH1 N TH AW1 Z AH0 N D'), ('20%', 'T W EH1 N T IY0 P ER0 S EH1 N T'),
    ('$5', 'F AY1 V D AA1 L ER0 Z'), ('$1', 'W AH1 N D AA1 L ER0'), ('911', 'N AY1 N W AH1 N W AH1 N'),
    ('808', 'EY1 T OW1 EY1 T'), ('2.5', 'T UW1 P OY1 N T F AY1 V'), ('007', 'OW1 OW1 S EH1 V AH0 N'),
    # masked words, and signs in place of letters
    ('f*ck', 'F AH1 K'), ('sh!t', 'SH IH1 T'), ('b****', 'B IH1 CH'),
    ("motherf**kin'", 'M AH1 DH ER0 F AH2 K IH0 N'),
    ('A$AP', 'EY1 S AE2 P'), ("I'ma", 'AY1 M AH0'), ('imma', 'AY1 M AH0'),
])
def test_the_words_of_rap(word, sounds):
    assert phonemes(word)[0] == tuple(sounds.split())


@pytest.mark.parametrize('word, readings', [
    ('$1,250.50', ['one thousand two hundred fifty dollars fifty cents',
    'one thousand two hundred fifty fifty']),
    ('911', ['nine one one', 'nine eleven']), ('420', ['four twenty', 'four two oh']),
    ('300', ['three hundred']),
    ('$10k', ['ten k', 'ten thousand dollars']), ('£2.01', ['two pounds one penny', 'two oh one']),
    ('$0.99', ['ninety nine cents']), ('1,999', ['one thousand nine hundred ninety nine']),
    ('1999', ['nineteen ninety nine']),
    ('1900', ['nineteen hundred']), ("'90s", ['ninetys']), ('21st', ['twenty first']),
    ('9mm', ['nine millimeter']),
    ('#1', ['number one']), ('2pac', ['two pac']), ('24-7', ['twenty four seven']),
    ('9' * 13, ['nine ' * 12 + 'nine']),
])
def test_readings_of_numbers(word, readings):
    assert [' '.join(reading) for reading in readings_of(word)] == readings


@pytest.mark.parametrize('word', ['', '-', "'", '日本', '🎤', '٣'])
def test_words_without_sounds(word):
    assert phonemes(word) == ()


def test_vowels_and_the_consonants_after_them():
    assert vowels('pst') == ()
    assert vowels('poet') == (('OW', '1', ()), ('AH', '0', ('T',)))
    assert vowels('lord') == (('AO', '1', ('R', 'D')),)
    assert vowels('word') == (('ER', '1', ('R', 'D')),)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_phonemes_of_anything(word):
    for sounds in phonemes(word):
        assert sounds and all(re.fullmatch('[A-Z]+[012]?', sound) for sound in sounds)
        assert all((sound[:-1] in VOWELS) == sound[-1].isdigit() for sound in sounds)


def test_nothing_is_loaded_at_import():
    code = ("import sys, nanorap.rap.rhyme, nanorap.rap.phonemes as p\n"
            "assert p.lexicon.cache_info().currsize == 0\n"
            "assert not {'torch', 'numpy', 'pycrfsuite'} & set(sys.modules)")
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(SystemExit, match='gruut_lang_en.*requirements.txt'):
        phonemes_module.lexicon.__wrapped__()


# ---- rhymes

@pytest.mark.parametrize('a, b, kind, count', [
    ('cat', 'hat', 'perfect', 1), ('my cat', 'my hat', 'perfect', 1), ('the cat', 'a hat', 'perfect', 1),
    ('time', 'rhyme', 'perfect', 1),
    ('believe', 'leave', 'perfect', 1), ('eternity', 'be', 'perfect', 1), ('cot', 'thought', 'perfect', 1),
    ('24', 'door', 'perfect', 1), ('wind', 'kind', 'perfect', 1),
    ('wind', 'grinned', 'perfect', 1),  # both ways to say it
    ('nation', 'station', 'multisyllabic', 2), ("runnin'", 'gunning', 'multisyllabic', 2),
    ('hunnid', 'blunted', 'none', 0),
    ('elevated', 'dedicated', 'multisyllabic', 4), ('a born poet', 'and I know it', 'multisyllabic', 2),
    ('see me', 'be me', 'multisyllabic', 2), ('bass in the wall (boom)', 'call', 'perfect', 1),
    ('(yeah)', 'nah', 'none', 0),
    ('time', 'line', 'slant', 1), ('bad', 'bat', 'slant', 1), ('love', 'prove', 'slant', 1),
    ('pin', 'pen', 'slant', 1),
    ('cat', 'dog', 'none', 0), ('walking', 'seeing', 'none', 0), ('lady', 'be', 'none', 0),
    ('orange', 'silver', 'none', 0),
    ('cat', 'cat', 'none', 0), ('the cat', 'Cat!', 'none', 0), ('you see me', 'they see me', 'none', 0),
    ('', 'cat', 'none', 0), ('[Hook]', 'book', 'none', 0), ('🎤', '🎤', 'none', 0),
])
def test_rhymes(a, b, kind, count):
    assert rhymes(a, b) == rhymes(b, a) == (kind, count, False)
    assert bool(rhymes(a, b)) == (kind != 'none')


def test_every_rhyme_in_ing_is_one_without_its_g():
    """By the lexicon's words in -ing of two syllables, with a word of the same rhyme each."""
    by_rhyme = collections.defaultdict(list)
    for word in sorted(lexicon()):
        sounds = known(word)[0]
        if word.endswith('ing') and sounds[-2:] == ('IH0', 'NG') and len(vowels(word)) == 2:
            first_vowel = min(i for i, sound in enumerate(sounds) if sound[-1].isdigit())
            by_rhyme[sounds[first_vowel:]].append(word)
    pairs = [words[:2] for words in by_rhyme.values() if len(words) > 1 and rhymes(*words[:2])]
    assert len(pairs) > 300
    for apostrophe in ("'", '’', ''):
        silent = [pair for pair in pairs if not rhymes(*(word[:-1] + apostrophe for word in pair))]
        assert not silent


@pytest.mark.parametrize('a, b', [
    ("hatin'", "waitin'"), ("chasin'", "racin'"), ("vibin'", "drivin'"), ('hatin', 'debating'),
    ("ridin'", "hidin'"),
    ('killa', 'pillar'), ('brotha', 'another'), ('playa', 'layer'), ('neva', 'clever'), ('killa', 'vanilla'),
    ('sistas', 'blisters'), ('dolla', 'collar'),
    ('NYC', 'free'), ('off to NYC', 'OG'), ('TV', 'free'), ('my tv', 'CD'), ('DJ', 'day'), ('BMW', 'crew'),
    ('from L.A.', 'okay'), ("WE'RE ON TV", 'so free'),
    ('10,000', 'thousand'), ('911', 'the gun'), ('9/11', 'seven'), ('20%', 'went'), ('$5', 'hollers'),
    ('f*ck', 'luck'), ('what the f***', 'stuck'), ('A$AP', 'clap'), ("I'ma", 'climber'),
])
def test_rhymes_in_the_words_of_rap(a, b):
    assert rhymes(a, b)


@pytest.mark.parametrize('a, b', [
    ('NYC', 'stick'), ('LOVE', 'free'), ('TO THE BEAT', 'free'), ('TV', 'vision'), ('vanilla', 'villain'),
    ("robin'", 'begin'),
])
def test_no_rhymes_in_the_words_of_rap(a, b):
    assert not rhymes(a, b)


@pytest.mark.parametrize('end', [
    '(ayy, ayy, ayy)', '(uh)', "(yeah, yeah, let's go)", '[laughs]', '*coughs*', '{sighs}', '<gunshots>',
    'x2', '(x2)',
    '[2x]', '×3', ', uh', ', yeah', ', yeah, yeah', ', ayyyy', '... uh-huh', '! Woo!', '— yo', ', oh yeah',
    ' (boom) [laughs] x2',
])
def test_what_hangs_behind_the_last_word(end):
    line = f'we drive all night {end}'
    assert without_ad_lib(line).rstrip(' .') == 'we drive all night'
    assert rhymes(line, 'turn on the light').kind == 'perfect'
    assert rhymes(line, 'turn on the light, yeah').kind == 'perfect'


@pytest.mark.parametrize('line', [
    'yeah', '(yeah)', 'oh, yeah', '[laughs]', 'x2', 'oh hell yeah', 'turn left, then right',
    'what the f***', 'a sh*t b****',
    'the wall (and everyone was calling)', 'say no, no',
])
def test_ends_of_lines_that_stay(line):
    assert without_ad_lib(line) == line


def test_words_of_a_text():
    text = "At the ATM in N.Y.C. I drew $1,250.50, 20% of A$AP's 10,000 f*cks"
    assert split_words(text) == ['at', 'the', 'a.t.m.', 'in', 'n.y.c.', 'i', 'drew', '$1,250.50', '20%', 'of',
                                 "a$ap's", '10,000', 'f*cks']
    assert split_words('NOW LOOK AT US ON TV') == ['now', 'look', 'at', 'us', 'on', 't.v.']


def test_homophones_are_marked():
    assert rhymes('sea', 'see') == ('perfect', 1, True)
    assert rhymes('their', 'there').homophone
    assert not rhymes('sea', 'be').homophone
    assert not rhymes('sea', 'sea').homophone


@settings(max_examples=300, deadline=None)
@given(texts, texts)
def test_rhymes_of_anything(a, b):
    assert rhymes(a, b) == rhymes(b, a)
    assert rhymes(a, a).kind == 'none'


def test_random_pairs_rarely_rhyme():
    """The pairs are of the shipped songs' 2,000 most frequent words, and of the 500 most frequent, most of
    which have one syllable."""
    for n in (2000, 500):
        words, generator = frequent_words(n), random.Random(0)
        pairs = [generator.sample(words, 2) for _ in range(5000)]
        assert sum(bool(rhymes(a, b)) for a, b in pairs) / len(pairs) <= 0.02
        assert sum(len(set(rhyme_scheme(pair))) == 1 for pair in pairs) / len(pairs) <= 0.02


# ---- schemes

def letters(*lines):
    """The labels of the lines, one letter each."""
    return ''.join(rhyme_scheme(lines))


def test_schemes_of_a_quatrain():
    stove, overdue, grove, shoe = ["A kettle grumbles on the stove,", "The rent is overdue,",
                                   "A van is parked beside the grove,", "A dog has chewed my shoe."]
    assert letters(stove, overdue, grove, shoe) == 'abab'
    assert letters(stove, grove, overdue, shoe) == 'aabb'
    assert letters(stove, overdue, shoe, grove) == 'abba'
    assert letters("the bread", "the table", "the bed", "the window") == 'abac'


def test_a_weak_likeness_is_a_rhyme_only_where_the_stanza_lacks_one():
    assert letters("a summer's day", "the cold grey sea", "that none gainsay", "it comes to me") == 'abab'
    assert letters("we mow the grass", "the bus was late", "as good as it was", "beside the gate") == 'abab'
    assert letters("we mow the grass", "as good as it was") == 'ab'


def test_distant_rhymes_on_the_same_sound_have_labels_of_their_own():
    assert letters(*"tree cat see hat door bone floor stone me shirt be dirt".split()) == 'ababcdcdefef'
    assert letters("a tree", "to see", "and me") == 'aaa'
    # a near rhyme in the next line comes before a full one far away
    assert letters(*"tree eternity cat dog lamp see melody".split()) == 'aabcdee'


def test_lines_of_the_same_word_and_lines_without_words():
    assert letters("oh my love", "so cold", "my love") == 'aba'
    assert letters("[Hook]", "a cat", "", "a hat") == 'abcb'  # headers and empty lines have their own labels
    assert letters("a joke,        5", "he spoke", "to drive        10", "a fin") == 'aabc'  # line numbers
    assert rhyme_scheme([]) == []
    assert rhyme_scheme(['zig', '-'] + [''] * 26)[-2:] == ['aa', 'ab']


@settings(max_examples=150, deadline=None)
@given(st.lists(texts.map(lambda text: text.replace('\n', ' ')), max_size=12))
def test_schemes_of_anything(lines):
    labels = rhyme_scheme(lines)
    assert len(labels) == len(lines)
    # new labels come in order, as one writes them
    assert list(dict.fromkeys(labels)) == [chr(ord('a') + i) for i in range(len(set(labels)))]
    # case, quotes and full stops don't matter, but for letters in capitals that may be an initialism
    plain = [line.isascii() and line.replace(' ',
    '').isalpha() and set(line.split()) <= {*WORDS, 'cat'} for line in lines]
    quoted = [f'"{line.upper()}."' if is_plain else line for line, is_plain in zip(lines, plain, strict=True)]
    assert rhyme_scheme(quoted) == labels


def test_rhyming_words():
    text = "[Hook]\nI told you 'bout the door,\r\n(what?)\nthe bell upon the floor. (yeah)\nand so on"
    words = [(text[start:end], label) for start, end, label in rhyming_words(text)]
    assert words == [('door', 'b'), ('floor', 'b')]


# ---- measures

@pytest.mark.parametrize('text, expected', [
    ('', 0), ('lady', 0),
    ('lady baby', 3 / 2),                   # e i i, e i i: a run of three at the second word
    # a a a: bat has a run of one with hat and with cat, and may not run into hat
    ('cat hat bat', 0),
    ('cat hat bat rat', 2 / 4),             # bat rat after cat hat
    ('lady lady', 0),                       # the same word
    ('cool cat, new hat', 2 / 4),           # u a, u a
    ('the cat the hat', 0),                 # a, a: "the" has a schwa alone, and counts as no word
    ('the time the line', 2 / 2),           # a i, a i
    ('[Verse 1]\nLady, pst\nbaby', 3 / 2),  # a header is not read, pst has no vowel
    ('elevate, renovate', 3 / 2),           # e e i, e e i
    ('people little', 2 / 2),               # i L, i L
    ('away today', 2 / 2),                  # a e i, u e i
    ('price trap kit', 2 / 3),              # a i, a i: a diphthong is two vowels
    ('start job, car top', 2 / 4),          # A o, A o
    ('lady ' + 'boy ' * 14 + 'baby', 3 / 16),  # the 15th word before; boy is o i
    ('lady ' + 'boy ' * 15 + 'baby', 0),       # the 16th
])
def test_density_by_hand(text, expected):
    assert density(text) == pytest.approx(expected)


def test_measures_by_hand():
    text = "[Verse 1]\nI got a table\nwe are able\n\ncold stone\nmy phone\n"
    measured = measures(text)
    assert (measured['lines'], measured['words'], measured['longest_run']) == (4, 11, 2)
    assert measured['end_rhyme_share'] == 2 / 4  # able and phone
    assert measured['multisyllabic_share'] == 1 / 4  # able
    # 5, 4, 2 and 2 syllables: a mean of 13/4, a variance of 49/4 - (13/4)²
    assert [syllables(line) for line in text.split('\n')] == [0, 5, 4, 0, 2, 2, 0]
    assert measured['syllables_mean'] == 13 / 4
    assert measured['syllables_spread'] == pytest.approx((49 / 4 - (13 / 4) ** 2) ** 0.5)
    # ai o a eiL, i A eiL, oU oU, ai oU: able has three with table, stone two with cold, phone two with both,
    # my two with I
    assert measured['density'] == pytest.approx(9 / 11)
    assert measured['density_excess'] == pytest.approx(measured['density'] - measured['density_shuffled'])
    assert measures(text) == measured != measures(text, seed=1)


def test_a_rhyme_five_lines_later_does_not_count():
    assert measures("a cat\na broom\na desk\na lamp\na stone\na hat")['end_rhyme_share'] == 0


def test_lines_on_one_rhyme_are_one_run():
    assert measures("a cat\na hat\nthat bat\nhis mat")['longest_run'] == 4


@pytest.mark.slow
def test_songs_rhyme_more_than_their_shuffled_lines():
    """The shipped songs were written in rhyme: their measures are beyond chance."""
    def shuffled(song):
        lines = song.split('\n')
        return '\n'.join(random.Random(0).sample(lines, len(lines)))

    def mean(measured, key):
        return sum(each[key] for each in measured) / len(measured)

    of_songs = [measures(song, shuffles=5) for song in songs()]
    of_shuffled = [measures(shuffled(song), shuffles=1) for song in songs()]
    assert mean(of_songs, 'density_excess') > 0.03
    assert mean(of_songs, 'end_rhyme_share') > mean(of_shuffled, 'end_rhyme_share') + 0.2


@settings(max_examples=100, deadline=None)
@given(texts)
def test_measures_of_anything(text):
    measured = measures(text, shuffles=2)
    assert 0 <= measured['multisyllabic_share'] <= measured['end_rhyme_share'] <= 1
    assert measured['longest_run'] <= measured['lines']
    for start, end, _ in rhyming_words(text):
        assert vowels(text[start:end].lower())


@pytest.mark.slow
def test_speed():
    """The limits are far above what was measured, 0.2 s, 0.1 µs, 0.4 ms, 3 ms and 4 ms, so that a busy
    machine passes."""
    lines = [line for song in songs() for line in song.split('\n') if line][:100]
    words = [word for song in songs() for word in song.split() if vowels(word.lower())][:500]
    assert timeit.timeit(lexicon.__wrapped__, number=1) < 1
    phonemes('word')
    assert min(timeit.repeat(lambda: phonemes('word'), number=10_000, repeat=3)) / 10_000 < 1e-6
    generator = random.Random(0)
    unknown = [''.join(generator.choices('abcdefghiklmnoprstuvwy', k=10)) for _ in range(50)]
    assert timeit.timeit(lambda: [phonemes(word) for word in unknown], number=1) / 50 < 5e-3
    rhyme_scheme(lines)
    assert len(lines) == 100 and min(timeit.repeat(lambda: rhyme_scheme(lines), number=1, repeat=3)) < 0.05
    assert len(words) == 500 and min(timeit.repeat(lambda: density(words), number=1, repeat=3)) < 0.02


ODD_TEXTS = {
    'blanks': ' ', 'tabs': '\t', 'digits': '7', 'line breaks': '\n', 'blanks and breaks': ' \n',
    'one letter': 'a',
    'letters': 'kettle', 'apostrophes': "'", 'hyphens': '-', 'hyphened': 'a-', 'brackets': '[',
    'closing brackets': ']',
    'headers': '[a]', 'parentheses': '(', 'closing': ')', 'ad-libs': '(a)', 'stars': '*', 'directions': '*a*',
    'thousands': '111,', 'decimals': '1.', 'initialisms': 'A.', 'numbers in the margin': '1  ',
    'tabs and digits': '\t1',
    'interjections': ', yeah', 'times': 'x2 ', 'one word': 'la ', 'one word a line': 'la\n',
    'accents': 'e\u0301',
    'lines': 'the night is bright\n', 'emoji': '🎤', 'zeros': '\0', 'masks': 'f*', 'dollars': '$',
    'letters and digits': 'a1',
}


@pytest.mark.slow
@pytest.mark.parametrize('kind', ODD_TEXTS)
def test_no_text_takes_time_quadratic_in_its_length(kind):
    """100 kB of each kind take two seconds at most here; what is quadratic takes minutes."""
    piece = ODD_TEXTS[kind]
    text = piece * (100_000 // len(piece))
    songs = Songs(['la ' * 500, 'the night is bright\n' * 100])
    readings_of('1')  # loads what reads numbers
    for analyse in (colour.annotate, colour.fragment, structure, lambda text: measures(text, shuffles=1),
                    lambda text: novelty(songs, text), lambda text: copies(songs, text)):
        assert timeit.timeit(lambda: analyse(text), number=1) < 20  # noqa: B023


# ---- annotated verse

def stanzas(file):
    """Yield (scheme, lines) of every stanza. A last * repeats the scheme with new letters: a a * stands for
    a a b b c c and so on."""
    scheme, lines = None, []
    for line in [*Path(file).read_text(encoding='utf-8', errors='replace').splitlines(), 'TITLE']:
        line = line.strip()
        if line.startswith('RHYME-POEM') or not line:
            continue
        if re.match('AUTHOR|TITLE|RHYME', line):
            if scheme and lines:
                if scheme[-1] == '*':
                    n = len(scheme) - 1
                    scheme = [(scheme[i % n], i // n) for i in range(len(lines))]
                yield scheme, lines
            scheme, lines = line.split()[1:] if line.startswith('RHYME') else None, []
        else:
            lines.append(line)


def precision_recall(file):
    """Count pairs of lines of a stanza: those that share a label in the annotation and in rhyme_scheme()'s
    result, in the result, in the annotation."""
    both = predicted = annotated = 0
    for scheme, lines in stanzas(file):
        labels = rhyme_scheme(lines)
        for j in range(min(len(scheme), len(lines))):
            for i in range(j):
                both += scheme[i] == scheme[j] and labels[i] == labels[j]
                predicted += labels[i] == labels[j]
                annotated += scheme[i] == scheme[j]
    return both, predicted, annotated


def verse_table(folder):
    """Print and return {poet: (precision, recall, F1)}; the last row is all pairs together."""
    counts = {Path(file).stem: precision_recall(file) for file in sorted(glob.glob(f'{folder}/*.txt'))}
    counts['together'] = tuple(map(sum, zip(*counts.values(), strict=True)))
    rows = {poet: (both / predicted, both / annotated, 2 * both / (predicted + annotated))
            for poet, (both, predicted, annotated) in counts.items()}
    print(f"{'':16}precision  recall      F1")
    for poet, row in rows.items():
        print(f"{poet:16}{row[0]:9.4f}{row[1]:8.4f}{row[2]:8.4f}")
    return rows


if os.environ.get('VERSE'):
    def test_annotated_verse():
        rows = verse_table(os.environ['VERSE'])
        assert rows.pop('together')[2] >= 0.95
        assert min(f1 for _, _, f1 in rows.values()) >= 0.92


if __name__ == '__main__':
    verse_table(sys.argv[1])
