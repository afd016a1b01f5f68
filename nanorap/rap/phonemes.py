"""How English words are said, in ARPAbet: no network, no torch, and nothing is read before the first word is asked for.

    phonemes('poet')    # (('P', 'OW1', 'AH0', 'T'),)
    phonemes('hunnid')  # (('HH', 'AH1', 'N', 'IH0', 'D'),), by the rules of spelling

The package gruut-lang-en (MIT) carries what this reads: a lexicon, and a model of how letters sound for the words it lacks.
Other languages are guessed at as if they were English, and scripts other than Latin have no sound here.
"""

import re
import sqlite3
import unicodedata
from base64 import b64decode, b64encode
from functools import cache, lru_cache

from nanorap.common import package_file

ADVICE = "pip install -r requirements.txt"
IPA = 'ɑ æ ʌ ə ɔ aʊ aɪ ɛ ɚ eɪ ɪ i oʊ ɔɪ ʊ u b t͡ʃ d ð f ɡ h d͡ʒ k l m n ŋ p ɹ s ʃ t θ v w j z ʒ'.split()
ARPABET = dict(zip(IPA, 'AA AE AH AH AO AW AY EH ER EY IH IY OW OY UH UW B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y '
                        'Z ZH'.split(), strict=True))
VOWELS = frozenset('AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW'.split())
# a wrong variant in the lexicon (me as may), and slang that its letters mislead about
CORRECTIONS = {'me': ['m ˈi'], 'bruh': ['b ɹ ˈʌ'], 'gon': ['ɡ ˈoʊ n']}
UNITS = ('zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen '
         'eighteen nineteen').split()
TENS = 'twenty thirty forty fifty sixty seventy eighty ninety'.split()
ORDINALS = {'one': 'first', 'two': 'second', 'three': 'third', 'five': 'fifth', 'eight': 'eighth', 'nine': 'ninth',
            'twelve': 'twelfth'}
NUMBER = '[0-9]{1,12}(?:(?:st|nd|rd|th|s)(?![a-z]))?'
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
    return words | CORRECTIONS


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


def spoken_number(text):
    """'24' -> ['twenty', 'four'], '90s' -> ['ninetys'], '21st' -> ['twenty', 'first']"""
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
    """A word's pronunciations in ARPAbet with stress, the likeliest first; () where there is nothing to say.

    phonemes('poet') -> (('P', 'OW1', 'AH0', 'T'),). The lexicon first, also without accents and apostrophes ('bout, café)
    or with an e for them (heav'n, wander'd); numbers and hyphens in parts; then `derived`, and at last `guess`.
    """
    word = unicodedata.normalize('NFC', word.lower().replace('’', "'"))
    plain = ''.join(c for c in unicodedata.normalize('NFKD', word) if not unicodedata.combining(c))
    bare = re.sub(r'([a-z])\1\1+', r'\1', plain.strip("'-_. "))  # yeahhh
    for form in (word, plain, bare, bare.replace("'", 'e')):
        if form in lexicon():
            return tuple(dict.fromkeys(known(form)))
    parts = re.findall(NUMBER + r"|[^\W\d_]+(?:'[^\W\d_]+)*", bare) if re.search('[0-9-]', bare) else []
    parts = [name for part in parts for name in (spoken_number(part) if part[0] in '0123456789' else [part])]
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
