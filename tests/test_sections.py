"""rap/sections.py: each section name, from a messy page through preprocess.py to the measures of its form."""

import json
import subprocess
import sys
from random import Random

import pytest
from conftest import ROOT, run

from nanorap.rap.sections import CANONICAL_HEADER, HEADER_LINE, SECTION_NAMES, SONG_HEADER, structure

GENERATOR = ROOT / 'data/lyrics/data_generator'
sys.path.insert(0, str(GENERATOR))
import words  # noqa: E402
from headers import parse_header  # noqa: E402

# forms in which a page may give a header of a section, and what cleaning writes
FORMS = ['[{}]', '[{}:]', '[{} 2]', '[{}: Tilly Ohm]']
VERSE = """the morning came in sideways through the blinds upon the floor
a neighbour moved a cupboard and she always moves one more
I counted seven pigeons and I named them after kings
the kettle has opinions and it whistles when it sings"""


def test_source_words_map_to_the_names_of_the_table():
    assert set(words.SECTION_WORDS) == set(words.SECTION_OF.values()) == set(SECTION_NAMES)
    assert words.MEANINGFUL_WHEN_EMPTY <= set(SECTION_NAMES)
    assert len(set(SECTION_NAMES)) == len(SECTION_NAMES)


@pytest.mark.parametrize('name', SECTION_NAMES)
def test_each_name_is_canonical_and_valid(name):
    for header in f'[{name}]', f'[{name} 2]', f'[{name} II]', f'[{name}: Tilly Ohm]':
        assert CANONICAL_HEADER.fullmatch(header) and HEADER_LINE.fullmatch(header)
        assert structure(f'[Verse 1]\na b\n\n{header}\nc d\n')['valid'] == 1
    assert parse_header(name).text() == f'[{name}]'


def test_other_brackets_are_not_valid():
    for line in '[?]', '[laughs]', '[Broken]', '[Parted]', '[Verses]', '[]':
        assert structure(f'[Verse 1]\na b\n{line}\nc d\n')['valid'] == 0
        assert not CANONICAL_HEADER.fullmatch(line)


def test_structure_by_hand():
    song = "[Verse 1]\nOne line\nTwo lines\n\n[Hook: all]\none line\nThree\n"
    assert structure(song) == dict(
        valid=1, sections=2, lines_per_section=2, repeated_lines=1 / 4, empty=0, cut=0)
    assert structure("[Verse 1]\n[Blah]\nx", cut=True) == dict(
        valid=0, sections=2, lines_per_section=0.5, repeated_lines=0, empty=0, cut=1)
    assert structure("no header")['valid'] == 0
    assert structure(" \n[Hook]\n")['empty'] == 1


def shuffled_words(verse, seed):
    """The words of a verse in another order, eight per line."""
    words = verse.split()
    Random(seed).shuffle(words)
    return '\n'.join(' '.join(words[i:i + 8]) for i in range(0, len(words), 8))


def test_each_name_survives_the_pipeline(tmp_path):
    """Crawled files with each name in several forms become a data.json whose every header is valid."""
    folder = tmp_path / 'json' / 'tilly-ohm'
    folder.mkdir(parents=True)
    for number, name in enumerate(SECTION_NAMES, 1):
        verse = shuffled_words(VERSE, seed=number)  # in another order per song, so that none is a copy
        page = f'3 ContributorsSong {number} Lyrics[Verse 1]\n{verse}'
        for i, form in enumerate(FORMS):
            page += f'\n\n{form.format(name)}\nline {i} of number {number} and some more'
        song = dict(id=number, title=f'Song {number}', artist='Tilly Ohm', url='', language='en',
                    state='complete', lyrics=f'{page}7Embed')
        (folder / f'{number}.json').write_text(json.dumps(song))
    run('data/lyrics/data_generator/preprocess.py', '--data_dir=json', '--save_dir=out', '--language=any',
        cwd=tmp_path)
    songs = json.loads((tmp_path / 'out' / 'data.json').read_text())
    texts = {song['song_name']: song['text'] for song in songs}
    assert len(texts) == len(SECTION_NAMES)
    for number, name in enumerate(SECTION_NAMES, 1):
        text = texts[f'Song {number}']
        headers = [line for line in text.split('\n') if line.startswith('[')]
        second = 'II' if name == 'Part' else '2'
        assert headers == ['[Verse 1]', f'[{name}]', f'[{name}]', f'[{name} {second}]', f'[{name}]']
        form = structure(text)
        assert form['valid'] == 1 and form['sections'] == 5


def test_song_headers():
    assert SONG_HEADER.sub('', '[Artist: Fern]\n[Title: Rain]\n[Hook]\nyo') == '[Hook]\nyo'
    assert SONG_HEADER.sub('', '[Hook]\n[Artist: Fern]\nyo') == '[Hook]\n[Artist: Fern]\nyo'


def test_import_is_light():
    code = 'import sys, nanorap.rap.sections; print({"torch", "numpy"} & set(sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == 'set()\n'
