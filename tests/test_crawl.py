"""crawl.py as a process of its own, against a small Genius on 127.0.0.1, over real HTTP, with real faults."""

import contextlib
import ctypes
import email.utils
import itertools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import pytest
from conftest import ROOT, run
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(ROOT / 'data/lyrics/data_generator'))
from crawl import main
from genius import backoff, describe
from page import is_own_page, lyrics_of_page
from store import slug
from words import name_key

from nanorap.common import UserError

SCRIPT = ROOT / 'data/lyrics/data_generator/crawl.py'
TOKEN = 'sEcrEt-tOkEn-0123456789'
ENV = {key: value for key, value in os.environ.items()
       if key != 'GENIUS_ACCESS_TOKEN' and 'proxy' not in key.lower()}
posix = pytest.mark.skipif(os.name == 'nt', reason='sends POSIX signals')


# ---- a small Genius ----


class Genius(ThreadingHTTPServer):
    """Artists and songs (a dict each), the requests received, and the faults that a test switches on."""

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.root = f'http://127.0.0.1:{self.server_port}'
        self.artists, self.songs, self.requests, self.times, self.faults = {}, {}, [], [], []
        self.before = lambda number: None  # called at every request, before it is answered
        self.closing, self.leaked = threading.Event(), False

    def handle_error(self, request, client_address):
        pass  # a client that was stopped

    def add(self, artist, *titles, **changes):
        """Add songs of an artist, three by default, with some fields changed; return the last one's id."""
        number = self.artists.setdefault(artist, 100 + len(self.artists))
        for title in titles or [f'{artist} {n}' for n in range(3)]:
            song_id = 1000 + len(self.songs)
            self.songs[song_id] = {
                'id': song_id,
                'title': title,
                'url': f'https://genius.com/song-{song_id}-lyrics',
                'primary_artist': {'id': number, 'name': artist},
                'featured_artists': [],
                'lyrics_state': 'complete',
                'language': 'en',
                'instrumental': False,  # in lists
                'flag': False,  # the same in the answer for the song alone
                'sings': [number],  # the ids of the artists whose lists have the song
                'html': page(song_id),
            } | changes
        return song_id

    def fault(self, pattern, act, times=999):
        """Answer the next requests that match by act: (status, body[, headers]), or a handler's function."""
        self.faults.append([pattern, act, times])

    def find_fault(self, path):
        for fault in self.faults:
            if re.search(fault[0], path) and fault[2] > 0:
                fault[2] -= 1
                return fault[1]

    def asked(self, pattern=r'^/song-(\d+)-lyrics'):
        """Return the ids asked for, in order: of song pages, or by another pattern."""
        return [int(match[1]) for path in self.requests if (match := re.search(pattern, path))]


def page(song_id):
    """Return a song page as Genius writes it: the lyrics in several containers, with other parts between."""
    return f'''<html><head><title>Song {song_id} Lyrics</title></head><body><div id="lyrics-root">
<div data-lyrics-container="true" class="Lyrics__Container"><div data-exclude-from-selection="true"><div
class="LyricsHeader__Container">3 Contributors</div></div>[Verse 1]<br/><a href="/9"><span>\
first line of {song_id}<br/>second
 &amp; <i>slanted</i></span></a><br/></div><div class="RightSidebar">an advertisement</div>
<div data-lyrics-container="true" class="Lyrics__Container">[Chorus]<br/>naïve “last” line</div>\
</div></body></html>'''


def lyrics_of(song_id):
    """Return what a browser shows of page(song_id)."""
    return f'[Verse 1]\nfirst line of {song_id}\nsecond & slanted\n[Chorus]\nnaïve “last” line'


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        genius, url = self.server, urlparse(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        number = int(query.get('page', 1))
        genius.requests.append(self.path)
        genius.times.append(time.time())
        genius.before(len(genius.requests))
        web = re.fullmatch(r'/song-(\d+)-lyrics', url.path)
        act = genius.find_fault(self.path)
        if callable(act):
            return act(self)
        if act:
            return self.send(*act)
        if web:  # a page: it needs no token, and must get none
            genius.leaked = genius.leaked or 'authorization' in self.headers
            return self.send(200, genius.songs[int(web[1])]['html'])
        if self.headers['authorization'] != f'Bearer {TOKEN}':
            return self.send(
                401,
                f'{{"error": "invalid_token", "you_sent": "{self.headers["authorization"]}"}}')
        if url.path == '/search':
            letter = unicodedata.normalize('NFKD', query['q']).casefold().lstrip('$')[:1]
            hits = [song for song in genius.songs.values()
                    if letter in (song['primary_artist'] or {'name': ''})['name'].casefold()]
            return self.send(200, {
                'hits': [{'type': 'song', 'result': song} for song in hits[number * 10 - 10 : number * 10]]})
        if match := re.fullmatch(r'/artists/(\d+)/songs', url.path):
            size = min(int(query['per_page']), 4)  # small pages, so that a few songs take several
            listed = [song for song in genius.songs.values() if int(match[1]) in song['sings']]
            hidden = ('language', 'html', 'sings', 'flag')
            songs = [{key: value for key, value in song.items() if key not in hidden}
                     for song in listed[number * size - size : number * size]]
            return self.send(200, {
                'songs': songs,
                'next_page': number + 1 if number * size < len(listed) else None})
        if match := re.fullmatch(r'/artists/(\d+)', url.path):
            for name, artist_id in genius.artists.items():
                if artist_id == int(match[1]):
                    return self.send(200, {'artist': {'id': artist_id, 'name': name.split('#')[0]}})
        if match := re.fullmatch(r'/songs/(\d+)', url.path):
            song = genius.songs[int(match[1])]
            return self.send(200, {'song': song | {'instrumental': song['flag']}})
        self.send(404, '{"meta": {"status": 404}}')

    def send(self, status, body, headers=None):
        data = (body if isinstance(body, str) else json.dumps({'response': body})).encode()
        self.send_response(status)
        kind = 'text/html' if isinstance(body, str) else 'application/json'
        for name, value in ({'Content-Length': len(data), 'Content-Type': kind} | (headers or {})).items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)


def stall(handler):
    """Send nothing until the client gives up."""
    handler.server.closing.wait(20)


def stall_midway(handler):
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"resp')
    stall(handler)


def reset(handler):
    """Reset the connection: the client gets ECONNRESET."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    handler.connection.close()


def cut(handler):
    """Send less than Content-Length says."""
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"resp')


@pytest.fixture
def genius():
    server = Genius()
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True).start()
    yield server
    assert not server.leaked
    server.closing.set()
    server.shutdown()
    server.server_close()


# ---- running the script ----


def command(genius, *options, rate=1000):
    return [sys.executable, str(SCRIPT), f'--requests_per_second={rate}', '--patience=0.5',
            f'--api_root={genius.root if genius else "http://127.0.0.1:9"}', *map(str, options)]


def crawl(genius, cwd, *options, code=0, rate=1000, prepare=None, **env):
    """Run the script to its end; return the process. Its output and files must not have the token."""
    done = subprocess.run(
        command(genius, *options, rate=rate),
        cwd=cwd,
        capture_output=True,
        encoding='utf-8',
        timeout=60,
        env=ENV | {'GENIUS_ACCESS_TOKEN': TOKEN} | env,
        preexec_fn=prepare)
    assert 'Traceback' not in done.stderr and done.returncode == code, done.stderr + done.stdout
    assert TOKEN not in done.stdout + done.stderr
    for path in cwd.rglob('*'):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()
    return done


def files(cwd):
    """Return {path: song} of all files in the artists' folders, which must be whole."""
    return {path.relative_to(cwd / 'json').as_posix(): json.loads(path.read_text(encoding='utf-8'))
            for path in sorted((cwd / 'json').glob('*/*'))}


def states(cwd):
    return {song['id']: song['state'] for song in files(cwd).values()}


def manifest(cwd):
    return json.loads((cwd / 'json' / 'manifest.json').read_text(encoding='utf-8'))


def listed(cwd, key):
    return {int(number): song['state'] for number, song in manifest(cwd)[key]['songs'].items()}


def table_of(done):
    """Return {artist: {column: number}} of the final table."""
    head, *lines = [line for line in done.stdout.splitlines() if re.match(r'.{30} +(kept|\d+) ', line)]
    columns = ['kept', 'new', *NO_OTHERS]
    assert re.findall('|'.join(columns), head) == columns
    table = {}
    for line in lines:
        numbers = map(int, re.findall(r'\d+', line[30:].split('<-')[0]))
        table[line[:30].strip()] = dict(zip(columns, numbers, strict=True))
    return table


def modification_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob('*/*')}


# ---- the main path ----


NO_OTHERS = dict.fromkeys(
    ['other artist', 'instrumental', 'unreleased', 'no lyrics', 'blocked', 'failed', 'left'], 0)


def two_artists(genius, folder):
    """Add two artists with seven songs and one not to be crawled; return the options that name the two."""
    genius.add('Kobalt Figgs', *[f'Fig {n}' for n in range(6)])
    genius.add('Tilly Ohm', 'Öl')
    genius.add('Nobody Asked')
    names = '\ufeff# mine\r\n\r\n  Kobalt Figgs\r\n#Nobody Asked\r\nKOBALT FIGGS\r\n'
    (folder / 'names.txt').write_bytes(names.encode())
    return ['--artist_file=names.txt', '--artists', 'tílly ohm!', 'Kobalt Figgs']


def test_each_song_is_fetched_once_into_its_file(genius, tmp_path):
    crawl(genius, tmp_path, *two_artists(genius, tmp_path))
    songs = files(tmp_path)
    assert list(songs) == [f'kobalt-figgs/{n}.json' for n in range(1000, 1006)] + ['tilly-ohm/1006.json']
    assert songs['tilly-ohm/1006.json'] == {
        'id': 1006,
        'title': 'Öl',
        'artist': 'Tilly Ohm',
        'url': 'https://genius.com/song-1006-lyrics',
        'language': 'en',
        'state': 'complete',
        'lyrics': lyrics_of(1006)}
    assert genius.asked() == genius.asked(r'^/songs/(\d+)') == [*range(1000, 1007)]


def test_requests_use_the_api_and_ask_for_popular_songs_first(genius, tmp_path):
    crawl(genius, tmp_path, *two_artists(genius, tmp_path))
    public_site = [path for path in genius.requests if path.startswith('/api/')]  # where no token goes
    assert not public_site
    assert all('sort=popularity' in path for path in genius.requests if '/songs?' in path)


@pytest.mark.slow
def test_manifest_and_table(genius, tmp_path):
    done = crawl(genius, tmp_path, *two_artists(genius, tmp_path))
    assert manifest(tmp_path)['Tilly Ohm|101'] == {
        'artist': 'Tilly Ohm',
        'id': 101,
        'folder': 'tilly-ohm',
        'error': None,
        'songs': {'1006': {'title': 'Öl', 'artist': 'Tilly Ohm', 'state': 'complete', 'why': ''}}}
    table = table_of(done)
    assert table['Kobalt Figgs'] == {'kept': 6, 'new': 6} | NO_OTHERS
    assert table['KOBALT FIGGS']['kept'] == 0 and '<- the same artist as Kobalt Figgs' in done.stdout
    assert table['Tilly Ohm']['kept'] == 1 and len(table) == 3


@pytest.mark.slow
def test_a_second_run_fetches_and_writes_no_song(genius, tmp_path):
    options = two_artists(genius, tmp_path)
    crawl(genius, tmp_path, *options)
    genius.requests.clear()
    before = modification_times(tmp_path / 'json')
    done = crawl(genius, tmp_path, *options)
    assert genius.asked() == genius.asked(r'^/songs/(\d+)') == []
    assert modification_times(tmp_path / 'json') == before
    assert table_of(done)['Tilly Ohm'] == {'kept': 1, 'new': 0} | NO_OTHERS


def songs_of_every_state(genius):
    """Add songs of every state; return {id: state} of the list up to the fourth complete one."""
    duet = genius.add('Kobalt Figgs', 'A Duet', sings=[100, 101])
    genius.add('Tilly Ohm')
    listed_as_instrumental = genius.add('Tilly Ohm', 'Only Drums', instrumental=True)
    instrumental = genius.add('Tilly Ohm', 'Only Bass', flag=True)
    unreleased = genius.add('Tilly Ohm', 'Soon', lyrics_state='unreleased')
    genius.add('Tilly Ohm', 'Four', 'Five', 'Six', 'Seven', 'Eight', 'Nine')
    return {
        duet: 'other artist', 1001: 'complete', 1002: 'complete', 1003: 'complete',
        listed_as_instrumental: 'instrumental', instrumental: 'instrumental', unreleased: 'unreleased',
        1007: 'complete'}


def test_max_songs_counts_complete_songs(genius, tmp_path):
    expected = songs_of_every_state(genius)
    done = crawl(genius, tmp_path, '--max_songs=4', '--artists', 'Tilly Ohm')
    assert listed(tmp_path, 'Tilly Ohm|101') == expected
    # no song beyond these was fetched, and no further page of the list
    assert genius.asked() == [1001, 1002, 1003, 1007]
    assert genius.asked(r'^/songs/(\d+)') == [1001, 1002, 1003, 1005, 1007]
    complete = dict.fromkeys([1001, 1002, 1003, 1007], 'complete')
    assert states(tmp_path) == complete | {1005: 'instrumental'}
    assert genius.asked(r'/101/songs.*\bpage=(\d+)') == [1, 2]
    assert table_of(done)['Tilly Ohm'] == NO_OTHERS | {
        'kept': 4, 'new': 4, 'other artist': 1, 'instrumental': 2, 'unreleased': 1}


@pytest.mark.slow
def test_states_are_read_from_the_files_without_a_manifest(genius, tmp_path):
    songs_of_every_state(genius)
    crawl(genius, tmp_path, '--max_songs=4', '--artists', 'Tilly Ohm')
    (tmp_path / 'json' / 'manifest.json').unlink()
    genius.requests.clear()
    crawl(genius, tmp_path, '--max_songs=6', '--artists', 'Tilly Ohm')
    assert genius.asked() == genius.asked(r'^/songs/(\d+)') == [1008, 1009]


@pytest.mark.slow
def test_songs_on_disk_count_even_if_others_are_more_popular_now(genius, tmp_path):
    songs_of_every_state(genius)
    crawl(genius, tmp_path, '--max_songs=6', '--artists', 'Tilly Ohm')
    genius.songs = dict(reversed(genius.songs.items()))
    genius.requests.clear()
    done = crawl(genius, tmp_path, '--max_songs=6', '--artists', 'Tilly Ohm')
    assert len(genius.requests) == 1 and table_of(done)['Tilly Ohm']['kept'] == 6
    crawl(genius, tmp_path, '--artists', 'Tilly Ohm')
    assert max(genius.songs) in states(tmp_path)


def test_a_song_listed_twice_counts_once(genius, tmp_path):
    genius.add('Tilly Ohm', *'ABCDEFG')
    genius.songs = {
        n: song | {'id': 1000 + n % 5, 'url': f'https://genius.com/song-{1000 + n % 5}-lyrics'}
        for n, song in enumerate(genius.songs.values())}
    genius.songs |= {1000 + n: genius.songs[n] for n in range(5)}
    crawl(genius, tmp_path, '--artists', 'Tilly Ohm')
    assert len(listed(tmp_path, 'Tilly Ohm|100')) == 5
    assert sorted(genius.asked()) == [1000, 1001, 1002, 1003, 1004]


def test_dry_run_writes_nothing(genius, tmp_path):
    genius.add('Kobalt Figgs', 'Not Mine', sings=[100, 101])
    genius.add('Tilly Ohm', 'One', 'Two\x1b[2J\nThree', 'Four', 'Five')
    done = crawl(genius, tmp_path, '--dry_run', '--max_songs=2', '--artists', 'Tilly Ohm')
    assert [line.split(maxsplit=2) for line in done.stdout.splitlines() if re.match(r' +\d', line)] == [
        ['1000', 'skip', 'other artist  Kobalt Figgs - Not Mine'],
        ['1001', 'fetch', 'wanted        Tilly Ohm - One'],
        ['1002', 'fetch', 'wanted        Tilly Ohm - Two [2J Three']]
    assert list(tmp_path.iterdir()) == [] and not genius.asked()
    assert table_of(done)['Tilly Ohm'] == NO_OTHERS | {
        'kept': 0, 'new': 0, 'other artist': 1, 'left': 2}


@pytest.mark.slow
def test_dry_run_shows_what_a_run_does(genius, tmp_path):
    genius.add('Tilly Ohm', 'One', 'Two', 'Three', 'Four')
    options = ['--max_songs=2', '--artists', 'Tilly Ohm']
    planned = re.findall(r' (\d+) fetch', crawl(genius, tmp_path, '--dry_run', *options).stdout)
    crawl(genius, tmp_path, *options)
    assert genius.asked() == [*map(int, planned)] == [1000, 1001]


@pytest.mark.slow
def test_dry_run_beside_songs_on_disk(genius, tmp_path):
    genius.add('Tilly Ohm', 'One', 'Two', 'Three', 'Four')
    crawl(genius, tmp_path, '--max_songs=2', '--artists', 'Tilly Ohm')
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    done = crawl(genius, tmp_path, '--dry_run', '--max_songs=3', '--artists', 'Tilly Ohm', 'Zzz', code=1)
    assert re.search('1001 on disk .*Two', done.stdout) and re.search('1002 fetch .*Three', done.stdout)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before


# ---- the right artist ----


@pytest.mark.slow
def test_the_exact_name_wins(genius, tmp_path):
    genius.add('Not', 'a')
    genius.add('NOT', 'b')
    genius.add('$NOT', 'c')
    crawl(genius, tmp_path, '--artists', '$not', 'Not', 'NOT')
    assert [entry['artist'] for entry in manifest(tmp_path).values()] == ['$NOT', 'Not', 'NOT']
    assert sorted(song['title'] for song in files(tmp_path).values()) == ['a', 'b', 'c']
    assert len({path.split('/')[0] for path in files(tmp_path)}) == 3
    done = crawl(genius, tmp_path, '--artists', 'not', code=1)  # Not or NOT
    assert 'not: no artist of exactly this name; did you mean "Not|100", "NOT|101"?' in done.stderr


@pytest.mark.slow
def test_an_artist_on_a_later_page_of_the_search(genius, tmp_path):
    genius.add('ohm', 'Folds to the same')
    genius.add('Ohm Choir', *map(str, range(12)))
    genius.add('Ohm')
    crawl(genius, tmp_path, '--max_songs=1', '--artists', 'Ohm')
    assert manifest(tmp_path)['Ohm|102']['artist'] == 'Ohm'
    guest = {'featured_artists': [{'id': 101, 'name': 'Ohm Choir'}]}
    songs_of_another = {n: song for n, song in genius.songs.items() if song['primary_artist']['id'] == 100}
    genius.songs = {n: song | guest for n, song in songs_of_another.items()}
    done = crawl(genius, tmp_path, '--artists', 'Ohm Choir')  # whose songs all have another main artist
    assert table_of(done)['Ohm Choir']['kept'] == 0


def three_artists(genius):
    for name in 'Tilly Ohm', 'Tilly Ohms', 'Kobalt Figgs':
        genius.add(name)


def test_close_names_are_proposed(genius, tmp_path):
    three_artists(genius)
    done = crawl(genius, tmp_path, '--artists', 'Tilli Ohm', 'Zzz', 'Kobalt Figgs', code=1)
    misspelt, unknown, fine = done.stderr.splitlines()
    exact = 'no artist of exactly this name'
    assert f'Tilli Ohm: {exact}; did you mean "Tilly Ohm|100", "Tilly Ohms|101"?' in misspelt
    assert f'Zzz: {exact}; check the spelling' in unknown
    assert 'Kobalt Figgs: 3 kept' in fine
    assert 'did you mean' in done.stdout and 'did you mean' in manifest(tmp_path)['Tilli Ohm']['error']


def test_names_of_the_search_are_proposed_if_none_is_close(genius, tmp_path):
    three_artists(genius)
    done = crawl(genius, tmp_path, '--artists', 'T-Rex of Rap', code=1)
    assert 'T-Rex of Rap: no artist of exactly this name; did you mean "Tilly Ohm|100",' in done.stderr


@pytest.mark.slow
def test_a_name_with_an_id_needs_no_search(genius, tmp_path):
    three_artists(genius)
    crawl(genius, tmp_path, '--artists', 'Tilli Ohm', 'Kobalt Figgs', code=1)
    genius.requests.clear()
    (tmp_path / 'names.txt').write_text('Tilly Ohms|101\nwhatever | 100\n')
    done = crawl(genius, tmp_path, '--artist_file=names.txt')
    assert not [path for path in genius.requests if path.startswith('/search')]
    assert list(table_of(done)) == ['Tilly Ohms', 'Tilly Ohm'] and len(files(tmp_path)) == 9
    assert 'Tilli Ohm' not in manifest(tmp_path)  # the misspelt name of the first run
    done = crawl(genius, tmp_path, '--artists', 'Nobody|999', code=1)
    assert 'Nobody|999: Genius has nothing there (HTTP 404)' in done.stderr


@pytest.mark.slow
def test_an_artist_renamed_and_a_namesake(genius, tmp_path):
    genius.add('Tilly Ohm')
    genius.add('Tilly Ohm#2', 'Another')  # the server answers the name without the #
    genius.songs[1003]['primary_artist']['name'] = 'Tilly Ohm'
    crawl(genius, tmp_path, '--artists', 'Tilly Ohm|100', 'Tilly Ohm|101')
    assert list(files(tmp_path)) == [
        *(f'tilly-ohm/{n}.json' for n in (1000, 1001, 1002)),
        'tilly-ohm-101/1003.json']
    genius.artists = {'Ohm the Elder': 100}
    genius.requests.clear()
    crawl(genius, tmp_path, '--artists', '|100')
    assert genius.asked() == [] and manifest(tmp_path)['Ohm the Elder|100']['folder'] == 'tilly-ohm'
    assert 'Tilly Ohm|100' not in manifest(tmp_path)


def accented(name):
    """Return a name with an acute accent on every letter."""
    accented_letters = (char + '\u0301' if char.isascii() and char.isalpha() else char for char in name)
    return unicodedata.normalize('NFD', ''.join(accented_letters))


@given(st.text())
def test_name_key_is_stable_and_ignores_signs_around_a_name(name):
    assert name_key(name_key(name)) == name_key(name)
    assert name_key(f' {name}! ') == name_key(f'({name})') or not any(map(str.isalnum, name_key(name)))


@given(st.text('abcxyzABCXYZ0123 '))
def test_name_key_drops_case_accents_and_signs(name):
    assert name_key(name.upper()) == name_key(name.lower()) == name_key(accented(name))
    assert name_key(name) == name.lower().replace(' ', '')


def test_name_key_of_equal_and_of_different_names():
    for one, other in (
            ('Renée', 'RENEE'),
            ('MØ', 'mo'),
            ('Sigga Rós', 'sigga-ros'),
            ('A.B.C', 'ABC'),
            ('\u200btilly', 'Tilly')):
        assert name_key(one) == name_key(other)
    for one, other in (
            ('राम', 'रोम'),
            ('か', 'が'),
            ('!!!', '???'),
            ('歌手', '歌'),
            ('Ohm', 'Ohms'),
            ('', '!')):
        assert name_key(one) != name_key(other)


ODD = [
    '../x', 'x', '..', '.', '', ' ', '/', 'AC/DC', 'ACDC', 'AC DC', 'AC-DC', '$NOT', 'NOT', 'nót',
    '歌' * 200, '歌' * 199, 'long ' * 40, 'long ' * 41, 'con', 'Con', 'LPT1', 'C:\\x', 'a\0b', 'a\nb',
    '\ud800', '?', 'Tilly  Ohm', 'Tilly Ohm', 'tilly ohm', 'TILLY OHM', 'tilly-ohm', 'Tilly Ohm.']


@given(st.lists(st.text() | st.text('aA-. é'), unique=True))
def test_folder_names_are_safe_and_distinct(names):
    names = list(dict.fromkeys(names + ODD))
    slugs = [slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert all(re.fullmatch(r'[a-z0-9][a-z0-9-]{0,59}', slug) for slug in slugs)
    assert not {'con', 'prn', 'aux', 'nul', 'com1', 'lpt1'} & set(slugs)
    assert slug('Tilly Ohm') == 'tilly-ohm' and slug('AC/DC').startswith('ac-dc-')


@pytest.mark.slow
def test_files_of_odd_names_stay_in_the_data_dir(genius, tmp_path):
    odd = ['../x', '..', 'AC/DC', '$NOT', '歌' * 200, 'CON', 'a|b', '#1 Ohm']
    for name in odd:
        genius.add(name, 'Song')
    crawl(genius, tmp_path, '--artists', *odd)
    assert [song['artist'] for song in sorted(files(tmp_path).values(), key=lambda song: song['id'])] == odd
    assert len({path.split('/')[0] for path in files(tmp_path)}) == len(odd)
    assert [path.name for path in tmp_path.iterdir()] == ['json']
    assert list(tmp_path.parent.glob('x*')) == []


# ---- faults ----

TRANSIENT = {
    '429': (429, f'slow down, {TOKEN}'),
    '408': (408, ''),
    '500': (500, TOKEN),
    '503': (503, '<html>busy</html>', {'X': TOKEN}),
    '429 odd': (429, '', {'Retry-After': 'soon'}),
    'stall': stall,
    'stall midway': stall_midway,
    'reset': reset,
    'cut': cut,
    'html': (200, f'<html>{TOKEN}</html>'),
    'half': (200, '{"response": {"hits": [')}


@pytest.mark.slow
@pytest.mark.parametrize('fault', TRANSIENT)
def test_transient_faults_lose_nothing(genius, tmp_path, fault):
    genius.add('Tilly Ohm', 'One', 'Two')
    for route in '^/search', '^/artists', '^/songs/1000', '^/song-1001':
        page_is_expected = route == '^/song-1001' and fault in ('html', 'half')
        if not page_is_expected:
            genius.fault(route, TRANSIENT[fault], times=2 if 'stall' not in fault else 1)
    crawl(genius, tmp_path, '--timeout=0.3', '--patience=5', '--artists', 'Tilly Ohm')
    assert states(tmp_path) == {1000: 'complete', 1001: 'complete'}
    assert all(left == 0 for _, _, left in genius.faults)
    assert genius.asked().count(1000) == 1  # a song on disk is not fetched again


@pytest.mark.slow
def test_retry_after_is_honoured(genius, tmp_path):
    genius.add('Tilly Ohm', 'One')
    date = int(time.time()) + 6  # a busy machine takes seconds to start
    genius.fault('^/search', (503, '', {'Retry-After': email.utils.formatdate(date, usegmt=True)}), times=1)
    genius.fault('^/song-', (429, '', {'Retry-After': '1'}), times=1)
    done = crawl(genius, tmp_path, '--patience=10', '--artists', 'Tilly Ohm')
    requests = zip(genius.times, genius.requests, strict=True)
    times = [moment for moment, path in requests if re.match('/search|/song-', path)]
    assert times[1] >= date - 0.01 and times[3] - times[2] >= 1
    assert 'Genius has trouble (HTTP 503); waiting' in done.stderr
    assert 'Genius gets too many requests (HTTP 429); waiting 1 s' in done.stderr


@pytest.mark.slow
def test_retry_after_holds_for_other_songs_too(genius, tmp_path):
    """Patience with one song ends before Retry-After does: the next song's request waits all the same."""
    genius.add('Tilly Ohm', 'One', 'Two')
    genius.fault('^/song-1000', (429, '', {'Retry-After': '1'}), times=2)
    crawl(genius, tmp_path, '--patience=1.5', '--artists', 'Tilly Ohm')
    gaps = [b - a for a, b in zip(genius.times, genius.times[1:], strict=False)]
    assert sum(gap >= 1 for gap in gaps) == 2 and states(tmp_path) == {1000: 'complete', 1001: 'complete'}


def test_a_long_retry_after_ends_the_crawl(genius, tmp_path):
    genius.add('Tilly Ohm', 'One', 'Two')
    genius.fault('^/songs/1001', (429, '', {'Retry-After': '3600'}))
    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm', 'Kobalt Figgs', code=1)
    assert 'a rest of 60 minutes' in done.stderr
    assert len(genius.requests) == 5 and states(tmp_path) == {1000: 'complete'}
    table = table_of(done)  # it is printed all the same
    assert table['Tilly Ohm']['kept'] == table['Tilly Ohm']['left'] == 1
    assert listed(tmp_path, 'Tilly Ohm|100') == {1000: 'complete', 1001: 'wanted'}


@pytest.mark.slow
def test_rate_limit_holds_for_every_request(genius, tmp_path):
    genius.add('Tilly Ohm', 'One', 'Two')
    genius.fault('^/songs/1000', (500, ''), times=1)
    genius.fault('^/song-1001', (302, '', {'Location': '/moved'}), times=1)  # a redirect is a request too
    genius.fault('^/moved', (200, genius.songs[1001]['html']))
    crawl(genius, tmp_path, '--artists', 'Tilly Ohm', rate=10)
    gaps = [b - a for a, b in zip(genius.times, genius.times[1:], strict=False)]
    assert len(gaps) == 7 and min(gaps) >= 0.1 and states(tmp_path)[1001] == 'complete'


@pytest.mark.slow
def test_backoff_grows_to_a_limit_with_a_random_part(genius, tmp_path):
    for interval, tries, most in (1, 1, 2), (1, 3, 8), (0.5, 3, 4), (1, 9, 60), (10, 99, 60):
        waits = [backoff(interval, tries) for _ in range(200)]
        assert most / 2 <= min(waits) < 0.6 * most and 0.9 * most < max(waits) <= most
    genius.add('Tilly Ohm', 'One')
    genius.fault('^/search', (500, ''), times=5)
    crawl(genius, tmp_path, '--patience=20', '--artists', 'Tilly Ohm', rate=100)
    gaps = [b - a for a, b in zip(genius.times[:6], genius.times[1:6], strict=False)]
    assert all(gap >= 0.01 * 2**tries / 2 for tries, gap in enumerate(gaps, 1))


BAD = {
    '500': ((500, TOKEN), 'HTTP 500'),
    '404': ((404, TOKEN), 'HTTP 404'),
    '204': ((204, ''), 'HTTP 204'),
    'reset': (reset, 'connection'),
    'null': ((200, '{"response": null}'), 'unexpected answer'),
    'list': ((200, f'["{TOKEN}"]'), 'unexpected answer'),
    'no song': ((200, {TOKEN: 1}), 'unexpected answer')}


@pytest.mark.slow
def test_a_failed_song_does_not_stop_the_others(genius, tmp_path):
    genius.add('Tilly Ohm', *BAD, 'Fine')
    genius.add('Kobalt Figgs', 'Fine too')
    for number, (act, _) in enumerate(BAD.values(), 1000):
        genius.fault(f'^/songs/{number}', act)
    done = crawl(genius, tmp_path, '--patience=0.05', '--artists', 'Tilly Ohm', 'Kobalt Figgs', code=1)
    failed = [1000, *range(1002, 1000 + len(BAD))]
    assert states(tmp_path) == dict.fromkeys(failed, 'failed') | {
        1001: 'no lyrics', 1007: 'complete', 1008: 'complete'}  # 404: settled
    songs = manifest(tmp_path)['Tilly Ohm|100']['songs']
    for number, (_, says) in zip(range(1000, 1007), BAD.values(), strict=True):
        assert says in songs[str(number)]['why']
    tries = genius.asked(r'^/songs/(\d+)')
    assert tries.count(1002) == 2 and tries.count(1001) == 1  # a second try after the other songs
    assert table_of(done)['Tilly Ohm']['failed'] == len(failed) and 'manifest.json says why' in done.stdout
    genius.faults.clear()
    genius.requests.clear()
    crawl(genius, tmp_path, '--artists', 'Tilly Ohm', 'Kobalt Figgs')  # fetches the failed ones alone
    assert genius.asked() == failed and set(states(tmp_path).values()) == {'complete', 'no lyrics'}


@pytest.mark.slow
def test_a_failed_artist_does_not_stop_the_others(genius, tmp_path):
    names = [f'{letter}a' for letter in 'BCDEFGH']
    for name, (act, _) in zip(names, BAD.values(), strict=True):
        genius.add(name, 'Song')
        genius.fault(f'^/search.*q={name}&', act)
    genius.add('Listless', 'Song')
    genius.fault('^/artists/107', (500, TOKEN))
    genius.add('Half Listed', *'ABCDEF')
    genius.fault('^/artists/108.*[?&]page=2', (503, TOKEN))
    genius.add('Kobalt Figgs', 'Song')
    done = crawl(
        genius, tmp_path, '--patience=0.05', '--artists', *names, 'Listless', 'Half Listed',
        'Kobalt Figgs', code=1)
    for line, name, (_, says) in zip(done.stderr.splitlines(), names, BAD.values(), strict=False):
        assert line.startswith(f'crawl.py: {name}: ') and says in line
    table = table_of(done)
    assert table['Kobalt Figgs']['kept'] == 1
    assert table['Half Listed']['kept'] == 4  # the songs of the first page
    assert 'the list of songs broke off' in manifest(tmp_path)['Listless|107']['error']
    genius.faults.clear()
    crawl(genius, tmp_path, '--artists', *names, 'Listless', 'Half Listed', 'Kobalt Figgs')
    assert len(files(tmp_path)) == len(names) + 8
    assert not any(entry['error'] for entry in manifest(tmp_path).values())


# ---- blocks ----

BLOCK_PAGES = {
    '403': (403, '<html>no</html>'),
    '200': (200, '<html>Are you human?</html>'),
    'empty': (200, page(1).split('[')[0])}


@pytest.mark.slow
@pytest.mark.parametrize('wall', BLOCK_PAGES)
def test_a_blocked_page_is_no_song(genius, tmp_path, wall):
    genius.add('Tilly Ohm', *'ABCDEF')
    genius.fault('^/song-1001', BLOCK_PAGES[wall], times=3)
    genius.fault('^/song-1002', BLOCK_PAGES[wall], times=1)
    done = crawl(genius, tmp_path, '--max_songs=4', '--artists', 'Tilly Ohm', code=1)
    # 1001 and 1002 are tried again; 1001 fails again, so one more song of the list is fetched
    assert genius.asked() == [1000, 1001, 1002, 1003, 1001, 1002, 1004]
    assert states(tmp_path) == dict.fromkeys(range(1000, 1005), 'complete') | {1001: 'blocked'}
    blocked = files(tmp_path)['tilly-ohm/1001.json']
    assert blocked['lyrics'] == '' and blocked['language'] is None
    assert table_of(done)['Tilly Ohm']['kept'] == 4 and table_of(done)['Tilly Ohm']['blocked'] == 1
    # a run that needs one more song tries it first, and no other
    genius.requests.clear()
    crawl(genius, tmp_path, '--max_songs=5', '--artists', 'Tilly Ohm')
    assert genius.asked() == [1001, 1001] and states(tmp_path)[1001] == 'complete'


@pytest.mark.parametrize('wall', BLOCK_PAGES)
def test_crawl_ends_after_five_blocks_in_a_row(genius, tmp_path, wall):
    genius.add('Tilly Ohm', *'ABCDEFGHIJ')
    genius.add('Kobalt Figgs')
    genius.fault('^/song-(?!1000)', BLOCK_PAGES[wall])
    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm', 'Kobalt Figgs', code=1)
    advice = done.stderr.splitlines()[-1]
    assert 'Genius blocks us' in advice and '--requests_per_second' in advice
    assert genius.asked() == [1000, 1001, 1002, 1003, 1004, 1005]  # and none of the other artist
    table = table_of(done)
    assert list(table) == ['Tilly Ohm'] and table['Tilly Ohm']['left'] == 4
    assert list(listed(tmp_path, 'Tilly Ohm|100').values()) == ['complete'] + ['blocked'] * 5 + ['wanted'] * 4


def test_blocked_lists_and_searches_count(genius, tmp_path):
    genius.add('Tilly Ohm', 'One')
    genius.fault('^/artists', (403, TOKEN))
    genius.fault('^/search.*q=Z', (200, f'<html>{TOKEN}</html>'))
    done = crawl(
        genius, tmp_path, '--patience=0.05', '--artists', 'Z1', 'Tilly Ohm', 'Z2', 'Z3', 'Z4', 'Z5',
        code=1)
    assert 'Genius blocks us' in done.stderr and 'q=Z4' in genius.requests[-1]


def own_page(song_id, lyrics='', /, **head):
    """Return a song's own page: with its address, its number or its title in the head, and any lyrics."""
    tags = dict(
        address=f'<link rel="canonical" href="https://genius.com/song-{song_id}-lyrics"/>',
        number=f'<meta property="twitter:app:url:iphone" content="genius://songs/{song_id}"/>',
        title=f'<title>Tilly Ohm – Öl {song_id} Lyrics | Genius</title>')
    head = ''.join(tags[key] for key in head)
    return f'<html><head>{head}</head><body><div id="lyrics-root">{lyrics}</div></body></html>'


NO_LYRICS = [
    (own_page(1000, address=1), 'nothing'),
    (own_page(1001, '<div class="LyricsPlaceholder__Message">Lyrics for this song have yet to be released. '
                    'Please check back once the song has been released.</div>', number=1), 'a placeholder'),
    (own_page(1002, '<div class="LyricsPlaceholder__Message">This song is an instrumental</div>', title=1),
     'an instrumental'),
    (own_page(1003, '<div data-lyrics-container="true"></div>', address=1), 'an empty container'),
    (own_page(1004, '<div data-lyrics-container="true">Lyrics for this song have yet to be released. Please '
                    'check back once the song has been released.</div>', number=1),
                    'a placeholder as lyrics'),
    (own_page(1005, '<div data-lyrics-container="true"><script>var lyrics = 1</script></div>', title=1),
     'a script')]


def test_a_songs_own_page_without_lyrics_is_settled(genius, tmp_path):
    for number, (html, _) in enumerate(NO_LYRICS, 1000):
        genius.add('Tilly Ohm', f'Öl {number}', html=html)
    genius.add('Tilly Ohm', 'Gone', 'Sung')  # 1006, 1007
    genius.fault('^/song-1006', (410, ''))
    genius.add('Kobalt Figgs', 'Fig')
    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm', 'Kobalt Figgs')
    assert genius.asked() == [*range(1000, 1009)]  # each once
    assert states(tmp_path) == dict.fromkeys(range(1000, 1007), 'no lyrics') | {
        1007: 'complete', 1008: 'complete'}
    assert table_of(done)['Tilly Ohm'] == NO_OTHERS | {'kept': 1, 'new': 1, 'no lyrics': 7}
    genius.requests.clear()
    crawl(genius, tmp_path, '--artists', 'Tilly Ohm', 'Kobalt Figgs')
    assert genius.asked() == []


@pytest.mark.parametrize('html', [
    '<html><title>Just a moment...</title><script>cUPMDTk: "/song-1000-lyrics?__cf_chl_tk=x"</script></html>',
    '<html><title>Song Lyrics</title><div id="lyrics-root"></div></html>',  # of another song
    own_page(1000, address=1).removesuffix('</body></html>'),  # cut off
    own_page(1001, address=1), own_page(10001, number=1), '', '<div data-lyrics-container="true"></div>'])
def test_a_page_that_is_not_surely_the_songs_is_a_block(html):
    song = dict(id=1000, title='Öl', url='https://genius.com/song-1000-lyrics')
    assert not lyrics_of_page(html) and not is_own_page(html, song)


@pytest.mark.parametrize('inside, lyrics', [
    ('one<!--sse-->two<!--/sse--><br/>three', 'onetwo\nthree'),
    ('one<script>var two = 1</script><br/><style>b {}</style>three', 'one\nthree'),
    ('<div data-exclude-from-selection="true"><p>About</p><div>more</div></div>one', 'one'),
    ('one<span><span data-exclude-from-selection="true">About<br/></span></span><br/>two', 'one\ntwo'),
    ('one<hr/>two', 'one\n\ntwo'), ('one<br/><hr>two', 'one\n\ntwo'),
    ('one<blockquote>two</blockquote>three', 'one\ntwo\nthree'),
    ('<ul><li>one</li><li>two</li></ul>three', 'one\ntwo\nthree'),
    ('one<div data-lyrics-container="true">two<br/>three</div>four', 'one\ntwo\nthree\nfour'),
    ('<p>one<br/></p><p>two</p>', 'one\ntwo'), ('one\n  two<br/>\n three', 'one two\nthree'),
    ('<b>o</b>n<i>e</i>', 'one'), ('one<br/><br/>two', 'one\n\ntwo'), ('&amp; one &lt;3', '& one <3'),
    ('<div>' * 1500 + 'one' + '</div>' * 1500, 'one')])
def test_lyrics_of_a_page(inside, lyrics):
    html = '<div data-lyrics-container="true">{}</div>'
    assert lyrics_of_page(html.format(inside)) == lyrics
    page = html.format(inside) + '<p>advertisement</p>' + html.format('end')
    assert lyrics_of_page(page) == f'{lyrics}\nend'


def test_lyrics_in_the_state_of_a_page():
    body = json.dumps({'songPage': {'lyricsData': {'body': {'html': '<p>[Verse 1]<br>\none<br>\ntwo</p>'}}}})
    page = f"<script>window.__PRELOADED_STATE__ = JSON.parse('{body}');</script>".replace('\\n', '\\\\n')
    assert lyrics_of_page(page) == '[Verse 1]\none\ntwo'


def test_what_was_not_tried_yet_comes_first(genius, tmp_path):
    genius.add('Tilly Ohm', *'ABCDEF')  # 1000 to 1005
    genius.add('Kobalt Figgs', 'Fig')
    genius.add('Umber Lane', 'Lane')
    genius.fault('^/song-100[0-4]', (403, ''))
    names = ['--artists', 'Tilly Ohm', 'Kobalt Figgs', 'Umber Lane']
    crawl(genius, tmp_path, *names, code=1)  # five blocks end it
    assert genius.asked() == [1000, 1001, 1002, 1003, 1004]
    genius.requests.clear()
    crawl(genius, tmp_path, *names, code=1)
    # the artists behind it, then its own song that was not asked for
    assert genius.asked()[:3] == [1006, 1007, 1005]
    genius.faults.clear()
    genius.requests.clear()
    crawl(genius, tmp_path, *names)
    assert genius.asked() == [1000, 1001, 1002, 1003, 1004]


ODD_ENTRIES = [dict(lyrics_state=None), dict(primary_artist=None), dict(title=None), dict(url=7),
dict(id='x')]


@pytest.mark.parametrize('change', ODD_ENTRIES, ids=str)
def test_an_odd_entry_of_a_list_is_left_out_and_noted(genius, tmp_path, change):
    odd = genius.add('Tilly Ohm', 'A', 'B', 'C')
    genius.songs[odd - 1] |= change
    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm')
    assert genius.asked() == [1000, 1002] and set(states(tmp_path).values()) == {'complete'}
    [line] = [line for line in done.stderr.splitlines() if 'left out of the list' in line]
    assert ('without a number' if 'id' in change else 'song 1001 has no') in line


def test_a_list_of_odd_entries_alone_is_an_error(genius, tmp_path):
    genius.add('Tilly Ohm', 'A', 'B', lyrics_state=None)
    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm', code=1)
    assert 'all its entries are odd: song 1000 has no lyrics_state' in done.stderr


def test_hints_for_odd_names(genius, tmp_path):
    genius.add('-M-', 'M')
    for options in (['--artists', '-M-'], ['--artists', 'Tilly Ohm', '-M-']):
        done = crawl(genius, tmp_path, *options, code=1)
        assert '--artists=-M-' in done.stderr and len(done.stderr.splitlines()) == 1
    crawl(genius, tmp_path, '--artists=-M-')
    genius.add('#1 Pan', 'Pan')
    (tmp_path / 'names.txt').write_text('# mine\n#1 Pan\nKobalt|100\n')
    done = crawl(genius, tmp_path, '--artist_file=names.txt')
    assert 'names.txt: "#1 Pan" is left out as a comment; if it is a name' in done.stderr
    assert 'Kobalt|100: artist 100 of Genius is "-M-"' in done.stderr and '# mine' not in done.stderr
    assert list(table_of(crawl(genius, tmp_path, '--artists', '#1 Pan'))) == ['#1 Pan']


@pytest.mark.slow
def test_blocks_not_in_a_row_do_not_end_the_crawl(genius, tmp_path):
    genius.add('Tilly Ohm', *map(str, range(16)))
    genius.fault('^/song-10(00|01|02|03|05|06|07|08|10|11|12|13)', (403, ''), times=12)
    crawl(genius, tmp_path, '--artists', 'Tilly Ohm')
    assert len(genius.asked()) == 16 + 12 and set(states(tmp_path).values()) == {'complete'}


@pytest.mark.slow
def test_a_refused_token_ends_with_one_line(genius, tmp_path):
    genius.add('Tilly Ohm')
    options = ['--artists', 'Tilly Ohm', 'Kobalt Figgs']
    by_variable = crawl(genius, tmp_path, *options, code=1, GENIUS_ACCESS_TOKEN='wrong-tOkEn-99')
    # the option goes before the variable, which has the right token
    by_option = crawl(genius, tmp_path, '--user_token=wrong-tOkEn-99', *options, code=1)
    for done in by_variable, by_option:
        assert len(done.stderr.splitlines()) == 1 and '401' in done.stderr
        written = (tmp_path / 'json' / 'manifest.json').read_text()
        assert 'wrong-tOkEn-99' not in done.stderr + done.stdout + written
    assert len(genius.requests) == 2


@pytest.mark.slow
def test_no_network_ends_with_one_line(tmp_path):
    done = crawl(None, tmp_path, '--artists', 'X', 'Y', code=1)
    assert len(done.stderr.splitlines()) == 1 and "can't reach Genius; check the network" in done.stderr


# ---- the token ----


def test_a_misspelt_option_does_not_show_the_token(genius, tmp_path):
    for options in ['--user-token=' + TOKEN], ['--token', TOKEN]:
        done = run('data/lyrics/data_generator/crawl.py', '--artists=X', *options, cwd=tmp_path, ok=False)
        assert TOKEN not in done.message and options[0].split('=')[0] in done.message


def test_no_message_holds_what_the_server_wrote():
    described = describe(RuntimeError(f'details: {TOKEN}'))
    assert described == ('failed', 'unexpected answer from Genius (RuntimeError)')


# ---- stops at any moment ----


def start(genius, cwd, *options):
    # a test run in the background ignores SIGINT, and its children would too
    return subprocess.Popen(
        command(genius, *options),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding='utf-8',
        env=ENV | {'GENIUS_ACCESS_TOKEN': TOKEN},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))


@pytest.mark.slow
@posix
def test_a_killed_crawl_goes_on_where_it_was(genius, tmp_path):
    """It is killed before its 1st, 2nd, 3rd ... request is answered; no song on disk is asked for again."""
    genius.add('Tilly Ohm', *'ABCD', sings=[100, 101])
    drums = genius.add('Tilly Ohm', 'Drums', flag=True)
    genius.add('Kobalt Figgs', 'E')
    options = ['--artists', 'Tilly Ohm', 'Kobalt Figgs']
    on_disk = set()
    for moment in itertools.count(1):
        genius.requests.clear()
        genius.before = lambda number: number == moment and process.kill()  # noqa: B023
        process = start(genius, tmp_path, *options)
        errors = process.communicate(timeout=20)[1]
        assert not on_disk & {*genius.asked(), *genius.asked(r'^/songs/(\d+)')} and 'Traceback' not in errors
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL and on_disk <= set(states(tmp_path))
        on_disk = set(states(tmp_path))
        # as if it was killed before a file got its final name
        for name in 'json/manifest.json.tmp', 'json/tilly-ohm/1003.json.tmp':
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text('{"id": 1003, "lyr')
    assert moment > 4
    assert states(tmp_path) == dict.fromkeys(range(1000, 1006), 'complete') | {drums: 'instrumental'}
    assert not list(tmp_path.rglob('*.tmp'))
    complete = dict.fromkeys(range(1000, 1004), 'complete')
    assert listed(tmp_path, 'Tilly Ohm|100') == complete | {drums: 'instrumental'}


@posix
@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_the_crawl_cleanly(genius, tmp_path, number, code):
    genius.add('Tilly Ohm')
    genius.fault('^/song-1001', lambda handler: process.send_signal(number) or stall(handler))
    process = start(genius, tmp_path, '--artists', 'Tilly Ohm')
    out, errors = process.communicate(timeout=20)
    assert process.returncode == code and errors == 'crawl.py: stopped; the same command goes on from here\n'
    assert list(files(tmp_path)) == ['tilly-ohm/1000.json'] and not list(tmp_path.rglob('*.tmp'))
    assert listed(tmp_path, 'Tilly Ohm|100') == {1000: 'complete', 1001: 'wanted', 1002: 'wanted'}
    assert re.search('Tilly Ohm +1 +1 +0 +0 +0 +0 +0 +0 +2', out)


@posix
def test_a_second_crawl_in_the_same_folder_is_refused(genius, tmp_path):
    genius.add('Tilly Ohm')
    second = []

    def crawl_again(number):
        if number == 3:
            second.append(crawl(genius, tmp_path, '--artists', 'Kobalt Figgs', code=1))

    genius.before = crawl_again
    crawl(genius, tmp_path, '--artists', 'Tilly Ohm', '--timeout=30')
    assert 'another crawl is at work in json' in second[0].stderr and len(second[0].stderr.splitlines()) == 1
    assert len(genius.requests) == 8 and len(files(tmp_path)) == 3


@posix
def test_ctrl_c_ends_a_wait_at_once(genius, tmp_path):
    genius.fault('^/search', (429, '', {'Retry-After': '100'}))
    process = start(genius, tmp_path, '--patience=200', '--artists', 'Tilly Ohm')
    assert 'waiting 100 s' in process.stderr.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)  # much less than the wait
    assert process.returncode == 130


@pytest.mark.slow
def test_broken_files_are_fetched_again(genius, tmp_path):
    genius.add('Tilly Ohm', *'ABCDEF')
    folder = tmp_path / 'json' / 'tilly-ohm'
    folder.mkdir(parents=True)
    for number, broken in enumerate([
            '{"id": 1000, "sta',
            '{"state": "complete", "lyrics": ""}',
            '[]',
            '',
            '[' * 9999]):
        (folder / f'{1000 + number}.json').write_text(broken)
    (folder / 'notes.json').write_text('mine')
    for broken in (
            '[', '[]', '\0', '{"Tilly Ohm|100": 5}',
            '{"a": {"id": 100, "folder": "../../x", "songs": {}}}',
            '{"a": {"id": 100, "folder": "tilly-ohm", "songs": {"1000": 5, "x": null}}}'):
        (tmp_path / 'json' / 'manifest.json').write_text(broken)
        crawl(genius, tmp_path, '--artists', 'Tilly Ohm')
        songs = manifest(tmp_path)['Tilly Ohm|100']['songs']
        assert [songs[str(number)]['state'] for number in range(1000, 1006)] == ['complete'] * 6
    assert sorted(genius.asked()) == [*range(1000, 1006)] and (folder / 'notes.json').read_text() == 'mine'


# ---- disks ----


@posix
def test_a_full_disk_ends_the_crawl_and_loses_nothing(genius, tmp_path):
    import resource

    genius.add('Tilly Ohm', 'One')
    genius.add('Tilly Ohm', 'Long', html=f'<div data-lyrics-container="true">{"la " * 3000}</div>')
    genius.add('Tilly Ohm', 'Three')
    # no file may grow beyond 4 kB
    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm', code=1,
                 prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert "can't write" in done.stderr and '1001.json' in done.stderr and '--data_dir' in done.stderr
    assert states(tmp_path) == {1000: 'complete'} and genius.asked() == [1000, 1001]
    crawl(genius, tmp_path, '--artists', 'Tilly Ohm')
    assert genius.asked() == [1000, 1001, 1001, 1002]
    assert len(files(tmp_path)['tilly-ohm/1001.json']['lyrics']) == 8999


@pytest.mark.skipif(sys.platform != 'linux', reason='drops a capability of root')
def test_a_read_only_folder_ends_the_crawl_before_the_first_request(genius, tmp_path):
    genius.add('Tilly Ohm')
    (tmp_path / 'json').mkdir(mode=0o555)
    libc = ctypes.CDLL(None)

    def drop():
        """Make root respect permissions too: PR_CAPBSET_DROP, CAP_DAC_OVERRIDE."""
        libc.prctl(24, 1)

    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm', code=1, prepare=drop)
    assert len(done.stderr.splitlines()) == 1 and 'Permission denied' in done.stderr and genius.requests == []
    (tmp_path / 'json').chmod(0o755)
    (tmp_path / 'json' / 'tilly-ohm').write_text('a file where the folder should be')
    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm', code=1)
    assert "can't write" in done.stderr and len(genius.asked()) == 1


# ---- what the user sees ----


@pytest.mark.slow
@posix
def test_progress_bars_on_a_terminal(genius, tmp_path):
    import pty
    import termios

    genius.add('Tilly Ohm')
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    shown = b''
    process = subprocess.Popen(
        command(genius, '--artists', 'Tilly Ohm', rate=20),
        cwd=tmp_path,
        stderr=theirs,
        stdout=subprocess.PIPE,
        env=ENV | {'GENIUS_ACCESS_TOKEN': TOKEN})
    os.close(theirs)
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while piece := os.read(ours, 9999):
            shown += piece
    table = process.communicate(timeout=20)[0]
    assert process.returncode == 0 and b'Tilly Ohm' in table
    assert b'artists:' in shown and b'1/1' in shown and re.search(rb'Tilly Ohm: .*[123]/40', shown)
    assert b'kept' not in shown  # that line is for files


def test_lines_of_progress_without_a_terminal(genius, tmp_path):
    genius.add('Tilly Ohm', *map(str, range(21)))
    done = crawl(genius, tmp_path, '--data_dir=new/folder', '--artists', 'Tilly Ohm')
    assert len([*(tmp_path / 'new' / 'folder').glob('tilly-ohm/*.json')]) == 21
    assert done.stderr.splitlines() == [
        'crawl.py: Tilly Ohm: 10 new songs', 'crawl.py: Tilly Ohm: 20 new songs',
        'crawl.py: Tilly Ohm: 21 kept, 21 of them new']


def test_output_closed_by_its_reader(genius, tmp_path):
    genius.add('Tilly Ohm', *map(str, range(40)))
    shell = subprocess.Popen(
        command(genius, '--dry_run', '--artists', 'Tilly Ohm'),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding='utf-8',
        env=ENV | {'GENIUS_ACCESS_TOKEN': TOKEN})
    shell.stdout.close()  # as head does
    assert 'BrokenPipe' not in shell.stderr.read() and shell.wait(20) == 1


@pytest.mark.parametrize(('options', 'says'), [
    ([], 'no artists'),
    (['--artist_file=empty.txt'], 'no artists'),
    (['--artist_file=none.txt'], 'none.txt'),
    (['--artist_file=latin.txt'], 'not UTF-8'),
    (['--artists', 'X', '--max_songs=0'], '--max_songs'),
    (['--artists', 'X', '--max_songs=many'], '--max_songs'),
    (['--artists', 'X', '--requests_per_second=nan'], 'above 0'),
    (['--artists', 'X', '--requests_per_second=inf'], 'above 0'),
    (['--artists', 'X', '--timeout=-1'], '--timeout'),
    (['--artists', 'X', '--user_token='], 'GENIUS_ACCESS_TOKEN'),
    (['--artists', 'X', '--user_token=“x”'], '--user_token'),
    (['--artists', 'X', '--user_token=tok\nen'], '--user_token'),
    (['--artists', 'X', '--data_dir=empty.txt'], '--data_dir'),
    (['--artists', 'X', '--api_root=localhost'], 'http://')])
def test_wrong_options_are_one_line(tmp_path, monkeypatch, capsys, options, says):
    (tmp_path / 'empty.txt').write_text('# no one\n\n')
    (tmp_path / 'latin.txt').write_bytes('Beyoncé'.encode('latin-1'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('GENIUS_ACCESS_TOKEN', raising=False)
    monkeypatch.setattr(sys, 'argv', [str(SCRIPT), f'--user_token={TOKEN}', *options])
    monkeypatch.setattr(sys, 'stdout', sys.__stdout__)
    with pytest.raises(UserError) as caught:
        main()
    assert says in str(caught.value) and '\n' not in str(caught.value) and capsys.readouterr().err == ''


def test_a_missing_artist_file_from_the_command_line(tmp_path):
    options = ['--artist_file=none.txt', '--user_token=x']
    done = run('data/lyrics/data_generator/crawl.py', *options, cwd=tmp_path, ok=False)
    assert done.message.startswith("crawl.py: can't read --artist_file none.txt")
