"""
Fetch lyrics from Genius into one JSON file per song. Crawl only what you have the right to use.

    $ export GENIUS_ACCESS_TOKEN=...        # from https://genius.com/api-clients
    $ python data/lyrics/data_generator/crawl.py --artist_file=names.txt --data_dir=json
    $ python data/lyrics/data_generator/crawl.py --max_songs=40 --artists "First Name" "Second Name|1234"
    $ python data/lyrics/data_generator/crawl.py --artists "First Name" --dry_run        # only list the songs

It writes <data_dir>/<artist>/<song id>.json and <data_dir>/manifest.json, which has the state of every song
listed. Run the same command again to go on, however the last run ended: what is complete on disk is not
fetched again. The exit code is 0 if all went well, 1 if an artist or a song failed, 130 after Ctrl-C, 143
after SIGTERM.
"""

import argparse
import difflib
import itertools
import math
import os
import re
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

from genius import Blocked, Failed, Gone, connect, count_blocks, describe, print_message
from page import is_own_page, lyrics_of_page
from store import (
    lock_folder,
    printable,
    read_folder,
    read_manifest,
    read_names,
    remove_leftovers,
    slug,
    write_json,
)
from tqdm import tqdm
from words import name_key

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from nanorap.common import UserError

RETRY_PAUSE = 30  # x the request interval, before retrying
SKIPPED = ('other artist', 'instrumental', 'unreleased', 'no lyrics')
# a song on disk in one of them is left alone
FINAL_STATES = ('complete', 'instrumental', 'unreleased', 'no lyrics')


@dataclass
class ArtistReport:
    """What became of one artist in this run: a line of the final table, filled while the crawl goes on."""

    artist: str  # as Genius writes the name; until the artist is found, as the user does
    id: int | None = None  # of the artist at Genius; None: not found
    on_disk: int = 0  # complete songs on disk before this run
    new: int = 0  # songs fetched by this run
    songs: dict = field(default_factory=dict)  # {song id: its entry in the manifest} of all songs listed
    same_as: str | None = None  # an earlier name of this run that means the same artist
    error: str = ''  # why the artist was not found, or why the list of songs is not whole

    @property
    def kept(self):
        return self.on_disk + self.new


# ---- one artist ----


def find_artist(genius, name):
    """Return the artist of a name, or of Name|id; Failed if there is none, or several.

    The search is for songs, and their artists are compared: the library's own search_artist() goes through
    the public site, without the token.
    """
    if given := re.fullmatch(r'(.*)\|\s*(\d+)', name):
        artist = genius.artist(int(given[2]))['artist']
        if name_key(given[1]) != name_key(artist['name']):
            print_message(f'{printable(name)}: artist {given[2]} of Genius is "{printable(artist["name"])}", '
                          'whose songs are fetched; for another one leave the number out')
        return artist
    artists = {}
    for page in 1, 2, 3:
        hits = genius.search_songs(name, page=page)['hits']
        for artist in artists_of(hits):
            artists.setdefault(artist['id'], artist)
        if not hits or any(artist['name'] == name for artist in artists.values()):
            break

    # the exact name wins over another one with the same key: $NOT and Not
    for key in str, str.casefold, name_key:
        candidates = [artist for artist in artists.values() if key(artist['name']) == key(name)]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:  # several artists of one name: only the user knows which is meant
            break
    if not candidates:
        by_key = {name_key(artist['name']): artist for artist in artists.values()}
        close = difflib.get_close_matches(name_key(name), by_key, n=3, cutoff=0.5)
        candidates = [by_key[key] for key in close] or list(artists.values())[:3]
    hint = 'check the spelling'
    if candidates:
        names = ', '.join(f'"{printable(artist["name"])}|{artist["id"]}"' for artist in candidates)
        hint = f'did you mean {names}?'
    raise Failed(f'no artist of exactly this name; {hint}')


def artists_of(hits):
    """Yield the artists of a search's hits; an odd one among them is left out."""
    for hit in hits:
        song = hit.get('result') if isinstance(hit, dict) else None
        if isinstance(song, dict):
            featured = song.get('featured_artists')
            yield from filter(is_artist, [song.get('primary_artist'), *(featured or [])])


def is_artist(value):
    return isinstance(value, dict) and isinstance(value.get('id'), int) and isinstance(value.get('name'), str)


def oddity(song):
    """Return what is odd about an entry of a list of songs, one line, or '' if nothing is."""
    if not isinstance(song, dict) or not isinstance(song.get('id'), int):
        return 'an entry without a number'
    for key in 'title', 'url', 'lyrics_state':
        if not isinstance(song.get(key), str):
            return f'song {song["id"]} has no {key}'
    return '' if is_artist(song.get('primary_artist')) else f'song {song["id"]} has no artist'


def manifest_entry(manifest, artist):
    """Return the artist's entry in the manifest, a new one if needed.

    It is found by the id: the folder stays, even if Genius has renamed the artist.
    """
    old_key = next((key for key, entry in manifest.items() if entry['id'] == artist['id']), None)
    entry = manifest.pop(old_key) if old_key else {'songs': {}, 'folder': slug(artist['name'])}
    namesake = any(other['folder'] == entry['folder'] for other in manifest.values())
    if namesake:
        entry['folder'] += f'-{artist["id"]}'
    entry |= {'artist': artist['name'], 'id': artist['id'], 'error': None}
    manifest[f'{artist["name"]}|{artist["id"]}'] = entry
    return entry


def initial_state(song, artist, known):
    """Return the state of a listed song, as far as the disk and the list alone show it."""
    if known.get(song['id'], {}).get('state') in FINAL_STATES:
        return known[song['id']]['state']
    if song['primary_artist']['id'] != artist['id']:
        return 'other artist'
    if song.get('instrumental'):
        return 'instrumental'
    return 'wanted' if song['lyrics_state'] == 'complete' else 'unreleased'


def list_wanted(genius, artist, known, entry, report):
    """Yield the songs to fetch, the most popular first, and note every song listed.

    An odd entry is left out, with a message. If the list breaks off, it ends early: the songs up to there are
    fetched all the same.
    """
    page = 1
    while page:
        try:
            answer = genius.artist_songs(artist['id'], sort='popularity', per_page=50, page=page)
            odd = [reason for song in answer['songs'] if (reason := oddity(song))]
            if odd and len(odd) == len(answer['songs']) > 1:
                raise Failed(f'all its entries are odd: {odd[0]}')
            if odd:
                others = f', and {len(odd) - 1} more like it' if len(odd) > 1 else ''
                print_message(f'{printable(artist["name"])}: left out of the list: {odd[0]}{others}')
            # the order may change between two pages, and a song come twice
            songs = [song for song in answer['songs']
                     if not oddity(song) and song['id'] not in report.songs]
            states = [initial_state(song, artist, known) for song in songs]
        except Exception as error:  # whatever the answer holds, the next artists are crawled
            state, reason = describe(error)
            entry['error'] = report.error = f'the list of songs broke off: {reason}'
            count_blocks(genius._session, state)
            return
        for song, state in zip(songs, states, strict=True):
            artist_name = song['primary_artist']['name']
            noted = {'title': song['title'], 'artist': artist_name, 'state': state, 'why': ''}
            entry['songs'][str(song['id'])] = report.songs[song['id']] = noted
            if state == 'wanted':
                yield song
        page = answer.get('next_page') if songs else None


def fetch(genius, song):
    """Return (state, lyrics, language) of a song.

    Its data is read before its page: the list has no language, and not always the instrumental flag.
    """
    info = genius.song(song['id'])['song']
    if info.get('instrumental'):
        return 'instrumental', '', None
    if info.get('lyrics_state', 'complete') != 'complete':
        return 'unreleased', '', None
    page = genius._make_request(urlparse(song['url']).path.lstrip('/'), web=True)['html']
    lyrics = lyrics_of_page(page)
    if lyrics.strip():
        return 'complete', lyrics, info.get('language')
    if is_own_page(page, song):
        return 'no lyrics', '', info.get('language')
    raise Blocked("a page that is not the song's")  # with status 200


def fetch_to_file(genius, song, folder, report):
    """Fetch one song into its file, which is written with whatever state results; return the state."""
    lyrics, language, reason = '', None, ''
    try:
        state, lyrics, language = fetch(genius, song)
    except Gone as error:
        state, reason = 'no lyrics', str(error)
    except Exception as error:  # whatever this song's answers hold, the next songs are fetched
        state, reason = describe(error)
    write_json(folder / f'{int(song["id"])}.json', {
        'id': song['id'],
        'title': song['title'],
        'artist': song['primary_artist']['name'],
        'url': song['url'],
        'language': language,
        'state': state,
        'lyrics': lyrics})
    report.songs[song['id']].update(state=state, why=reason)
    report.new += state == 'complete'
    count_blocks(genius._session, state)
    return state


def crawl_artist(genius, name, args, manifest, reports):
    """Crawl one artist, from the name to the files. The report is up to date whenever the crawl ends."""
    report = reports[name] = ArtistReport(artist=name)
    artist = find_artist(genius, name)
    report.same_as = next((key for key, other in reports.items() if other.id == artist['id']), None)
    if report.same_as:
        return
    report.artist, report.id = artist['name'], artist['id']
    entry = manifest_entry(manifest, artist)
    folder = args.data_dir / entry['folder']
    known = read_folder(folder)
    for number, song in known.items():  # the files decide: the manifest may be older, or lost
        entry['songs'][str(number)] = {key: song.get(key, '') for key in ('title', 'artist', 'state', 'why')}
    report.on_disk = sum(song.get('state') == 'complete' for song in known.values())
    wanted = list_wanted(genius, artist, known, entry, report)
    with tqdm(total=args.max_songs, initial=report.on_disk, desc=printable(report.artist)[:30], unit='song',
              position=1, leave=False, disable=None) as bar:

        def fetch_and_note(song):
            """Return whether the song needs no further try."""
            state = fetch_to_file(genius, song, folder, report)
            write_json(args.manifest, manifest)
            if state == 'complete':
                bar.update()
                if bar.disable and report.new % 10 == 0:
                    print_message(f'{printable(report.artist)}: {report.new} new songs')
            return state in FINAL_STATES

        # as many songs as are lacking, then as many more as could not be kept; those tried before come last
        while batch := list(itertools.islice(wanted, max(0, args.max_songs - report.kept))):
            if args.dry_run:
                break
            batch.sort(key=lambda song: song['id'] in known)
            failed = [song for song in batch if not fetch_and_note(song)]
            if failed:
                pause = RETRY_PAUSE * genius._session.interval
                genius._session.wait(pause, 'before another try at what failed')
            for song in failed:
                fetch_and_note(song)


# ---- the whole crawl ----


def print_plan(reports):
    """Print what a run without --dry_run would do, song by song."""
    for report in reports:
        for number, song in report.songs.items():
            action = {'complete': 'on disk', 'wanted': 'fetch'}.get(song['state'], 'skip')
            name = f'{printable(song["artist"])} - {printable(song["title"])}'
            print(f'{number:>10} {action:<8} {song["state"]:<13} {name}')


def print_table(reports):
    """Print what became of every artist; return whether something failed."""
    columns = [*SKIPPED, 'blocked', 'failed', 'left']
    widths = [max(6, len(column)) for column in columns]

    def print_line(artist, kept, new, counts, note=''):
        cells = [f'{count:>{width}}' for count, width in zip(counts, widths, strict=True)]
        print(f'{artist:<30.30} {kept:>6} {new:>6}', *cells, *([f' <- {note}'] if note else []))

    print_line('artist', 'kept', 'new', columns)
    any_failed = False
    for report in reports:
        states = ['left' if song['state'] == 'wanted' else song['state'] for song in report.songs.values()]
        note = report.error
        if not note and report.same_as:
            note = f'the same artist as {printable(report.same_as)}'
        counts = [states.count(column) for column in columns]
        print_line(printable(report.artist), report.kept, report.new, counts, note)
        any_failed = any_failed or bool(report.error) or 'blocked' in states or 'failed' in states
    return any_failed


def read_options():
    """Return the checked options of the command line; every mistake in them is a UserError of one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--user_token', help='Genius API token; else the environment variable GENIUS_ACCESS_TOKEN')
    add('--data_dir', type=Path, default='json', help='where the songs go (default: json)')
    add('--max_songs', type=int, default=40, help='songs to keep per artist (default: 40)')
    add('--artist_file',
        help='one name, or Name|Genius id, per line; blank lines and # comments are left out')
    add('--artists', nargs='+', default=[], metavar='NAME', help='names, after those of the file')
    add('--dry_run', action='store_true', help='list what would be fetched, and write nothing')
    add('--requests_per_second', type=float, default=1.0, help='the one rate limit (default: 1.0)')
    add('--timeout', type=float, default=15.0, help='seconds to wait for an answer (default: 15)')
    add('--patience', type=float, default=300.0,
        help='seconds to go on trying one request, and the longest Retry-After waited for (default: 300)')
    add('--api_root', help='a server in place of Genius, token and all: for tests and proxies')

    def refuse(message):
        if re.search(r'--artists: expected|^unknown options -[^-]', message):
            message += '; a name that begins with - is written as --artists=-M-, or in the --artist_file'
        raise UserError(f'crawl.py: {message}; see --help')

    parser.error = refuse
    args, unknown = parser.parse_known_args()
    args.manifest = args.data_dir / 'manifest.json'
    if unknown:  # argparse would print them whole, and one may be a token after a misspelt --user_token
        refuse('unknown options ' + ' '.join(word.split('=')[0] for word in unknown if word.startswith('-')))
    args.token = (args.user_token or os.environ.get('GENIUS_ACCESS_TOKEN', '')).strip()
    if not re.fullmatch(r'[!-~]+', args.token):  # the characters that an HTTP header takes
        refuse('no usable token; take one from https://genius.com/api-clients and give it with --user_token '
               'or as GENIUS_ACCESS_TOKEN')
    for option in 'max_songs', 'requests_per_second', 'timeout', 'patience':
        if not 0 < getattr(args, option) < math.inf:
            refuse(f'--{option} must be a number above 0')
    if args.api_root and not re.match('https?://.', args.api_root):
        refuse('--api_root must start with http:// or https://')
    return args


def tries_before(name, manifest):
    """Return 0 for an artist that no earlier run tried, 1 for one that went well, 2 for one that failed."""
    number = re.fullmatch(r'.*\|\s*(\d+)', name)
    key = name_key(name)
    entries = [entry for entry in manifest.values()
               if (entry['id'] == int(number[1]) if number else name_key(str(entry.get('artist'))) == key)]
    if not entries:
        return 0
    states = {song.get('state') for entry in entries for song in entry['songs'].values()}
    return 2 if states & {'blocked', 'failed'} or any(entry.get('error') for entry in entries) else 1


def crawl(genius, names, args, manifest, reports):
    """Crawl all artists, one after the other; an error of one is noted and doesn't stop the others.

    Those come first that no earlier run has tried, and last those that failed.
    """
    names = sorted(names, key=lambda name: tries_before(name, manifest))
    for name in tqdm(names, desc='artists', unit='artist', position=0, disable=None):
        try:
            crawl_artist(genius, name, args, manifest, reports)
        except Exception as error:
            state, reason = describe(error)
            not_found = {'artist': name, 'id': None, 'folder': None, 'songs': {}}
            manifest.setdefault(name, not_found)['error'] = reports[name].error = reason
            count_blocks(genius._session, state)
        report = reports[name]
        if report.error:
            print_message(f'{printable(name)}: {report.error}')
        elif not sys.stderr.isatty() and not report.same_as:
            print_message(f'{printable(report.artist)}: {report.kept} kept, {report.new} of them new')
        if not args.dry_run:
            write_json(args.manifest, manifest)


def interrupt(number, frame):
    """Make SIGTERM stop the crawl as cleanly as Ctrl-C."""
    raise KeyboardInterrupt(number)


def main():
    sys.stdout.reconfigure(errors='replace')  # for a console that lacks a letter of a name
    args = read_options()
    names = read_names(args.artists, args.artist_file)
    genius = connect(args)
    if not args.dry_run:
        lock_folder(args.data_dir)
    manifest, reports, stop = read_manifest(args.manifest), {}, None
    if not args.dry_run:
        write_json(args.manifest, manifest)  # before the first request: the folder may not be writable
        remove_leftovers(args.data_dir)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        crawl(genius, names, args, manifest, reports)
    except (KeyboardInterrupt, UserError) as error:
        stop = error
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end is short, and not interrupted
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if args.dry_run:
        print_plan(reports.values())
    any_failed = print_table(reports.values())
    if not args.dry_run:
        write_json(args.manifest, manifest)
    if isinstance(stop, UserError):
        raise stop
    if stop:
        print_message('stopped; the same command goes on from here')
        sys.exit(128 + (stop.args[0] if stop.args else signal.SIGINT))
    if any_failed:
        where = '' if args.dry_run else f'; {args.manifest} says why'
        print(f'the same command tries the failed ones again{where}')
        sys.exit(1)


if __name__ == '__main__':
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
