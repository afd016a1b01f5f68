"""What a text copies from the training songs: the longest run of words that both have, the share of n-grams
that are copied, and the song that is nearest by tf-idf.

    songs = Songs(texts)                 # an index of the training songs
    novelty(songs, text)                 # {'longest': 9, 'copied_4': 0.08, 'copied_8': …, 'nearest': …}
    copies(songs, text)                  # [Copy(number of words, their line in text, song, its line), ...]
    copied_lines(songs, text)            # {number of a line in text: Copy(…), ...}

Words are compared in lower case, without punctuation, and across line ends; section headers are no words.
numpy only.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nanorap.common import UserError
from nanorap.dataset import read_documents, read_meta, read_split
from nanorap.rap.sections import HEADER_LINE, SONG_HEADER

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# minimum copied run in words; runs are indexed by the hash of their first ANCHOR words
ANCHOR = 4
SIZES = (4, 8, 12)  # of n-grams
GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)  # times 2**64: spreads what it multiplies over all bits
MAX_TOKENS = 10**8  # that index_songs() takes: an index of more takes gigabytes


def plain_words(text):
    """Return the words, in lower case: "Runnin’, [yo]" -> ["runnin", "yo"]."""
    return WORD.findall(HEADER_LINE.sub(blank, text).lower().replace('’', "'")) if text else []


def blank(match):
    """Return blanks in place of a match, as many, so that positions stay."""
    return re.sub(r'[^\n]', ' ', match.group())


def hashes(ids, n):
    """Return a 64-bit hash of each run of n ids; at the end, runs are padded with zeros."""
    ids = np.concatenate([ids, np.zeros(n, ids.dtype)]).astype(np.uint64)
    result = np.zeros(len(ids) - n, np.uint64)
    for k in range(n):
        result = (result ^ ids[k : len(ids) - n + k]) * GOLDEN_RATIO  # it wraps
        result ^= result >> np.uint64(29)
    return result


class Songs:
    """An index of the training songs, whose texts it keeps.

    10 M tokens take a few seconds and some hundred MB.

    vocabulary: {word: its id, from 1 on}
    ids: those of all songs, a 0 between two
    starts: where each song begins in ids
    hash, order: the sorted hashes of all runs of ANCHOR ids, and where the runs begin
    song, words, weights: tf-idf as a sparse matrix, one song after the other
    """

    def __init__(self, texts):
        self.texts = list(texts)
        self.vocabulary = {}
        self.starts = []
        separator = np.zeros(1, np.int32)
        all_ids, end = [separator], 1
        unique_words, counts = [], []
        for text in self.texts:
            ids = self.add_words(plain_words(text))
            all_ids += [ids, separator]
            self.starts.append(end)
            end += len(ids) + 1
            song_words, song_counts = np.unique(ids, return_counts=True)
            unique_words.append(song_words.astype(np.int32))
            counts.append(song_counts.astype(np.float32))

        self.ids = np.concatenate(all_ids)
        self.hash = hashes(self.ids, ANCHOR)
        self.order = np.argsort(self.hash, kind='stable').astype(np.int32)
        self.hash = self.hash[self.order]

        n_songs = len(self.texts)
        self.words = np.concatenate([*unique_words, np.zeros(0, np.int32)])
        self.song = np.repeat(np.arange(n_songs, dtype=np.int32), [len(words) for words in unique_words])
        n_songs_with = np.bincount(self.words, minlength=len(self.vocabulary) + 1)
        # smoothed, as in scikit-learn
        self.idf = (np.log((1 + n_songs) / (1 + n_songs_with)) + 1).astype(np.float32)
        self.weights = np.concatenate([*counts, np.zeros(0, np.float32)]) * self.idf[self.words]
        squares = np.bincount(self.song, self.weights.astype(np.float64) ** 2, minlength=n_songs)
        self.weights /= np.maximum(np.sqrt(squares), 1e-9)[self.song]

    def add_words(self, words):
        """Return the ids of words; new ones enter the vocabulary."""
        vocabulary = self.vocabulary
        # + 1: setdefault's second argument is evaluated before the word is in
        ids = (vocabulary.setdefault(word, len(vocabulary) + 1) for word in words)
        return np.fromiter(ids, np.int32, len(words))

    def numbers(self, words):
        """Return the ids of words; a word that no song has gets -1."""
        return np.array([self.vocabulary.get(word, -1) for word in words], np.int32)

    def nearest(self, ids):
        """Return (cosine, song) of the song nearest to a text by tf-idf.

        The measure is that of Potash et al., https://aclanthology.org/D15-1221.
        """
        if not self.texts or not len(ids):
            return 0.0, None
        known = np.bincount(ids[ids > 0], minlength=len(self.idf)) * self.idf
        # words that no song has add to the length of the text's vector, each as a word of its own
        unknown = np.sum(ids < 0) * (np.log(1 + len(self.texts)) + 1) ** 2
        cosines = np.bincount(self.song, self.weights * known[self.words], minlength=len(self.texts))
        cosines = cosines / max(1e-9, np.sqrt((known**2).sum() + unknown))
        best = int(cosines.argmax())
        return float(cosines[best]), best


def matches(songs, ids):
    """Return for each word of a text how many words from there on some song has in the same order, and where.

    Two arrays: the numbers of words, 0 below ANCHOR, and positions in songs.ids.
    """
    longest, where = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
    keys = hashes(ids, ANCHOR)
    low, high = np.searchsorted(songs.hash, keys, 'left'), np.searchsorted(songs.hash, keys, 'right')
    for i in range(max(0, len(ids) - ANCHOR + 1)):
        at = songs.order[low[i] : high[i]]
        if i:  # a run that can be made longer on its left was found one word before
            at = at[songs.ids[at - 1] != ids[i - 1]]
            if longest[i - 1] > ANCHOR:
                longest[i], where[i] = longest[i - 1] - 1, where[i - 1] + 1
        runs = run_lengths(songs, at, ids[i:])
        best = runs.max(initial=0)
        if best >= ANCHOR and best > longest[i]:
            longest[i], where[i] = best, at[runs.argmax()]
    return longest, where


def run_lengths(songs, at, ids):
    """Return for each position `at` in songs.ids how many of the ids stand there in the same order.

    The ids are compared, since two hashes may be equal by chance; in blocks that double, since a song may
    repeat a word a thousand times.
    """
    lengths, active, n = np.zeros(len(at), np.int64), np.arange(len(at)), 0
    while len(active) and n < len(ids):
        expected = ids[n : n + max(16, n)]
        # clip: behind the last song stands its separator, which equals no word
        found = songs.ids.take(at[active][:, None] + np.arange(n, n + len(expected)), mode='clip')
        is_equal = found == expected
        is_whole = is_equal.all(axis=1)
        lengths[active] = n + np.where(is_whole, len(expected), is_equal.argmin(axis=1))
        active, n = active[is_whole], n + len(expected)
    return lengths


def novelty(songs, text):
    """Measure what a text copies; return a dict.

    longest: words of the longest run that a song has, too
    copied_n: the share of the text's n-grams that some song has
    nearest, nearest_song: cosine and number of the nearest song by tf-idf
    """
    ids = songs.numbers(plain_words(text))
    longest, _ = matches(songs, ids)
    longest_run = int(longest.max(initial=0))
    for n in range(ANCHOR - 1, 0, -1):  # of a text without a copy
        if longest_run == 0 and has_shared_run(songs, ids, n):
            longest_run = n
    shares = {}
    for n in SIZES:
        is_copied = longest[: max(0, len(ids) - n + 1)] >= n  # per n-gram
        shares[f'copied_{n}'] = float(np.mean(is_copied)) if len(is_copied) else 0.0
    cosine, song = songs.nearest(ids)
    return dict(longest=longest_run, **shares, nearest=cosine, nearest_song=song)


def has_shared_run(songs, ids, n):
    """Return whether a song has one of the text's runs of n words."""
    known = [i for i in range(len(ids) - n + 1) if (ids[i : i + n] > 0).all()]
    if n == 1 or not known:
        return bool(known)
    ours = np.sort(hashes(ids, n)[known])
    theirs = hashes(songs.ids, n)
    return bool((ours[np.searchsorted(ours, theirs).clip(max=len(ours) - 1)] == theirs).any())


class Copy(NamedTuple):
    words: int  # their number
    line: str  # of the text, where the copy begins
    song: int
    source: str  # the song's line where it begins


def copies(songs, text, least=8):
    """Return the runs of `least` words or more that songs have, too, as Copies, the longest first.

    Of two that overlap, the longer one is taken.
    """
    words = plain_words(text)
    longest, where = matches(songs, songs.numbers(words))
    copied, taken = [], np.zeros(len(words), bool)
    for i in np.argsort(-longest, kind='stable'):
        n = int(longest[i])
        if n < max(least, ANCHOR):
            break
        if not taken[i : i + n].any():
            taken[i : i + n] = True
            song = int(np.searchsorted(songs.starts, where[i], 'right')) - 1
            source = line_of(songs.texts[song], int(where[i]) - songs.starts[song])
            copied.append(Copy(n, line_of(text, i), song, source))
    return copied


def copied_lines(songs, text, least=8):
    """Return {number of a line: Copy} of lines that are copied.

    A copied line is one of ANCHOR words or more that a song has whole, or of which a song has `least` words
    in a row.
    """
    longest, where = matches(songs, songs.numbers(plain_words(text)))
    copied, first = {}, 0
    for number, line in enumerate(text.split('\n')):
        n = len(plain_words(line))
        runs = np.minimum(longest[first : first + n], np.arange(n, 0, -1))  # to the line's end at most
        if n >= ANCHOR and (best := int(runs.max())) >= min(n, least):
            at = int(where[first + runs.argmax()])
            song = int(np.searchsorted(songs.starts, at, 'right')) - 1
            source = line_of(songs.texts[song], at - songs.starts[song])
            copied[number] = Copy(best, line.strip(), song, source)
        first += n
    return copied


def line_of(text, number):
    """Return the line in which word `number` is."""
    text = HEADER_LINE.sub(blank, text)
    word = next(match for k, match in enumerate(WORD.finditer(text)) if k == number)
    return text[text.rfind('\n', 0, word.start()) + 1 :].partition('\n')[0].strip()


def index_songs(data_dir, tokenizer):
    """Return the Songs of a prepared training split; UserError if there are too many tokens."""
    n_tokens = read_meta(data_dir)['splits']['train']['tokens']
    if n_tokens > MAX_TOKENS:
        raise UserError(f"{data_dir} has {n_tokens:,} training tokens, too many to look for copies in: "
                        "leave --eval_samples out")
    return Songs(tokenizer.decode(ids) for ids in read_split(data_dir, 'train'))


def song_names(data_dir, songs):
    """Return the name of each training song of index_songs().

    It is taken from the data.json beside the split, or else it is the song's number.
    """
    names, path = {}, Path(data_dir) / 'data.json'
    for entry in read_documents(path) if path.exists() else ():
        if 'song_name' in entry and 'artist_name' in entry:
            names[entry['text'].strip()] = f"“{entry['song_name']}” by {entry['artist_name']}"
    plain = (SONG_HEADER.sub('', text).strip() for text in songs.texts)
    return [names.get(text, f"training song {number}") for number, text in enumerate(plain, 1)]
