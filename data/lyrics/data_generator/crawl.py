"""
Fetch lyrics from Genius into one JSON file a song. Crawl only what you have the right to use.

    $ export GENIUS_ACCESS_TOKEN=...        # from https://genius.com/api-clients
    $ python data/lyrics/data_generator/crawl.py --artist_file=data/lyrics/data_generator/artist.txt --data_dir=json
    $ python data/lyrics/data_generator/crawl.py --user_token=... --max_songs=40 --artists "First Name" "Second Name"

Leaves <data_dir>/<artist>/<song id>.json and <data_dir>/manifest.json, which says what became of every song listed.
Run the same command again to go on: what is complete on disk is not fetched a second time.
The exit code is 0 if all went well, 1 if an artist or a song failed, 130 after Ctrl-C.
"""

import argparse
import difflib
import hashlib
import json
import os
import re
import sys
import unicodedata
from pathlib import Path
from urllib.parse import urlparse

import requests
from lyricsgenius import Genius
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from nanorap import UserError  # noqa: E402

TROUBLES = 3  # blocked or failed songs in a row that end an artist: a site that refuses us is left alone
# what the manifest and the summary say of a song whose file has this state
OUTCOMES = {'complete': 'new', 'instrumental': 'skipped', 'unreleased': 'skipped',
            'blocked': 'failed', 'failed': 'failed'}


def fold(name):
    """Letters and digits alone, without case and accents; a name of nothing but signs stays as it is."""
    plain = unicodedata.normalize('NFKD', name).casefold()
    return ''.join(c for c in plain if c.isalnum()) or name.strip().casefold()


def slug(name):
    """A folder name: readable ASCII, with a hash of the whole name wherever the readable part alone could clash."""
    ascii_name = unicodedata.normalize('NFKD', name).encode('ascii', 'ignore').decode().lower()
    readable = re.sub(r'[^a-z0-9]+', '-', ascii_name).strip('-')[:50].strip('-')
    # Windows keeps con, nul, com1 ... for its devices
    reserved = re.fullmatch(r'con|prn|aux|nul|com\d|lpt\d', readable)
    if readable and name.lower().replace(' ', '-') == readable and '-' not in name and not reserved:
        return readable
    return f'{readable or "artist"}-{hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]}'


def read_json(path):
    """The object in a JSON file; {} for a missing or broken one, which is then fetched again."""
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path, value):
    """All or nothing: a crawl that is cut off never leaves half a file under the final name."""
    temp = path.with_name(path.name + '.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temp.write_bytes(json.dumps(value, ensure_ascii=False, indent=1).encode('utf-8', 'replace'))
        os.replace(temp, path)
    except OSError as error:
        raise UserError(f"crawl.py: can't write {path} ({error.strerror}); give another --data_dir") from None


def read_names(artists, artist_file):
    """The names of the file, then those of the command line, in order and each once."""
    lines = []
    if artist_file:
        try:
            lines = Path(artist_file).read_text(encoding='utf-8-sig').splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or 'not UTF-8 text'
            raise UserError(f"crawl.py: can't read --artist_file {artist_file} ({reason})") from None
    names = {}
    for name in [line.strip() for line in lines if not line.lstrip().startswith('#')] + [a.strip() for a in artists]:
        if name:
            names.setdefault(name.casefold(), name)
    if not names:
        raise UserError('crawl.py: no artists; give --artists "A" "B", or --artist_file with one name a line')
    return list(names.values())


def explain(error, token):
    """One line without the token. A refused token ends the run here: no later call could succeed."""
    # lyricsgenius raises a bare AssertionError with the status, all headers and the body in its message
    status = re.match(r'Unexpected response status code: (\d+)', str(error))
    if status and status[1] == '401':
        raise UserError('crawl.py: Genius refused the token (HTTP 401); take one from https://genius.com/api-clients')
    if status:
        return f'HTTP {status[1]} from Genius; try later, or with a lower --requests_per_second'
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return 'Genius sent a page where data belongs (a block page, or a proxy); try later'
    if isinstance(error, requests.exceptions.Timeout):
        return 'Genius took too long to answer; try later'
    if isinstance(error, requests.exceptions.ConnectionError):
        return "can't reach Genius; check the network"
    return ' '.join(f'unexpected answer, {type(error).__name__}: {error}'.replace(token, '***').split())[:200]


def find_artist(genius, name):
    """(artist, names that come close). Looks among the artists of the songs found: the library's own search_artist()
    goes through the public site, without the token."""
    artists = {}
    for page in 1, 2, 3:
        hits = [hit['result']['primary_artist'] for hit in genius.search_songs(name, page=page)['hits']]
        for artist in hits:
            artists.setdefault(artist['name'], artist)
        # the exact name wins over another one that folds to the same: $NOT and Not
        for same in str, str.casefold, fold:
            for artist in artists.values():
                if same(artist['name']) == same(name):
                    return artist, []
        if not hits:
            break
    folded = {fold(other): other for other in artists}
    return None, [folded[close] for close in difflib.get_close_matches(fold(name), folded, n=3, cutoff=0.5)]


def list_songs(genius, artist_id):
    page = 1
    while page:
        answer = genius.artist_songs(artist_id, sort='popularity', per_page=50, page=page)
        yield from answer['songs']
        page = answer['next_page'] if answer['songs'] else None


def fetch(genius, song, token):
    """(state, lyrics, language, why it failed). Asks for the page only where the list promises lyrics."""
    if song.get('instrumental'):
        return 'instrumental', '', None, ''
    if song['lyrics_state'] != 'complete':
        return 'unreleased', '', None, ''
    try:
        # the library puts its own WEB_ROOT before what follows this prefix
        lyrics = genius.lyrics(song_url='https://genius.com/' + urlparse(song['url']).path.lstrip('/')) or ''
        info = genius.song(song['id'])['song']  # the list has no language, and not always the instrumental flag
    except Exception as error:  # whatever this song's page holds, the other songs go on
        return 'failed', '', None, explain(error, token)
    if info.get('instrumental'):
        return 'instrumental', '', None, ''
    # the library doesn't tell a block page (403, a captcha) from a page without lyrics: neither raises
    if not lyrics.strip():
        return 'blocked', '', None, 'a page without lyrics: Genius may be blocking this address'
    return 'complete', lyrics, info.get('language'), ''


def crawl_artist(genius, name, token, data_dir, max_songs, entry):
    """Fills entry, the artist's part of the manifest, as it goes: what it holds stays true if the crawl is cut off."""
    artist, close = find_artist(genius, name)
    if artist is None:
        hint = f'did you mean {", ".join(close)}?' if close else 'check the spelling'
        entry['error'] = f'no artist {name}; {hint}'
        return
    entry.update(artist=artist['name'], id=artist['id'], folder=slug(artist['name']))
    seen, kept, troubles = set(), 0, 0
    with tqdm(total=max_songs, desc=artist['name'], unit='song', disable=None) as bar:
        for song in list_songs(genius, artist['id']):
            song_id = int(song['id'])
            if song_id in seen:  # the order may shift between two pages
                continue
            seen.add(song_id)
            row = {'id': song_id, 'title': song['title'], 'primary_artist': song['primary_artist']['name'],
                   'lyrics_state': song['lyrics_state'],
                   'outcome': 'skipped', 'why': 'other primary artist'}
            entry['songs'].append(row)
            if song['primary_artist']['id'] != artist['id']:
                continue
            path = data_dir / entry['folder'] / f'{song_id}.json'
            saved = read_json(path)
            if saved.get('state') == 'complete' and saved.get('lyrics'):
                row.update(outcome='on disk', why='')
            else:
                state, lyrics, language, why = fetch(genius, song, token)
                row.update(outcome=OUTCOMES[state], why=f'{state}: {why}' if why else state)
                write_json(path, {'id': song_id, 'title': song['title'], 'artist': row['primary_artist'],
                                  'url': song['url'], 'language': language, 'state': state,
                                  'lyrics': lyrics})
            if row['outcome'] == 'failed':
                troubles += 1
            elif row['outcome'] != 'skipped':
                kept, troubles = kept + 1, 0
                bar.update()
            if troubles == TROUBLES:
                entry['error'] = f'stopped after {TROUBLES} failed songs in a row ({row["why"]}); try later'
            if kept == max_songs or entry['error']:
                break


def summary(entries):
    """Prints the table; True if something failed."""
    print(f'{"artist":<40} {"kept":>6} {"of it new":>10} {"skipped":>8} {"failed":>7}')
    bad = False
    for name, entry in entries.items():
        outcomes = [row['outcome'] for row in entry['songs']]
        new, skipped, failed = (outcomes.count(outcome) for outcome in ('new', 'skipped', 'failed'))
        kept = new + outcomes.count('on disk')
        note = f'  <- {entry["error"]}' if entry['error'] else ''
        print(f'{entry["artist"] or name:<40.40} {kept:>6} {new:>10} {skipped:>8} {failed:>7}{note}')
        bad = bad or failed > 0 or bool(note)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--user_token', help='Genius API token; else the environment variable GENIUS_ACCESS_TOKEN')
    parser.add_argument('--data_dir', type=Path, default='json', help='where the songs go (default: json)')
    parser.add_argument('--max_songs', type=int, default=40, help='songs to keep per artist (default: 40)')
    parser.add_argument('--artist_file', help='one name a line; blank lines and lines that start with # are left out')
    parser.add_argument('--artists', nargs='+', default=[], metavar='NAME', help='names, after those of the file')
    parser.add_argument('--requests_per_second', type=float, default=1.0, help='the one rate limit (default: 1.0)')
    parser.add_argument('--api_root', help='a server in place of Genius, token and all: for tests and proxies')
    args = parser.parse_args()
    sys.stdout.reconfigure(errors='replace')  # a console that lacks a letter of a name is no reason to stop
    token = (args.user_token or os.environ.get('GENIUS_ACCESS_TOKEN', '')).strip()
    if not re.fullmatch(r'[!-~]+', token):  # what an HTTP header takes
        raise UserError('crawl.py: no usable token; take one from https://genius.com/api-clients and give it '
                        'with --user_token or as GENIUS_ACCESS_TOKEN')
    if args.max_songs < 1 or not args.requests_per_second > 0:
        raise UserError('crawl.py: --max_songs and --requests_per_second must be above 0')
    names = read_names(args.artists, args.artist_file)

    genius = Genius(token, timeout=15, sleep_time=1 / args.requests_per_second)
    if args.api_root:
        root = args.api_root.rstrip('/')
        genius.API_ROOT, genius.PUBLIC_API_ROOT, genius.WEB_ROOT = f'{root}/', f'{root}/api/', f'{root}/'

    manifest_path, entries = args.data_dir / 'manifest.json', {}
    manifest = read_json(manifest_path)  # artists of earlier runs stay in it
    try:
        for name in names:
            entry = {'artist': None, 'id': None, 'folder': None, 'error': None, 'songs': []}
            manifest[name] = entries[name] = entry
            try:
                crawl_artist(genius, name, token, args.data_dir, args.max_songs, entry)
            except Exception as error:  # whatever the answers hold, the other artists go on
                entry['error'] = explain(error, token)
            finally:
                write_json(manifest_path, manifest)
            if entry['error']:
                print(f'crawl.py: {name}: {entry["error"]}', file=sys.stderr)
    except KeyboardInterrupt:
        print('crawl.py: stopped; the same command goes on from here', file=sys.stderr)
        sys.exit(130)
    if summary(entries):
        print(f'{manifest_path} says why; the same command tries the failed ones again')
        sys.exit(1)


if __name__ == '__main__':
    main()
