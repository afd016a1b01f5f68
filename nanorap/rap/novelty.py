"""What a text copies from the training songs: the longest run of words that both have, the share of n-grams that are copied,
and the song it is nearest to by tf-idf.

    songs = Songs(texts)                 # an index of the training songs
    novelty(songs, text)                 # {'longest': 9, 'copied_4': 0.08, 'copied_8': …, 'copied_12': …, 'nearest': …}
    copies(songs, text)                  # [Copy('words that both have', their line in text, song, its line), ...]
    copied_lines(songs, text)            # {number of a line in text: Copy(…), ...}

Words are compared in lower case, without punctuation, and across line ends; section headers are no words. numpy only.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nanorap.common import UserError
from nanorap.dataset import read_documents, read_meta, read_split
from nanorap.rap.sections import HEADER_LINE, SONG_HEADER

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
ANCHOR = 4  # words: a copied run is found by its first so many, and a shorter one is no copy
SIZES = (4, 8, 12)


def plain_words(text):
    """The words, in lower case: "Runnin’, [yo]" -> ["runnin", "yo"]."""
    return WORD.findall(HEADER_LINE.sub(blank, text).lower().replace('’', "'")) if text else []


def blank(match):
    """As long as what it takes the place of, so that positions stay."""
    return re.sub(r'[^\n]', ' ', match.group())


def hashes(ids, n):
    """A 64-bit hash of each run of n ids; at the end, of those with zeros beyond it."""
    ids = np.concatenate([ids, np.zeros(n, ids.dtype)]).astype(np.uint64)
    found = np.zeros(len(ids) - n, np.uint64)
    for k in range(n):
        found = (found ^ ids[k : len(ids) - n + k]) * np.uint64(0x9E3779B97F4A7C15)  # golden ratio; it wraps
        found ^= found >> np.uint64(29)
    return found


class Songs:
    """An index of the training songs, whose texts it keeps. 10 M tokens take a few seconds and some hundred MB."""

    def __init__(self, texts):
        self.texts, self.vocabulary = list(texts), {}  # word -> its id, from 1 on; 0 stands between two songs
        number, parts, self.starts, end = self.vocabulary.setdefault, [np.zeros(1, np.int32)], [], 1
        pairs, counts, sizes = [], [], []
        for text in self.texts:
            words = plain_words(text)
            # + 1: setdefault's second argument is worked out before the word is in
            ids = np.fromiter((number(word, len(self.vocabulary) + 1) for word in words), np.int32, len(words))
            parts += [ids, np.zeros(1, np.int32)]
            self.starts.append(end)
            end += len(ids) + 1
            song_words, song_counts = np.unique(ids, return_counts=True)
            pairs.append(song_words.astype(np.int32))
            counts.append(song_counts.astype(np.float32))
            sizes.append(len(song_words))
        self.ids = np.concatenate(parts)
        self.hash = hashes(self.ids, ANCHOR)
        self.order = np.argsort(self.hash, kind='stable').astype(np.int32)
        self.hash = self.hash[self.order]
        # tf-idf of every song, its words one after the other
        self.words = np.concatenate([*pairs, np.zeros(0, np.int32)])
        self.song = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        songs_with = np.bincount(self.words, minlength=len(self.vocabulary) + 1)
        self.idf = (np.log((1 + len(sizes)) / (1 + songs_with)) + 1).astype(np.float32)  # smoothed, as in scikit-learn
        self.weights = np.concatenate([*counts, np.zeros(0, np.float32)]) * self.idf[self.words]
        norms = np.sqrt(np.bincount(self.song, self.weights.astype(np.float64) ** 2, minlength=len(sizes)))
        self.weights /= np.maximum(norms, 1e-9)[self.song]

    def numbers(self, words):
        """Their ids; a word that no song has gets -1, which is in no song."""
        return np.array([self.vocabulary.get(word, -1) for word in words], np.int32)

    def nearest(self, ids):
        """(cosine, song) of the song nearest to a text by tf-idf (Potash et al., https://aclanthology.org/D15-1221)."""
        if not self.texts or not len(ids):
            return 0.0, None
        known = np.bincount(ids[ids > 0], minlength=len(self.idf)) * self.idf
        # words that no song has count in the length of the text, each as if it were another one
        unknown = (np.sum(ids < 0)) * (np.log(1 + len(self.texts)) + 1) ** 2
        cosines = np.bincount(self.song, self.weights * known[self.words], minlength=len(self.texts))
        cosines = cosines / max(1e-9, np.sqrt((known**2).sum() + unknown))
        best = int(cosines.argmax())
        return float(cosines[best]), best


def matches(songs, ids):
    """For each word of a text: how many words from there on some song has in the same order (0 below ANCHOR), and where in
    songs.ids that is; two arrays."""
    longest, where = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
    keys = hashes(ids, ANCHOR)
    low, high = np.searchsorted(songs.hash, keys, 'left'), np.searchsorted(songs.hash, keys, 'right')
    for i in range(max(0, len(ids) - ANCHOR + 1)):
        at = songs.order[low[i] : high[i]]
        if i:  # a run that can be made longer on its left was found one word before
            at = at[songs.ids[at - 1] != ids[i - 1]]
            if longest[i - 1] > ANCHOR:
                longest[i], where[i] = longest[i - 1] - 1, where[i - 1] + 1
        n = 0
        while len(at) and i + n < len(ids):  # word by word, as two hashes may be equal by chance
            at = at[songs.ids[at + n] == ids[i + n]]
            n += len(at) > 0
            if len(at) and n > longest[i] and n >= ANCHOR:
                longest[i], where[i] = n, at[0]
    return longest, where


def novelty(songs, text):
    """What can be counted of a text's copies, as a dict.

    longest: words of the longest run that a song has, too; copied_n: the share of the text's n-grams that some song has;
    nearest: cosine of the nearest song by tf-idf, nearest_song: which one.
    """
    ids = songs.numbers(plain_words(text))
    longest, _ = matches(songs, ids)
    top = int(longest.max(initial=0))
    for n in range(ANCHOR - 1, 0, -1):  # only of a text without a copy
        top = top or n * shares_one(songs, ids, n)
    cosine, song = songs.nearest(ids)
    shares = {f'copied_{n}': float(np.mean(longest[: len(ids) - n + 1] >= n)) if len(ids) >= n else 0.0 for n in SIZES}
    return dict(longest=top, **shares, nearest=cosine, nearest_song=song)


def shares_one(songs, ids, n):
    """Whether a song has one of the text's runs of n words."""
    known = [i for i in range(len(ids) - n + 1) if (ids[i : i + n] > 0).all()]
    if n == 1 or not known:
        return bool(known)
    ours = np.sort(hashes(ids, n)[known])
    theirs = hashes(songs.ids, n)
    return bool((ours[np.searchsorted(ours, theirs).clip(max=len(ours) - 1)] == theirs).any())


class Copy(NamedTuple):
    words: int
    line: str  # of the text, where the copy begins
    song: int
    source: str  # the song's line where it begins


def copies(songs, text, least=8):
    """The runs of `least` words or more that songs have, too, the longest first; of two that overlap, the longer one."""
    words = plain_words(text)
    longest, where = matches(songs, songs.numbers(words))
    found, taken = [], np.zeros(len(words), bool)
    for i in np.argsort(-longest, kind='stable'):
        n = int(longest[i])
        if n < max(least, ANCHOR):
            break
        if not taken[i : i + n].any():
            taken[i : i + n] = True
            song = int(np.searchsorted(songs.starts, where[i], 'right')) - 1
            source = line_of(songs.texts[song], int(where[i]) - songs.starts[song])
            found.append(Copy(n, line_of(text, i), song, source))
    return found


def copied_lines(songs, text, least=8):
    """{number of a line: Copy} of the lines that are copied whole, if they have ANCHOR words, or of which a song has `least`
    words in a row, the longest such run."""
    longest, where = matches(songs, songs.numbers(plain_words(text)))
    found, first = {}, 0
    for number, line in enumerate(text.split('\n')):
        n = len(plain_words(line))
        runs = np.minimum(longest[first : first + n], np.arange(n, 0, -1))  # to the line's end at most
        if n >= ANCHOR and (best := int(runs.max())) >= min(n, least):
            at = int(where[first + runs.argmax()])
            song = int(np.searchsorted(songs.starts, at, 'right')) - 1
            found[number] = Copy(best, line.strip(), song, line_of(songs.texts[song], at - songs.starts[song]))
        first += n
    return found


def line_of(text, number):
    """The line in which word `number` stands."""
    text = HEADER_LINE.sub(blank, text)
    word = next(match for k, match in enumerate(WORD.finditer(text)) if k == number)
    return text[text.rfind('\n', 0, word.start()) + 1 :].partition('\n')[0].strip()


def index_songs(data_dir, tokenizer):
    """Return the Songs of a prepared training split; UserError if there are too many tokens."""
    if (n := read_meta(data_dir)['splits']['train']['tokens']) > 10**8:
        raise UserError(f"{data_dir} has {n:,} training tokens, too many to look for copies in: leave --eval_samples out")
    return Songs(tokenizer.decode(ids) for ids in read_split(data_dir, 'train'))


def song_names(data_dir, songs):
    """What each training song of index_songs() is called, by the data.json beside the split, or else by its number."""
    names, path = {}, Path(data_dir) / 'data.json'
    for entry in read_documents(path) if path.exists() else ():
        if 'song_name' in entry and 'artist_name' in entry:
            names[entry['text'].strip()] = f"“{entry['song_name']}” by {entry['artist_name']}"
    plain = (SONG_HEADER.sub('', text).strip() for text in songs.texts)
    return [names.get(text, f"training song {number}") for number, text in enumerate(plain, 1)]
