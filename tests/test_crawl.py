"""crawl.py against a small Genius on 127.0.0.1: the script runs as a process of its own, over real HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

GENERATOR = Path(__file__).resolve().parents[1] / 'data' / 'lyrics' / 'data_generator'
sys.path.insert(0, str(GENERATOR))
import crawl as script  # noqa: E402

from nanorap import UserError  # noqa: E402

TOKEN = 'sEcrEt-tOkEn-0123456789'


class Genius(ThreadingHTTPServer):
    """What a test changes: artists, songs (a dict each), and answer(path), which may return (status, body) instead."""

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.root = f'http://127.0.0.1:{self.server_port}'
        self.artists, self.songs, self.requests, self.times = {}, {}, [], []
        self.answer = lambda path: None
        self.leaked = False  # the token came with a page's request

    def handle_error(self, request, client_address):
        pass  # a client that was stopped

    def add(self, artist, *titles, **changes):
        number = self.artists.setdefault(artist, 100 + len(self.artists))
        for title in titles or [f'{artist} {n}' for n in range(3)]:
            song_id = 1000 + len(self.songs)
            self.songs[song_id] = {
                'id': song_id, 'title': title, 'url': f'https://genius.com/song-{song_id}-lyrics',
                'lyrics_state': 'complete', 'primary_artist': {'id': number, 'name': artist}, 'sings': [number],
                'language': 'en', 'flag': False,
                'lyrics': f'[Verse 1]<br/>first line of {song_id}<br/>second &amp; last',
            } | changes
        return song_id

    def pages(self):
        """The song pages asked for, by id, in order."""
        return [int(match[1]) for path in self.requests if (match := re.match(r'/song-(\d+)-lyrics', path))]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        genius, url = self.server, urlparse(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        page = int(query.get('page', 1))
        genius.requests.append(self.path)
        genius.times.append(time.monotonic())
        web = re.match(r'/song-(\d+)-lyrics', url.path)
        status, body = 200, None
        if genius.answer(self.path):
            status, body = genius.answer(self.path)
        elif web:  # a page: no token is wanted here, nor sent
            genius.leaked = genius.leaked or 'authorization' in self.headers
            body = '<html><div class="LyricsHeader__Container">3 Contributors</div><div data-lyrics-container="true">'
            body += genius.songs[int(web[1])]['lyrics'] + '</div></html>'
        elif self.headers['authorization'] != f'Bearer {TOKEN}':
            status, body = 401, f'{{"error": "invalid_token", "you_sent": "{self.headers["authorization"]}"}}'
        elif url.path == '/search':
            start = unicodedata.normalize('NFKD', query['q']).casefold().lstrip('$')[:1]
            hits = [song for song in genius.songs.values() if start in song['primary_artist']['name'].casefold()]
            body = {'hits': [{'type': 'song', 'result': song} for song in hits[(page - 1) * 10 : page * 10]]}
        elif match := re.fullmatch(r'/artists/(\d+)/songs', url.path):
            size = min(int(query['per_page']), 4)  # small pages, so that a few songs take several
            found = [song for song in genius.songs.values() if int(match[1]) in song['sings']]
            body = {'songs': [{k: v for k, v in song.items() if k not in ('language', 'lyrics', 'sings', 'flag')}
                              for song in found[(page - 1) * size : page * size]],
                    'next_page': page + 1 if page * size < len(found) else None}
        elif match := re.fullmatch(r'/artists/(\d+)', url.path):
            body = {'artist': {'id': int(match[1])}}
        elif match := re.fullmatch(r'/songs/(\d+)', url.path):
            song = genius.songs[int(match[1])]
            body = {'song': song | {'instrumental': song['flag']}}
        else:
            status, body = 404, {'meta': {'status': 404}}
        data = (body if isinstance(body, str) else json.dumps({'response': body})).encode()
        self.send_response(status)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def genius():
    server = Genius()
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True).start()
    yield server
    assert not server.leaked
    server.shutdown()
    server.server_close()


def command(genius, *options, rate=1000):
    return [sys.executable, str(GENERATOR / 'crawl.py'), f'--requests_per_second={rate}',
            f'--api_root={genius.root if genius else "http://127.0.0.1:9"}', *options]


ENV = {key: value for key, value in os.environ.items() if key != 'GENIUS_ACCESS_TOKEN' and 'proxy' not in key.lower()}


def crawl(genius, cwd, *options, token=TOKEN, env=None, rate=1000):
    options = [f'--user_token={token}', *options] if token else options
    done = subprocess.run(command(genius, *options, rate=rate), cwd=cwd, capture_output=True, encoding='utf-8',
                          timeout=60, env=ENV | (env or {}))
    assert 'Traceback' not in done.stderr, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    for path in cwd.rglob('*.json'):
        assert TOKEN not in path.read_text(encoding='utf-8')
    return done


def files(cwd):
    return {path.relative_to(cwd / 'json').as_posix(): json.loads(path.read_text(encoding='utf-8'))
            for path in sorted((cwd / 'json').glob('*/*'))}


def manifest(cwd):
    return json.loads((cwd / 'json' / 'manifest.json').read_text(encoding='utf-8'))


def outcomes(cwd, name):
    return {row['id']: row['outcome'] for row in manifest(cwd)[name]['songs']}


def test_songs_come_home_once(genius, tmp_path):
    genius.add('Kobalt Figgs', *[f'Fig {n}' for n in range(6)])
    last = genius.add('Tilly Ohm', 'Öl')
    genius.add('Nobody Asked')
    (tmp_path / 'names.txt').write_text('# mine\n\n  Kobalt Figgs\nKOBALT FIGGS\n', encoding='utf-8-sig')
    options = ['--artist_file=names.txt', '--artists', 'tílly ohm!', 'Kobalt Figgs']
    done = crawl(genius, tmp_path, *options)
    assert (done.returncode, done.stderr) == (0, '')
    got = files(tmp_path)
    assert list(got) == [f'kobalt-figgs/{n}.json' for n in range(1000, 1006)] + ['tilly-ohm/1006.json']
    assert got[f'tilly-ohm/{last}.json'] == {
        'id': last, 'title': 'Öl', 'artist': 'Tilly Ohm', 'url': f'https://genius.com/song-{last}-lyrics',
        'language': 'en', 'state': 'complete', 'lyrics': f'[Verse 1]\nfirst line of {last}\nsecond & last'}
    assert list(manifest(tmp_path)) == ['Kobalt Figgs', 'tílly ohm!']
    assert manifest(tmp_path)['tílly ohm!']['folder'] == 'tilly-ohm'
    table = [line.split() for line in done.stdout.splitlines()]
    assert table[1] == ['Kobalt', 'Figgs', '6', '6', '0', '0'] and table[2] == ['Tilly', 'Ohm', '1', '1', '0', '0']
    assert all('sort=popularity' in path for path in genius.requests if path.startswith('/artists/'))

    genius.requests.clear()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'json').glob('*/*')}
    done = crawl(genius, tmp_path, *options)
    assert done.returncode == 0
    assert genius.pages() == [] and not [path for path in genius.requests if path.startswith('/songs/')]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / 'json').glob('*/*')} == before
    assert done.stdout.splitlines()[1].split() == ['Kobalt', 'Figgs', '6', '0', '0', '0']


def test_max_songs_counts_what_is_kept(genius, tmp_path):
    other = genius.add('Kobalt Figgs', 'A Duet', sings=[100, 101])
    genius.add('Tilly Ohm')
    flagged = genius.add('Tilly Ohm', 'Only Drums', instrumental=True, lyrics='')
    found_out = genius.add('Tilly Ohm', 'Only Bass', flag=True, lyrics='')
    unreleased = genius.add('Tilly Ohm', 'Soon', lyrics_state='unreleased')
    genius.add('Tilly Ohm', 'Four', 'Five', 'Six')
    assert crawl(genius, tmp_path, '--max_songs=4', '--artists', 'Tilly Ohm').returncode == 0
    assert outcomes(tmp_path, 'Tilly Ohm') == {
        other: 'skipped', 1001: 'new', 1002: 'new', 1003: 'new', flagged: 'skipped', found_out: 'skipped',
        unreleased: 'skipped', 1007: 'new'}
    assert genius.pages() == [1001, 1002, 1003, found_out, 1007]
    got = files(tmp_path)
    assert [got[f'tilly-ohm/{n}.json']['state'] for n in (flagged, found_out, unreleased)] == [
        'instrumental', 'instrumental', 'unreleased']
    assert f'tilly-ohm/{other}.json' not in got
    assert manifest(tmp_path)['Tilly Ohm']['songs'][0]['why'] == 'other primary artist'


def test_a_song_listed_twice_counts_once(genius, tmp_path):
    genius.add('Tilly Ohm', *'ABCDEFG')
    genius.songs = {n: song | {'id': 1000 + n % 5} for n, song in enumerate(genius.songs.values())}
    genius.songs |= {1000 + n: genius.songs[n] for n in range(5)}
    crawl(genius, tmp_path, '--artists', 'Tilly Ohm')
    assert len(manifest(tmp_path)['Tilly Ohm']['songs']) == 5 and len(genius.pages()) == 5


@pytest.mark.parametrize('status', [403, 200])
def test_a_blocked_page_is_no_song(genius, tmp_path, status):
    genius.add('Tilly Ohm')
    genius.answer = lambda path: (status, '<html>Are you human?</html>') if path == '/song-1001-lyrics' else None
    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm')
    assert (done.returncode, done.stderr) == (1, '')
    assert 'manifest.json says why' in done.stdout
    got = files(tmp_path)
    assert [song['state'] for song in got.values()] == ['complete', 'blocked', 'complete']
    assert got['tilly-ohm/1001.json']['lyrics'] == '' and got['tilly-ohm/1001.json']['language'] is None
    assert done.stdout.splitlines()[1].split() == ['Tilly', 'Ohm', '2', '2', '0', '1']
    # the next run asks for this one alone
    genius.answer = lambda path: None
    genius.requests.clear()
    assert crawl(genius, tmp_path, '--artists', 'Tilly Ohm').returncode == 0
    assert genius.pages() == [1001] and files(tmp_path)['tilly-ohm/1001.json']['state'] == 'complete'


def test_a_site_that_refuses_is_left_alone(genius, tmp_path):
    genius.add('Tilly Ohm', *'ABCDEFGHIJ')
    genius.answer = lambda path: (403, '<html>no</html>') if 'lyrics' in path and path != '/song-1000-lyrics' else None
    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm')
    assert done.returncode == 1 and 'in a row' in done.stderr and len(done.stderr.splitlines()) == 1
    assert genius.pages() == [1000, 1001, 1002, 1003]
    # three that fail, but never in a row
    genius.answer = lambda path: (403, '<html>no</html>') if re.match('/song-100[135]-', path) else None
    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm')
    assert (done.returncode, done.stderr) == (1, '') and len(outcomes(tmp_path, 'Tilly Ohm')) == 10


def test_a_refused_token_is_one_line(genius, tmp_path):
    genius.add('Tilly Ohm')
    done = crawl(genius, tmp_path, '--artists', 'Tilly Ohm', 'Kobalt Figgs', token='wrong-tOkEn-99')
    assert (done.returncode, done.stdout) == (1, '')
    assert len(done.stderr.splitlines()) == 1 and '401' in done.stderr and 'wrong-tOkEn-99' not in done.stderr
    assert 'wrong-tOkEn-99' not in (tmp_path / 'json' / 'manifest.json').read_text()
    assert len(genius.requests) == 1


def test_an_unknown_artist_stops_no_other(genius, tmp_path):
    genius.add('Tilly Ohm')
    genius.add('Tilly Ohms')
    genius.add('Kobalt Figgs')
    done = crawl(genius, tmp_path, '--artists', 'Tilli Ohm', 'Zzz', 'Kobalt Figgs')
    assert done.returncode == 1
    errors = done.stderr.splitlines()
    assert len(errors) == 2
    assert 'no artist Tilli Ohm; did you mean Tilly Ohm, Tilly Ohms?' in errors[0] and 'no artist Zzz' in errors[1]
    assert [path.split('/')[0] for path in files(tmp_path)] == ['kobalt-figgs'] * 3


def test_the_exact_name_wins(genius, tmp_path):
    genius.add('Not', 'a')
    genius.add('NOT', 'b')
    genius.add('$NOT', 'c')
    crawl(genius, tmp_path, '--artists', '$not', 'Not', 'NOT')
    assert [entry['artist'] for entry in manifest(tmp_path).values()] == ['$NOT', 'Not']  # NOT is Not, again
    assert [song['title'] for song in files(tmp_path).values()] == ['a', 'c']


def test_an_artist_on_a_later_page_of_the_search(genius, tmp_path):
    genius.add('Ohm Choir', *map(str, range(12)))
    genius.add('Ohm')
    assert crawl(genius, tmp_path, '--artists', 'Ohm').returncode == 0
    assert manifest(tmp_path)['Ohm']['artist'] == 'Ohm'


def test_a_bad_answer_costs_one_artist(genius, tmp_path):
    genius.add('Kobalt Figgs')
    bad = {'AA': (429, f'{{"you": "{TOKEN}"}}', 'HTTP 429'), 'BB': (503, '<html>busy</html>', 'HTTP 503'),
           'CC': (200, f'<html>{TOKEN}</html>', 'a page where data belongs'),
           'DD': (200, '{"response": null}', 'unexpected answer'),
           'EE': (200, f'{{"response": {{"hits": {{"{TOKEN}": 1}}}}}}', 'unexpected answer')}
    genius.answer = lambda path: bad[path[10:12]][:2] if path[10:12] in bad else None
    done = crawl(genius, tmp_path, '--artists', *bad, 'Kobalt Figgs')
    assert done.returncode == 1 and len(done.stderr.splitlines()) == len(bad)
    for line, (name, (_, _, says)) in zip(done.stderr.splitlines(), bad.items(), strict=True):
        assert line.startswith(f'crawl.py: {name}: ') and says in line
    assert len(files(tmp_path)) == 3


def test_no_message_holds_the_token():
    said = script.explain(RuntimeError(f'request details: {TOKEN}\n' * 99), TOKEN)
    assert 'request details: ***' in said and TOKEN[:4] not in said and '\n' not in said and len(said) <= 200


def test_no_network_is_one_line(tmp_path):
    done = crawl(None, tmp_path, '--artists', 'X')
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "can't reach" in done.stderr


def test_a_bad_song_costs_one_song(genius, tmp_path):
    genius.add('Tilly Ohm')
    genius.answer = lambda path: (500, TOKEN) if path.startswith('/songs/1000') else None
    assert crawl(genius, tmp_path, '--artists', 'Tilly Ohm').returncode == 1
    assert [song['state'] for song in files(tmp_path).values()] == ['failed', 'complete', 'complete']
    assert 'HTTP 500' in manifest(tmp_path)['Tilly Ohm']['songs'][0]['why']


def test_broken_files_are_fetched_again(genius, tmp_path):
    genius.add('Tilly Ohm')
    (tmp_path / 'json' / 'tilly-ohm').mkdir(parents=True)
    (tmp_path / 'json' / 'manifest.json').write_text('[')
    (tmp_path / 'json' / 'tilly-ohm' / '1000.json').write_text('{"id": 1000, "sta')
    (tmp_path / 'json' / 'tilly-ohm' / '1001.json').write_text('{"state": "complete", "lyrics": ""}')
    (tmp_path / 'json' / 'tilly-ohm' / '1002.json').write_text('[]')
    assert crawl(genius, tmp_path, '--artists', 'Tilly Ohm').returncode == 0
    assert genius.pages() == [1000, 1001, 1002]
    assert {song['state'] for song in files(tmp_path).values()} == {'complete'}


def test_the_rate_limit_holds(genius, tmp_path):
    genius.add('Tilly Ohm')
    crawl(genius, tmp_path, '--artists', 'Tilly Ohm', rate=10)
    gaps = [b - a for a, b in zip(genius.times, genius.times[1:], strict=False)]
    assert len(gaps) == 7 and min(gaps) > 0.09


@pytest.mark.skipif(os.name == 'nt', reason='sends SIGINT')
def test_ctrl_c_keeps_what_is_there(genius, tmp_path):
    genius.add('Tilly Ohm')
    reached = threading.Event()

    def answer(path):
        if path == '/song-1001-lyrics':
            reached.set()
            time.sleep(3)

    genius.answer = answer
    process = subprocess.Popen(
        command(genius, '--artists', 'Tilly Ohm'), cwd=tmp_path, stderr=subprocess.PIPE, encoding='utf-8',
        env=ENV | {'GENIUS_ACCESS_TOKEN': TOKEN},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a test run in the background ignores SIGINT
    assert reached.wait(20)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and len(errors.splitlines()) == 1 and 'Traceback' not in errors
    assert list(files(tmp_path)) == ['tilly-ohm/1000.json'] and outcomes(tmp_path, 'Tilly Ohm')[1000] == 'new'


@pytest.mark.parametrize(('options', 'says'), [
    ([], 'no artists'), (['--artist_file=empty.txt'], 'no artists'), (['--artist_file=none.txt'], 'none.txt'),
    (['--artists', 'X', '--max_songs=0'], '--max_songs'), (['--artists', 'X', '--requests_per_second=0'], 'above 0'),
    (['--artists', 'X', '--user_token='], 'GENIUS_ACCESS_TOKEN'),
    (['--artists', 'X', '--user_token=“x”'], '--user_token'),
    (['--artists', 'X', '--user_token=tok\nen'], '--user_token'),
    (['--artists', 'X', '--data_dir=empty.txt'], '--data_dir'),
])
def test_mistakes_are_one_line(tmp_path, monkeypatch, options, says):
    (tmp_path / 'empty.txt').write_text('# no one\n\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('GENIUS_ACCESS_TOKEN', raising=False)
    monkeypatch.setattr(sys, 'argv', command(None, f'--user_token={TOKEN}', *options)[1:])
    with pytest.raises(UserError) as caught:
        script.main()
    assert says in str(caught.value) and '\n' not in str(caught.value)


def test_folder_names():
    odd = ['../x', 'x', '..', '.', '', ' ', '/', 'AC/DC', 'ACDC', 'AC DC', 'AC-DC', '$NOT', 'NOT', 'nót', '歌' * 200,
           '歌' * 199, 'long ' * 40, 'long ' * 41, 'con', 'C:\\x', 'a\0b', 'a\nb', '\ud800', 'Tilly  Ohm',
           'Tilly Ohm']
    slugs = [script.slug(name) for name in odd]
    assert len(set(slugs)) == len(odd)
    assert all(re.fullmatch(r'[a-z0-9][a-z0-9-]{0,59}', slug) and slug != 'con' for slug in slugs)
    assert script.slug('Tilly Ohm') == 'tilly-ohm' and script.slug('AC/DC').startswith('ac-dc-')


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / 'a' / '1.json'
    script.write_json(path, {'old': 1})

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(script.os, 'replace', full)
    with pytest.raises(SystemExit, match='No space left'):
        script.write_json(path, {'new': 2})
    assert json.loads(path.read_text()) == {'old': 1}
