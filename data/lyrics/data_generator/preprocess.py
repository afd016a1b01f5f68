"""
Clean what crawl.py fetched and put it into one file, data.json, with one song per line.

    $ python data/lyrics/data_generator/preprocess.py --data_dir=json      # writes data/lyrics/data.json
    $ python data/lyrics/data_generator/preprocess.py --data_dir=json --language=en,es --keep_artists

data.json is a JSON list of {"text", "song_name", "artist_name", "group"} with exactly one entry per line,
so that it can also be read as a stream. `group` is the same for all versions of a song (remix, live,
remastered, or much text in common): a split into training and validation keeps a group together.
preprocess_report.json beside it has the counts, examples of what each rule changed, and every song that was
dropped, with the reason. The crawled files are only read.
"""

import argparse
import functools
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from cleaning import RULES, cleaning_steps, page_header, repair
from headers import is_header
from selection import (
    LANGUAGES,
    base_title,
    digest_of,
    drop_copies,
    group_of,
    kind_by_title,
    kind_of_page,
    other_language,
    shingles_of,
    words_of,
)
from words import name_key

from nanorap.common import UserError, check_readable, replaced_file

EXAMPLES = 5  # per rule and per reason in the report
SONGS_PER_WORKER = 200  # files per process, as starting one takes time; chosen by hand
HOLES = re.compile(r'\[\?+\]|\[inaudible\]|\w\*+|\*{2,}')

# ---- from the crawled files to data.json ----


def one_line(name):
    return ' '.join(repair(name).split())


def read_song(path):
    """Return the song of a crawled file, or None for a broken one."""
    try:
        song = json.loads(path.read_text(encoding='utf-8-sig'))
        if all(isinstance(song[key], str) for key in ('title', 'artist', 'state', 'lyrics')):
            return song
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    return None


def snippet(before, after, around=40, size=160):
    """Return the first place where two texts differ, in both, with `around` characters on either side."""
    start = len(os.path.commonprefix([before, after]))
    reversed_before, reversed_after = before[start:][::-1], after[start:][::-1]
    end = len(os.path.commonprefix([reversed_before, reversed_after]))
    return [text[max(0, start - around):len(text) - end + around][:size] for text in (before, after)]


def examine(path, options):
    """Return what is known of the song in one file, a dict, with the reason if it is dropped.

    It runs in a worker process.
    """
    song = read_song(path)
    facts = {'path': f'{path.parent.name}/{path.name}', 'title': '', 'artist': '', 'changed': {}}
    if song is None:
        return facts | {'reason': 'broken file'}
    title, artist = one_line(song['title']), one_line(song['artist'])
    facts.update(title=title, artist=artist)
    if song['state'] != 'complete':
        return facts | {'reason': f'not complete: {song["state"]}'}
    facts['keep'] = is_named(song, path, title, options.keep)
    if not facts['keep'] and (kind := kind_by_title(title, artist)) == 'translation':
        return facts | {'reason': kind}

    page = None  # the page without its head, before the rules for headers change numbered and labelled lines
    for rule, before, text in cleaning_steps(song['lyrics'], title, options.keep_artists):
        if rule is page_header and page is None:
            page = text
        if text != before and rule.__name__ not in facts['changed']:
            facts['changed'][rule.__name__] = snippet(before, text)
    words = words_of(text)
    reason = '' if facts['keep'] else reason_to_drop(page, text, words, title, artist, options)
    if not words:
        reason = reason or 'no text'
    if reason:
        return facts | {'reason': reason}

    group = group_of(artist, title)
    return facts | {
        'entry': {'text': text, 'song_name': title, 'artist_name': artist, 'group': group},
        'group': group,
        'digest': digest_of(words),
        'shingles': shingles_of(words),
        'holes': bool(HOLES.search(text)),
        'headers': any(map(is_header, text.split('\n'))),
        'version': base_title(title) != title}


def reason_to_drop(page, text, words, title, artist, options):
    """Return why a song is dropped, '' if it isn't."""
    if kind := kind_of_page(page, text, title, artist):
        return kind
    if len(words) < options.min_words:
        return f'fewer than {options.min_words} words'
    if len(set(words)) < options.min_unique_words:
        return f'fewer than {options.min_unique_words} different words'
    language = other_language(text, options.language)
    return f'language: {language}' if language else ''


def is_named(song, path, title, names):
    """Return whether the --keep file names a song: by its id, its path in the report, or its title."""
    return bool(names & {path.stem, str(song.get('id')), f'{path.parent.name}/{path.name}', name_key(title)})


def read_keep(path):
    """Return the ids, paths and titles of a --keep file, one per line."""
    if path is None:
        return frozenset()
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or 'not UTF-8 text'
        raise UserError(f"preprocess.py: can't read --keep {path} ({reason})") from None
    names = {line.strip() for line in lines} - {''}
    return frozenset(names | {name_key(name) for name in names})


def examine_all(paths, options):
    """Yield examine() of all files, in their order, on all cores."""
    examine_one = functools.partial(examine, options=options)
    workers = min(options.num_workers, 1 + len(paths) // SONGS_PER_WORKER)
    progress = functools.partial(tqdm, total=len(paths), unit=' songs', disable=None)
    if workers == 1:
        yield from progress(map(examine_one, paths))
        return
    # the parent process answers Ctrl-C
    ignore_ctrl_c = functools.partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    with multiprocessing.Pool(workers, ignore_ctrl_c) as pool:
        yield from progress(pool.imap(examine_one, paths, chunksize=32))


def write_lines(path, lines):
    try:
        with replaced_file(path, encoding='utf-8', errors='replace', newline='\n') as file:
            file.writelines(lines)
    except OSError as error:
        message = f"preprocess.py: can't write {path} ({error.strerror}); give another --save_dir"
        raise UserError(message) from None


def language_list(names):
    """Return the languages of a comma-separated list; an empty list stands for all."""
    wanted = [name.strip().lower() for name in names.split(',') if name.strip()]
    if not wanted or set(wanted) & {'any', 'all'}:
        return []
    if unknown := [name for name in wanted if name not in LANGUAGES]:
        known = ','.join(LANGUAGES)
        raise UserError(f'preprocess.py: no language {unknown[0]}; give any, or some of {known}')
    return wanted


def read_options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--data_dir', type=Path, default='json', help='what crawl.py wrote (default: json)')
    add('--save_dir', type=Path, default=Path(__file__).resolve().parents[1],
        help="where data.json goes (default: this script's data/lyrics)")
    add('--language', default='en',
        help='languages to keep, en,fr for two of them, any for all (default: en)')
    add('--keep_artists', action='store_true', help='[Verse 1: Name] instead of [Verse 1]')
    add('--min_words', type=int, default=30,
        help='drop shorter songs, headers not counted (default: 30, about four bars; less is a fragment)')
    add('--min_unique_words', type=int, default=15,
        help='drop songs with fewer different words (default: 15, about two bars; less is a loop)')
    add('--keep', type=Path, metavar='FILE',
        help='songs that are kept whatever the rules say: an id, a path of the report, or a title per line')
    add('--num_workers', type=int, default=os.cpu_count(), help='processes (default: one per core)')
    options = parser.parse_args()
    options.language = language_list(options.language)
    options.keep = read_keep(options.keep)
    return options


def main():
    options = read_options()
    sys.stdout.reconfigure(errors='replace')  # for a console that lacks a letter of a name

    def folder_and_number(path):
        return path.parent.name, len(path.stem), path.stem  # a longer number is a larger one

    paths = sorted(options.data_dir.glob('*/*.json'), key=folder_and_number)
    if not paths:
        check_readable(options.data_dir)
        raise UserError(
            f'preprocess.py: no songs in {options.data_dir}; run crawl.py first, or give its --data_dir')

    songs, changes = [], {}
    # the texts wait in a file, not in memory
    with tempfile.TemporaryFile('w+', encoding='utf-8', errors='replace') as texts:
        for song in examine_all(paths, options):
            if song.get('reason') == 'broken file':
                path = options.data_dir / song['path']
                why = 'not a song file of crawl.py, or a broken one'
                if not os.access(path, os.R_OK):
                    why = 'you have no permission to read it'
                print(f'preprocess.py: skipped {path}: {why}', file=sys.stderr)
            count_changes(changes, song)
            if entry := song.pop('entry', None):
                song['offset'] = texts.tell()
                texts.write(json.dumps(entry, ensure_ascii=False) + '\n')
            songs.append(song)
        drop_copies([song for song in songs if 'offset' in song])
        for song in songs:
            if song.get('keep') and 'offset' in song:
                song.pop('reason', None)  # of a copy
        kept = [song for song in songs if 'reason' not in song]
        report(options.save_dir, songs, kept, changes)
        if not kept:
            raise UserError(
                'preprocess.py: no song is left, so data.json is not written; see preprocess_report.json')
        write_lines(options.save_dir / 'data.json', entries(texts, kept))


def count_changes(changes, song):
    """Move what the rules changed in a song to {rule: {'count', 'examples'}} of all songs."""
    for rule, (before, after) in song.pop('changed').items():
        counted = changes.setdefault(rule, {'count': 0, 'examples': []})
        counted['count'] += 1
        if counted['count'] <= EXAMPLES:
            counted['examples'].append({'song': song['path'], 'before': before, 'after': after})


def entries(texts, kept):
    """Yield data.json in pieces, one per song, from the file of texts."""
    for number, song in enumerate(kept):
        texts.seek(song['offset'])
        entry = json.loads(texts.readline()) | {'group': song['group']}
        yield (',\n' if number else '[\n') + json.dumps(entry, ensure_ascii=False)
    yield '\n]\n'


def report(save_dir, songs, kept, changes):
    """Write preprocess_report.json, and print the same counts."""
    dropped, dropped_songs = {}, []
    for song in songs:
        if 'reason' in song:
            counted = dropped.setdefault(song['reason'], {'count': 0, 'examples': []})
            counted['count'] += 1
            counted['examples'] = (counted['examples'] + [song['title'] or song['path']])[:EXAMPLES]
            keys = ('path', 'title', 'artist', 'reason', 'of')
            dropped_songs.append({key: song[key] for key in keys if key in song})
    groups = len({song['group'] for song in kept})
    changed = {rule.__name__: changes[rule.__name__] for rule in RULES if rule.__name__ in changes}
    content = {
        'in': len(songs), 'out': len(kept), 'groups': groups,
        'dropped': dropped, 'changed': changed, 'dropped_songs': dropped_songs}
    text = json.dumps(content, ensure_ascii=False, indent=1)
    write_lines(save_dir / 'preprocess_report.json', [text, '\n'])

    print(f'{"songs in":<60} {len(songs):>7}')
    for reason, counted in sorted(dropped.items()):
        print(f'{"dropped, " + reason:<60} {counted["count"]:>7}')
    for rule, counted in changed.items():
        print(f'{"changed, " + rule:<60} {counted["count"]:>7}')
    print(f'{"songs out":<60} {len(kept):>7}')
    print(f'{"different songs (groups)":<60} {groups:>7}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        print('preprocess.py: stopped; nothing was written', file=sys.stderr)
        sys.exit(130)
