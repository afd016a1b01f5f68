"""
Which cleaned pages are songs of the wanted language, which are copies of each other, and which are versions of one song.

    >>> title_says('Night Bus (Türkçe Çeviri)', 'Tilly Ohm'), title_says('Skittles', 'Tilly Ohm')
    ('translation', '')
    >>> group_of('Tilly Ohm', 'Night Bus (Remix)') == group_of('Tilly Ohm', 'Night Bus - Live at the Depot')
    True

No files, no network.
"""

import functools
import hashlib
import re
import zlib

import numpy as np
from sections import is_header
from store import fold
from words import fold as fold_letters

# what may follow a title in brackets or after a dash and still be the same song; "Pt. 2" is another song
VERSION = (r'(?:[^()\[\]]*\b(?:remix|remaster|remastered|mix|edit|version|ver|demo|acoustic|unplugged|instrumental|a ?cappella'
           r'|sped up|slowed|reverb|nightcore|chopped|screwed|bonus track|explicit|clean|censored|radio|extended|stripped|live'
           r' session|snippet|leak|original|alternate|reprise|freestyle|cover|mono|stereo|deluxe|og|feat|ft)\b[^()\[\]]*'
           r'|live(?: (?:at|in|from|on|for)\b[^()\[\]]*)?)')
# the languages to tell apart: those with much rap. All 139 of the model would find rare ones in ad-libs ("skrrt, ayy")
LANGUAGES = ('ar bg bn ca cs da de el en es et fa fi fr he hi hr ht hu id it ja ko lt lv ms nl no pl pt ro ru sk sl sq sr sv '
             'sw ta te th tl tr uk ur vi zh').split()


# ---- what is no song ----

PLACEHOLDER = re.compile(
    r'lyrics (?:for this (?:song|track) )?(?:have yet to be|will be|are (?:not |un|coming)|to be|not|un|coming|tba|tbd)'
    r'|yet to be (?:released|transcribed)|check back once|add (?:the )?lyrics|no lyrics'
    r"|(?:don't|do not) have the lyrics|(?:song|track|piece) (?:is|has) (?:an |a )?(?:instrumental|no lyrics|no words"
    r"|unreleased|not been released)|has(?: not|n't) been (?:released|transcribed)"
    r'|^\W*(?:instrumental|unreleased|tba|tbd|n/a|snippet|coming soon|lyrics|to be announced|\.\.\.)\W*$'
    r'|paroles (?:à venir|indisponibles)|letra (?:no disponible|indisponível|em breve)'
    r'|(?:song)?text folgt|testo (?:non disponibile|in arrivo)', re.IGNORECASE | re.MULTILINE)
TRANSLATED = (r'(?:tradu[ct]|traduz|ubersetz|ceviri|tłumacz|перевод|переклад|vertaling|oversatt|oversett|romani[sz]|romaja'
              r'|terjemahan|translit|prijevod|prevod|preklad|μεταφραση)\w*|' + '|'.join(
                  map(fold_letters, '和訳 日本語訳 翻譯 翻译 번역 로마자'.split())))
IN_TITLE = {  # what a title says in brackets or after a dash; a song that is called Credits or Skittles is one
    'translation': rf'(?:.*\b)?(?:{TRANSLATED})(?:\b.*)?|(?!in |lost )(?:\w+ )?translations?(?: \w+)?',
    'tracklist': r'(?:[\w+&]+ ){0,5}track ?-?list(?:ing)?(?:\W.*)?|set ?list',
    'credits': r'(?:\w+ ){0,2}credits|liner notes|(?:digital )?booklet|(?:album |cover )?art ?work|cover art',
    'script, interview or book': r'(?:movie |film |full |original )?(?:script|screenplay|transcript|interview)|book'
                                 r'|(?:book )?excerpts?(?: from .*)?|chapter \w+|foreword|press release|trailer',
}
GENIUS = re.compile(rf'\bgenius\b.*(?:translation|{TRANSLATED})|(?:translation|{TRANSLATED}).*\bgenius\b')
CREDITED = re.compile(
    r'\W*(?:(?:executive|co|additional|assistant|vocal|lead|recording|mixing|mastering|project|creative) ?-?)*'
    r'(?:produc|writ|mix|master|engineer|record|direct|compos|arrang|vocal|guitar|drum|bass|key|piano|string|a&r|management'
    r'|label|artwork|photo|design|publish|sample|contain|programm|scratch|perform)\w*[^:]{0,40}?(?:\bby\b|:)', re.IGNORECASE)


def title_says(title, artist):
    """'Night Bus (Türkçe Çeviri)' -> 'translation'; 'Tour Diary [Tracklist]' -> 'tracklist'; else ''."""
    if GENIUS.search(fold_letters(artist)):
        return 'translation'
    parts = re.findall(r'[(\[]([^()\[\]]*)[)\]]|\s[-–—|:]\s+([^()\[\]]*)$', fold_letters(title))
    for kind, pattern in IN_TITLE.items():
        if any(re.fullmatch(pattern, (bracket or tail).strip()) for bracket, tail in parts):
            return kind
    return ''


def text_says(text, title):
    """What kind of page this is if it holds no song: a placeholder, a tracklist, credits, prose; else ''."""
    lines = [line.strip() for line in text.split('\n') if line.strip() and not re.fullmatch(r'\s*\[[^\[\]]*\]\s*', line)]
    words = [len(line.split()) for line in lines]
    if not lines:
        return 'instrumental' if text.strip() else 'no text'
    if sum(words) < 50 and PLACEHOLDER.search(' '.join(lines) if len(lines) < 4 else '\n'.join(lines)):
        return 'placeholder'
    numbers = [int(found[1]) for line in lines if (found := re.match(r'(?:track )?#?(\d{1,2})\s?[.):–-]\s*\S', line, re.I))]
    rising = sum(second == first + 1 for first, second in zip(numbers, numbers[1:], strict=False))
    timed = sum(bool(re.search(r'\d:\d\d\W*$', line)) for line in lines)
    short = sum(words) / len(lines) < 12
    if short and (rising >= 3 and len(numbers) > .5 * len(lines) or timed >= 4 and timed > .5 * len(lines)):
        return 'tracklist'
    share = .3 if 'credit' in title.casefold() else .5
    if sum(bool(CREDITED.match(line)) for line in lines) >= max(4, share * len(lines)):
        return 'credits'
    speakers = [found[1] for line in lines if (found := re.match(r"([A-Z][\w .'-]{0,25}):\s", line))]
    talk = len(speakers) > .7 * len(lines) and len(lines) > 7 and len(set(speakers)) <= len(speakers) / 2
    if sum(words) / len(lines) > (12 if talk else 25) and max(words) > 30:
        return 'script, interview or book'
    return ''


# ---- in which language ----


@functools.cache
def identifier():
    """The language model, which ships inside its package; loading it takes most of a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages(LANGUAGES)
    return model


def languages_of(text):
    """{language: its share of the lines}, judged four lines at a time, so that a verse in another language counts as no
    more than it is. What is in no certain language (na na na, skrrt) doesn't count; a song of nothing else has no share."""
    lines = [line.casefold() for line in text.split('\n') if line.strip() and not re.fullmatch(r'\[.*\]', line)]
    lines = list(dict.fromkeys(lines))  # a chorus counts once
    shares = {}
    for start in range(0, len(lines), 4):
        part = lines[start:start + 4]
        language, probability = identifier().classify(' '.join(part))
        if probability >= .75:
            shares[language] = shares.get(language, 0) + len(part)
    return {language: share / sum(shares.values()) for language, share in shares.items()}


def other_language(text, wanted):
    """The main language of a song that isn't at least half in the wanted ones; '' for one that is, or may be."""
    shares = languages_of(text) if wanted else {}
    return '' if sum(shares.get(language, 0) for language in wanted) >= .5 or not shares else max(shares, key=shares.get)


# ---- duplicates and versions ----


def base_title(title):
    """"Night Bus (Remix) [Explicit]", "Night Bus - Live at X", "Night Bus Remix", "Night Bus feat. Y" -> "Night Bus"."""
    song = re.sub(rf'\s*(?:\({VERSION}\)|\[{VERSION}\]|\s[-–—]\s+{VERSION}$)', '', title, flags=re.IGNORECASE)
    song = re.sub(r'(?<=\S)\s+(?:(?:feat|ft)\.? .*|remix)$', '', song.strip(), flags=re.IGNORECASE)
    return song.strip(' *') or title


def group_of(artist, title):
    """The same string for all versions of an artist's song, by their titles."""
    return f'{fold(artist)}/{fold(base_title(title))}'


def words_of(text):
    """The words without case, headers and apostrophes; a sign of Japanese or Chinese is a word."""
    lines = [line for line in text.split('\n') if not is_header(line)]
    return re.findall(r'[\u3040-\u30ff\u3400-\u9fff]|\w+', re.sub("['’]", '', ' '.join(lines).casefold()))


def hash_of(words):
    return hashlib.sha256(' '.join(words).encode('utf-8', 'replace')).digest()


def shingles_of(words):
    """The different runs of five words, hashed: what two songs have in common is what their runs have in common."""
    runs = {zlib.crc32(' '.join(words[at:at + 5]).encode('utf-8', 'replace')) for at in range(len(words) - 4)}
    return np.sort(np.fromiter(runs, np.uint32, len(runs)))


def similar_pairs(shingles):
    """(song, earlier song, shared / the smaller one's shingles) of all that share a fifth or more.

    Every other shingle, by value, is looked up in a sorted list of all: the work grows with the songs, not with the pairs.
    """
    owners = np.repeat(np.arange(len(shingles), dtype=np.int32), [len(each) for each in shingles])
    values = np.concatenate([*shingles, np.zeros(0, np.uint32)])
    sample = values % 2 == 0
    values, owners = values[sample], owners[sample]
    order = np.argsort(values, kind='stable')
    values, owners = values[order], owners[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else values
    lengths = np.diff(np.r_[starts, len(values)])
    keys = []
    for length in np.unique(lengths[lengths > 1]):
        runs = owners[starts[lengths == length][:, None] + np.arange(length)]
        # a phrase of very many songs: each with the three best and the one before
        first, second = np.triu_indices(length, 1)
        near = (first < 3) | (second == first + 1) | (length <= 40)
        keys.append((runs[:, second[near]] * np.int64(len(shingles)) + runs[:, first[near]]).ravel())
    keys, counts = np.unique(np.concatenate([*keys, np.zeros(0, np.int64)]), return_counts=True)
    for key in keys[counts > 1]:
        song, earlier = divmod(int(key), len(shingles))
        shared = len(np.intersect1d(shingles[song], shingles[earlier], assume_unique=True))
        share = shared / min(len(shingles[song]), len(shingles[earlier]))
        if shared >= 8 and share >= .2:
            yield song, earlier, share


def completeness(song):
    """What makes the best of several copies: the most text, less for one with holes ([?], ****), for a version that is not
    the plain one (live, remix), for one without section headers."""
    bare = .95 if not song['headers'] else 1
    return len(song['shingles']) * (.9 if song['holes'] else 1) * (.8 if song['version'] else 1) * bare


def drop_copies(songs):
    """Sets 'reason' and 'of' of the songs that are copies of a better one, and 'group' of all. Two songs of which one
    has more than 60% of its runs of five words (about nine words of ten) in the other are copies; from 20% on, a verse or
    a chorus in common, they are versions and share a group, whoever the artist is."""
    best_first = sorted(songs, key=lambda song: -completeness(song))  # equal ones: in the order of the files
    parent = list(range(len(songs)))

    def root(at):
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    same, titled = {}, {}
    for at, song in enumerate(best_first):
        parent[root(at)] = root(titled.setdefault(song['group'], at))
        original = same.setdefault(song['digest'], at)
        if original != at:
            song.update(reason='duplicate', of=best_first[original]['path'])
            parent[root(at)] = root(original)
    for at, earlier, share in similar_pairs([song['shingles'] for song in best_first]):
        song, better = best_first[at], best_first[earlier]
        if share > .6 and 'reason' not in song and 'reason' not in better:  # pairs come with the song's number rising
            song.update(reason='near duplicate', of=better['path'])
        parent[root(at)] = root(earlier)
    groups = {}
    for at, song in enumerate(best_first):
        groups.setdefault(root(at), []).append(song)
    for group in groups.values():
        name = min(song['group'] for song in group)
        for song in group:
            song['group'] = name
