"""Rhymes, rhyme schemes and rhyme density of English verse, over the sounds of `phonemes`.

    rhymes('a born poet', 'and I know it')  # Rhyme(kind='multisyllabic', syllables=2, homophone=False)
    rhyme_scheme(lines)                     # ['a', 'b', 'a', 'b']
    measures(text)                          # rhyme density and what else can be counted

A line is known by its end. Each way of saying it has parts that may rhyme: the vowels from a stressed one onwards, each with
the consonants after it. How far two parts are from each other is a sum of costs in hundredths, from 0 (the same sounds) to
100 (nothing in common) for each vowel and consonant. The costs are round numbers with a reason beside each, set by hand.
"""

import random
import re
import statistics
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from nanorap.rap.phonemes import phonemes, vowels, with_vowels
from nanorap.rap.sections import HEADER_LINE

# ---- words and the ends of lines

# a header such as [Hook] is no word, and neither is a line's number in the margin, far from the text
NOT_WORDS = re.compile(rf'{HEADER_LINE.pattern}|(?:[ \t]{{2,}}|\t)\d+[ \t\r]*$', re.M)
WORD = re.compile(r"['’]?[^\W_]+(?:['’-]+[^\W_]+)*['’]?")
AD_LIB = re.compile(r"\(\W*[\w'’]+(?:\W+[\w'’]+)?\W*\)\W*$")
# words that verse leaves unstressed, so that a rhyme may begin before them: poet / know it
WEAK = frozenset("a am an and are as at be but by can do for from had has have he her him his i in is it its me my of off on "
                 "or our she so than that the thee them then they this to up us was we were will with ya you your".split())
SHORT = dict(zip('aeiou', 'AE EH IH AA AH'.split(), strict=True))


def split_words(text):
    """The words that have a vowel, in lower case, with their apostrophes and hyphens; no headers and no line numbers."""
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
        for i, cost in starts.items():
            found.append(Part(tuple((vowel, after) for vowel, _, after in syllables[i:]), spelled(word, n, n - i), cost))
        for first in phonemes(before) if before and n == 1 else ():  # a mosaic of two words
            both = with_vowels(first + sounds)
            i = max((i for i, (_, stress, _) in enumerate(both[:-1]) if stress == '1'), default=0)
            found.append(Part(tuple((vowel, after) for vowel, _, after in both[i:]), '', 10))
    return tuple(dict.fromkeys(found))


# ---- how far from a rhyme

def near(cost, pairs):
    return {(a, b): cost for pair in pairs.split() for x, y in [pair.split('-')] for a, b in ((x, y), (y, x))}


VOWEL_COSTS = {
    **near(0, 'AA-AO'),                                  # cot / caught, the same for many speakers
    **near(30, 'IH-EH EH-AE IH-IY EH-EY UH-UW AH-UH'),   # neighbours: pin / pen, live / leave, again / plain, good / food
    **near(30, 'AA-AE AA-AH AO-AH AO-OW AY-OY'),         # wander / hand, gone / sun, shone / stone, join / line
    # parted by the great vowel shift and after it: great / seat, dome / doom
    **near(40, 'EH-IY EY-IY EY-AE AY-IY AY-IH OW-UW OW-AW OW-AA OW-AH OW-UH UW-AH UW-AO UH-AO'),
    **near(40, 'ER-AA ER-AO ER-EH ER-IH ER-AH ER-UH')}   # before R: word / lord, heart / convert
CONSONANT_COSTS = near(30, 'P-B T-D K-G F-V SH-ZH CH-JH S-Z TH-DH M-N M-NG N-NG')  # with the voice or without; nasals
LONE = 50  # a consonant that the other part lacks
REDUCED = frozenset(('AH', 'IH', 'EH', 'IY'))  # alike where they have no stress


@lru_cache(maxsize=1 << 16)
def consonant_cost(a, b):
    """The cheapest way from one run of consonants to the other, an edit distance."""
    if a == b or not a or not b:
        return LONE * (len(a) + len(b)) * (a != b)
    return min(LONE + consonant_cost(a[1:], b), LONE + consonant_cost(a, b[1:]),
               (CONSONANT_COSTS.get((a[0], b[0]), 100) if a[0] != b[0] else 0) + consonant_cost(a[1:], b[1:]))


def part_cost(a, b):
    if len(a.sounds) != len(b.sounds):
        return 900
    cost = 0
    for i, ((vowel, after), (other, other_after)) in enumerate(zip(a.sounds, b.sounds, strict=True)):
        cost += consonant_cost(after[:8], other_after[:8])  # more than a syllable ends on
        if vowel != other and i == 0:
            cost += VOWEL_COSTS.get((vowel, other), 100) + 20 * (not after and not other_after)  # nothing else to hear
        elif vowel != other and not {vowel, other} <= REDUCED:
            cost += VOWEL_COSTS.get((vowel, other), 100) // 2
    if a.letters and a.letters == b.letters:
        cost = min(cost, 30)  # rhymes for the eye, many of them once for the ear: love / prove, wind / kind
    return cost + max(a.cost, b.cost)


@lru_cache(maxsize=1 << 18)
def end_cost(a, b):
    """How far two line ends are from a rhyme, over all ways to say them (the same word is at 0)."""
    return min((part_cost(x, y) for x in rhyme_parts(a) for y in rhyme_parts(b)), default=900)


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
        alike = '0' in stress + other_stress and {vowel, other} <= REDUCED or VOWEL_COSTS.get((vowel, other)) == 0
        if i > 1 and vowel != other and not alike or word == other_word and not a[0][2] == b[0][2] == word:
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


# The vowels of ARPAbet as eSpeak writes them, whose letters DopeLearning counts: a diphthong is two, and long or lax is one
LETTERS = dict(AA='o', AO='o', AE='a', AW='aU', AY='ai', EH='e', ER='3', EY='ei', IH='i', IY='i', OW='oU', OY='oi', UH='U',
               UW='u')


@lru_cache(maxsize=1 << 16)
def vowel_letters(word):
    """price -> 'ai', people -> 'iL', away -> 'aei'. A schwa is none (the -> ''), but for a- and -le."""
    found = ''
    for i, (vowel, stress, after) in enumerate(vowels(word)):
        if vowel == 'AH':
            found += 'V' if stress != '0' else 'a' if i == 0 and word[0] == 'a' else 'L' if after[:1] == ('L',) else ''
        else:
            found += 'A' if vowel == 'AA' and after[:1] == ('R',) else LETTERS[vowel]
    return found


def density(words):
    """Rhyme density of a text or a list of its words: for each word the longest run of the same vowels, read backwards from
    its last one, that it shares with any of the 15 words before it (a run of one counts 0), averaged over the words.

    From Malmi et al., DopeLearning, https://arxiv.org/abs/1505.04771. As in their https://github.com/ekQ/raplysaattori a word
    never rhymes with itself, the two runs don't overlap, words without a vowel are left out, and a vowel is a letter of
    eSpeak's. So price has two, which trap kit has too, and any English shuffled scores about 1: what a text has beyond its
    own words shuffled says more (`measures`).
    """
    words = split_words(words) if isinstance(words, str) else words
    words = [(word, letters) for word in words if (letters := vowel_letters(word))]
    sounds = [(vowel, word) for word, letters in words for vowel in letters]
    ends, total = [], 0
    for _, letters in words:
        end, longest = (ends[-1] if ends else -1) + len(letters), 0
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
