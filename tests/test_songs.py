"""The shipped songs keep their form: what the demo learns from, and what a visitor reads first."""

import json
import re
from collections import Counter, defaultdict

from conftest import ROOT

FOLDER = ROOT / 'data/lyrics/demo'
SONGS = {path: json.loads(path.read_text(encoding='utf-8')) for path in sorted(FOLDER.glob('*/*.json'))}
HEADER = re.compile(r'\[(Intro|Verse \d|Hook|Chorus|Pre-Hook|Pre-Chorus|Bridge|Refrain|Interlude|Breakdown|Outro)\]')


def test_enough_of_them():
    assert len(SONGS) >= 40 and len({song['artist'] for song in SONGS.values()}) >= 8
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


def test_no_line_is_shared():
    where, prompt = defaultdict(set), demo_prompt().splitlines()[1:]
    for path, song in SONGS.items():
        verse_lines = Counter()
        for section in re.split(r'\n\n', song['lyrics']):
            header, *lines = section.splitlines()
            for line in lines:
                where[re.sub(r'\W+', ' ', line.lower()).strip()].add(path)
                verse_lines[line] += header.startswith('[Verse')
        assert max(verse_lines.values()) == 1, path  # only a song's own hook comes again
    assert [line for line, paths in where.items() if len(paths) > 1] == []
    assert not {re.sub(r'\W+', ' ', line.lower()).strip() for line in prompt} & set(where)
