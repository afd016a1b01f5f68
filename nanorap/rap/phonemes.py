"""The pronunciation of English words, in ARPAbet. No network, no torch; nothing is read before the first
word.

    phonemes('poet')    # (('P', 'OW1', 'AH0', 'T'),)
    phonemes('hunnid')  # (('HH', 'AH1', 'N', 'IH0', 'D'),), by the rules of spelling

The package gruut-lang-en (MIT) carries what this reads: a lexicon, and a letter-to-sound model for words that
it lacks. Words of other languages are guessed as if they were English, and scripts other than Latin have no
sound.
"""

import re
import sqlite3
import unicodedata
from base64 import b64decode, b64encode
from functools import cache, lru_cache

from nanorap.common import package_file

ADVICE = "pip install -r requirements.txt"
IPA = 'ɑ æ ʌ ə ɔ aʊ aɪ ɛ ɚ eɪ ɪ i oʊ ɔɪ ʊ u b t͡ʃ d ð f ɡ h d͡ʒ k l m n ŋ p ɹ s ʃ t θ v w j z ʒ'.split()
ARPABET = dict(zip(IPA, 'AA AE AH AH AO AW AY EH ER EY IH IY OW OY UH UW B CH D DH F G HH JH K L M N NG '
                        'P R S SH T TH V W Y Z ZH'.split(), strict=True))
VOWELS = frozenset('AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW'.split())
# a wrong variant in the lexicon (me as may), and slang that is not said as it is spelled
CORRECTIONS = {'me': ['m ˈi'], 'bruh': ['b ɹ ˈʌ'], 'gon': ['ɡ ˈoʊ n']}
UNITS = ('zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen '
         'sixteen seventeen eighteen nineteen').split()
TENS = 'twenty thirty forty fifty sixty seventy eighty ninety'.split()
ORDINALS = {'one': 'first', 'two': 'second', 'three': 'third', 'five': 'fifth', 'eight': 'eighth',
            'nine': 'ninth', 'twelve': 'twelfth'}
VOICELESS = ('P', 'T', 'K', 'F', 'TH', 'S', 'SH', 'CH')
SIBILANTS = ('S', 'Z', 'SH', 'ZH', 'CH', 'JH')
NUMBER = '[0-9]{1,12}(?:(?:st|nd|rd|th|s)(?![a-z]))?'
SIZES = ((10**9, 'billion'), (10**6, 'million'), (1000, 'thousand'), (100, 'hundred'))


@cache
def lexicon():
    """Return {word: [its pronunciations in IPA, with blanks between sounds]}: 124,392 words of American
    English."""
    words = {}
    file = package_file('gruut_lang_en', 'lexicon.db', ADVICE)
    database = sqlite3.connect(f'{file.absolute().as_uri()}?mode=ro', uri=True)
    for word, sounds in database.execute('SELECT word, phonemes FROM word_phonemes ORDER BY id'):
        words.setdefault(word, []).append(sounds)
    database.close()
    return words | CORRECTIONS


@cache
def tagger():
    """Return the conditional random field that predicts which sound a letter stands for."""
    import pycrfsuite

    tagger = pycrfsuite.Tagger()
    tagger.open(str(package_file('gruut_lang_en', 'g2p/model.crf', ADVICE)))
    return tagger


def arpabet(sounds):
    """Return sounds of IPA in ARPAbet: ('p', 'ˈoʊ', 'ə', 't') -> ('P', 'OW1', 'AH0', 'T').

    1 is the main stress, 2 a secondary one, 0 none.
    """
    stress = {'ˈ': '1', 'ˌ': '2'}
    names = []
    for sound in sounds:
        name = ARPABET.get(sound.lstrip('ˈˌ'))
        if name:
            names.append(name + stress.get(sound[:1], '0') if name in VOWELS else name)
    return tuple(names)


def known(word):
    """Return a word's pronunciations in the lexicon, a list that may be empty."""
    return [arpabet(sounds.split()) for sounds in lexicon().get(word, ())]


def derived(word):
    """Return the pronunciations of a word that the lexicon lacks, from words that it has.

    It may be a word with -s or -ed, or of two parts (firelight).
    """
    for ending in ("'s", 's', 'es', "'d", 'd', 'ed'):
        base = word.removesuffix(ending)
        if base != word and len(base) > 2 and base in lexicon():
            return [with_ending(sounds, ending[-1]) for sounds in known(base)]
    for cut in range(3, len(word) - 2):
        first, second = word[:cut], word[cut:]
        if first in lexicon() and second in lexicon():
            # the second part has the weaker stress
            start = known(first)[0]
            return [start + tuple(sound.replace('1', '2') for sound in end) for end in known(second)]
    return []


def with_ending(sounds, letter):
    """Return the sounds of a word with -s or -ed; letter: 's' or 'd'."""
    last = sounds[-1]
    if letter == 's':
        return sounds + (('IH0', 'Z') if last in SIBILANTS else ('S',) if last in VOICELESS else ('Z',))
    return sounds + (('IH0', 'D') if last in ('T', 'D') else ('T',) if last in VOICELESS else ('D',))


def guess(letters):
    """Return the likeliest pronunciation of a word by its letters alone.

    The features are those that the model was trained with: three letters on each side.
    """
    coded = [b64encode(letter.encode()).decode() for letter in letters]
    features = []
    for i, letter in enumerate(coded):
        around = {f'grapheme{step:+d}': coded[i + step]
                  for step in (-3, -2, -1, 1, 2, 3) if 0 <= i + step < len(coded)}
        edges = {name: True for name, at in (('begin', 0), ('end', len(coded) - 1)) if at == i}
        features.append({'bias': 1.0, 'grapheme': letter, **around, **edges})
    tags = [b64decode(tag).decode() for tag in tagger().tag(features)]
    return arpabet(sound for tag in tags for sound in tag.split('|'))


def numeral(n):
    """Return a number's words: 1999 -> ['nineteen', 'ninety', 'nine'].

    From 1100 to 1999 and from 2010 to 2099 it is read as a year.
    """
    if n < 20:
        return [UNITS[n]]
    if n < 100:
        tens, units = divmod(n, 10)
        return [TENS[tens - 2]] + (numeral(units) if units else [])
    if 1100 <= n < 2000 or 2010 <= n < 2100:
        century, year = divmod(n, 100)
        if year == 0:
            return [*numeral(century), 'hundred']
        return numeral(century) + (['oh'] if year < 10 else []) + numeral(year)
    size, name = next(pair for pair in SIZES if n >= pair[0])
    count, rest = divmod(n, size)
    return [*numeral(count), name] + (numeral(rest) if rest else [])


def spoken_number(text):
    """Return the words of digits with an ending: '90s' -> ['ninetys'], '21st' -> ['twenty', 'first']."""
    digits = text.rstrip('stndrh')
    *names, last = numeral(int(digits))
    ending = text.removeprefix(digits)
    if ending == 's':
        last += 's'
    elif ending:
        last = ORDINALS.get(last, re.sub('y$', 'ie', last) + 'th')
    return [*names, last]


@lru_cache(maxsize=1 << 16)
def phonemes(word):
    """Return a word's pronunciations in ARPAbet with stress, the likeliest first; () if it has no sound.

    phonemes('poet') -> (('P', 'OW1', 'AH0', 'T'),)

    The lexicon comes first, also without accents and apostrophes ('bout, café) or with an e for them (heav'n,
    wander'd); words with numbers and hyphens are split; then derived() is tried, and at last guess().
    """
    word = unicodedata.normalize('NFC', word.lower().replace('’', "'"))
    plain = ''.join(c for c in unicodedata.normalize('NFKD', word) if not unicodedata.combining(c))
    bare = re.sub(r'([a-z])\1\1+', r'\1', plain.strip("'-_. "))  # yeahhh
    for form in (word, plain, bare, bare.replace("'", 'e')):
        if form in lexicon():
            return tuple(dict.fromkeys(known(form)))
    parts = []
    if re.search('[0-9-]', bare):
        for part in re.findall(NUMBER + r"|[^\W\d_]+(?:'[^\W\d_]+)*", bare):
            parts += spoken_number(part) if part[0] in '0123456789' else [part]
    if parts and parts != [bare]:
        *first, last = [sounds for part in parts if (sounds := phonemes(part))] or [()]
        start = sum((sounds[0] for sounds in first), ())
        return tuple(start + end for end in last)
    pronunciations = derived(bare) or [guess(re.sub('[^a-z]', '', bare))]
    return tuple(dict.fromkeys(sounds for sounds in pronunciations if sounds))


def with_vowels(sounds):
    """Return (vowel, stress, consonants after it) per vowel of a pronunciation.

    ('P', 'OW1', 'AH0', 'T') -> (('OW', '1', ()), ('AH', '0', ('T',))). ER is a vowel before R, as in word /
    lord.
    """
    syllables = []
    for sound in sounds:
        vowel = sound[:-1]
        if vowel in VOWELS:
            syllables.append((vowel, sound[-1], ('R',) if vowel == 'ER' else ()))
        elif syllables:
            vowel, stress, after = syllables[-1]
            syllables[-1] = (vowel, stress, after + (sound,))
    return tuple(syllables)


@lru_cache(maxsize=1 << 16)
def vowels(word):
    """Return with_vowels() of a word's likeliest pronunciation."""
    return with_vowels(phonemes(word)[0]) if phonemes(word) else ()
