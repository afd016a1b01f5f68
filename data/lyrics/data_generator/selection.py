"""
Which cleaned pages are songs of the wanted language, which are copies of each other, and which versions of
a song.

    >>> kind_by_title('Night Bus (Türkçe Çeviri)', 'Tilly Ohm'), kind_by_title('Skittles', 'Tilly Ohm')
    ('translation', '')
    >>> group_of('Tilly Ohm', 'Night Bus (Remix)') == group_of('Tilly Ohm', 'Night Bus - Live at the Depot')
    True

No files, no network. The sizes and shares in this file were chosen by hand.
"""

import functools
import hashlib
import re
import sys
import zlib
from pathlib import Path

import numpy as np
from headers import is_header
from words import fold_letters, name_key

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from nanorap.rap.sections import HEADER_LINE

# what may follow a title in brackets or after a dash and still be the same song; "Pt. 2" is another song
VERSION = (
    r'(?:[^()\[\]]*\b(?:remix|remaster|remastered|mix|edit|version|ver|demo|acoustic|unplugged|instrumental'
    r'|a ?cappella|sped up|slowed|reverb|nightcore|chopped|screwed|bonus track|explicit|clean|censored|radio'
    r'|extended|stripped|live session|snippet|leak|original|alternate|reprise|freestyle|cover|mono|stereo'
    r'|deluxe|og|feat|ft)\b[^()\[\]]*'
    r'|live(?: (?:at|in|from|on|for)\b[^()\[\]]*)?)')
# the languages to distinguish, those with much rap: all 139 of the model include rare ones that ad-libs
# ("skrrt, ayy") are taken for
LANGUAGES = (
    'ar bg bn ca cs da de el en es et fa fi fr he hi hr ht hu id it ja ko lt lv ms nl no pl pt ro ru sk sl '
    'sq sr sv sw ta te th tl tr uk ur vi zh').split()
SHINGLE = 5  # words: the length of the runs that are compared
COPY_SHARE = .6  # two songs are copies if the smaller one has more than this share of its runs in the other
VERSION_SHARE = .2  # and versions of one song from this share on
MIN_SHARED = 8  # runs that two songs must have in common, whatever the share
FULL_COMPARISON = 40  # songs: a run that more of them have is compared with few of them


# ---- what is no song ----

PLACEHOLDER = re.compile(
    r'lyrics (?:for this (?:song|track) )?'
    r'(?:have yet to be|will be|are (?:not |un|coming)|to be|not|un|coming|tba|tbd)'
    r'|yet to be (?:released|transcribed)|check back once|add (?:the )?lyrics|no lyrics'
    r"|(?:don't|do not) have the lyrics"
    r'|(?:song|track|piece) (?:is|has) (?:an |a )?(?:instrumental|no lyrics|no words|unreleased'
    r'|not been released)'
    r"|has(?: not|n't) been (?:released|transcribed)"
    r'|^\W*(?:instrumental|unreleased|tba|tbd|n/a|snippet|coming soon|lyrics|to be announced|\.\.\.)\W*$'
    r'|paroles (?:à venir|indisponibles)|letra (?:no disponible|indisponível|em breve)'
    r'|(?:song)?text folgt|testo (?:non disponibile|in arrivo)', re.IGNORECASE | re.MULTILINE)
TRANSLATED = (
    r'(?:tradu[ct]|traduz|ubersetz|ceviri|tłumacz|перевод|переклад|vertaling|oversatt|oversett|romani[sz]'
    r'|romaja|terjemahan|translit|prijevod|prevod|preklad|μεταφραση)\w*|'
    + '|'.join(map(fold_letters, '和訳 日本語訳 翻譯 翻译 번역 로마자'.split())))
# {kind of page: part of a title, in brackets or after a dash}; a song called Credits or Skittles is a song
IN_TITLE = {
    'translation': rf'(?:.*\b)?(?:{TRANSLATED})(?:\b.*)?|(?!in |lost )(?:\w+ )?translations?(?: \w+)?',
    'tracklist': r'(?:[\w+&]+ ){0,5}track ?-?list(?:ing)?(?:\W.*)?|set ?list',
    'credits': r'(?:\w+ ){0,2}credits|liner notes|(?:digital )?booklet|(?:album |cover )?art ?work|cover art',
    'script, interview or book':
        r'(?:movie |film |full |original )?(?:script|screenplay|transcript|interview)|book'
        r'|(?:book )?excerpts?(?: from .*)?|chapter \w+|foreword|press release|trailer',
}
GENIUS = re.compile(rf'\bgenius\b.*(?:translation|{TRANSLATED})|(?:translation|{TRANSLATED}).*\bgenius\b')
CREDITED = re.compile(
    r'\W*(?:(?:executive|co|additional|assistant|vocal|lead|recording|mixing|mastering|project|creative)'
    r' ?-?)*'
    r'(?:produc|writ|mix|master|engineer|record|direct|compos|arrang|vocal|guitar|drum|bass|key|piano|string'
    r'|a&r|management|label|artwork|photo|design|publish|sample|contain|programm|scratch|perform)\w*'
    r'[^:]{0,40}?(?:\bby\b|:)', re.IGNORECASE)


# words of a speaker: a title or a credit seldom has them
PERSONAL = re.compile(r"\b(?:i|me|my|mine|we|us|our|you|your|he|she|him|her|they|them|ain't|can't|don't)\b",
                      re.IGNORECASE)


def looks_sung(text):
    """Return how much a text looks like a song, a dict of shares and numbers: what outweighs a sign.

    sections: its headers. rhyme: the share of its lines that rhyme with one of the four before; lines longer
    than verse has are divided at their commas. verse: whether its lines have a verse's length and most speak
    of somebody.
    """
    from nanorap.rap.rhyme import rhymes  # loads the lexicon: only for texts with a sign

    lines = [line.strip() for line in text.split('\n') if line.strip() and not HEADER_LINE.match(line)][:60]
    n_words = sum(len(line.split()) for line in lines) / max(1, len(lines))
    # without a number at the beginning and a time at the end
    plain = [re.sub(r'^\W*\d{1,2}\s?[.):–-]\s*|[\W\d]{0,20}\d:\d\d\W*$', '', line) for line in lines]
    if n_words > 20:
        parts = [part for line in plain for part in re.split(r'[,.;:!?/–—]+(?:\s|$)', line)]
        plain = [part for part in parts if part.strip()][:60]
    rhymed = [any(rhymes(earlier, line) for earlier in plain[max(0, i - 4):i] if earlier != line)
              for i, line in enumerate(plain)]
    personal = sum(bool(PERSONAL.search(line)) for line in lines)
    return dict(sections=sum(map(is_header, text.split('\n'))),
                rhyme=sum(rhymed) / max(1, len(rhymed)),
                verse=5 <= n_words <= 20 and personal >= .5 * len(lines) and len(lines) >= 4)


def is_song(text, kind):
    """Return whether a text is a song in spite of a sign that it is something else: of that kind."""
    sung = looks_sung(text)
    if sung['sections'] >= 2 or sung['rhyme'] >= .4:
        return True
    return kind in ('tracklist', 'placeholder') and sung['verse']


def kind_by_title(title, artist):
    """Return the kind of a page that is no song: 'Night Bus (Türkçe Çeviri)' -> 'translation'; else ''."""
    if GENIUS.search(fold_letters(artist)):
        return 'translation'
    parts = re.findall(r'[(\[]([^()\[\]]*)[)\]]|\s[-–—|:]\s+([^()\[\]]*)$', fold_letters(title))
    for kind, pattern in IN_TITLE.items():
        if any(re.fullmatch(pattern, (bracket or tail).strip()) for bracket, tail in parts):
            return kind
    return ''


def kind_of_page(page, text, title, artist):
    """Return the kind of a page that is no song, by its title and its text; '' for a song.

    page: the text before its headers were cleaned. Sections, rhyme and a verse's lines outweigh every sign
    but that of a translation and of a page without words.
    """
    kind = kind_by_title(title, artist) or kind_by_text(page, title) or kind_by_text(text, title)
    outweighed = kind and kind not in ('translation', 'instrumental', 'no text') and is_song(text, kind)
    return '' if outweighed else kind


def kind_by_text(text, title):
    """Return the kind of a page that holds no song, a placeholder, a tracklist, credits or prose; else ''."""
    lines = [line.strip() for line in text.split('\n') if line.strip() and not HEADER_LINE.match(line)]
    words = [len(line.split()) for line in lines]
    if not lines:
        return 'instrumental' if text.strip() else 'no text'
    if sum(words) < 50 and PLACEHOLDER.search(' '.join(lines) if len(lines) < 4 else '\n'.join(lines)):
        return 'placeholder'
    words_per_line = sum(words) / len(lines)
    if words_per_line < 12 and is_tracklist(lines):
        return 'tracklist'
    credits = sum(bool(CREDITED.match(line)) for line in lines)
    share = .3 if 'credit' in title.casefold() else .5
    if credits >= max(4, share * len(lines)):
        return 'credits'
    if words_per_line > (12 if is_dialogue(lines) else 25) and max(words) > 30:
        return 'script, interview or book'
    return ''


def is_tracklist(lines):
    """Return whether most lines have a number, rising by one, or end in a time such as 3:45."""
    numbered = [re.match(r'(?:track )?#?(\d{1,2})\s?[.):–-]\s*\S', line, re.IGNORECASE) for line in lines]
    numbers = [int(match[1]) for match in numbered if match]
    rising = sum(second == first + 1 for first, second in zip(numbers, numbers[1:], strict=False))
    timed = sum(bool(re.search(r'\d:\d\d\W*$', line)) for line in lines)
    half = .5 * len(lines)
    return rising >= 3 and len(numbers) > half or timed >= 4 and timed > half


def is_dialogue(lines):
    """Return whether most lines begin with "Name: ", and the names come again."""
    named = [re.match(r"([A-Z][\w .'-]{0,25}):\s", line) for line in lines]
    speakers = [match[1] for match in named if match]
    return len(lines) > 7 and len(speakers) > .7 * len(lines) and len(set(speakers)) <= len(speakers) / 2


# ---- in which language ----


@functools.cache
def language_model():
    """Load the language identification model, which ships inside its package."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages(LANGUAGES)
    return model


def languages_of(text):
    """Return {language: its share of the lines}.

    Four lines at a time are identified, so that a verse in another language counts as no more than it is.
    Lines in no certain language (na na na, skrrt) don't count; a song of nothing else has no share.
    """
    lines = [line.casefold() for line in text.split('\n') if line.strip() and not HEADER_LINE.match(line)]
    lines = list(dict.fromkeys(lines))  # a chorus counts once
    shares = {}
    for start in range(0, len(lines), 4):
        part = lines[start:start + 4]
        language, probability = language_model().classify(' '.join(part))
        if probability >= .75:
            shares[language] = shares.get(language, 0) + len(part)
    return {language: share / sum(shares.values()) for language, share in shares.items()}


def other_language(text, wanted):
    """Return the main language of a song; '' if at least half of it is, or may be, in the wanted ones."""
    shares = languages_of(text) if wanted else {}
    if not shares or sum(shares.get(language, 0) for language in wanted) >= .5:
        return ''
    return max(shares, key=shares.get)


# ---- duplicates and versions ----


def base_title(title):
    """Return "Night Bus" for "Night Bus (Remix) [Explicit]", "Night Bus - Live" or "Night Bus feat. Y"."""
    song = re.sub(rf'\s*(?:\({VERSION}\)|\[{VERSION}\]|\s[-–—]\s+{VERSION}$)', '', title, flags=re.IGNORECASE)
    song = re.sub(r'(?<=\S)\s+(?:(?:feat|ft)\.? .*|remix)$', '', song.strip(), flags=re.IGNORECASE)
    return song.strip(' *') or title


def group_of(artist, title):
    """Return the same string for all versions of an artist's song, by their titles."""
    return f'{name_key(artist)}/{name_key(base_title(title))}'


def words_of(text):
    """Return the words without case, headers and apostrophes; a sign of Japanese or Chinese is a word."""
    lines = [line for line in text.split('\n') if not is_header(line)]
    return re.findall(r'[\u3040-\u30ff\u3400-\u9fff]|\w+', re.sub("['’]", '', ' '.join(lines).casefold()))


def digest_of(words):
    return hashlib.sha256(' '.join(words).encode('utf-8', 'replace')).digest()


def shingles_of(words):
    """Return the hashes of a song's different runs of five words, sorted, (n,) uint32."""
    runs = (' '.join(words[start:start + SHINGLE]) for start in range(len(words) - SHINGLE + 1))
    hashes = {zlib.crc32(run.encode('utf-8', 'replace')) for run in runs}
    return np.sort(np.fromiter(hashes, np.uint32, len(hashes)))


def similar_pairs(shingles):
    """Yield (song, earlier song, share) of the pairs that have a fifth or more of the smaller song in common.

    Every other shingle, by value, is looked up in a sorted list of all: the work grows with the number of
    songs, not with that of pairs. shingles: a list of the arrays of shingles_of(); songs are their indices.
    """
    owners = np.repeat(np.arange(len(shingles), dtype=np.int32), [len(each) for each in shingles])
    values = np.concatenate([*shingles, np.zeros(0, np.uint32)])
    sampled = values % 2 == 0
    values, owners = values[sampled], owners[sampled]
    order = np.argsort(values, kind='stable')
    values, owners = values[order], owners[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else values
    lengths = np.diff(np.r_[starts, len(values)])  # how many songs have each value

    pair_numbers = []  # song * len(shingles) + earlier song, once per sampled shingle that both have
    for length in np.unique(lengths[lengths > 1]):
        songs = owners[starts[lengths == length][:, None] + np.arange(length)]
        first, second = np.triu_indices(length, 1)
        # a run of very many songs: each is compared with the three best ones and the one before it
        compared = (first < 3) | (second == first + 1) | (length <= FULL_COMPARISON)
        pairs = songs[:, second[compared]] * np.int64(len(shingles)) + songs[:, first[compared]]
        pair_numbers.append(pairs.ravel())
    pair_numbers = np.concatenate([*pair_numbers, np.zeros(0, np.int64)])
    pair_numbers, counts = np.unique(pair_numbers, return_counts=True)
    for pair in pair_numbers[counts > 1]:
        song, earlier = divmod(int(pair), len(shingles))
        shared = len(np.intersect1d(shingles[song], shingles[earlier], assume_unique=True))
        share = shared / min(len(shingles[song]), len(shingles[earlier]))
        if shared >= MIN_SHARED and share >= VERSION_SHARE:
            yield song, earlier, share


def completeness(song):
    """Return a number that is highest for the best of several copies.

    That is the one with the most text; less for one with holes ([?], ****), for a version that is not the
    plain one (live, remix), and for one without section headers.
    """
    holes = .9 if song['holes'] else 1
    version = .8 if song['version'] else 1
    headers = 1 if song['headers'] else .95
    return len(song['shingles']) * holes * version * headers


def drop_copies(songs):
    """Set 'reason' and 'of' of the songs that are copies of a better one, and 'group' of all.

    Two songs of which one has more than 60% of its runs of five words (about nine words of ten) in the
    other are copies; from 20% on, a verse or a chorus in common, they are versions and share a group,
    whoever the artist is.
    """
    best_first = sorted(songs, key=lambda song: -completeness(song))  # equal ones: in the order of the files
    parent = list(range(len(songs)))  # of each song in the tree of its group (union-find)

    def root(number):
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    by_digest, by_title = {}, {}
    for number, song in enumerate(best_first):
        parent[root(number)] = root(by_title.setdefault(song['group'], number))
        original = by_digest.setdefault(song['digest'], number)
        if original != number:
            song.update(reason='duplicate', of=best_first[original]['path'])
            parent[root(number)] = root(original)

    # the pairs come with rising numbers of the song, so that the better one is decided on first
    for number, earlier, share in similar_pairs([song['shingles'] for song in best_first]):
        song, better = best_first[number], best_first[earlier]
        if share > COPY_SHARE and 'reason' not in song and 'reason' not in better:
            song.update(reason='near duplicate', of=better['path'])
        parent[root(number)] = root(earlier)

    groups = {}
    for number, song in enumerate(best_first):
        groups.setdefault(root(number), []).append(song)
    for group in groups.values():
        name = min(song['group'] for song in group)
        for song in group:
            song['group'] = name
