"""
Clean what crawl.py fetched and put it into one file, data.json: one song a line.

    $ python data/lyrics/data_generator/preprocess.py --data_dir=json      # writes data/lyrics/data.json
    $ python data/lyrics/data_generator/preprocess.py --data_dir=json --language=en,es --keep_artists --min_words=100

data.json is a JSON list of {"text", "song_name", "artist_name", "group"} with exactly one entry a line, so that it can
also be read as a stream. `group` is the same for all versions of a song (remix, live, remastered, or much text in common):
a split into training and validation keeps a group together. preprocess_report.json beside it has the counts, examples of
what each rule changed, and every song that was dropped, with the reason. The crawled files are only read.
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
from cleaning import RULES, clean, page_header, repair
from sections import is_header
from selection import (
    LANGUAGES,
    base_title,
    drop_copies,
    group_of,
    hash_of,
    other_language,
    shingles_of,
    text_says,
    title_says,
    words_of,
)

from nanorap.common import UserError

# ---- from the crawled files to data.json ----


def one_line(name):
    return ' '.join(repair(name).split())


def read_song(path):
    """The song of a crawled file, or None for a broken one."""
    try:
        song = json.loads(path.read_text(encoding='utf-8-sig'))
        if all(isinstance(song[key], str) for key in ('title', 'artist', 'state', 'lyrics')):
            return song
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    return None


def snippet(before, after, around=40, most=160):
    """The first place where two texts differ, with a little of what stands around it."""
    start = len(os.path.commonprefix([before, after]))
    end = min(len(os.path.commonprefix([before[:start - 1:-1], after[:start - 1:-1]])) if start else
              len(os.path.commonprefix([before[::-1], after[::-1]])), min(len(before), len(after)) - start)
    return [text[max(0, start - around):len(text) - end + around][:most] for text in (before, after)]


def examine(path, options):
    """One file: what is known of the song, with the reason if it is dropped. Runs in a process of its own."""
    song = read_song(path)
    found = {'path': f'{path.parent.name}/{path.name}', 'title': '', 'artist': '', 'changed': {}}
    if song is None:
        return found | {'reason': 'broken file'}
    title, artist = one_line(song['title']), one_line(song['artist'])
    found.update(title=title, artist=artist)
    if song['state'] != 'complete':
        return found | {'reason': f'not complete: {song["state"]}'}
    if kind := title_says(title, artist):
        return found | {'reason': kind}

    def changed(rule, before, after):
        if rule not in found['changed']:
            found['changed'][rule] = snippet(before, after)

    text = clean(song['lyrics'], title, options.keep_artists, changed)
    words = words_of(text)
    # numbered and labelled lines are read before a rule may take one for a header
    if kind := text_says(page_header(song['lyrics'], title), title) or text_says(text, title):
        return found | {'reason': kind}
    if len(words) < options.min_words:
        return found | {'reason': f'fewer than {options.min_words} words'}
    if len(set(words)) < options.min_unique_words:
        return found | {'reason': f'fewer than {options.min_unique_words} different words'}
    if language := other_language(text, options.language):
        return found | {'reason': f'language: {language}'}
    group = group_of(artist, title)
    entry = {'text': text, 'song_name': title, 'artist_name': artist, 'group': group}
    return found | {'entry': entry, 'group': group, 'digest': hash_of(words), 'shingles': shingles_of(words),
                    'holes': bool(re.search(r'\[\?+\]|\[inaudible\]|\w\*+|\*{2,}', text)),
                    'headers': any(map(is_header, text.split('\n'))), 'version': base_title(title) != title}


def examine_all(paths, options):
    """examine() of all files, in their order, on all cores."""
    job, number = functools.partial(examine, options=options), min(options.num_workers, 1 + len(paths) // 200)
    bar = functools.partial(tqdm, total=len(paths), unit=' songs', disable=None)
    if number == 1:
        yield from bar(map(job, paths))
        return
    ignore = functools.partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    with multiprocessing.Pool(number, ignore) as pool:
        yield from bar(pool.imap(job, paths, chunksize=32))


def write_lines(path, lines):
    """All or nothing: a reader never finds half a file under the final name."""
    temp = path.with_name(path.name + '.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temp, 'w', encoding='utf-8', errors='replace', newline='\n') as file:
            file.writelines(lines)
        os.replace(temp, path)
    except OSError as error:
        raise UserError(f"preprocess.py: can't write {path} ({error.strerror}); give another --save_dir") from None


def language_list(names):
    wanted = [name.strip().lower() for name in names.split(',') if name.strip()]
    if not wanted or set(wanted) & {'any', 'all'}:
        return []
    if unknown := [name for name in wanted if name not in LANGUAGES]:
        raise UserError(f'preprocess.py: no language {unknown[0]}; give any, or some of {",".join(LANGUAGES)}')
    return wanted


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data_dir', type=Path, default='json', help='what crawl.py wrote (default: json)')
    parser.add_argument('--save_dir', type=Path, default=Path(__file__).resolve().parents[1],
                        help="where data.json goes (default: this script's data/lyrics)")
    parser.add_argument('--language', default='en', help='languages to keep, en,fr for two of them, any for all (default: en)')
    parser.add_argument('--keep_artists', action='store_true', help='[Verse 1: Name] instead of [Verse 1]')
    parser.add_argument('--min_words', type=int, default=30,
                        help='drop shorter songs, headers not counted (default: 30, about four bars; less is a fragment)')
    parser.add_argument('--min_unique_words', type=int, default=15,
                        help='drop songs with fewer different words (default: 15, about two bars; less is a loop)')
    parser.add_argument('--num_workers', type=int, default=os.cpu_count(), help='processes (default: one a core)')
    options = parser.parse_args()
    options.language = language_list(options.language)
    sys.stdout.reconfigure(errors='replace')  # a console that lacks a letter of a name is no reason to stop
    # by artist folder, then by id: a longer number is a larger one
    paths = sorted(options.data_dir.glob('*/*.json'), key=lambda path: (path.parent.name, len(path.stem), path.stem))
    if not paths:
        raise UserError(f'preprocess.py: no songs in {options.data_dir}; run crawl.py first, or give its --data_dir')

    changed = {}
    with tempfile.TemporaryFile('w+', encoding='utf-8', errors='replace') as store:  # the texts wait there, not in memory
        found = []
        for song in examine_all(paths, options):
            if song.get('reason') == 'broken file':
                print(f'preprocess.py: skipped {options.data_dir / song["path"]}: not a song file of crawl.py, or a broken one',
                      file=sys.stderr)
            for rule, (before, after) in song.pop('changed').items():
                counted = changed.setdefault(rule, {'count': 0, 'examples': []})
                counted['count'] += 1
                if counted['count'] <= 5:
                    counted['examples'].append({'song': song['path'], 'before': before, 'after': after})
            if entry := song.pop('entry', None):
                song['at'] = store.tell()
                store.write(json.dumps(entry, ensure_ascii=False) + '\n')
            found.append(song)
        drop_copies([song for song in found if 'at' in song])
        kept = [song for song in found if 'reason' not in song]
        report(options.save_dir, found, kept, changed)
        if not kept:
            raise UserError('preprocess.py: no song is left, so data.json is not written; see preprocess_report.json')
        write_lines(options.save_dir / 'data.json', entries(store, kept))


def entries(store, kept):
    """The lines of data.json, one song after the other from the store."""
    for number, song in enumerate(kept):
        store.seek(song['at'])
        entry = json.loads(store.readline()) | {'group': song['group']}
        yield (',\n' if number else '[\n') + json.dumps(entry, ensure_ascii=False)
    yield '\n]\n'


def report(save_dir, found, kept, changed):
    """preprocess_report.json, and the same counts on the screen."""
    dropped, songs = {}, []
    for song in found:
        if 'reason' in song:
            counted = dropped.setdefault(song['reason'], {'count': 0, 'examples': []})
            counted['count'] += 1
            counted['examples'] = (counted['examples'] + [song['title'] or song['path']])[:5]
            songs.append({key: song[key] for key in ('path', 'title', 'artist', 'reason', 'of') if key in song})
    groups = len({song['group'] for song in kept})
    content = {'in': len(found), 'out': len(kept), 'groups': groups, 'dropped': dropped,
               'changed': {rule.__name__: changed[rule.__name__] for rule in RULES if rule.__name__ in changed},
               'dropped_songs': songs}
    write_lines(save_dir / 'preprocess_report.json', [json.dumps(content, ensure_ascii=False, indent=1), '\n'])
    print(f'{"songs in":<60} {len(found):>7}')
    for what in 'dropped', 'changed':
        for reason, counted in sorted(content[what].items()) if what == 'dropped' else content[what].items():
            print(f'{what + ", " + reason:<60} {counted["count"]:>7}')
    print(f'{"songs out":<60} {len(kept):>7}')
    print(f'{"different songs (groups)":<60} {groups:>7}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        print('preprocess.py: stopped; nothing was written', file=sys.stderr)
        sys.exit(130)
