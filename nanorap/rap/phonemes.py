"""The pronunciation of English words, in ARPAbet. No network, no torch; nothing is read before the first
word.

    phonemes('poet')    # (('P', 'OW1', 'AH0', 'T'),)
    phonemes('hunnid')  # (('HH', 'AH1', 'N', 'IH0', 'D'),), by the rules of spelling

    phonemes('NYC')     # (('EH2', 'N', 'W', 'AY2', 'S', 'IY1'),), letter by letter

The package gruut-lang-en (MIT) carries what this reads: a lexicon, and a letter-to-sound model for words
that it lacks. Rap's own spellings (hatin', brotha) are first led back to words that the lexicon has. Words of
other languages are guessed as if they were English, and scripts other than Latin have no sound.
"""

import re
import sqlite3
import unicodedata
from base64 import b64decode, b64encode
from functools import cache, lru_cache

from nanorap.common import package_file
from nanorap.rap.numbers import readings_of

ADVICE = "pip install -r requirements.txt"
IPA = 'ɑ æ ʌ ə ɔ aʊ aɪ ɛ ɚ eɪ ɪ i oʊ ɔɪ ʊ u b t͡ʃ d ð f ɡ h d͡ʒ k l m n ŋ p ɹ s ʃ t θ v w j z ʒ'.split()
ARPABET = dict(zip(IPA, 'AA AE AH AH AO AW AY EH ER EY IH IY OW OY UH UW B CH D DH F G HH JH K L M N NG '
                        'P R S SH T TH V W Y Z ZH'.split(), strict=True))
VOWELS = frozenset('AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW'.split())
# a wrong variant in the lexicon (me as may), and slang that is not said as it is spelled
CORRECTIONS = {
    'me': ['m ˈi'], 'bruh': ['b ɹ ˈʌ'], 'gon': ['ɡ ˈoʊ n'],
    **dict.fromkeys(("i'ma", "i'mma", 'ima', 'imma'), ['ˈaɪ m ə']),
    'shoulda': ['ʃ ˈʊ d ə'], 'woulda': ['w ˈʊ d ə'], 'coulda': ['k ˈʊ d ə'],
    # names in the lexicon, which rap uses for words in -er
    'playa': ['p l ˈeɪ ə', 'p l ˈaɪ ə'], 'balla': ['b ˈɔ l ə'], 'rolla': ['ɹ ˈoʊ l ə'],
    'eva': ['ˈɛ v ə', 'ˈi v ə'], 'neva': ['n ˈɛ v ə'], 'cleva': ['k l ˈɛ v ə'], 'wonda': ['w ˈʌ n d ə'],
    'otha': ['ˈʌ ð ə'], 'hata': ['h ˈeɪ t ə'],
}
VOICELESS = ('P', 'T', 'K', 'F', 'TH', 'S', 'SH', 'CH')
SIBILANTS = ('S', 'Z', 'SH', 'ZH', 'CH', 'JH')
LONGEST_WORD = 64  # letters; of a longer run only the end is said, so that no text can take forever

# ---- words that are said letter by letter

# in whatever case
INITIALISMS = frozenset('tv dj mc cd dvd mp mtv hbo bbc cnn nba nfl nhl mlb ufc wwe fbi cia irs atf dea '
                        'lapd nypd nyc atl usa uk ucla ceo vip mvp suv bmw gps atm phd dna lsd pcp thc hiv '
                        'ufo diy omg wtf lmao brb sms html pc'.split())
# these are words, too, and letters only in capitals
CAPITAL_INITIALISMS = frozenset('ac ai aka am ap er fm hr id ip la lax mia og pa pm pr rip us va'.split())
# capitals that can be said as a word: NASA, COVID
PRONOUNCEABLE = re.compile('(?:[bcdfgkpst][hlrw]|s[ckmnpt]|[^aeiou])?[aeiou](?:[^aeiou]{1,2}[aeiou])*'
                           '(?:[lmnrs]?[^aeiou])?')
# what may be letters: the whole of NYC, DJs and DJ's, and AK in AK-47
CAPITALS = re.compile(r"(?<![^\W\d_])(?<![.'*$@#!])([A-Za-z]{2,5}?)('?[sd])?(?![^\W\d_]|[*$@#!]|'[^\W_])")
DOTTED = re.compile(r"((?:[a-z]\.){2,})('?[sd])?")

# ---- masked words

# words that are written with stars and the like in place of letters, longer ones first
MASKED_WORDS = ('bastard pussy bitch whore nigga nigger murder suicide faggot fuck shit cunt cock dick damn '
                'piss slut kill drug rape hell hoe ass sex gun die').split()
MASKS = '*#@$!_'
MASKED = {word: re.compile(word[0] + ''.join(f'[{letter}{re.escape(MASKS)}]' for letter in word[1:]))
          for word in MASKED_WORDS}
LETTER_SIGNS = str.maketrans('$@!', 'sai')  # A$AP, @ss, sh!t


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


def stem_words(stem):
    """Return the words of the lexicon that a stem before a vowel may come from, the likeliest first.

    vib (vibin') -> vibe; hat (hatin') -> hate, hat; sitt (sittin') -> sit
    """
    if stem[-2:-1] == stem[-1:]:
        words = [stem, stem + 'e', stem[:-1]] if stem[-1:] in 'lsfz' else [stem[:-1], stem]
    elif re.search('(?:^|[^aeiou])[aeiouy][^aeiouwxy]$', stem):  # a word in -at would write hattin'
        words = [stem + 'e', stem]
    else:
        words = [stem, stem + 'e']
    return [word for word in words if word in lexicon()]


def dropped_g(word):
    """Return the pronunciations of a word in -in that stands for -ing: vibin -> vibing without its g."""
    if not word.endswith('in'):
        return []
    ing_forms = [sounds for sounds in known(word + 'g') if sounds[-2:] == ('IH0', 'NG')]
    if ing_forms or word in lexicon():
        return [sounds[:-1] + ('N',) for sounds in ing_forms]
    return [sounds + ('IH0', 'N') for base in stem_words(word[:-2])[:1] for sounds in known(base)]


def dropped_r(word):
    """Return the pronunciations of a word in -a that stands for -er: brotha -> brother without its r."""
    stem = re.sub('(?:a|ah|uh)$', '', word)
    if stem == word or len(stem) < 2:
        return []
    r_forms = [sounds for ending in ('er', 'or', 'ar') for sounds in known(stem + ending)
               if sounds[-1] == 'ER0']
    if r_forms:
        return [sounds[:-1] + ('AH0',) for sounds in r_forms]
    return [sounds + ('AH0',) for base in stem_words(stem)[:1] for sounds in known(base)]


def derived(word):
    """Return the pronunciations of a word that the lexicon lacks, from words that it has.

    It may be a word in -in or -a for -ing or -er, one with -s, -z, -ed or -ing, or of two parts (firelight).
    """
    if pronunciations := dropped_g(word) or dropped_r(word):
        return pronunciations
    for ending in ("'s", 's', 'es', 'z', "'d", 'd', 'ed'):
        base = word.removesuffix(ending)
        if base != word and len(base) > 2:
            pronunciations = known(base) or dropped_g(base) or dropped_r(base)
            if pronunciations:
                return [with_ending(sounds, ending[-1]) for sounds in pronunciations]
    if word.endswith('ing') and (bases := stem_words(word.removesuffix('ing'))):
        return [sounds + ('IH0', 'NG') for sounds in known(bases[0])]
    for cut in range(3, len(word) - 2):
        first, second = word[:cut], word[cut:]
        if first in lexicon() and second in lexicon():
            # the second part has the weaker stress
            start = known(first)[0]
            return [start + tuple(sound.replace('1', '2') for sound in end) for end in known(second)]
    return []


def with_ending(sounds, letter):
    """Return the sounds of a word with -s or -ed; letter: 's', 'z' or 'd'."""
    last = sounds[-1]
    if letter in 'sz':
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


@lru_cache(maxsize=1 << 16)
def normalize_word(word, in_capitals=False):
    """Return a word in lower case with straight apostrophes, and an initialism with dots: NYC -> n.y.c.

    in_capitals: the whole line is, so that capitals don't tell what is an initialism. Words in capitals that
    the lexicon has (LOVE), or that are pronounceable (NASA), are words.
    """
    def replace(match):
        letters, ending = match[1].lower(), match[2] or ''
        if letters in INITIALISMS:
            is_initialism = True
        elif in_capitals or not match[1].isupper():
            is_initialism = False
        elif letters in lexicon():
            is_initialism = letters in CAPITAL_INITIALISMS
        else:
            is_initialism = len(letters) < 4 or not PRONOUNCEABLE.fullmatch(letters)
        return '.'.join(letters) + '.' + ending if is_initialism else match[0]

    word = unicodedata.normalize('NFC', word[-LONGEST_WORD:].replace('’', "'"))
    return CAPITALS.sub(replace, word).lower()


def spelled_out(letters):
    """Return the sounds of letters that are said one by one, the last with the main stress: 'tv'."""
    sounds = [known(letter)[-1] for letter in letters]  # the last: the letter a, not the article
    return sum((tuple(sound.replace('1', '2') for sound in each) for each in sounds[:-1]), ()) + sounds[-1]


def unmasked(word):
    """Return a word with its masked letters: f*ck -> fuck, a$ap -> asap."""
    if re.search('[0-9]', word) or not re.search(f'[{re.escape(MASKS)}]', word):
        return word
    plain = word.translate(LETTER_SIGNS)
    if plain.strip("'") in lexicon():
        return plain
    for letters, pattern in MASKED.items():
        word = pattern.sub(letters, word)
    return word.translate(LETTER_SIGNS)


@lru_cache(maxsize=1 << 16)
def phonemes(word):
    """Return a word's pronunciations in ARPAbet with stress, the likeliest first; () if it has no sound.

    phonemes('poet') -> (('P', 'OW1', 'AH0', 'T'),)

    Initialisms are said letter by letter (normalize_word()). The lexicon comes next, also without accents and
    apostrophes ('bout, café) or with an e for them (heav'n, wander'd); masked words, numbers and hyphens are
    resolved; then derived() is tried, and at last guess().
    """
    word = normalize_word(word)
    if dotted := DOTTED.fullmatch(word):
        sounds = spelled_out(dotted[1].replace('.', ''))
        return (with_ending(sounds, dotted[2][-1]) if dotted[2] else sounds,)
    word = unmasked(word)
    plain = ''.join(c for c in unicodedata.normalize('NFKD', word) if not unicodedata.combining(c))
    bare = re.sub(r'([a-z])\1\1+', r'\1', plain.strip("'-_*! "))  # yeahhh
    without_g = dropped_g(bare)
    for form in (word, plain, bare, bare.replace("'", 'e')):
        if form in lexicon():
            pronunciations = known(form) + without_g  # ballin is a name, too
            return tuple(dict.fromkeys(pronunciations[::-1] if plain.endswith("in'") else pronunciations))
    readings = readings_of(bare)
    if readings != [[bare]] and any(readings):
        pronunciations = []
        for reading in readings:
            *first, last = [sounds for part in reading if (sounds := phonemes(part))] or [()]
            start = sum((sounds[0] for sounds in first), ())
            pronunciations += [start + end for end in last]
    else:
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
