"""Rhymes, rhyme schemes and rhyme density of English verse, over the sounds of `phonemes`.

    rhymes('a born poet', 'and I know it')  # Rhyme(kind='multisyllabic', syllables=2, homophone=False)
    rhyme_scheme(lines)                     # ['a', 'b', 'a', 'b']
    measures(text)                          # rhyme density and what else can be counted

A line is represented by its end. Each pronunciation of the end has parts that may rhyme: the vowels from a
stressed one onwards, each with the consonants after it. The distance of two parts is a sum of costs in
hundredths, from 0 (the same sound) to 100 (nothing in common) per vowel and consonant. The costs are round
numbers, chosen by hand, each with its reason beside it.
"""

import random
import re
import statistics
from collections import Counter
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from nanorap.rap.phonemes import normalize_word, phonemes, vowels, with_vowels
from nanorap.rap.sections import HEADER_LINE

# ---- words and the ends of lines

# a header such as [Hook] is no word, and neither is a line number in the margin, far from the text
NOT_WORDS = re.compile(rf'{HEADER_LINE.pattern}|(?<![ \t])(?:[ \t]{{2,}}|\t)\d+[ \t\r]*$', re.M)
# N.Y.C.; or letters and numbers (10,000 and 2.5), joined by hyphens or what masks letters (f*ck)
WORD = re.compile(r"(?:[^\W\d_]\.){2,}(?:['’][sd]\b)?|"
                  r"['’]?[$€£#@]?(?:NUMBER|[^\W_]+)(?:['’*$@#!_-]+(?:NUMBER|[^\W_]+))*(?:[%¢$]|\*{2,}|['’])?"
                  .replace('NUMBER', r'\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+\.\d+'))
# words that verse leaves unstressed, so that a rhyme may begin before them: poet / know it
WEAK = frozenset("a am an and are as at be but by can do for from had has have he her him his i in is it its "
                 "me my of off on or our she so than that the thee them then they this to up us was we were "
                 "will with ya you your".split())
SHORT_VOWELS = dict(a='AE', e='EH', i='IH', o='AA', u='AH')  # how a letter sounds when it is short


class Word(NamedTuple):
    """A word of a text."""

    start: int
    end: int
    word: str  # as normalize_word() writes it


def find_words(text):
    """Return the Words that have a vowel; headers and line numbers are left out."""
    words, start = [], 0
    for line in NOT_WORDS.sub(lambda match: ' ' * len(match.group()), text).split('\n'):
        in_capitals = line.isupper() and len(line.split()) > 1
        for match in WORD.finditer(line):
            word = normalize_word(match.group(), in_capitals)
            if vowels(word):
                words.append(Word(start + match.start(), start + match.end(), word))
        start += len(line) + 1
    return words


def split_words(text):
    """Return the words that have a vowel, in lower case, with apostrophes and hyphens."""
    return [word for _, _, word in find_words(text)]


# what may hang behind a comma at a line's end; every letter once, so that ayyy is ay
INTERJECTIONS = frozenset('ay aye ah ey ha hey hm huh m mhm nah oh ow uh uhuh um wo woah whoa ya yah yea '
                          'yeah yep yo yu yuh yup skrt br gr'.split())
CLOSING = {')': '(', ']': '[', '}': '{', '*': '*', '>': '<'}
REPEATED = re.compile('[x×][0-9]{1,2}|[0-9]{1,2}[x×]', re.IGNORECASE)  # x2


def without_ad_lib(line):
    """Return a line without what hangs behind its last word: 'Bass in the wall, yeah (boom)' -> 'Bass in the
    wall'.

    It may be an ad-lib in brackets or behind a comma, a stage direction ([laughs], *coughs*) or x2. It
    doesn't rhyme, unless the line has nothing else.
    """
    end, start = len(line), ad_lib_start(line, len(line))
    if start > 0:
        words = (word for word in find_words(line) if not is_interjection(word.word))
        first = next(words, None)
        while first and start >= first.end:
            end, start = start, ad_lib_start(line, start)
    return line[:end]


@lru_cache(maxsize=1 << 16)
def is_interjection(word):
    return re.sub(r'(.)\1+', r'\1', word.lower()) in INTERJECTIONS


def ad_lib_start(line, end):
    """Return where the ad-lib begins that line[:end] ends with, or -1."""
    while end and not line[end - 1].isalnum() and line[end - 1] not in CLOSING:
        end -= 1
    if end and line[end - 1] in CLOSING:
        start = line.rfind(CLOSING[line[end - 1]], 0, end - 1)
        inside = line[start + 1:end - 1]
        is_mask = line[end - 1] == '*' and (not inside.strip() or line[start - 1:start].isalnum())
        return start if start >= 0 and not is_mask and (line[start] != '(' or is_short(inside)) else -1
    return end_of_interjections(line, end)


def is_short(text):
    """Return whether every phrase of a text has three words at most: yeah, yeah, let's go."""
    return all(len(phrase.split()) <= 3 for phrase in re.split('[,.!?;-]', text))


def end_of_interjections(line, end):
    """Return where x2, or the comma before interjections, begins that line[:end] ends with, or -1."""
    n_words = 0
    while True:
        start = end
        while start and (line[start - 1].isalnum() or line[start - 1] in "'’×"):
            start -= 1
        word = line[start:end]
        if n_words == 0 and REPEATED.fullmatch(word):
            return start
        if not is_interjection(word):
            return -1
        n_words += 1
        end = start
        while end and line[end - 1].isspace():
            end -= 1
        if end and not line[end - 1].isalnum():
            return end - 1
        if not end:
            return -1


@lru_cache(maxsize=4096)
def line_end(line):
    """Return (the last word, the word before it if the last is weak): 'I know it!' -> ('it', 'know')."""
    words = [word.strip("'") for word in split_words(without_ad_lib(line))[-2:]] or ['']
    return words[-1], words[0] if len(words) > 1 and words[-1] in WEAK else ''


# Costs of a part by where it starts, in hundredths as all costs, chosen by hand. From the main stress: 0.
SECONDARY_STRESS = 10  # elevated / dedicated
PROMOTED = 10  # a last syllable two or more after the stress, which has a beat of its own: eternity / be
FULL_VOWEL = 20  # a last syllable next to the stress, with a full vowel: shadow / go
WEAK_VOWEL = 60  # the same with a weak vowel, which hardly ever rhymes: lady / be
BY_LETTER = 10  # a vowel that is pronounced as it is spelled: argument / spent
OLD_Y = 20  # the older sound of -y: eternity / die
MOSAIC = 10  # two words: know it
LONGEST_PART = 3  # syllables from a secondary stress on


class Part(NamedTuple):
    """A part of a line's end that may rhyme, from a stressed vowel on."""

    sounds: tuple  # ((vowel, consonants after it), ...)
    letters: str  # how it is spelled; '' for two words
    cost: int  # of its stress: 0 for the main one


def spelled(word, n_syllables, n):
    """Return the letters of the last n of a word's syllables: ('reprove', 2, 1) -> 'ove'.

    y becomes i: tyre / fire.
    """
    word = re.sub('[^a-z]', '', word)
    groups = [match.start() for match in re.finditer('(?<!q)[aeiou][aeiouw]*y?|(?<=.)y[aeiouw]*', word)]
    if len(groups) > n_syllables and re.search('[^aeiou]e[sd]?$', word):
        groups.pop()  # a silent e
    if n > len(groups):
        return ''
    return re.sub('(?<=[iw])e$', '', word[groups[-n]:].replace('y', 'i'))


@lru_cache(maxsize=1 << 16)
def rhyme_parts(end):
    """Return the Parts of a line's end that may rhyme, of all its pronunciations.

    end: what line_end() returns.
    """
    word, before = end
    pronunciations = phonemes(word)
    # talking / walkin' are said alike
    dropped_g = tuple(sounds[:-1] + ('N',) for sounds in pronunciations if sounds[-2:] == ('IH0', 'NG'))
    parts = []
    for sounds in pronunciations + dropped_g:
        syllables = with_vowels(sounds)
        if syllables:
            parts += parts_of_word(word, syllables)
        if before and len(syllables) == 1:
            parts += mosaic_parts(before, sounds)
    return tuple(dict.fromkeys(parts))


def parts_of_word(word, syllables):
    """Return the Parts of one pronunciation of a word, with_vowels(sounds)."""
    n = len(syllables)
    last_vowel, _, last_consonants = syllables[-1]
    letters = spelled(word, n, 1)
    stresses = ''.join(stress for _, stress, _ in syllables)
    main = stresses.rfind('1') if '1' in stresses else max(stresses.rfind('2'), 0)
    starts = {main: 0}  # the syllable where a part starts -> its cost
    starts |= {i: SECONDARY_STRESS for i in range(max(0, n - LONGEST_PART), n) if stresses[i] == '2'}
    parts = []
    if n - 1 not in starts:
        # verse keeps its beat: the last syllable may have one without being stressed
        is_promoted = n - 1 - main > 1
        is_weak = last_vowel in ('AH', 'IH', 'ER', 'IY')
        starts[n - 1] = PROMOTED if is_promoted else WEAK_VOWEL if is_weak else FULL_VOWEL
        if is_promoted and last_vowel in ('AH', 'IH') and last_consonants and letters[:1] in SHORT_VOWELS:
            parts.append(Part(((SHORT_VOWELS[letters[0]], last_consonants),), letters, BY_LETTER))
        if is_promoted and last_vowel == 'IY' and (not last_consonants or letters == 'ies'):
            parts.append(Part((('AY', last_consonants),), letters, OLD_Y))
    for i, cost in starts.items():
        sounds = tuple((vowel, consonants) for vowel, _, consonants in syllables[i:])
        parts.append(Part(sounds, spelled(word, n, n - i), cost))
    return parts


def mosaic_parts(before, sounds):
    """Return the Parts of two words, the word `before` and one of a single syllable: know it."""
    parts = []
    for first in phonemes(before):
        both = with_vowels(first + sounds)
        stressed = [i for i, (_, stress, _) in enumerate(both[:-1]) if stress == '1']
        start = max(stressed, default=0)
        both_sounds = tuple((vowel, consonants) for vowel, _, consonants in both[start:])
        parts.append(Part(both_sounds, '', MOSAIC))
    return parts


# ---- how far from a rhyme

def costs(cost, pairs):
    """Return {(a, b): cost, (b, a): cost, ...} of pairs written as 'A-B C-D'."""
    table = {}
    for pair in pairs.split():
        a, b = pair.split('-')
        table[a, b] = table[b, a] = cost
    return table


VOWEL_COSTS = {
    **costs(0, 'AA-AO'),  # cot / caught, the same for many speakers
    # neighbours: pin / pen, live / leave, again / plain, good / food
    **costs(30, 'IH-EH EH-AE IH-IY EH-EY UH-UW AH-UH'),
    **costs(30, 'AA-AE AA-AH AO-AH AO-OW AY-OY'),  # wander / hand, gone / sun, shone / stone, join / line
    # parted by the great vowel shift and after it: great / seat, dome / doom
    **costs(40, 'EH-IY EY-IY EY-AE AY-IY AY-IH OW-UW OW-AW OW-AA OW-AH OW-UH UW-AH UW-AO UH-AO'),
    **costs(40, 'ER-AA ER-AO ER-EH ER-IH ER-AH ER-UH'),  # before R: word / lord, heart / convert
}
DIFFERENT = 100  # two sounds that have nothing in common
# voiced or not, nasals, and vibing / driving
CONSONANT_COSTS = costs(30, 'P-B T-D K-G F-V B-V SH-ZH CH-JH S-Z TH-DH M-N M-NG N-NG')
LONE = 50  # a consonant that the other part lacks
DROPPED_R = 20  # an unstressed -er and -a: pillar / killa
OPEN_SYLLABLES = 20  # different vowels with no consonant after either: nothing else tells them apart
EYE_RHYME = 30  # at most, of parts spelled alike, many of which once sounded alike: love / prove, wind / kind
UNCOMPARABLE = 900  # parts of different numbers of syllables
REDUCED = frozenset(('AH', 'IH', 'EH', 'IY'))  # alike where they have no stress


@lru_cache(maxsize=1 << 16)
def consonant_cost(a, b):
    """Return the edit distance between two runs of consonants."""
    if a == b:
        return 0
    if not a or not b:
        return LONE * (len(a) + len(b))
    replacing = CONSONANT_COSTS.get((a[0], b[0]), DIFFERENT) if a[0] != b[0] else 0
    return min(LONE + consonant_cost(a[1:], b),
               LONE + consonant_cost(a, b[1:]),
               replacing + consonant_cost(a[1:], b[1:]))


def part_cost(a, b):
    """Return the distance of two Parts.

    The first vowel counts whole, the others half, and unstressed ones are alike.
    """
    if len(a.sounds) != len(b.sounds):
        return UNCOMPARABLE
    cost = 0
    for i, ((vowel, after), (other, other_after)) in enumerate(zip(a.sounds, b.sounds, strict=True)):
        if i > 0 and {vowel, other} == {'AH', 'ER'}:
            cost += DROPPED_R
            after, other_after = (sounds[sounds[:1] == ('R',):] for sounds in (after, other_after))
            vowel = other
        cost += consonant_cost(after[:8], other_after[:8])  # no syllable ends on more than eight
        if vowel == other:
            continue
        vowel_cost = VOWEL_COSTS.get((vowel, other), DIFFERENT)
        if i == 0:
            cost += vowel_cost
            if not after and not other_after:
                cost += OPEN_SYLLABLES
        elif not {vowel, other} <= REDUCED:
            cost += vowel_cost // 2
    if a.letters and a.letters == b.letters:
        cost = min(cost, EYE_RHYME)
    return cost + max(a.cost, b.cost)


@lru_cache(maxsize=1 << 18)
def end_cost(a, b):
    """Return the distance of two line ends, the least over all their pronunciations (0 for the same word)."""
    return min((part_cost(x, y) for x in rhyme_parts(a) for y in rhyme_parts(b)), default=UNCOMPARABLE)


# the costs up to which two ends rhyme; LOOSE only where a line has no other partner
PERFECT, SLANT, LOOSE = 10, 35, 75


class Rhyme(NamedTuple):
    """How two lines rhyme; false for kind 'none'."""

    kind: str  # 'perfect' (of one syllable), 'multisyllabic', 'slant' (similar sounds) or 'none'
    syllables: int  # how many have the same vowels, from the end back to a stressed one
    homophone: bool  # whether the two last words sound the same (sea / see)

    def __bool__(self):
        return self.kind != 'none'


def common_syllables(a, b):
    """Return how many vowels two lines share, from the end back to a stressed one.

    A word that both lines have in the same place doesn't count, unless it is the last.
    """
    def vowels_backwards(line):
        words = reversed(split_words(without_ad_lib(line))[-4:])
        return [(vowel, stress, word) for word in words for vowel, stress, _ in reversed(vowels(word))]

    a, b = vowels_backwards(a), vowels_backwards(b)
    count = 1
    pairs = enumerate(zip(a, b, strict=False), 1)
    for i, ((vowel, stress, word), (other, other_stress, other_word)) in pairs:
        is_unstressed = '0' in stress + other_stress
        is_alike = (vowel == other or is_unstressed and {vowel, other} <= REDUCED
                    or VOWEL_COSTS.get((vowel, other)) == 0)
        is_same_last_word = a[0][2] == b[0][2] == word
        if i > 1 and not is_alike or word == other_word and not is_same_last_word:
            break
        if not is_unstressed:
            count = i
    return count


def rhymes(a, b):
    """Return the Rhyme of two words, or of two lines by their ends.

    A word doesn't rhyme with itself, but the words before it may.

    rhymes('cat', 'hat')              # Rhyme('perfect', 1, False)
    rhymes('elevated', 'dedicated')   # Rhyme('multisyllabic', 4, False)
    rhymes('time', 'line')            # Rhyme('slant', 1, False)
    rhymes('see me', 'be me')         # Rhyme('multisyllabic', 2, False)
    """
    ends = (word, before), (other, other_before) = line_end(a), line_end(b)
    cost = end_cost(*ends)
    if word == other:  # only a mosaic rhyme counts, which begins in different words before
        mosaics = [[part for part in rhyme_parts(end) if not part.letters and len(part.sounds) > 1]
                   for end in ends]
        pairs = [(x, y) for x in mosaics[0] for y in mosaics[1] if before != other_before]
        cost = min((part_cost(x, y) for x, y in pairs), default=UNCOMPARABLE)
    if cost > SLANT:
        return Rhyme('none', 0, False)
    n_syllables = common_syllables(a, b)
    kind = 'slant' if cost > PERFECT else 'multisyllabic' if n_syllables > 1 else 'perfect'
    is_homophone = word != other and not set(phonemes(word)).isdisjoint(phonemes(other))
    return Rhyme(kind, n_syllables, is_homophone)


# ---- schemes

# in rhyme_scheme(), how many lines apart two single lines, and a line and a rhyme of several, may be
SINGLE_DISTANCE, GROUP_DISTANCE = 6, 4
COST_PER_LINE = 10  # of distance between two lines


def rhyme_label(n):
    """Return the n-th label of a rhyme: 'a', ..., 'z', 'aa', 'ab', ..."""
    return (rhyme_label(n // 26 - 1) if n >= 26 else '') + chr(ord('a') + n % 26)


def rhyme_scheme(lines):
    """Return the rhyme scheme of a stanza or a song, one label per line: ['a', 'b', 'a', 'b'].

    Lines that rhyme share a label, and so do lines close to each other that end on the same word; a line that
    rhymes with none has a label of its own. The pairs with the least cost come first, where each line of
    distance costs, too. Single lines are joined with each other over up to SINGLE_DISTANCE lines, and with a
    rhyme of several lines over up to GROUP_DISTANCE. Two rhymes of several lines are never joined, for sounds
    come back by chance. Where other lines rhyme, two that are left over may do so loosely.
    """
    ends = [line_end(line) for line in lines]
    groups = [[i] for i in range(len(ends))]  # of each line, the lines that rhyme with it

    def distance(pair):
        cost, i, j = pair
        return cost + COST_PER_LINE * (j - i)

    pairs = [(end_cost(ends[i], ends[j]), i, j)
             for j in range(len(ends)) for i in range(max(0, j - SINGLE_DISTANCE), j) if ends[i][0]]
    for cost, i, j in sorted((pair for pair in pairs if pair[0] <= LOOSE), key=distance):
        small, large = sorted((len(groups[i]), len(groups[j])))
        is_close = j - i <= GROUP_DISTANCE
        is_rhyme = cost <= SLANT and small == 1 and (large == 1 or is_close)
        is_loose_rhyme = large == 1 and is_close and any(len(group) > 1 for group in groups)
        if is_rhyme or is_loose_rhyme:
            groups[i] += groups[j]
            for line in groups[j]:
                groups[line] = groups[i]
    labels = {}  # the first line of a group -> its label
    return [labels.setdefault(group[0], rhyme_label(len(labels))) for group in groups]


def rhyming_words(text):
    """Return (start, end, label) of the last word of each line that rhymes with another line."""
    lines = text.split('\n')
    labels = rhyme_scheme(lines)
    counts = Counter(labels)
    start, positions = 0, []
    for line, label in zip(lines, labels, strict=True):
        if counts[label] > 1:
            last = find_words(without_ad_lib(line))[-1]
            positions.append((start + last.start, start + last.end, label))
        start += len(line) + 1
    return positions


# ---- measures

EARLIER_WORDS = 15  # that density() looks back at
EARLIER_LINES = 4  # that an end rhyme looks back at
# The vowels of ARPAbet as eSpeak writes them, whose letters DopeLearning counts: a diphthong has two, and
# long or lax makes no difference.
LETTERS = dict(AA='o', AO='o', AE='a', AW='aU', AY='ai', EH='e', ER='3', EY='ei', IH='i', IY='i', OW='oU',
               OY='oi', UH='U', UW='u')


def syllables(line):
    """Return the number of syllables of a line: syllables('I know it') is 3."""
    return sum(len(vowels(word)) for word in split_words(line))


@lru_cache(maxsize=1 << 16)
def vowel_letters(word):
    """Return a word's vowels in eSpeak's letters: price -> 'ai', people -> 'iL', away -> 'aei'.

    A schwa counts only in a- and -le (the -> '').
    """
    letters = ''
    for i, (vowel, stress, after) in enumerate(vowels(word)):
        if vowel == 'AH' and stress != '0':
            letters += 'V'
        elif vowel == 'AH' and i == 0 and word[0] == 'a':
            letters += 'a'
        elif vowel == 'AH':
            letters += 'L' if after[:1] == ('L',) else ''
        elif vowel == 'AA' and after[:1] == ('R',):
            letters += 'A'
        else:
            letters += LETTERS[vowel]
    return letters


def density(words):
    """Return the rhyme density of a text, or of a list of its words.

    For each word, the longest run of the same vowels, read backwards from its last one, that it shares with
    any of the 15 words before it (a run of one counts 0), averaged over the words. From Malmi et al.,
    DopeLearning, https://arxiv.org/abs/1505.04771. As in their https://github.com/ekQ/raplysaattori a word
    never rhymes with itself, the two runs don't overlap, words without a vowel are left out, and a vowel is a
    letter of eSpeak's. So price has two, which trap kit has too, and any English text, shuffled, has a
    density of about 1: what a text has beyond its own shuffled words says more (measures()).
    """
    words = split_words(words) if isinstance(words, str) else words
    words = [(word, letters) for word in words if (letters := vowel_letters(word))]
    sounds = [(vowel, word) for word, letters in words for vowel in letters]
    ends, total = [], 0  # the position in `sounds` of each word's last vowel
    for _, letters in words:
        end = (ends[-1] if ends else -1) + len(letters)
        longest = max((shared_run(sounds, earlier, end) for earlier in ends[-EARLIER_WORDS:]), default=0)
        ends.append(end)
        total += longest if longest > 1 else 0
    return total / max(1, len(words))


def shared_run(sounds, earlier, end):
    """Return how many vowels two runs share, read backwards from the positions `earlier` and `end`."""
    n = 0
    while n <= earlier < end - n:
        (vowel, word), (other, other_word) = sounds[earlier - n], sounds[end - n]
        if vowel != other or word == other_word:
            break
        n += 1
    return n


def measures(text, shuffles=20, seed=0):
    """Return the measures of a text's rhyme, a dict. Section headers are no lines.

    lines, words: their numbers
    density: see density()
    density_shuffled: the mean over seeded shuffles of the text's words, since any text has some by chance
    density_excess: the difference of the two
    end_rhyme_share: of lines that rhyme with one of the EARLIER_LINES lines before them
    multisyllabic_share: of lines that do so on two syllables or more
    longest_run: most lines in a row that share a label of rhyme_scheme()
    syllables_mean, syllables_spread: per line; mean and standard deviation
    """
    lines, words = [line for line in text.split('\n') if split_words(line)], split_words(text)
    n_lines = max(1, len(lines))
    rhymes_before = []  # per line, its rhymes with the lines before
    for i, line in enumerate(lines):
        candidates = [rhymes(earlier, line) for earlier in lines[max(0, i - EARLIER_LINES):i]]
        rhymes_before.append([rhyme for rhyme in candidates if rhyme])
    n_multisyllabic = sum(any(rhyme.syllables > 1 for rhyme in line_rhymes) for line_rhymes in rhymes_before)
    shuffler = random.Random(seed)
    shuffled = statistics.fmean(density(shuffler.sample(words, len(words))) for _ in range(shuffles))
    lengths = [syllables(line) for line in lines] or [0]
    return {
        'lines': len(lines),
        'words': len(words),
        'density': density(words),
        'density_shuffled': shuffled,
        'density_excess': density(words) - shuffled,
        'end_rhyme_share': sum(map(bool, rhymes_before)) / n_lines,
        'multisyllabic_share': n_multisyllabic / n_lines,
        'longest_run': max((len(list(run)) for _, run in groupby(rhyme_scheme(lines))), default=0),
        'syllables_mean': statistics.fmean(lengths),
        'syllables_spread': statistics.pstdev(lengths),
    }
