"""preprocess.py: each cleaning rule, where it must leave a lyric alone, and the files that come out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

GENERATOR = Path(__file__).resolve().parents[1] / 'data' / 'lyrics' / 'data_generator'
sys.path.insert(0, str(GENERATOR))
import preprocess  # noqa: E402


def clean(text, title='Night Bus'):
    for rule in preprocess.RULES:
        text = rule(text, title)
    return text


def song(number, lyrics=None, **changes):
    lyrics = lyrics or '[Verse 1]\n' + '\n'.join(f'line {number} of bar {bar} and a rhyme' for bar in range(10))
    return {'id': number, 'title': f'Song {number}', 'artist': 'Tilly Ohm', 'url': 'https://genius.com/x',
            'language': 'en', 'state': 'complete', 'lyrics': lyrics} | changes


def save(folder, *songs, artist='tilly-ohm'):
    (folder / artist).mkdir(parents=True, exist_ok=True)
    for each in songs:
        (folder / artist / f'{each["id"]}.json').write_text(json.dumps(each), encoding='utf-8')


def run(tmp_path, *options):
    command = [sys.executable, GENERATOR / 'preprocess.py', '--data_dir=json', '--save_dir=out', *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding='utf-8', timeout=60)
    assert 'Traceback' not in done.stderr, done.stderr
    return done


def data(tmp_path):
    return json.loads((tmp_path / 'out' / 'data.json').read_text(encoding='utf-8'))


def report(tmp_path):
    return json.loads((tmp_path / 'out' / 'preprocess_report.json').read_text(encoding='utf-8'))


# ---- the rules ----

JUNK = [
    # the page's head
    ('27ContributorsTranslationsEspañolDeutschNight Bus Lyrics[Verse 1]\nI ride', '[Verse 1]\nI ride'),
    ('2 ContributorsNight Bus Lyrics[Verse 1]\nI ride', '[Verse 1]\nI ride'),
    ('1 ContributorNight Bus LyricsI ride the night bus', 'I ride the night bus'),
    ('2 ContributorsSome Other Name Lyrics[Intro]\nYo', '[Intro]\nYo'),
    ('3 Contributors\nTranslations\nDeutsch\nNight Bus Lyrics\nI ride', 'I ride'),
    ('2 ContributorsNight Bus Lyrics“Night Bus” tells of a ride… Read More\xa0[Verse 1]\nI ride', '[Verse 1]\nI ride'),
    ('2\u00a0ContributorsNight\u2005Bus Lyrics[Verse 1]\nI ride', '[Verse 1]\nI ride'),
    # adverts
    ('I rideSee Tilly Ohm LiveGet tickets as low as $17You might also like[Hook]\nWe go', 'I ride\n\n[Hook]\nWe go'),
    ('I See the lightSee Tilly Ohm LiveGet tickets as low as $1,017.50\nWe go', 'I See the light\nWe go'),
    ('I ride\nSee Tilly Ohm LiveGet tickets as low as £9\nYou might also like\nWe go', 'I ride\nWe go'),
    ('I rideYou might also like\nWe go', 'I ride\nWe go'),
    ('I rideYou might also likeWe go', 'I ride\nWe go'),
    ('I ride, "yo"You might also like[Outro]\nBye', 'I ride, "yo"\n\n[Outro]\nBye'),
    ('I ride\nYou might also like[Chorus]\nWe go', 'I ride\n\n[Chorus]\nWe go'),
    ('I ride\n You might also like \nWe go', 'I ride\nWe go'),
    ('I ride\u00a0\nYou might\u2005also like\nWe go', 'I ride\nWe go'),
    # the end
    ('We go home3Embed', 'We go home'),
    ('We go home1.2KEmbed', 'We go home'),
    ('We go home.Embed', 'We go home.'),
    ('We go home\nEmbed\n', 'We go home'),
    ('We go home 12Embed', 'We go home'),
    ('We go homeEmbedShare Url:CopyEmbed:Copy', 'We go home'),
    ('We go home5EmbedShare URLCopyEmbedCopy', 'We go home'),
    ('We go home3\u200bEmbed', 'We go home'),
    # spaces and entities
    ('a\u2005b\u205fc\u00a0d', 'a b c d'),
    ('\ufeffa\u200bb\u200cc\u200dd', 'abcd'),
    ('you &amp; me, don&#x27;t &quot;go&quot;&nbsp;now', 'you & me, don\'t "go" now'),
    ('one\r\ntwo\rthree', 'one\ntwo\nthree'),
    # white space
    ('one  \ntwo\t\n', 'one\ntwo'),
    ('one\n[Chorus]\ntwo', 'one\n\n[Chorus]\ntwo'),
    ('one\n\n\n\n[Chorus: Tilly Ohm & Kobalt Figgs]\ntwo', 'one\n\n[Chorus: Tilly Ohm & Kobalt Figgs]\ntwo'),
    ('one\n \n\n\ntwo', 'one\n\ntwo'),
]


@pytest.mark.parametrize(('dirty', 'expected'), JUNK)
def test_junk_goes(dirty, expected):
    assert clean(dirty) == expected


KEPT = [
    'You might also like the way I move',
    'You might also liken me to a bus',
    'Girl, You might also like\nwhat I wrote',
    'She said "You might also like" and left',
    'He said (You might also like that)',
    'I See you live, See you glow',
    'See my name LiveGet it, no tickets here',
    'The things that I embed',
    'Watch me Embed',
    'He has 3 Embeds in it',
    'Embed\nis how I start',
    '12 Contributors to my pain\nand none to my gain',
    'Lyrics on lyrics, Night Bus Lyrics',
    'you&regret what I&copy wrote at AT&T, R&B; not&notit; and &nothing;',
    'yeah [x2]\n[x2]\n[?]\nwhat',
    'inline [Chorus] is not a header',
    'naïve café, 夜のバス, ночь',
    "don't ' “stop” — now… ok",
]


@pytest.mark.parametrize('text', KEPT)
def test_lyrics_that_look_like_junk_stay(text):
    assert clean(text) == text


@pytest.mark.parametrize('title', ['', 'Lyrics', 'What (Is) This? [C++] \\1', 'Lyrics of a Bus'])
def test_any_title(title):
    assert clean(f'2 Contributors{title} Lyrics[Verse 1]\nI ride', title) == '[Verse 1]\nI ride'


def test_a_title_that_holds_the_word_lyrics():
    assert clean('2 ContributorsLyrics of a Bus LyricsI ride', 'Lyrics of a Bus') == 'I ride'


WORD = st.text(st.characters(whitelist_categories=['Ll', 'Lu', 'Lo', 'Nd'], whitelist_characters="',.!?-"), min_size=1)
LINE = st.lists(WORD, min_size=1, max_size=6).map(' '.join)
SECTION = st.tuples(st.sampled_from(['[Verse 1]', '[Chorus: Tilly Ohm]', '[Стих]', '[Outro]', '']),
                    st.lists(LINE, min_size=1, max_size=4))
SONG = st.lists(SECTION, min_size=1, max_size=4).map(
    lambda sections: '\n\n'.join('\n'.join([head, *lines] if head else lines) for head, lines in sections)
)


@settings(max_examples=100, deadline=None)
@given(SONG)
def test_clean_songs_stay_byte_for_byte(text):
    assert clean(text) == text
    assert clean(f'\n\n {text}\n \n') == text


@settings(max_examples=100, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=4), st.lists(LINE, min_size=1, max_size=4))
def test_junk_around_any_song(first, second):
    first, second = '\n'.join(first), '\n'.join(second)
    if first[-1] in "'-" or first[-1].isdigit() or second[-1].isdigit() or second[-1] == '-':
        return  # nothing tells where such a line ends and the junk begins
    dirty = f'27ContributorsDeutschNight Bus Lyrics[Verse 1]\n{first}You might also like[Chorus]\n{second}3Embed'
    assert clean(dirty) == f'[Verse 1]\n{first}\n\n[Chorus]\n{second}'


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text())
def test_no_text_breaks_a_rule(text, title):
    clean(text, title)
    clean(f'2 Contributors{text}', title)
    preprocess.group_of(text, title)


def test_groups():
    group = preprocess.group_of
    versions = ['Night Bus', 'Night Bus (Remix)', 'Night Bus (Kobalt Figgs Remix)', 'NIGHT BUS [Live]', 'Night Bús',
                'Night Bus (Live at the Depot)', 'Night Bus - Remastered', 'Night Bus - Remastered 2011',
                'Night Bus (2011 Remaster)', 'Night Bus (Remix) [Explicit]',
                'Night Bus (feat. Kobalt Figgs)']
    assert {group('Tilly Ohm', title) for title in versions} == {group('Tilly Ohm', 'Night Bus')}
    others = ['Day Bus', 'Night Bus 2', 'Night Bus (Part Two)', 'Night Bus (Live It Up)', '(Remix)', '???', '!']
    assert len({group('Tilly Ohm', title) for title in ['Night Bus', *others]}) == len(others) + 1
    assert group('Kobalt Figgs', 'Night Bus') != group('Tilly Ohm', 'Night Bus')
    assert group('Tilly Ohm', '(Remix)') != group('Tilly Ohm', '(Demo)')
    assert group('TILLY OHM', 'Night Bus') == group('Tilly Ohm', 'Night Bus')


# ---- the script ----


def test_one_entry_a_line_in_a_fixed_order(tmp_path):
    save(tmp_path / 'json', song(10), song(9), song(2, title='\u200bÖl &amp; “Gas”\u00a0(Remix)'))
    save(tmp_path / 'json', song(50, artist='Kobalt Figgs'), artist='kobalt-figgs')
    (tmp_path / 'json' / 'manifest.json').write_text('{}')
    (tmp_path / 'json' / 'tilly-ohm' / '11.json.tmp').write_text('{"half')
    crawled = {path: path.read_bytes() for path in (tmp_path / 'json').rglob('*.*')}
    assert run(tmp_path).returncode == 0
    lines = (tmp_path / 'out' / 'data.json').read_text(encoding='utf-8').split('\n')
    assert lines[0] == '[' and lines[-2:] == [']', '']
    entries = [json.loads(line.removesuffix(',')) for line in lines[1:-2]]
    assert entries == data(tmp_path)
    assert [entry['song_name'] for entry in entries] == ['Song 50', 'Öl & “Gas” (Remix)', 'Song 9', 'Song 10']
    assert entries[1] == {'text': song(2)['lyrics'], 'song_name': 'Öl & “Gas” (Remix)', 'artist_name': 'Tilly Ohm',
                          'group': 'tillyohm/olgas'}
    assert 'Öl' in lines[2]  # UTF-8, not escapes
    first = (tmp_path / 'out' / 'data.json').read_bytes()
    assert run(tmp_path).returncode == 0
    assert (tmp_path / 'out' / 'data.json').read_bytes() == first
    assert {path: path.read_bytes() for path in (tmp_path / 'json').rglob('*.*')} == crawled
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['data.json', 'preprocess_report.json']


def test_what_is_dropped_and_why(tmp_path):
    same = song(1)['lyrics']
    states = [song(20 + n, state=state, lyrics='') for n, state in enumerate(['instrumental', 'unreleased', 'blocked'])]
    save(tmp_path / 'json', song(1), song(2, lyrics=same + '3Embed'), song(3, lyrics='[Verse 1]\ntoo short'), *states,
         *[song(30 + n, lyrics=f'short {n}') for n in range(8)])
    done = run(tmp_path)
    assert done.returncode == 0
    assert [entry['song_name'] for entry in data(tmp_path)] == ['Song 1']
    got = report(tmp_path)
    assert (got['in'], got['out']) == (14, 1)
    assert {reason: found['count'] for reason, found in got['dropped'].items()} == {
        'duplicate': 1, 'fewer than 50 words': 9, 'not complete: instrumental': 1, 'not complete: unreleased': 1,
        'not complete: blocked': 1}
    assert got['dropped']['duplicate']['examples'] == ['Song 2']
    assert len(got['dropped']['fewer than 50 words']['examples']) == 5
    assert got['changed']['embed'] == {'count': 1, 'examples': ['Song 2']}
    for reason, found in got['dropped'].items():
        assert any(reason in line and line.endswith(f' {found["count"]}') for line in done.stdout.splitlines())


def test_min_words_is_a_floor_without_headers(tmp_path):
    save(tmp_path / 'json', song(1, lyrics='[Verse 1]\none two three'), song(2, lyrics='[Verse 1]\none two'))
    assert run(tmp_path, '--min_words=3').returncode == 0
    assert [entry['song_name'] for entry in data(tmp_path)] == ['Song 1']


def test_broken_files_are_named_and_skipped(tmp_path):
    save(tmp_path / 'json', song(1))
    broken = [b'{"id": 5, "tit', b'', b'[]', b'null', b'{"title": "x"}', b'\xff\xfe{}', b'[' * 100000,
              b'{"title": 1, "artist": "a", "state": "complete", "lyrics": 5}']
    for number, content in enumerate(broken, 2):
        (tmp_path / 'json' / 'tilly-ohm' / f'{number}.json').write_bytes(content)
    done = run(tmp_path)
    assert done.returncode == 0
    errors = done.stderr.splitlines()
    assert len(errors) == len(broken)
    for number, line in enumerate(errors, 2):
        assert str(Path('json', 'tilly-ohm', f'{number}.json')) in line
    assert report(tmp_path)['dropped'] == {
        'broken file': {'count': len(broken), 'examples': [f'tilly-ohm/{number}.json' for number in range(2, 7)]}}
    assert [entry['song_name'] for entry in data(tmp_path)] == ['Song 1']


def test_half_a_surrogate_pair_is_no_crash(tmp_path):
    save(tmp_path / 'json', song(1, title='Bus \ud83d'))
    assert run(tmp_path).returncode == 0
    assert data(tmp_path)[0]['song_name'] == 'Bus ?'


def test_nothing_in_is_one_line(tmp_path):
    for _ in range(2):  # no folder; an empty one
        done = run(tmp_path)
        assert (done.returncode, done.stdout) == (1, '')
        assert len(done.stderr.splitlines()) == 1 and 'crawl.py' in done.stderr
        (tmp_path / 'json').mkdir(exist_ok=True)
    assert not (tmp_path / 'out').exists()


def test_nothing_left_keeps_the_last_data_json(tmp_path):
    save(tmp_path / 'json', song(1))
    run(tmp_path)
    before = (tmp_path / 'out' / 'data.json').read_bytes()
    done = run(tmp_path, '--min_words=1000')
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert (tmp_path / 'out' / 'data.json').read_bytes() == before


def test_a_save_dir_that_is_a_file_is_one_line(tmp_path):
    save(tmp_path / 'json', song(1))
    (tmp_path / 'out').write_text('')
    done = run(tmp_path)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and '--save_dir' in done.stderr
