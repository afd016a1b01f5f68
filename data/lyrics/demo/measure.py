"""
Print the table of README.md, or a line of it for each text file that is given, to compare with.

    $ python data/lyrics/demo/measure.py
    $ python data/lyrics/demo/measure.py poems.txt more.txt
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[2]))
from nanorap.rap.rhyme import measures, split_words

VOICES = {
    'Kobalt Figgs': "boom bap, dry, the corner store's chronicler",
    'Marrow Lane': 'stories in the third person, with a turn at the end',
    'Juno Vantablack': 'battle rap, punchlines, no mercy',
    'Tilly Ohm': 'grime, quick short bars, London',
    'Big Saltine': 'party and comedy, mostly about food',
    'Deacon Ploy': 'conscious, a preacher with doubts',
    'Rook Umber': 'chopper, one rhyme for a whole verse',
    'Ms. Parallax': 'introspective, physics and the sky',
    'Velvet Hacksaw': 'trap on the night shift',
    'Pops Lumen': 'a father in his forties',
    'Sidewinder Sal': 'desert highway, tall tales',
    'Nori Static': 'bedroom lo-fi, 3 a.m.',
    'Lady Tarmac': 'drill in a hi-vis vest, deadpan, South London roadworks',
    'Lonnie Plush': 'trap romance, tender about small things',
    'Rollo Fizz': 'old-school party, block and roller rink',
    'Ezra Cellar': 'horror stories, told with relish',
    'Clover Diesel': 'farm rap, mud and bank loans',
    'Wren Halyard': 'spoken word, lists and long breaths',
    'Vim Castellan': 'tech and chess, on call at 3',
}


def table_row(name, voice, texts, shuffles=5):
    text = '\n\n'.join(texts)
    rhyme, words = measures(text, shuffles), split_words(text)
    cells = [
        name,
        voice,
        f'{len(texts)}',
        f'{len(words):,}',
        f'{len(set(words)):,}',
        f'{rhyme["density"]:.2f}',
        f'{rhyme["density_excess"]:.2f}',
        f'{rhyme["multisyllabic_share"]:.0%}',
        f'{rhyme["end_rhyme_share"]:.0%}',
        f'{rhyme["syllables_mean"]:.1f} ± {rhyme["syllables_spread"]:.1f}']
    return f'| {" | ".join(cells)} |'


def table():
    """Yield the lines of the table."""
    songs = [json.loads(path.read_text(encoding='utf-8')) for path in sorted(FOLDER.glob('*/*.json'))]
    texts = {name: [song['lyrics'] for song in songs if song['artist'] == name] for name in VOICES}
    columns = ['artist', 'voice', 'songs', 'words', 'vocabulary', 'density', 'excess', 'multisyllabic',
               'end rhymes', 'syllables']
    yield f'| {" | ".join(columns)} |'
    yield '| --- | --- |' + ' ---: |' * 8
    for name, voice in VOICES.items():
        yield table_row(name, voice, texts[name])
    yield table_row('all', '', [lyrics for of_artist in texts.values() for lyrics in of_artist])


if __name__ == '__main__':
    sys.stdout.reconfigure(errors='replace')  # for a console that lacks a letter of what is printed
    paths = [Path(name) for name in sys.argv[1:]]
    for path in paths:
        print(table_row(path.stem, '', [path.read_text(encoding='utf-8-sig')]), flush=True)
    if not paths:
        for line in table():
            print(line, flush=True)
