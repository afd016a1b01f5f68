"""
Fetch lyrics from Genius into one JSON file a song. Crawl only what you have the right to use.

    $ export GENIUS_ACCESS_TOKEN=...        # from https://genius.com/api-clients
    $ python data/lyrics/data_generator/crawl.py --artist_file=data/lyrics/data_generator/artist.txt --data_dir=json
    $ python data/lyrics/data_generator/crawl.py --user_token=... --max_songs=40 --artists "First Name" "Second Name|1234"
    $ python data/lyrics/data_generator/crawl.py --artists "First Name" --dry_run        # only list what would be fetched

Leaves <data_dir>/<artist>/<song id>.json and <data_dir>/manifest.json, which says what became of every song listed.
Run the same command again to go on, however the last run ended: what is complete on disk is not fetched a second time.
The exit code is 0 if all went well, 1 if an artist or a song failed, 130 after Ctrl-C, 143 after SIGTERM.
"""

import argparse
import difflib
import itertools
import math
import os
import re
import signal
import sys
from pathlib import Path
from urllib.parse import urlparse

from genius import Blocked, Failed, connect, count_blocks, explain, say
from store import claim, fold, plain, read_folder, read_manifest, read_names, slug, sweep, write_json
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from nanorap.common import UserError  # noqa: E402

REST = 30  # intervals between two requests that pass before blocked songs are asked for again
SETTLED = ('complete', 'instrumental', 'unreleased')  # states of a song on disk that need no second visit
SKIPPED = ('other artist', 'instrumental', 'unreleased')


# ---- one artist ----


def find_artist(genius, name):
    """The artist of a name, or of Name|id. Looks among the artists of the songs found: the library's own search_artist()
    goes through the public site, without the token."""
    if given := re.fullmatch(r'.*\|\s*(\d+)', name):
        return genius.artist(int(given[1]))['artist']
    found = {}
    for page in 1, 2, 3:
        hits = [hit['result'] for hit in genius.search_songs(name, page=page)['hits']]
        for song in hits:
            for artist in [song['primary_artist'], *song.get('featured_artists', [])]:
                found.setdefault(artist['id'], artist)
        if not hits or any(artist['name'] == name for artist in found.values()):
            break
    # the exact name wins over another one that folds to the same: $NOT and Not
    for same in str, str.casefold, fold:
        near = [artist for artist in found.values() if same(artist['name']) == same(name)]
        if len(near) == 1:
            return near[0]
        if near:  # two artists of one name: the user knows which
            break
    folded = {fold(artist['name']): artist for artist in found.values()}
    near = near or [folded[close] for close in difflib.get_close_matches(fold(name), folded, n=3, cutoff=0.5)]
    near = near or list(found.values())[:3]
    hint = 'did you mean ' + ', '.join(f'"{plain(artist["name"])}|{artist["id"]}"' for artist in near) + '?'
    raise Failed(f'no artist of exactly this name; {hint if near else "check the spelling"}')


def entry_of(manifest, artist):
    """The artist's part of the manifest. Found by the id: the folder stays, even if Genius has renamed the artist."""
    old = next((key for key, entry in manifest.items() if entry['id'] == artist['id']), None)
    entry = manifest.pop(old) if old else {'songs': {}, 'folder': slug(artist['name'])}
    if any(other['folder'] == entry['folder'] for other in manifest.values()):  # another artist of the same name
        entry['folder'] += f'-{artist["id"]}'
    manifest[f'{artist["name"]}|{artist["id"]}'] = entry | {'artist': artist['name'], 'id': artist['id'], 'error': None}
    return manifest[f'{artist["name"]}|{artist["id"]}']


def first_look(song, artist, known):
    """The state of a song, as far as the disk and the list alone tell."""
    if known.get(song['id'], {}).get('state') in SETTLED:
        return known[song['id']]['state']
    if song['primary_artist']['id'] != artist['id']:
        return 'other artist'
    if song.get('instrumental'):
        return 'instrumental'
    return 'wanted' if song['lyrics_state'] == 'complete' else 'unreleased'


def list_wanted(genius, artist, known, entry, row):
    """Yields the songs to fetch, the most popular first, and notes every song listed. A list that breaks off ends early:
    what it gave is fetched all the same."""
    page = 1
    while page:
        try:
            answer = genius.artist_songs(artist['id'], sort='popularity', per_page=50, page=page)
            # the order may shift between two pages, and a song come twice
            songs = [song for song in answer['songs'] if song['id'] not in row['songs']]
            looks = [(song, first_look(song, artist, known)) for song in songs]
        except Exception as error:  # whatever the answer holds, the artists to come are not to suffer
            state, why = explain(error)
            entry['error'] = row['note'] = f'the list of songs broke off: {why}'
            count_blocks(genius._session, state)
            return
        for song, state in looks:
            noted = {'title': song['title'], 'artist': song['primary_artist']['name'], 'state': state, 'why': ''}
            entry['songs'][str(song['id'])] = row['songs'][song['id']] = noted
            if state == 'wanted':
                yield song
        page = answer.get('next_page') if songs else None


def fetch(genius, song):
    """(state, lyrics, language). The song's data first: the list has no language, nor always the instrumental flag."""
    info = genius.song(song['id'])['song']
    if info.get('instrumental'):
        return 'instrumental', '', None
    if info.get('lyrics_state', 'complete') != 'complete':
        return 'unreleased', '', None
    # the library puts its own WEB_ROOT before what follows this prefix
    lyrics = genius.lyrics(song_url='https://genius.com/' + urlparse(song['url']).path.lstrip('/')) or ''
    if not lyrics.strip():  # a block page with status 200 looks like this
        raise Blocked('a page without lyrics')
    return 'complete', lyrics, info.get('language')


def settle(genius, song, folder, row):
    """Fetches one song into its file, whatever comes of it; returns its state."""
    lyrics, language, why = '', None, ''
    try:
        state, lyrics, language = fetch(genius, song)
    except Exception as error:  # whatever this song's answers hold, the other songs go on
        state, why = explain(error)
    write_json(folder / f'{int(song["id"])}.json', {
        'id': song['id'], 'title': song['title'], 'artist': song['primary_artist']['name'], 'url': song['url'],
        'language': language, 'state': state, 'lyrics': lyrics})
    row['songs'][song['id']].update(state=state, why=why)
    row['new'] += state == 'complete'
    count_blocks(genius._session, state)
    return state


def crawl_artist(genius, name, args, manifest, rows):
    """One artist, from the name to the files. The row of the table fills as it goes: it is true whenever the crawl ends."""
    row = rows[name] = {'artist': name, 'id': None, 'old': 0, 'new': 0, 'songs': {}, 'twin': None, 'note': ''}
    artist = find_artist(genius, name)
    row['twin'] = next((key for key, other in rows.items() if other['id'] == artist['id']), None)
    if row['twin']:
        return
    row['artist'], row['id'] = artist['name'], artist['id']
    entry = entry_of(manifest, artist)
    folder = args.data_dir / entry['folder']
    known = read_folder(folder)
    for number, song in known.items():  # the files are the truth, the manifest may be older or lost
        entry['songs'][str(number)] = {key: song.get(key, '') for key in ('title', 'artist', 'state', 'why')}
    row['old'] = sum(song.get('state') == 'complete' for song in known.values())
    wanted = list_wanted(genius, artist, known, entry, row)
    with tqdm(total=args.max_songs, initial=row['old'], desc=plain(row['artist'])[:30], unit='song', position=1,
              leave=False, disable=None) as bar:

        def keep(song):
            state = settle(genius, song, folder, row)
            write_json(args.manifest, manifest)
            if state == 'complete':
                bar.update()
                if bar.disable and row['new'] % 10 == 0:
                    say(f'{plain(row["artist"])}: {row["new"]} new songs')
            return state in SETTLED

        # as many songs as are lacking, then as many more as could not be kept
        while batch := list(itertools.islice(wanted, max(0, args.max_songs - row['old'] - row['new']))):
            if args.dry_run:
                break
            later = [song for song in batch if not keep(song)]
            if later:
                genius._session.wait(REST * genius._session.interval, 'before another try at what failed')
            for song in later:
                keep(song)


# ---- the whole crawl ----


def dry_table(rows):
    """What would be done, song by song."""
    for row in rows:
        for number, song in row['songs'].items():
            action = {'complete': 'on disk', 'wanted': 'fetch'}.get(song['state'], 'skip')
            print(f'{number:>10} {action:<8} {song["state"]:<13} {plain(song["artist"])} - {plain(song["title"])}')


def table(rows):
    """Prints what became of every artist; True if something failed."""
    columns = [*SKIPPED, 'blocked', 'failed', 'left']
    print(f'{"artist":<30} {"kept":>6} {"new":>6}', *(f'{column:>{max(6, len(column))}}' for column in columns))
    bad = False
    for row in rows:
        states = ['left' if song['state'] == 'wanted' else song['state'] for song in row['songs'].values()]
        note = row['note'] or row['twin'] and f'the same artist as {plain(row["twin"])}'
        print(f'{plain(row["artist"]):<30.30} {row["old"] + row["new"]:>6} {row["new"]:>6}',
              *(f'{states.count(column):>{max(6, len(column))}}' for column in columns), *([f' <- {note}'] if note else []))
        bad = bad or bool(row['note']) or 'blocked' in states or 'failed' in states
    return bad


def read_options():
    """The command line, checked; every mistake is one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--user_token', help='Genius API token; else the environment variable GENIUS_ACCESS_TOKEN')
    parser.add_argument('--data_dir', type=Path, default='json', help='where the songs go (default: json)')
    parser.add_argument('--max_songs', type=int, default=40, help='songs to keep per artist (default: 40)')
    parser.add_argument('--artist_file', help='one name, or Name|Genius id, a line; blank lines and # comments are left out')
    parser.add_argument('--artists', nargs='+', default=[], metavar='NAME', help='names, after those of the file')
    parser.add_argument('--dry_run', action='store_true', help='list what would be fetched, and write nothing')
    parser.add_argument('--requests_per_second', type=float, default=1.0, help='the one rate limit (default: 1.0)')
    parser.add_argument('--timeout', type=float, default=15.0, help='seconds to wait for an answer (default: 15)')
    parser.add_argument('--patience', type=float, default=300.0,
                        help='seconds to go on trying one request, and the longest Retry-After waited for (default: 300)')
    parser.add_argument('--api_root', help='a server in place of Genius, token and all: for tests and proxies')

    def refuse(message):
        raise UserError(f'crawl.py: {message}; see --help')

    parser.error = refuse
    args, unknown = parser.parse_known_args()
    args.manifest = args.data_dir / 'manifest.json'
    if unknown:  # argparse would print them whole, and one may be a token after a misspelt --user_token
        refuse('unknown options ' + ' '.join(word.split('=')[0] for word in unknown if word.startswith('-')))
    args.token = (args.user_token or os.environ.get('GENIUS_ACCESS_TOKEN', '')).strip()
    if not re.fullmatch(r'[!-~]+', args.token):  # what an HTTP header takes
        refuse('no usable token; take one from https://genius.com/api-clients and give it with --user_token or as '
               'GENIUS_ACCESS_TOKEN')
    for option in 'max_songs', 'requests_per_second', 'timeout', 'patience':
        if not 0 < getattr(args, option) < math.inf:
            refuse(f'--{option} must be a number above 0')
    if args.api_root and not re.match('https?://.', args.api_root):
        refuse('--api_root must start with http:// or https://')
    return args


def crawl(genius, names, args, manifest, rows):
    """All artists, one after the other; what goes wrong with one is noted and never stops the others."""
    for name in tqdm(names, desc='artists', unit='artist', position=0, disable=None):
        try:
            crawl_artist(genius, name, args, manifest, rows)
        except Exception as error:
            state, why = explain(error)
            unknown = {'artist': name, 'id': None, 'folder': None, 'songs': {}}
            rows[name]['note'] = manifest.setdefault(name, unknown)['error'] = why
            count_blocks(genius._session, state)
        row = rows[name]
        if row['note']:
            say(f'{plain(name)}: {row["note"]}')
        elif not sys.stderr.isatty() and not row['twin']:
            say(f'{plain(row["artist"])}: {row["old"] + row["new"]} kept, {row["new"]} of them new')
        if not args.dry_run:
            write_json(args.manifest, manifest)


def interrupt(number, frame):
    """SIGTERM stops as cleanly as Ctrl-C."""
    raise KeyboardInterrupt(number)


def main():
    sys.stdout.reconfigure(errors='replace')  # a console that lacks a letter of a name is no reason to stop
    args = read_options()
    names = read_names(args.artists, args.artist_file)
    genius = connect(args)
    if not args.dry_run:
        claim(args.data_dir)
    manifest, rows, stop = read_manifest(args.manifest), {}, None
    if not args.dry_run:
        write_json(args.manifest, manifest)  # a folder that can't be written to is found out before the first request
        sweep(args.data_dir)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        crawl(genius, names, args, manifest, rows)
    except (KeyboardInterrupt, UserError) as error:
        stop = error
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end is short, and whole
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if args.dry_run:
        dry_table(rows.values())
    bad = table(rows.values())
    if not args.dry_run:
        write_json(args.manifest, manifest)
    if isinstance(stop, UserError):
        raise stop
    if stop:
        say('stopped; the same command goes on from here')
        sys.exit(128 + (stop.args[0] if stop.args else signal.SIGINT))
    if bad:
        print('the same command tries the failed ones again' + ('' if args.dry_run else f'; {args.manifest} says why'))
        sys.exit(1)


if __name__ == '__main__':
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
