"""The shipped songs, which the demo trains on: their format, their form, no copies, their rhymes."""

import json
import random
import re
import statistics
import sys
from collections import Counter, defaultdict
from itertools import combinations

from conftest import ROOT

sys.path.insert(0, str(ROOT / 'data/lyrics/data_generator'))
from selection import shingles_of, similar_pairs, words_of

from nanorap.rap.rhyme import density, split_words

FOLDER = ROOT / 'data/lyrics/demo'
SONGS = {path: json.loads(path.read_text(encoding='utf-8')) for path in sorted(FOLDER.glob('*/*.json'))}
# the headers that the shipped songs use
HEADER = re.compile(
    r'\[(Intro|Verse \d|Hook|Chorus|Pre-Hook|Pre-Chorus|Bridge|Refrain|Interlude|Breakdown|Outro)\]')


def test_number_of_songs_artists_and_words():
    assert len(SONGS) >= 104 and len({song['artist'] for song in SONGS.values()}) >= 12
    assert sum(len(split_words(song['lyrics'])) for song in SONGS.values()) >= 36000
    assert min(Counter(song['artist'] for song in SONGS.values()).values()) >= 3
    assert 'CC0' in (FOLDER / 'README.md').read_text() and demo_prompt().startswith('[Verse 1]\n')


def demo_prompt():
    return (ROOT / 'demo.txt').read_text()


def test_the_format_of_a_crawled_song():
    for path, song in SONGS.items():
        assert list(song) == ['id', 'title', 'artist', 'url', 'language', 'state', 'lyrics'], path
        assert path.stem == str(song['id']) and song['state'] == 'complete' and song['language'] == 'en', path
        assert path.parent.name == re.sub(r'[^a-z0-9]+', '-', song['artist'].lower()).strip('-'), path
    assert max(Counter(song['id'] for song in SONGS.values()).values()) == 1
    assert max(Counter(song['title'] for song in SONGS.values()).values()) == 1


def test_length_and_sections():
    for path, song in SONGS.items():
        sections = re.split(r'^(\[.*\])\n', song['lyrics'], flags=re.MULTILINE)
        assert sections[0] == '' and len(sections) > 6, path  # it begins with a header
        assert all(HEADER.fullmatch(header) for header in sections[1::2]), path
        assert '[Verse 1]' in sections and {'[Hook]', '[Chorus]', '[Refrain]'} & set(sections), path
        assert len(re.findall(r"[\w'-]+", ' '.join(sections[2::2]))) >= 250, path
        for text in sections[2:-1:2]:
            assert text.endswith('\n\n') and '\n\n' not in text.removesuffix('\n\n'), path


def test_no_two_songs_share_a_line():
    def words_alone(line):
        return re.sub(r'\W+', ' ', line.lower()).strip()

    paths_of_line = defaultdict(set)
    for path, song in SONGS.items():
        verse_lines = Counter()
        for section in song['lyrics'].split('\n\n'):
            header, *lines = section.splitlines()
            for line in lines:
                paths_of_line[words_alone(line)].add(path)
                verse_lines[line] += header.startswith('[Verse')
        assert max(verse_lines.values()) == 1, path  # only a song's own hook comes again
    assert [line for line, paths in paths_of_line.items() if len(paths) > 1] == []
    prompt = demo_prompt().splitlines()[1:]
    assert not {words_alone(line) for line in prompt} & set(paths_of_line)


def test_no_two_songs_share_a_phrase():
    """A run of six words is in one song only, one of five in at most three; two songs share one at most."""
    paths_of_phrase, shared = defaultdict(set), Counter()
    for path, song in SONGS.items():
        words = words_of(song['lyrics'])
        for length in 5, 6:
            for start in range(len(words) - length + 1):
                paths_of_phrase[tuple(words[start:start + length])].add(path)
    for phrase, paths in paths_of_phrase.items():
        assert len(paths) <= (3 if len(phrase) == 5 else 1), (phrase, paths)
        shared.update(combinations(sorted(paths), 2))
    assert [pair for pair, count in shared.items() if count > 1] == []


def test_no_near_duplicates():
    assert not list(similar_pairs([shingles_of(words_of(song['lyrics'])) for song in SONGS.values()]))


def text_of_each_artist():
    texts = defaultdict(list)
    for song in SONGS.values():
        texts[song['artist']].append(song['lyrics'])
    return {artist: '\n\n'.join(songs) for artist, songs in texts.items()}


def test_songs_rhyme_beyond_chance():
    """README.md has the same measure over more shuffles; poets of the past are at .04 to .11."""
    excess = {}
    for artist, text in text_of_each_artist().items():
        words, shuffler = split_words(text), random.Random(0)
        shuffled = [shuffler.sample(words, len(words)) for _ in range(2)]
        excess[artist] = density(words) - statistics.fmean(map(density, shuffled))
    assert min(excess.values()) > .08, sorted(excess.items(), key=lambda pair: pair[1])[:3]
    assert statistics.fmean(excess.values()) > .2


def test_table_of_the_readme_counts_these_songs():
    table = (FOLDER / 'README.md').read_text(encoding='utf-8')
    all_texts = '\n\n'.join(song['lyrics'] for song in SONGS.values())
    for artist, text in [*text_of_each_artist().items(), ('all', all_texts)]:
        songs = text.count('\n\n[Verse 1]') + text.startswith('[Verse 1]')
        words = split_words(text)
        row = rf'\| {re.escape(artist)} \| [^|]*\| {songs} \| {len(words):,} \| {len(set(words)):,} \|'
        assert re.search(row, table), f'{artist}: {row}; run measure.py again'
