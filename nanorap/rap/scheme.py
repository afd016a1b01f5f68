"""
Rhyme schemes as a plan for lines to come, and the words of a vocabulary that rhyme. No torch.

    Section('AABB', text).partners()    # the lines with which the next one should rhyme
    Endings(tokenizer, vocab_size).rhyming('along the river every day,')
    rhyme_counts(text, 'AABB')          # how well a text has kept the scheme
"""

import re
import statistics

from nanorap.common import UserError
from nanorap.rap.phonemes import lexicon, phonemes, with_vowels
from nanorap.rap.rhyme import WEAK, line_end, rhyme_parts, rhymes, syllables
from nanorap.rap.sections import OPEN_HEADER_LINE


def rhyming_sounds(sounds):
    """From the main stress on, as in rhyme.Part: ('P', 'OW1', 'AH0', 'T') -> (('OW', ()), ('AH', ('T',)))."""
    found = with_vowels(sounds)
    stressed = [i for i, (_, stress, _) in enumerate(found) if stress == '1'] or [0]
    return tuple((vowel, after) for vowel, _, after in found[stressed[-1]:])


class Endings:
    """What a vocabulary has to end lines with: words by their rhyme class, punctuation marks, line breaks."""

    def __init__(self, tokenizer, vocab_size):
        self.tokenizer = tokenizer
        before = tokenizer.encode('\n')  # some tokenizers drop a text's first blank
        skip = len(tokenizer.decode(before))
        self.texts = [tokenizer.decode([*before, i])[skip:] for i in range(vocab_size)]
        self.newline = before[-1]
        self.marks = [i for i, text in enumerate(self.texts) if text in (',', '.', '!', '?', '...', ';', '—')]
        self.breaks = [i for i, text in enumerate(self.texts) if '\n' in text or text.lstrip()[:1] == '['] + [tokenizer.eot]
        self.classes = {}  # the sounds from the stressed vowel on -> tokens
        known = lexicon()
        for i, text in enumerate(self.texts):
            word = text[1:]
            if text[:1] == ' ' and len(word) > 1 and word.isascii() and word.isalpha() and word.islower() and word in known:
                for sounds in {rhyming_sounds(sounds) for sounds in phonemes(word)}:
                    self.classes.setdefault(sounds, []).append(i)

    def rhyming(self, line, used=()):
        """Tokens that rhyme perfectly with a line's end; none that sounds like it, or is among the words `used`."""
        word, _ = line_end(line)
        sounds = set(phonemes(word))
        found = {i for part in rhyme_parts((word, '')) if part.cost <= 10 for i in self.classes.get(part.sounds, ())}
        return [i for i in sorted(found) if (text := self.texts[i][1:]) not in used and text != word
                and text not in WEAK and sounds.isdisjoint(phonemes(text))]


class Section:
    """Where a text stands in its rhyme scheme: the lines since the last header or blank line."""

    def __init__(self, scheme, text):
        self.scheme, self.lines, self.open = scheme, [], ''
        self.lengths = []  # in syllables, of all lines before, those of earlier sections too
        for line in text.split('\n')[:-1]:
            self.add(line)
        self.open = text.split('\n')[-1]  # a line that the prompt leaves to be gone on with

    def add(self, line):
        if not line.strip() or OPEN_HEADER_LINE.match(line):
            self.lines = []
        else:
            self.lines.append(line)
            self.lengths.append(syllables(line))
        self.open = ''

    def partners(self):
        """The lines of this turn of the scheme with which the next one should rhyme, the nearest first."""
        i = len(self.lines) % len(self.scheme)
        turn = self.lines[len(self.lines) - i:]
        return [line for line, letter in zip(turn, self.scheme, strict=False) if letter == self.scheme[i] != 'X'][::-1]

    def length(self):
        """How many syllables a line has lately, the median of eight; None: there is none."""
        return statistics.median(self.lengths[-8:]) if self.lengths else None

    def complete(self, more=0):
        """Whether a section may end here, or `more` lines on: no line still waits for its rhyme."""
        i = (len(self.lines) + more) % len(self.scheme)
        return not set(self.scheme[:i]) & set(self.scheme[i:]) - {'X'}


def check_scheme(scheme):
    if not re.fullmatch('[A-Z]{1,16}', scheme):
        raise UserError(f"--rhyme={scheme}: give a letter a line, as in AABB, ABAB or XAXA, where X is free")


def rhyme_counts(text, scheme):
    """(pairs of lines that the scheme asks to rhyme, those that do, those that do perfectly by the pronouncing dictionary).

    A line's pair is the nearest line before it with the same letter."""
    section, pairs = Section(scheme, ''), []
    for line in text.split('\n'):
        if line.strip() and not OPEN_HEADER_LINE.match(line):
            pairs += [(partner, line) for partner in section.partners()[:1]]
        section.add(line)
    return len(pairs), sum(bool(rhymes(*pair)) for pair in pairs), sum(perfect(*pair) for pair in pairs)


def perfect(line, other):
    """Whether the last words, both in the dictionary, sound alike from the last main stress on, and differ before it."""
    a, b = (line_end(text)[0] for text in (line, other))
    if a not in lexicon() or b not in lexicon():
        return False

    def from_stress(sounds):
        i = max((i for i, sound in enumerate(sounds) if sound[-1] == '1'), default=len(sounds))
        return sounds[i:], sounds[:i][-1:]  # the rhyme, and the sound before it

    tails = [[from_stress(sounds) for sounds in phonemes(word)] for word in (a, b)]
    return any(x[0] and x[0] == y[0] and x[1] != y[1] for x in tails[0] for y in tails[1])
