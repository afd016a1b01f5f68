"""preprocess.py and selection.py: which pages are songs, their languages, copies, the files written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / 'data/lyrics/data_generator'))
import preprocess
import selection
from words import fold_letters

GENERATOR = ROOT / 'data/lyrics/data_generator'
DEMO_FILES = sorted((ROOT / 'data/lyrics/demo').glob('*/*.json'))
DEMO = [json.loads(path.read_text(encoding='utf-8')) for path in DEMO_FILES]
WORDS = sorted({word for song in DEMO for word in selection.words_of(song['lyrics']) if len(word) > 2})


def lines(seed, bars=16):
    """A made-up verse: other words for every seed."""
    random, words = Random(seed), ['the', 'a', 'my', 'and', 'in', 'of', *WORDS]
    return '\n'.join(' '.join(random.choices(words, k=8)) for _ in range(bars))


def song(number, lyrics=None, **changes):
    lyrics = f'[Verse 1]\n{lines(number)}' if lyrics is None else lyrics
    return {'id': number, 'title': f'Song {number}', 'artist': 'Tilly Ohm', 'url': 'https://genius.com/x',
            'language': None, 'state': 'complete', 'lyrics': lyrics} | changes


def save(folder, *songs, artist='tilly-ohm'):
    (folder / artist).mkdir(parents=True, exist_ok=True)
    for each in songs:
        (folder / artist / f'{each["id"]}.json').write_text(json.dumps(each), encoding='utf-8')


def run(tmp_path, *options):
    command = [sys.executable, GENERATOR / 'preprocess.py', '--data_dir=json', '--save_dir=out', *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding='utf-8', timeout=60)
    assert 'Traceback' not in done.stderr, done.stderr
    return done


def result(tmp_path, *options):
    """Run the script; return {title: entry of data.json}, and the report."""
    assert (done := run(tmp_path, *options)).returncode == 0, done.stderr
    data = json.loads((tmp_path / 'out' / 'data.json').read_text(encoding='utf-8'))
    report = json.loads((tmp_path / 'out' / 'preprocess_report.json').read_text(encoding='utf-8'))
    assert report['in'] == report['out'] + len(report['dropped_songs']) and report['out'] == len(data)
    return {entry['song_name']: entry for entry in data}, report


def reasons(report):
    return {dropped['title']: dropped['reason'] for dropped in report['dropped_songs']}


# ---- what is no song ----


@pytest.mark.parametrize(('title', 'kind'), [
    ('Night Bus (Türkçe Çeviri)', 'translation'),
    ('Night Bus (Traducción al Español)', 'translation'),
    ('Tilly Ohm - Night Bus (English Translation)', 'translation'),
    ('Night Bus (Romanized)', 'translation'),
    ('Night Bus (Deutsche Übersetzung)', 'translation'),
    ('Night Bus (Перевод на русский)', 'translation'),
    ('Night Bus (Polskie tłumaczenie)', 'translation'),
    ('夜 (日本語訳)', 'translation'),
    ('Night Bus (Tradução)', 'translation'),
    ('Big Tape [Tracklist]', 'tracklist'),
    ('Big Tape (Tracklist + Album Art)', 'tracklist'),
    ('Big Tape [Album Art + Tracklist]', 'tracklist'),
    ('Big Tape - Track List', 'tracklist'),
    ('Big Tape [Credits]', 'credits'),
    ('Big Tape (Album Credits)', 'credits'),
    ('Big Tape (Liner Notes)', 'credits'),
    ('Big Day [Script]', 'script, interview or book'),
    ('My Life (Book Excerpt)', 'script, interview or book'),
    ('Skittles', ''),
    ('Credits', ''),
    ('Tracklist', ''),
    ('Intro', ''),
    ('Interview (Skit)', ''),
    ('Lost (In Translation)', ''),
    ('Lost in Translation', ''),
    ('2 Contributors', ''),
    ('Embed', ''),
    ('Instrumental', ''),
    ('Night Bus (Remix)', ''),
    ('The Book of Tilly', ''),
    ('Chapter One', ''),
    ('Scripted (Live)', ''),
    ('Extra Credit', ''),
    ('Translation', ''),
    ('Track List of My Ex (Freestyle)', '')])
def test_kind_by_title(title, kind):
    assert selection.kind_by_title(title, 'Tilly Ohm') == kind


@pytest.mark.parametrize('artist', [
    'Genius English Translations', 'Genius Brasil Traduções', 'Genius Türkçe Çeviri',
    'Genius Romanizations', 'Polskie tłumaczenia Genius', 'Genius traductions françaises'])
def test_translations_by_the_name_of_the_account(artist):
    assert selection.kind_by_title('Tilly Ohm - Night Bus', artist) == 'translation'
    assert selection.kind_by_title('Night Bus', 'GZA/Genius') == ''


TRACKS = '1. Intro\n2. Night Bus\n3. Red Kettle (feat. A)\n4. Outro\n5. Rain'
CREDITS = """Produced by A. Beem
Written by B & C
Mixed by D. Ee
Mastered by F
Recorded at: G
Executive Producer: H"""
PROSE = (
    'It was a dark evening when the bus came round the corner, and nobody on it knew where the driver had '
    'been that day, nor did they ask, since every one of them had a place to be at and a reason not to be '
    'there. ' * 3)
SCRIPT = '\n'.join(
    f'{"TILLY" if turn % 2 else "HOST"}: Well, it all began long ago with a kettle and bus number {turn}, '
    'and I could go on about that for as long as you have tape in that machine of yours'
    for turn in range(12))


@pytest.mark.parametrize(('text', 'kind'), [
    ('Lyrics for this song have yet to be released. Please check back once the song has been released.',
     'placeholder'),
    ('Lyrics will be available upon release', 'placeholder'),
    ('[Verse 1]\nLyrics coming soon', 'placeholder'),
    ('TBA', 'placeholder'),
    ('This song is an instrumental', 'placeholder'),
    ('Instrumental', 'placeholder'),
    ('[Instrumental]', 'instrumental'),
    ('[Intro]\n\n[Instrumental]', 'instrumental'),
    ('', 'no text'),
    (TRACKS, 'tracklist'),
    ('Tracklist:\n' + TRACKS, 'tracklist'),
    ('Side A\nNight Bus 3:45\nRed Kettle - 2:10\nRain (4:01)\nSnow 12:00\nHail 1:11', 'tracklist'),
    (CREDITS, 'credits'),
    (PROSE, 'script, interview or book'),
    (SCRIPT, 'script, interview or book')])
def test_kind_by_text(text, kind):
    assert selection.kind_by_text(text, 'Night Bus') == kind


def test_songs_that_look_like_other_pages():
    commandments = '\n'.join(f'{n}. never let them see the plan you drew on the back of the bill,\n'
                             'and never let the kettle sing before the water is still' for n in range(1, 8))
    vows = '\n'.join(f'{n}. I will {lines(n, 1)} and then I will {lines(n + 9, 1)}' for n in range(1, 9))
    for text in [
            lines(1),
            commandments,
            vows,
            f'{lines(2)}\nLyrics coming soon',
            'Produced by me\n' + lines(3),
            'Tilly: yo\nNori: yo\n' * 9,
            'Tilly: I ride the bus\nNori: and so do I\n' * 6 + 'Tilly: ' + 'yeah ' * 31,
            'one\ntwo\nthree\nfour\nfive\n' + lines(4, 4),
            'lyrics are not my thing\n' + lines(5, 8)]:
        assert selection.kind_by_text(text, 'Credits') == ''
    assert not any(selection.kind_by_text(each['lyrics'], each['title']) for each in DEMO)


@pytest.mark.slow
def test_pages_without_a_song_are_dropped_with_the_reason(tmp_path):
    save(
        tmp_path / 'json',
        song(1, title='Skittles'),
        song(2, TRACKS, title='Big Tape'),
        song(3, title='Night Bus (Перевод)'),
        song(4, 'Lyrics for this song have yet to be released', title='Soon'),
        song(5, '[Instrumental]', title='Hum'),
        song(6, '1 ContributorBig Tape Tracklist Lyrics' + TRACKS, title='Big Tape Tracklist'),
        song(7, CREDITS, title='Credits'))
    kept, report = result(tmp_path)
    assert list(kept) == ['Skittles']
    assert reasons(report) == {
        'Big Tape': 'tracklist', 'Night Bus (Перевод)': 'translation', 'Soon': 'placeholder',
        'Hum': 'instrumental', 'Big Tape Tracklist': 'tracklist', 'Credits': 'credits'}


NUMBERED = """1. I put the kettle on the stove at night
2. I turn it up until the lid is tight
3. I hear it sing and then I cut the light
4. I sip my tea and everything is right"""
PLACES = 'door stove sink shelf stair bench lamp desk'.split()
CLOCK = '\n'.join(f'I saw the clock above the {place} say {hour}:{5 + 6 * hour:02d}'
                  for hour, place in enumerate(PLACES, 1))
NO_LYRICS_LEFT = """I got no lyrics left to write tonight
I hold the pen and watch the fading light
the page is blank, the kettle is in sight
I pour a cup and everything is right"""
LONG_LINES = '\n'.join([
    'I ride the bus at night, I hold the kettle tight, the driver dims the light, and everything is right, '
    'I count the stops with you, the sky is turning blue, the rain is coming through, I wonder if you knew, '
    'the seats are torn and old, the windows let in cold'] * 2)
CHAPTERED = f'[Verse 1]\n{NUMBERED}\n[Hook]\nwe ride, we ride'


@pytest.mark.parametrize(('text', 'title'), [
    (NUMBERED, 'Night Bus'), (CLOCK, 'Night Bus'), (NO_LYRICS_LEFT, 'Night Bus'), (LONG_LINES, 'Night Bus'),
    *((CHAPTERED, f'Night Bus ({sign})') for sign in ('Chapter 1', 'Interview', 'Trailer', 'Book')),
    (NO_LYRICS_LEFT, 'Night Bus (Interview)'), (CHAPTERED, 'Night Bus (Tracklist)')])
def test_sections_rhyme_and_verse_outweigh_a_sign(text, title):
    assert selection.kind_of_page(text, text, title, 'Tilly Ohm') == ''


@pytest.mark.parametrize(('text', 'title', 'kind'), [
    (TRACKS, 'Big Tape', 'tracklist'), (CREDITS, 'Credits', 'credits'),
    (PROSE, 'Bus', 'script, interview or book'),
    (SCRIPT, 'Bus', 'script, interview or book'), (SCRIPT, 'Bus (Interview)', 'script, interview or book'),
    (PROSE, 'Bus (Chapter 1)', 'script, interview or book'), (CHAPTERED, 'Bus (Перевод)', 'translation'),
    ('Lyrics for this song have yet to be released', 'Bus', 'placeholder'),
    ('1. Night Bus 3:45\n2. My Kettle (feat. Nori Static) 2:10\n3. I Ride 4:01\n4. You and Me 2:22\n'
     '5. Rain 1:11', 'Big Tape', 'tracklist')])
def test_what_is_no_song_stays_out(text, title, kind):
    assert selection.kind_of_page(text, text, title, 'Tilly Ohm') == kind


@pytest.mark.slow
def test_a_keep_file_brings_songs_back(tmp_path):
    save(tmp_path / 'json', song(1, TRACKS, title='Big Tape'), song(2, CREDITS, title='Credits'),
         song(3, '[Verse 1]\none two three', title='Short'), song(4, f'[Verse 1]\n{lines(9)}', title='Twice'),
         song(5, f'[Verse 1]\n{lines(9)}', title='Twice (Live)'), song(6, '[Instrumental]', title='Hum'),
         song(7, TRACKS + '!', title='Tape 2'))
    kept, report = result(tmp_path)
    assert list(kept) == ['Twice'] and len(reasons(report)) == 6
    path = next(each['path'] for each in report['dropped_songs'] if each['title'] == 'Credits')
    (tmp_path / 'keep.txt').write_text(f'\ufeff1\n{path}\nshort\nTwice (Live)\n6\n', encoding='utf-8')
    kept, report = result(tmp_path, f'--keep={tmp_path / "keep.txt"}')
    assert set(kept) == {'Big Tape', 'Credits', 'Short', 'Twice', 'Twice (Live)'}
    assert reasons(report) == {'Hum': 'no text', 'Tape 2': 'tracklist'}


@pytest.mark.slow
def test_too_short_and_too_few_words(tmp_path):
    save(
        tmp_path / 'json',
        song(1, '[Verse 1]\none two three'),
        song(2, '[Verse 1]\none two'),
        song(3, 'yo ' * 20))
    kept, report = result(tmp_path, '--min_words=3', '--min_unique_words=2', '--language=any')
    assert list(kept) == ['Song 1']
    assert reasons(report) == {'Song 2': 'fewer than 3 words', 'Song 3': 'fewer than 2 different words'}
    save(tmp_path / 'json', song(1))
    kept, report = result(tmp_path)  # the defaults
    assert list(kept) == ['Song 1'] and reasons(report)['Song 3'] == 'fewer than 30 words'


# ---- languages: the verses are made up for this test ----

VERSES = {
    'es': """Camino por la calle con la luna en el bolsillo
mi madre me decía cuida siempre tu sencillo
la vida no regala nada, hermano, yo lo sé
por eso cada noche escribo todo lo que soñé""",
    'fr': """Je marche dans la ville, les poches pleines de rêves
Le patron veut qu'je bosse, moi j'veux qu'la nuit soit brève
J'ai pas l'temps pour tes histoires, wesh, laisse-moi tranquille
On a grandi dans le bruit, les néons et la ville""",
    'de': """Ich laufe durch die Straßen mit dem Kopf voller Ideen
Digga, niemand hat geglaubt, dass wir hier oben mal stehen
Die Nacht ist lang und kalt, doch der Beat hält mich warm
Mama sagt, pass auf dich auf, und sie nimmt mich in den Arm""",
    'pt': """Eu ando na cidade com a cabeça no lugar
minha mãe sempre dizia, filho, não vai se atrasar
a quebrada me ensinou que a vida não é brinquedo
mano, eu conto as moedas e não conto o meu segredo""",
    'it': """Cammino per la strada con le tasche vuote
la notte mi racconta tutte le sue note
mia madre mi diceva non scordare chi sei
fratè, questa canzone è per tutti i sogni miei""",
    'ru': """Я иду по городу, в кармане три рубля
Мама говорила, что вращается земля
Пацаны на лавке, под окном горит фонарь
Мы читали рэп, когда на улице январь""",
    'tr': """Gece yarısı sokakta yürüyorum yalnız
Annem dedi oğlum, dikkat et, yollar ıssız
Cebimde beş para yok ama kafamda bir sürü hayal
Kardeşim bu mahalle bize her gün bir masal""",
    'pl': """Idę przez osiedle, w kieszeni mam drobne
ziomek, te noce są wszystkie podobne
mama mi mówiła, nie wychodź po zmroku
a ja piszę te wersy na każdym kroku""",
    'ja': """夜の街を歩く 月がついてくる
母さんの声が 今も聞こえてる
ポケットには夢と小銭だけ
それでも俺は 前に進むだけ""",
    'ko': """밤거리를 걸어가 달이 나를 따라와
엄마가 말했지 언제나 조심하라고
주머니엔 꿈과 동전 몇 개뿐
그래도 나는 계속 앞으로 가"""}
SLANG = ["""Skrrt skrrt, ayy, ayy, brrr, woo
Drip drip, sauce, yuh, skrrt, whole crew
Ice on my neck, woo, bust down, ayy
Finna slide, finna glide, all day, ayy
Lil shawty wanna dance, gang gang, ayy""",
         """Wagwan my g, mandem outside, innit
Bare man chat but dem nah live it
Big up di ends, everyting fine
Badman nuh fear no feds inna ride""",
         """Ion know why dey be hatin, ion kno
Finna go get me a bag n den blow
Wit my dawgs n dem, errbody kno
We da ones wit da smoke, letem go""",
         """Na na na na, hey hey, na na na
La la la la, oh, la la la
Yeah, yeah, yeah, ooh, ooh"""]


@pytest.mark.parametrize('language', VERSES)
def test_other_languages(language):
    text = f'[Verse 1]\n{VERSES[language]}\n\n[Chorus]\n{VERSES[language]}'
    assert selection.other_language(text, ['en']) == language
    assert selection.other_language(text, ['en', language]) == selection.other_language(text, []) == ''
    mixed = f'[Verse 1]\n{lines(1)}\n\n[Verse 2]\n{VERSES[language]}\n\n[Chorus]\nYeah'
    assert selection.other_language(mixed, ['en']) == ''  # a guest's verse
    assert selection.languages_of(mixed) == pytest.approx({'en': .8, language: .2}, abs=.01)
    hooked = '\n\n'.join(f'[Chorus]\n{VERSES[language]}\n\n[Verse {n}]\n{lines(n, 4)}' for n in (1, 2, 3))
    chorus = f'\n\n[Chorus]\n{VERSES[language]}'
    assert selection.other_language(hooked + chorus * 6, ['en']) == ''  # a chorus counts once
    assert selection.other_language(f'{text}\n{lines(1, 2)}', ['en']) == language  # an English hook


def test_slang_and_ad_libs_count_as_english():
    for text in [each['lyrics'] for each in DEMO] + SLANG:
        assert selection.other_language(text, ['en']) == ''
    assert selection.other_language(DEMO[0]['lyrics'], ['es']) == 'en'


@pytest.mark.slow
def test_the_language_option(tmp_path):
    french = '\n'.join([VERSES['fr'], *(f'{line} encore' for line in VERSES['fr'].split('\n'))])
    in_french = song(2, f'[Verse 1]\n{french}', language='en')  # the page's own language is often wrong
    save(tmp_path / 'json', song(1), in_french)
    kept, report = result(tmp_path)
    assert list(kept) == ['Song 1'] and reasons(report) == {'Song 2': 'language: fr'}
    for option, titles in [
            ('fr', ['Song 2']),
            ('en, FR', ['Song 1', 'Song 2']),
            ('any', ['Song 1', 'Song 2']),
            ('all', ['Song 1', 'Song 2'])]:
        assert list(result(tmp_path, f'--language={option}')[0]) == titles
    done = run(tmp_path, '--language=english')
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert 'english' in done.stderr and 'en' in done.stderr


# ---- duplicates and versions ----


def test_groups_by_title():
    group = selection.group_of
    versions = [
        'Night Bus', 'Night Bus (Remix)', 'Night Bus (Kobalt Figgs Remix)', 'NIGHT BUS [Live]',
        'Night Bús', 'Night Bus Remix', 'Night Bus (Live at the Depot)', 'Night Bus - Remastered',
        'Night Bus - Remastered 2011', 'Night Bus (2011 Remaster)', 'Night Bus (Remix) [Explicit]',
        'Night Bus (feat. Kobalt Figgs)', 'Night Bus ft. Kobalt Figgs', 'Night Bus (Clean Version)',
        'Night Bus (Sped Up)', 'Night Bus (Radio Edit)', 'Night Bus - Live', 'Night Bus (Original)',
        'Night Bus*']
    assert {group('Tilly Ohm', title) for title in versions} == {group('Tilly Ohm', 'Night Bus')}
    others = ['Day Bus', 'Night Bus 2', 'Night Bus (Part Two)', 'Night Bus (Pt. 2)', 'Night Bus (Live It Up)',
              'Night Bus II', 'Night Bus (Interlude)', '(Remix)', '???', '!', 'Live']
    assert len({group('Tilly Ohm', title) for title in ['Night Bus', *others]}) == len(others) + 1
    assert group('Kobalt Figgs', 'Night Bus') != group('Tilly Ohm', 'Night Bus')
    assert group('TILLY OHM', 'Night Bus') == group('Tilly Ohm', 'Night Bus')


def test_exact_duplicates(tmp_path):
    save(
        tmp_path / 'json',
        song(1),
        song(2, song(1)['lyrics'] + '3Embed'),
        song(3, song(1)['lyrics'].upper(), artist='Kobalt Figgs'))
    kept, report = result(tmp_path)
    assert list(kept) == ['Song 1'] and reasons(report) == {'Song 2': 'duplicate', 'Song 3': 'duplicate'}
    assert {dropped['of'] for dropped in report['dropped_songs']} == {'tilly-ohm/1.json'}


@pytest.mark.slow
def test_the_best_copy_stays(tmp_path):
    text = song(1)['lyrics'] + '\n\n[Hook]\n' + lines(100, 4)
    words = text.replace('\n', ' \n ').split(' ')
    holes = ' '.join('[?]' if number % 20 == 3 else word for number, word in enumerate(words))
    live = text.replace('\n', '\nyeah ', 2) + '\n\n[Outro]\nthank you all good night'
    save(
        tmp_path / 'json',
        song(10, text[:len(text) * 2 // 3], title='Excerpt'),
        song(11, live, title='Night Bus (Live)'),
        song(12, text, title='Night Bus'),
        song(13, holes, title='Holes'),
        song(14, title='Else'),
        song(15, text.replace('[Verse 1]\n', '').replace('[Hook]\n', ''), title='Bare'),
        song(16, text.replace('the', '[?]', 1) + '\none more line that nobody else has', title='Hole'))
    kept, report = result(tmp_path)
    assert list(kept) == ['Night Bus', 'Else']
    assert reasons(report) == {
        'Excerpt': 'near duplicate', 'Night Bus (Live)': 'near duplicate', 'Holes': 'near duplicate',
        'Hole': 'near duplicate', 'Bare': 'duplicate'}
    assert {dropped['of'] for dropped in report['dropped_songs']} == {'tilly-ohm/12.json'}


@pytest.mark.slow
def test_versions_share_a_group(tmp_path):
    hook = '[Chorus]\n' + lines(200, 8)
    save(tmp_path / 'json', song(1, title='Night Bus', lyrics=f'[Verse 1]\n{lines(1)}\n\n{hook}'),
         song(2, title='Night Bus (Remix)'), song(3, title='Night Bus, Pt. 2'), song(4, title='Else'))
    # under another artist, with the hook of the first and the verse of a third
    save(
        tmp_path / 'json',
        song(5, title='Bus Again', artist='Nori Static', lyrics=f'[Verse 1]\n{lines(5)}\n\n{hook}'),
        artist='nori-static')
    save(
        tmp_path / 'json',
        song(6, title='Far', artist='Big A', lyrics=f'[Verse 1]\n{lines(5, 6)}\n\n[Verse 2]\n{lines(6)}'),
        artist='big-a')
    kept, report = result(tmp_path)
    groups = {title: entry['group'] for title, entry in kept.items()}
    assert len(groups) == 6 and report['groups'] == 3
    assert {groups[title] for title in ['Night Bus', 'Night Bus (Remix)', 'Bus Again', 'Far']} == {'biga/far'}
    assert groups['Night Bus, Pt. 2'] != groups['Else'] != 'biga/far'


def test_the_shipped_songs_are_no_versions_of_each_other():
    shingles = [selection.shingles_of(selection.words_of(each['lyrics'])) for each in DEMO]
    assert list(selection.similar_pairs(shingles)) == []


def test_shingles():
    assert len(selection.shingles_of(list('abcd'))) == 0 and len(selection.shingles_of(list('abcdef'))) == 2
    assert selection.words_of("[Hook]\nDon't go, 夜の Bus [?]") == ['dont', 'go', '夜', 'の', 'bus']


def test_pairs_are_those_of_a_plain_comparison():
    random, texts = Random(1), [lines(seed, 8) for seed in range(30)]
    for seed in range(30):  # a part of one song in front of another
        shared_lines = texts[seed].split('\n')[:random.randint(1, 8)]
        texts.append('\n'.join([*shared_lines, lines(100 + seed, random.randint(1, 8))]))
    shingles = [selection.shingles_of(selection.words_of(text)) for text in texts]
    shingles += [np.zeros(0, np.uint32)] * 2
    pairs = {(number, earlier): share for number, earlier, share in selection.similar_pairs(shingles)}
    sets = [set(each.tolist()) for each in shingles]
    for number in range(len(sets)):
        for earlier in range(number):
            shared = len(sets[number] & sets[earlier])
            share = shared / max(1, min(len(sets[number]), len(sets[earlier])))
            if (number, earlier) in pairs:
                assert pairs.pop((number, earlier)) == share >= .2 and shared >= 8
            else:  # few shared shingles may all be missing in the sample
                assert shared < 16 or share < .2
    assert not pairs


@pytest.mark.slow
def test_a_hundred_copies_of_one_song(tmp_path):
    save(
        tmp_path / 'json',
        *(song(number, song(1)['lyrics'] + f'\nshout {number} out') for number in range(1, 101)),
        song(500))
    kept, report = result(tmp_path)
    assert len(kept) == 2 and report['dropped']['near duplicate']['count'] == 99


# ---- the script ----


@pytest.mark.slow
def test_one_entry_per_line_in_a_fixed_order(tmp_path):
    save(tmp_path / 'json', song(10), song(9), song(2, title='\u200bÖl &amp; “Gas”\u00a0(Remix)'))
    save(tmp_path / 'json', song(50, artist='Kobalt Figgs'), artist='kobalt-figgs')
    (tmp_path / 'json' / 'manifest.json').write_text('{}')
    (tmp_path / 'json' / 'tilly-ohm' / '11.json.tmp').write_text('{"half')
    crawled = {path: path.read_bytes() for path in (tmp_path / 'json').rglob('*.*')}
    kept, _ = result(tmp_path)
    text = (tmp_path / 'out' / 'data.json').read_text(encoding='utf-8').split('\n')
    assert text[0] == '[' and text[-2:] == [']', '']
    assert [json.loads(line.removesuffix(',')) for line in text[1:-2]] == list(kept.values())
    assert list(kept) == ['Song 50', 'Öl & "Gas" (Remix)', 'Song 9', 'Song 10']
    assert kept['Öl & "Gas" (Remix)'] == {
        'text': song(2)['lyrics'], 'song_name': 'Öl & "Gas" (Remix)', 'artist_name': 'Tilly Ohm',
        'group': 'tillyohm/olgas'}
    assert 'Öl' in text[2]  # UTF-8, not escapes
    assert {path: path.read_bytes() for path in (tmp_path / 'json').rglob('*.*')} == crawled
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'data.json', 'preprocess_report.json']


@pytest.mark.slow
def test_same_bytes_for_any_number_of_workers(tmp_path):
    save(tmp_path / 'json', *(song(number % 190, id=number) for number in range(1, 205)))
    files = []
    for workers in 1, 3:
        result(tmp_path, f'--num_workers={workers}')
        names = 'data.json', 'preprocess_report.json'
        files.append([(tmp_path / 'out' / name).read_bytes() for name in names])
    assert files[0] == files[1]


@pytest.mark.slow
def test_the_shipped_songs_come_out_as_they_are(tmp_path):
    for each in DEMO:
        save(tmp_path / 'json', each, artist=fold_letters(each['artist']).replace(' ', '-'))
    kept, report = result(tmp_path)
    texts = {title: entry['text'] for title, entry in kept.items()}
    assert texts == {each['title']: each['lyrics'] for each in DEMO}
    assert report['changed'] == report['dropped'] == {} and report['groups'] == len(DEMO) == 108


@pytest.mark.slow
def test_the_report(tmp_path):
    states = ['instrumental', 'unreleased', 'blocked']
    without_lyrics = [song(20 + n, '', state=state) for n, state in enumerate(states)]
    dirty = song(
        2,
        f'2 ContributorsSong 2 Lyrics[Couplet 1: Q]\n{lines(2)}\n\n[Hook x2]\n{lines(3, 4)}3Embed')
    save(tmp_path / 'json', song(1), dirty, *without_lyrics, *(song(30 + n, f'short {n}') for n in range(8)))
    kept, report = result(tmp_path)
    assert (report['in'], report['out']) == (13, 2)
    assert {reason: counted['count'] for reason, counted in report['dropped'].items()} == {
        'fewer than 30 words': 8, 'not complete: instrumental': 1, 'not complete: unreleased': 1,
        'not complete: blocked': 1}
    assert len(report['dropped']['fewer than 30 words']['examples']) == 5
    assert len(report['dropped_songs']) == 11
    assert {'path': 'tilly-ohm/30.json', 'title': 'Song 30', 'artist': 'Tilly Ohm',
            'reason': 'fewer than 30 words'} in report['dropped_songs']
    assert {rule: counted['count'] for rule, counted in report['changed'].items()} == {
        'page_header': 1, 'embed': 1, 'bracket_headers': 1, 'expand_sections': 1}
    example = report['changed']['bracket_headers']['examples'][0]
    assert example['song'] == 'tilly-ohm/2.json'
    assert example['before'].startswith('[Couplet 1: Q]') and example['after'].startswith('[Verse 1]')
    assert kept['Song 2']['text'] == f'[Verse 1]\n{lines(2)}\n\n[Hook]\n{lines(3, 4)}\n{lines(3, 4)}'
    table = run(tmp_path).stdout.splitlines()
    for what in 'dropped', 'changed':
        for reason, found in report[what].items():
            assert any(reason in line and line.endswith(f' {found["count"]}') for line in table)
    assert [line.split() for line in (table[0], table[-2])] == [['songs', 'in', '13'], ['songs', 'out', '2']]


@pytest.mark.slow
def test_artists_in_headers_by_option(tmp_path):
    save(tmp_path / 'json', song(1, f'[Verse 1 - Tilly Ohm]\n{lines(1)}'))
    assert result(tmp_path)[0]['Song 1']['text'].startswith('[Verse 1]\n')
    assert result(tmp_path, '--keep_artists')[0]['Song 1']['text'].startswith('[Verse 1: Tilly Ohm]\n')


def test_snippets():
    assert preprocess.snippet('abc3Embed', 'abc') == ['abc3Embed', 'abc']
    before, after = preprocess.snippet('x' * 500 + 'A' + 'y' * 500, 'x' * 500 + 'B' + 'y' * 500)
    assert (before, after) == ('x' * 40 + 'A' + 'y' * 40, 'x' * 40 + 'B' + 'y' * 40)
    assert preprocess.snippet('aa', 'a') == ['aa', 'a'] and preprocess.snippet('', 'a') == ['', 'a']


@pytest.mark.slow
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
    kept, report = result(tmp_path)
    assert list(kept) == ['Song 1'] and report['dropped']['broken file']['count'] == len(broken)
    dropped = [song['path'] for song in report['dropped_songs']]
    assert dropped == [f'tilly-ohm/{number}.json' for number in range(2, 10)]


@pytest.mark.slow
def test_half_a_surrogate_pair_does_not_crash(tmp_path):
    save(tmp_path / 'json', song(1, title='Bus \ud83d', lyrics=song(1)['lyrics'] + ' \udc00'))
    assert run(tmp_path).returncode == 0


def test_an_empty_folder_is_a_clear_error(tmp_path):
    for _ in range(2):  # no folder; an empty one
        done = run(tmp_path)
        assert (done.returncode, done.stdout) == (1, '')
        assert len(done.stderr.splitlines()) == 1 and 'crawl.py' in done.stderr
        (tmp_path / 'json').mkdir(exist_ok=True)
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_nothing_left_keeps_the_last_data_json(tmp_path):
    save(tmp_path / 'json', song(1))
    run(tmp_path)
    before = (tmp_path / 'out' / 'data.json').read_bytes()
    done = run(tmp_path, '--min_words=1000')
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert (tmp_path / 'out' / 'data.json').read_bytes() == before


@pytest.mark.slow
def test_a_save_dir_that_is_a_file_is_a_clear_error(tmp_path):
    save(tmp_path / 'json', song(1))
    (tmp_path / 'out').write_text('')
    done = run(tmp_path)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and '--save_dir' in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs a POSIX system')
@pytest.mark.parametrize('workers', [1, 2])
def test_ctrl_c_ends_with_one_line(tmp_path, workers):
    """One song is a pipe that is never written to: it can be opened as soon as the script reads it."""
    save(tmp_path / 'json', *(song(number) for number in range(300)))
    pipe = next((tmp_path / 'json').glob('*/*.json')).with_name('999.json')
    os.mkfifo(pipe)
    command = [
        sys.executable, GENERATOR / 'preprocess.py', '--data_dir=json', '--save_dir=out',
        f'--num_workers={workers}']
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8')
    with open(pipe, 'wb'):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and len(errors.splitlines()) == 1 and not (tmp_path / 'out').exists()
