"""Phonemes, rhymes, rhyme schemes and rhyme density of English verse: no torch, no network, and nothing runs at import.

    phonemes('hunnid')                      # (('HH', 'AH1', 'N', 'IH0', 'D'),)
    rhymes('a born poet', 'and I know it')  # Rhyme(kind='multisyllabic', syllables=2, homophone=False)
    rhyme_scheme(lines)                     # ['a', 'b', 'a', 'b']
    measures(text)                          # rhyme density and what else can be counted

A line is known by its end. Each way of saying it has parts that may rhyme: the vowels from a stressed one onwards, each with
the consonants after it. How far two parts are from each other is a sum of costs in hundredths, from 0 (the same sounds) to
100 (nothing in common) for each vowel and consonant. The costs are round numbers with a reason beside each, set by hand.
"""

import random
import re
import sqlite3
import statistics
import unicodedata
from base64 import b64decode, b64encode
from functools import cache, lru_cache
from itertools import groupby
from typing import NamedTuple

from nanorap import package_file

# ---- phonemes, by the lexicon and the letter-to-sound model in the package gruut-lang-en

ADVICE = "pip install -r requirements.txt"
IPA = 'ɑ æ ʌ ə ɔ aʊ aɪ ɛ ɚ eɪ ɪ i oʊ ɔɪ ʊ u b t͡ʃ d ð f ɡ h d͡ʒ k l m n ŋ p ɹ s ʃ t θ v w j z ʒ'.split()
ARPABET = dict(zip(IPA, 'AA AE AH AH AO AW AY EH ER EY IH IY OW OY UH UW B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y '
                        'Z ZH'.split(), strict=True))
VOWELS = frozenset('AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW'.split())
UNITS = ('zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen '
         'eighteen nineteen').split()
TENS = 'twenty thirty forty fifty sixty seventy eighty ninety'.split()
SIZES = ((10**9, 'billion'), (10**6, 'million'), (1000, 'thousand'), (100, 'hundred'))


@cache
def lexicon():
    """{word: [its pronunciations in IPA, a blank between sounds]}: 124,392 words of American English in 0.2 s."""
    words = {}
    file = package_file('gruut_lang_en', 'lexicon.db', ADVICE)
    database = sqlite3.connect(f'{file.absolute().as_uri()}?mode=ro', uri=True)
    for word, sounds in database.execute('SELECT word, phonemes FROM word_phonemes ORDER BY id'):
        words.setdefault(word, []).append(sounds)
    database.close()
    return words


@cache
def tagger():
    """The conditional random field that says which sound a letter stands for."""
    import pycrfsuite

    tagger = pycrfsuite.Tagger()
    tagger.open(str(package_file('gruut_lang_en', 'g2p/model.crf', ADVICE)))
    return tagger


def arpabet(sounds):
    """('p', 'ˈoʊ', 'ə', 't') -> ('P', 'OW1', 'AH0', 'T'): 1 is the main stress, 2 another one, 0 none."""
    names = ((ARPABET.get(sound.lstrip('ˈˌ')), sound[:1]) for sound in sounds)
    return tuple(name + {'ˈ': '1', 'ˌ': '2'}.get(mark, '0') if name in VOWELS else name for name, mark in names if name)


def known(word):
    return [arpabet(sounds.split()) for sounds in lexicon().get(word, ())]


def derived(word):
    """A word that isn't in the lexicon, from words that are: with -s or -ed, or of two parts (firelight)."""
    for ending in ("'s", 's', 'es', "'d", 'd', 'ed'):
        base = word.removesuffix(ending)
        if base != word and len(base) > 2 and base in lexicon():
            hiss = ending[-1] == 's'
            return [sounds + (('IH0', 'Z') if hiss and sounds[-1] in ('S', 'Z', 'SH', 'ZH', 'CH', 'JH') else
                              ('IH0', 'D') if not hiss and sounds[-1] in ('T', 'D') else
                              ('S' if hiss else 'T',) if sounds[-1] in ('P', 'T', 'K', 'F', 'TH', 'S', 'SH', 'CH') else
                              ('Z' if hiss else 'D',)) for sounds in known(base)]
    for cut in range(3, len(word) - 2):
        if word[:cut] in lexicon() and word[cut:] in lexicon():
            return [known(word[:cut])[0] + tuple(sound.replace('1', '2') for sound in end) for end in known(word[cut:])]
    return []


def guess(letters):
    """A word by its letters alone. The features are those that the model was trained with: three letters on each side."""
    coded = [b64encode(letter.encode()).decode() for letter in letters]
    features = []
    for i, letter in enumerate(coded):
        around = {f'grapheme{step:+d}': coded[i + step] for step in (-3, -2, -1, 1, 2, 3) if 0 <= i + step < len(coded)}
        edges = {name: True for name, at in (('begin', 0), ('end', len(coded) - 1)) if at == i}
        features.append({'bias': 1.0, 'grapheme': letter, **around, **edges})
    return arpabet(sound for tag in tagger().tag(features) for sound in b64decode(tag).decode().split('|'))


def numeral(n):
    """1999 -> ['nineteen', 'ninety', 'nine']: from 1100 to 1999 and from 2010 to 2099 as years are said."""
    if n < 100:
        return [UNITS[n]] if n < 20 else [TENS[n // 10 - 2]] + numeral(n % 10) * (n % 10 > 0)
    if 1100 <= n < 2000 or 2010 <= n < 2100:
        return numeral(n // 100) + (['oh'] * (n % 100 < 10) + numeral(n % 100) if n % 100 else ['hundred'])
    size, name = next(pair for pair in SIZES if n >= pair[0])
    return numeral(n // size) + [name] + (numeral(n % size) if n % size else [])


@lru_cache(maxsize=1 << 16)
def phonemes(word):
    """A word's pronunciations in ARPAbet with stress, the likeliest first; () where there is nothing to say.

    phonemes('poet') -> (('P', 'OW1', 'AH0', 'T'),). The lexicon first, also without accents and apostrophes ('bout, café)
    or with an e for them (heav'n, wander'd); numbers and hyphens in parts; then `derived`, and at last `guess`.
    """
    word = unicodedata.normalize('NFC', word.lower().replace('’', "'"))
    plain = ''.join(c for c in unicodedata.normalize('NFKD', word) if not unicodedata.combining(c))
    bare = plain.strip("'-_. ")
    for form in (word, plain, bare, bare.replace("'", 'e')):
        if form in lexicon():
            return tuple(dict.fromkeys(known(form)))
    parts = re.findall(r'[0-9]{1,12}|[^\W\d_]+', bare) if re.search('[0-9-]', bare) else []
    parts = [name for part in parts for name in (numeral(int(part)) if part.isdecimal() else [part])]
    if parts and parts != [bare]:
        *first, last = [sounds for part in parts if (sounds := phonemes(part))] or [()]
        return tuple(sum((sounds[0] for sounds in first), ()) + end for end in last)
    return tuple(dict.fromkeys(sounds for sounds in derived(bare) or [guess(re.sub('[^a-z]', '', bare))] if sounds))


def with_vowels(sounds):
    """('P', 'OW1', 'AH0', 'T') -> (('OW', '1', ()), ('AH', '0', ('T',))); ER is a vowel before R, as in word / lord."""
    found = []
    for sound in sounds:
        if sound[:-1] in VOWELS:
            found.append((sound[:-1], sound[-1], ('R',) * (sound[:-1] == 'ER')))
        elif found:
            vowel, stress, after = found[-1]
            found[-1] = (vowel, stress, after + (sound,))
    return tuple(found)


@lru_cache(maxsize=1 << 16)
def vowels(word):
    """The vowels of a word as it is likeliest said, ((vowel, stress, the consonants after it), ...)."""
    return with_vowels(phonemes(word)[0]) if phonemes(word) else ()


# ---- words and the ends of lines

# a header such as [Hook] is no word, and neither is a line's number in the margin, far from the text
NOT_WORDS = re.compile(r'^\s*\[[^\]\n]*\]\s*$|(?:[ \t]{2,}|\t)\d+[ \t]*$', re.M)
WORD = re.compile(r"['’]?[^\W_]+(?:['’-]+[^\W_]+)*['’]?")
AD_LIB = re.compile(r"\(\W*[\w'’]+(?:\W+[\w'’]+)?\W*\)\W*$")
# words that verse leaves unstressed, so that a rhyme may begin before them: poet / know it
WEAK = frozenset("a am an and are as at be but by can do for from had has have he her him his i in is it its me my of off on or "
                 "our she so than that the thee them then they this to up us was we were will with ya you your".split())
SHORT = dict(zip('aeiou', 'AE EH IH AA AH'.split(), strict=True))


def split_words(text):
    """The words that have a vowel, in lower case; apostrophes and hyphens stay in them, headers and line numbers are left out."""
    words = (word.lower().replace('’', "'") for word in WORD.findall(NOT_WORDS.sub('', text)))
    return [word for word in words if vowels(word)]


def without_ad_lib(line):
    """'Bass in the wall (boom)' -> 'Bass in the wall ': what is called in between doesn't rhyme, unless it is all there is."""
    shorter = AD_LIB.sub('', line)
    return shorter if split_words(shorter) else line


def line_end(line):
    """(the last word, the word before it if that can matter): 'I know it!' -> ('it', 'know')."""
    words = [word.strip("'") for word in split_words(without_ad_lib(line))[-2:]] or ['']
    return words[-1], words[0] if len(words) > 1 and words[-1] in WEAK else ''


class Part(NamedTuple):
    """What may rhyme: ((vowel, consonants after it), ...) from a stressed vowel on, its letters, and what its stress costs."""
    sounds: tuple
    letters: str
    cost: int


def spelled(word, syllables, n):
    """The letters of the last n of so many syllables: ('reprove', 2, 1) -> 'ove'. A y is written i: tyre / fire."""
    word = re.sub('[^a-z]', '', word)
    groups = [match.start() for match in re.finditer('(?<!q)[aeiou][aeiouw]*y?|(?<=.)y[aeiouw]*', word)]
    if len(groups) > syllables and re.search('[^aeiou]e[sd]?$', word):
        groups.pop()  # a silent e
    return re.sub('(?<=[iw])e$', '', word[groups[-n]:].replace('y', 'i')) if n <= len(groups) else ''


@lru_cache(maxsize=1 << 16)
def rhyme_parts(end):
    """All that may rhyme in a line's end, over its pronunciations."""
    (word, before), found = end, []
    # talking / walkin' are said alike
    for sounds in phonemes(word) + tuple(s[:-1] + ('N',) for s in phonemes(word) if s[-2:] == ('IH0', 'NG')):
        syllables = with_vowels(sounds)
        if not (n := len(syllables)):
            continue
        (vowel, _, after), letters = syllables[-1], spelled(word, n, 1)
        stresses = ''.join(stress for _, stress, _ in syllables)
        main = max(stresses.rfind('1'), 0) if '1' in stresses else max(stresses.rfind('2'), 0)
        starts = {main: 0, **{i: 10 for i in range(max(0, n - 3), n) if stresses[i] == '2'}}
        if n - 1 not in starts:
            # verse keeps its beat: a last syllable two after the stress has a beat of its own (eternity / be), a full vowel
            # may have (shadow / go), and a weak one next to the stress hardly (lady / be)
            promoted = n - 1 - main > 1
            starts[n - 1] = 10 if promoted else 60 if vowel in ('AH', 'IH', 'ER', 'IY') else 20
            if promoted and vowel in ('AH', 'IH') and after and letters[:1] in SHORT:  # by its letter: argument / spent
                found.append(Part(((SHORT[letters[0]], after),), letters, 10))
            if promoted and vowel == 'IY' and (not after or letters == 'ies'):  # the older sound of -y: eternity / die
                found.append(Part((('AY', after),), letters, 20))
        if n > 1 and re.search("..(ed|'d)$", word) and sounds[-1] in ('D', 'T'):  # -ed as a syllable: remembered / dead
            found.append(Part((('EH', ('D',)),), 'ed', 20))
        for i, cost in starts.items():
            found.append(Part(tuple((vowel, after) for vowel, _, after in syllables[i:]), spelled(word, n, n - i), cost))
        for first in phonemes(before) if before and n == 1 else ():  # a mosaic of two words
            both = with_vowels(first + sounds)
            i = max((i for i, (_, stress, _) in enumerate(both[:-1]) if stress == '1'), default=0)
            found.append(Part(tuple((vowel, after) for vowel, _, after in both[i:]), '', 10))
    return tuple(dict.fromkeys(found))


# ---- how far from a rhyme

def table(*rows):
    """(30, 'S-Z ...') -> {('S', 'Z'): 30, ('Z', 'S'): 30, ...}"""
    pairs = [(cost, pair.split('-')) for cost, pairs in rows for pair in pairs.split()]
    return {key: cost for cost, (a, b) in pairs for key in ((a, b), (b, a))}


VOWEL_COSTS = table(
    (0, 'AA-AO'),                                   # cot / caught, the same for many speakers
    (30, 'IH-EH EH-AE IH-IY EH-EY UH-UW AH-UH'),    # neighbours: pin / pen, live / leave, again / plain, good / food
    (30, 'AA-AE AA-AH AO-AH AO-OW AY-OY'),          # wander / hand, gone / sun, shone / stone, join / line
    (40, 'EH-IY EY-IY EY-AE AY-IY AY-IH OW-UW OW-AW OW-AA OW-AH OW-UH UW-AH UW-AO UH-AO'),  # parted by the great vowel shift
    (40, 'ER-AA ER-AO ER-EH ER-IH ER-AH ER-UH'))    # before R: word / lord, heart / convert
CONSONANT_COSTS = table((30, 'P-B T-D K-G F-V SH-ZH CH-JH S-Z TH-DH M-N M-NG N-NG'))  # voiced or not; nasals
# a consonant that the other part lacks; less for those that endings add, accents drop, or nobody hears
LONE = {**dict.fromkeys(('T', 'D', 'S', 'Z', 'DH', 'R'), 50), 'HH': 20, 'Y': 20}
REDUCED = frozenset(('AH', 'IH', 'EH', 'IY'))  # alike where they have no stress


@lru_cache(maxsize=1 << 16)
def consonant_cost(a, b):
    """The cheapest way from one run of consonants to the other, an edit distance."""
    if a == b or not a or not b:
        return 0 if a == b else sum(LONE.get(sound, 90) for sound in a + b)
    return min(LONE.get(a[0], 90) + consonant_cost(a[1:], b), LONE.get(b[0], 90) + consonant_cost(a, b[1:]),
               (CONSONANT_COSTS.get((a[0], b[0]), 100) if a[0] != b[0] else 0) + consonant_cost(a[1:], b[1:]))


def part_cost(a, b):
    if len(a.sounds) != len(b.sounds):
        return 900
    cost = 0
    for i, ((vowel, after), (other, other_after)) in enumerate(zip(a.sounds, b.sounds, strict=True)):
        cost += consonant_cost(after, other_after)
        if vowel != other and i == 0:
            cost += VOWEL_COSTS.get((vowel, other), 100) + 20 * (not after and not other_after)  # nothing else to hear
        elif vowel != other and not {vowel, other} <= REDUCED:
            cost += VOWEL_COSTS.get((vowel, other), 100) // 2
    if a.letters and a.letters == b.letters:
        cost = min(cost, 30)  # rhymes for the eye, many of them once for the ear: love / prove, wind / kind
    return cost + max(a.cost, b.cost)


@lru_cache(maxsize=1 << 18)
def end_cost(a, b):
    """How far two line ends are from a rhyme, over all ways to say them; the same word is at 0."""
    return 0 if a[0] == b[0] else min((part_cost(x, y) for x in rhyme_parts(a) for y in rhyme_parts(b)), default=900)


PERFECT, SLANT, LOOSE = 10, 35, 75  # the costs up to which two ends rhyme; LOOSE only where a line lacks its partner


class Rhyme(NamedTuple):
    """kind: 'perfect' (of one syllable), 'multisyllabic', 'slant' (kindred sounds) or 'none'; syllables: how many have the
    same vowels, read backwards to a stressed one; homophone: whether the two last words sound the same (sea / see)."""
    kind: str
    syllables: int
    homophone: bool

    def __bool__(self):
        return self.kind != 'none'


def common_syllables(a, b):
    """How many vowels two lines share, from the end back to a stressed one; a word that both have is no part of it."""
    a, b = ([(vowel, stress, word) for word in reversed(split_words(without_ad_lib(line))[-4:])
             for vowel, stress, _ in reversed(vowels(word))] for line in (a, b))
    count = 1
    for i, ((vowel, stress, word), (other, other_stress, other_word)) in enumerate(zip(a, b, strict=False), 1):
        alike = vowel == other or VOWEL_COSTS.get((vowel, other)) == 0 or '0' in stress + other_stress and {vowel, other} <= REDUCED
        if i > 1 and not alike or word == other_word and not a[0][2] == b[0][2] == word:
            break
        count = i if '0' not in stress + other_stress else count
    return count


def rhymes(a, b):
    """How two words or two lines rhyme by their ends; the same word is no rhyme, but what stands before it may be.

    rhymes('cat', 'hat') -> Rhyme('perfect', 1, False); rhymes('elevated', 'dedicated') -> Rhyme('multisyllabic', 4, False)
    rhymes('time', 'line') -> Rhyme('slant', 1, False); rhymes('see me', 'be me') -> Rhyme('multisyllabic', 2, False)
    """
    (word, before), (other, other_before) = ends = line_end(a), line_end(b)
    cost = end_cost(*ends)
    if word == other:  # only a mosaic rhyme counts: it begins in the words before
        mosaics = [[part for part in rhyme_parts(end) if not part.letters and len(part.sounds) > 1] for end in ends]
        cost = min((part_cost(x, y) for x in mosaics[0] for y in mosaics[1] if before != other_before), default=900)
    if cost > SLANT:
        return Rhyme('none', 0, False)
    count = common_syllables(a, b)
    homophone = word != other and not set(phonemes(word)).isdisjoint(phonemes(other))
    return Rhyme('slant' if cost > PERFECT else 'multisyllabic' if count > 1 else 'perfect', count, homophone)


# ---- schemes

def label(n):
    """0, 1, ... -> 'a', ..., 'z', 'aa', 'ab', ..."""
    return (label(n // 26 - 1) if n >= 26 else '') + chr(ord('a') + n % 26)


def rhyme_scheme(lines):
    """The rhyme scheme of a stanza or a song, one label a line: ['a', 'b', 'a', 'b'].

    Lines that rhyme share a label, and so do lines near each other that end on the same word; a line that rhymes with none
    has a label of its own. The nearest ends come first, and ten hundredths a line of distance: single lines are joined with
    each other up to six lines away, and with a rhyme that is found up to four. Two rhymes that are both found stay two, for
    sounds come back by chance. Where other lines rhyme, two that are left over may do so loosely.
    """
    ends = [line_end(line) for line in lines]
    groups = [[i] for i in range(len(ends))]
    pairs = [(end_cost(ends[i], ends[j]), i, j) for j in range(len(ends)) for i in range(max(0, j - 6), j) if ends[i][0]]
    for cost, i, j in sorted((pair for pair in pairs if pair[0] <= LOOSE), key=lambda pair: pair[0] + 10 * (pair[2] - pair[1])):
        small, large = sorted((len(groups[i]), len(groups[j])))
        sure = cost <= SLANT and small == 1 and (large == 1 or j - i <= 4)
        if sure or large == 1 and j - i <= 4 and any(len(group) > 1 for group in groups):
            groups[i] += groups[j]
            for line in groups[j]:
                groups[line] = groups[i]
    labels = {}
    return [labels.setdefault(group[0], label(len(labels))) for group in groups]


def spans(text):
    """[(start, end, label), ...]: the last words of the lines that rhyme with another line, for colouring them."""
    lines = text.split('\n')
    labels, start, found = rhyme_scheme(lines), 0, []
    for line, name in zip(lines, labels, strict=True):
        if labels.count(name) > 1:
            words = WORD.finditer(NOT_WORDS.sub('', without_ad_lib(line)))
            word = [word for word in words if vowels(word.group().lower())][-1]
            found.append((start + word.start(), start + word.end(), name))
        start += len(line) + 1
    return found


# ---- measures

def syllables(line):
    """syllables('I know it') -> 3"""
    return sum(len(vowels(word)) for word in split_words(line))


def density(words):
    """Rhyme density of a text or a list of its words: for each word the longest run of the same vowels, read backwards from
    its last one, that it shares with any of the 15 words before it (a run of one counts 0), averaged over the words.

    From Malmi et al., DopeLearning, https://arxiv.org/abs/1505.04771. As in their https://github.com/ekQ/raplysaattori a word
    never rhymes with itself, the two runs don't overlap, and words without a vowel are left out.
    """
    words = split_words(words) if isinstance(words, str) else words
    sounds = [(vowel, word) for word in words for vowel, _, _ in vowels(word)]
    ends, total = [], 0
    for word in words:
        end, longest = (ends[-1] if ends else -1) + len(vowels(word)), 0
        for earlier in ends[-15:]:
            run = 0
            while run <= earlier < end - run and sounds[earlier - run][0] == sounds[end - run][0] and (
                    sounds[earlier - run][1] != sounds[end - run][1]):
                run += 1
            longest = max(longest, run)
        ends.append(end)
        total += longest if longest > 1 else 0
    return total / max(1, len(words))


def measures(text, shuffles=20, seed=0):
    """What can be counted of a text's rhyme, as a dict. Section headers are no lines.

    density_shuffled: the mean over seeded shuffles of the words, for any text has some density by chance; density_excess: what
    is beyond it. end_rhyme_share: the lines that rhyme with one of the four before them; multisyllabic_share: those that do on
    two syllables or more. longest_run: lines in a row that share a label of `rhyme_scheme`.
    """
    lines = [line for line in text.split('\n') if split_words(line)]
    found = [[pair for earlier in lines[max(0, i - 4):i] if (pair := rhymes(earlier, line))] for i, line in enumerate(lines)]
    counts, words, shuffler = [syllables(line) for line in lines], split_words(text), random.Random(seed)
    shuffled = statistics.fmean(density(shuffler.sample(words, len(words))) for _ in range(shuffles))
    return {
        'lines': len(lines),
        'words': len(words),
        'density': density(words),
        'density_shuffled': shuffled,
        'density_excess': density(words) - shuffled,
        'end_rhyme_share': sum(map(bool, found)) / max(1, len(lines)),
        'multisyllabic_share': sum(any(pair.syllables > 1 for pair in pairs) for pairs in found) / max(1, len(lines)),
        'longest_run': max((len(list(run)) for _, run in groupby(rhyme_scheme(lines))), default=0),
        'syllables_mean': statistics.fmean(counts or [0]),
        'syllables_spread': statistics.pstdev(counts or [0]),
    }
