"""
Rhyme schemes for lines still to be written, and the words of a vocabulary that rhyme. No torch.

    Section('AABB', text).partners()    # the lines with which the next one should rhyme
    Endings(tokenizer, vocab_size).rhyming('along the river every day,')
    rhyme_counts(text, 'AABB')          # how well a text has kept the scheme
"""

import re
import statistics

from nanorap.common import UserError
from nanorap.rap.phonemes import lexicon, phonemes, with_vowels
from nanorap.rap.rhyme import PERFECT, WEAK, line_end, rhyme_parts, rhymes, syllables
from nanorap.rap.sections import OPEN_HEADER_LINE

MARKS = (',', '.', '!', '?', '...', ';', '—')  # may stand between the last word and the line break
USUAL_LINES = 8  # lines before, whose median length is the usual one


def rhyming_sounds(sounds):
    """Return the sounds from the main stress on: ('P', 'OW1', 'AH0', 'T') -> (('OW', ()), ('AH', ('T',)))."""
    syllables = with_vowels(sounds)
    stressed = [i for i, (_, stress, _) in enumerate(syllables) if stress == '1'] or [0]
    return tuple((vowel, after) for vowel, _, after in syllables[stressed[-1]:])


class Endings:
    """The tokens of a vocabulary that can end a line: words by their rhyming sounds, marks, line breaks.

    texts: the text of each token
    newline: the id of a line break
    marks: ids of punctuation marks
    breaks: ids that end a line or begin a header
    classes: {rhyming_sounds(): ids of words}
    """

    def __init__(self, tokenizer, vocab_size):
        self.tokenizer = tokenizer
        before = tokenizer.encode('\n')  # some tokenizers drop a text's first blank
        n_before = len(tokenizer.decode(before))
        self.texts = [tokenizer.decode([*before, i])[n_before:] for i in range(vocab_size)]
        self.newline = before[-1]
        self.marks = [i for i, text in enumerate(self.texts) if text in MARKS]
        self.breaks = [i for i, text in enumerate(self.texts) if '\n' in text or text.lstrip()[:1] == '[']
        self.breaks += tokenizer.ends
        self.classes = {}
        for i, text in enumerate(self.texts):
            word = text[1:]
            is_word = len(word) > 1 and word.isascii() and word.isalpha() and word.islower()
            if text[:1] == ' ' and is_word and word in lexicon():
                for sounds in {rhyming_sounds(sounds) for sounds in phonemes(word)}:
                    self.classes.setdefault(sounds, []).append(i)

    def rhyming(self, line, used=()):
        """Return the tokens that rhyme perfectly with a line's end; no homophones, and none of the words
        `used`."""
        word, _ = line_end(line)
        parts = [part for part in rhyme_parts((word, '')) if part.cost <= PERFECT]
        tokens = {i for part in parts for i in self.classes.get(part.sounds, ())}
        excluded, sounds = {word, *used, *WEAK}, set(phonemes(word))
        rhyming = []
        for i in sorted(tokens):
            other = self.texts[i][1:]
            if other not in excluded and sounds.isdisjoint(phonemes(other)):
                rhyming.append(i)
        return rhyming


class Section:
    """Where a text stands in its rhyme scheme: the lines since the last header or blank line."""

    def __init__(self, scheme, text):
        self.scheme = scheme
        self.lines = []
        self.lengths = []  # in syllables, of all lines before, also of earlier sections
        *whole_lines, last = text.split('\n')
        for line in whole_lines:
            self.add(line)
        self.open_line = last  # a line that the prompt leaves unfinished

    def add(self, line):
        """Add a whole line; a header or a blank line begins a new section."""
        if not line.strip() or OPEN_HEADER_LINE.match(line):
            self.lines = []
        else:
            self.lines.append(line)
            self.lengths.append(syllables(line))
        self.open_line = ''

    def partners(self):
        """Return the lines with which the next one should rhyme, the nearest first.

        They are those of this round of the scheme that have the same letter.
        """
        i = len(self.lines) % len(self.scheme)
        letter = self.scheme[i]
        if letter == 'X':
            return []
        this_round = self.lines[len(self.lines) - i:]
        partners = [line for line, other in zip(this_round, self.scheme, strict=False) if other == letter]
        return partners[::-1]

    def usual_syllables(self):
        """Return the median syllables of the last USUAL_LINES lines, or None if there are none."""
        return statistics.median(self.lengths[-USUAL_LINES:]) if self.lengths else None

    def is_complete(self, more=0):
        """Return whether every line has its rhyme, now or after `more` lines: the section may end there."""
        i = (len(self.lines) + more) % len(self.scheme)
        waiting = set(self.scheme[:i]) & set(self.scheme[i:])  # letters that come again in this round
        return not waiting - {'X'}


def check_scheme(scheme):
    """Raise a UserError unless a scheme consists of 1 to 16 capital letters."""
    if not re.fullmatch('[A-Z]{1,16}', scheme):
        raise UserError(f"--rhyme={scheme}: give one letter per line, as in AABB, ABAB or XAXA, "
                        "where X is free")


def rhyme_counts(text, scheme):
    """Return how many pairs of lines (should rhyme by the scheme, do rhyme, rhyme perfectly).

    Perfect rhymes are those of rhymes_by_dictionary(). A line is paired with the nearest line before it that
    has the same letter.
    """
    section, pairs = Section(scheme, ''), []
    for line in text.split('\n'):
        if line.strip() and not OPEN_HEADER_LINE.match(line):
            pairs += [(partner, line) for partner in section.partners()[:1]]
        section.add(line)
    n_rhymes = sum(bool(rhymes(*pair)) for pair in pairs)
    n_perfect = sum(rhymes_by_dictionary(*pair) for pair in pairs)
    return len(pairs), n_rhymes, n_perfect


def rhymes_by_dictionary(line, other):
    """Return whether two lines rhyme perfectly by the pronouncing dictionary.

    Their last words, both in the dictionary, sound alike from the main stress on, and differ before it.
    """
    a, b = (line_end(text)[0] for text in (line, other))
    if a not in lexicon() or b not in lexicon():
        return False

    def from_stress(sounds):
        """Split sounds at the main stress: the rhyme, and the sound before it."""
        i = max((i for i, sound in enumerate(sounds) if sound[-1] == '1'), default=len(sounds))
        return sounds[i:], sounds[:i][-1:]

    rhymes_a, rhymes_b = ([from_stress(sounds) for sounds in phonemes(word)] for word in (a, b))
    return any(rhyme and rhyme == other and onset != other_onset
               for rhyme, onset in rhymes_a for other, other_onset in rhymes_b)
