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
import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
import cleaning  # noqa: E402
from sections import fold as fold_letters  # noqa: E402
from sections import is_header  # noqa: E402

from nanorap import UserError  # noqa: E402

# what may follow a title in brackets or after a dash and still be the same song; "Pt. 2" is another song
VERSION = (r'(?:[^()\[\]]*\b(?:remix|remaster|remastered|mix|edit|version|ver|demo|acoustic|unplugged|instrumental|a ?cappella'
           r'|sped up|slowed|reverb|nightcore|chopped|screwed|bonus track|explicit|clean|censored|radio|extended|stripped|live'
           r' session|snippet|leak|original|alternate|reprise|freestyle|cover|mono|stereo|deluxe|og|feat|ft)\b[^()\[\]]*'
           r'|live(?: (?:at|in|from|on|for)\b[^()\[\]]*)?)')
# the languages to tell apart: those with much rap. All 139 of the model would find rare ones in ad-libs ("skrrt, ayy")
LANGUAGES = ('ar bg bn ca cs da de el en es et fa fi fr he hi hr ht hu id it ja ko lt lv ms nl no pl pt ro ru sk sl sq sr sv '
             'sw ta te th tl tr uk ur vi zh').split()


# ---- what is no song ----

PLACEHOLDER = re.compile(
    r'lyrics (?:for this (?:song|track) )?(?:have yet to be|will be|are (?:not |un)|to be|not|un|coming|are coming|tba|tbd)'
    r'|yet to be (?:released|transcribed)|check back once|lyrics coming|add (?:the )?lyrics|no lyrics'
    r"|(?:don't|do not) have the lyrics|(?:song|track|piece) (?:is|has) (?:an |a )?(?:instrumental|no lyrics|no words"
    r'|unreleased|not been released)|has(?: not|n\'t) been (?:released|transcribed)|^\W*(?:instrumental|unreleased|tba|tbd|n/a|snippet'
    r'|coming soon|lyrics|to be announced|\.\.\.)\W*$|paroles (?:à venir|indisponibles)|letra (?:no disponible|indisponível|em breve)'
    r'|(?:song)?text folgt|testo (?:non disponibile|in arrivo)', re.IGNORECASE | re.MULTILINE)
TRANSLATED = (r'tradu[ct]\w*|traduz\w*|ubersetz\w*|ceviri\w*|tłumacz\w*|перевод\w*|переклад\w*|vertaling\w*|oversatt\w*|oversett\w*'
              r'|romani[sz]\w*|romaja|和訳|日本語訳|翻譯|翻译|번역|로마자|μεταφραση|terjemahan|translit\w*|prijevod|prevod|preklad')
IN_TITLE = {  # what a title says in brackets or after a dash; a song that is called Credits or Skittles is one
    'translation': rf'.*\b(?:{TRANSLATED})\b.*|(?!in |lost )(?:\w+ )?translations?(?: \w+)?',
    'tracklist': r'(?:\w+ ){0,3}track ?-?list(?:ing)?(?:\W.*)?|set ?list',
    'credits': r'(?:\w+ ){0,2}credits|liner notes|(?:digital )?booklet|(?:album |cover )?art ?work|cover art',
    'no song (a script, an interview, a book)': r'(?:movie |film |full |original )?(?:script|screenplay|transcript|interview)|book'
                                                r'|(?:book )?excerpts?(?: from .*)?|chapter \w+|foreword|press release|trailer',
}
GENIUS = re.compile(rf'\bgenius\b.*(?:translation|{TRANSLATED})|(?:translation|{TRANSLATED}).*\bgenius\b')
CREDITED = re.compile(r'\W*(?:(?:executive|co|additional|assistant|vocal|lead|recording|mixing|mastering|project|creative) ?-?)*'
                      r'(?:produce[drs]+|produced|writ\w+|mix\w*|master\w*|engineer\w*|record\w*|direct\w*|compos\w*|arrang\w*'
                      r'|vocals?|guitars?|drums?|bass|keys|keyboards?|piano|strings|a&r|management|label|artwork|photography'
                      r'|design|publish\w*|samples?|contains|programm\w*|scratches|performed)\b[^:]{0,40}?(?:\bby\b|:)', re.IGNORECASE)


def title_says(title, artist):
    """'Night Bus (Türkçe Çeviri)' -> 'translation'; 'Tour Diary [Tracklist]' -> 'tracklist'; else ''."""
    if GENIUS.search(fold_letters(artist)):
        return 'translation'
    for part in re.findall(r'\(([^()]*)\)|\[([^\[\]]*)\]|\s[-–—|:]\s+(.*)$', fold_letters(title)):
        for kind, pattern in IN_TITLE.items():
            if re.fullmatch(pattern, ''.join(part).strip()):
                return kind
    return ''


def text_says(text, title):
    """What kind of page this is if it holds no song: a placeholder, a tracklist, credits, prose; else ''."""
    lines = [line.strip() for line in text.split('\n') if line.strip() and not re.fullmatch(r'\s*\[[^\[\]]*\]\s*', line)]
    words = [len(line.split()) for line in lines]
    if not lines:
        return 'instrumental' if text.strip() else 'no text'
    if sum(words) < 50 and PLACEHOLDER.search(' '.join(lines) if len(lines) < 4 else '\n'.join(lines)):
        return 'placeholder'
    numbers = [int(found[1]) for line in lines if (found := re.match(r'(?:track )?#?(\d{1,2})\s?[.):–-]\s*\S', line, re.I))]
    rising = sum(second == first + 1 for first, second in zip(numbers, numbers[1:], strict=False))
    timed = sum(bool(re.search(r'\d:\d\d\W*$', line)) for line in lines)
    short = sum(words) / len(lines) < 12
    if short and (rising >= 3 and len(numbers) > .5 * len(lines) or timed >= 4 and timed > .5 * len(lines)):
        return 'tracklist'
    share = .3 if 'credit' in title.casefold() else .5
    if sum(bool(CREDITED.match(line)) for line in lines) >= max(4, share * len(lines)):
        return 'credits'
    speakers = [found[1] for line in lines if (found := re.match(r"([A-Z][\w .'-]{0,25}):\s", line))]
    talk = len(speakers) > .7 * len(lines) and len(lines) > 7 and len(set(speakers)) <= len(speakers) / 2
    if sum(words) / len(lines) > (12 if talk else 25) and max(words) > 30:
        return 'no song (a script, an interview, a book)'
    return ''


# ---- in which language ----


@functools.cache
def identifier():
    """The language model, which ships inside its package; loading it takes most of a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages(LANGUAGES)
    return model


def languages_of(text):
    """{language: its share of the letters}, judged four lines at a time, so that a verse in another language counts as no
    more than it is. What is in no certain language (na na na, skrrt) doesn't count; a song of nothing else has no share."""
    lines = [line.casefold() for line in text.split('\n') if line.strip() and not re.fullmatch(r'\[.*\]', line)]
    lines = list(dict.fromkeys(lines))  # a chorus counts once
    shares = {}
    for start in range(0, len(lines), 4):
        part = ' '.join(lines[start:start + 4])
        language, probability = identifier().classify(part)
        if probability >= .75:
            shares[language] = shares.get(language, 0) + len(part)
    return {language: share / sum(shares.values()) for language, share in shares.items()}


def other_language(text, wanted):
    """The main language of a song that isn't at least half in the wanted ones; '' for one that is, or may be."""
    shares = languages_of(text) if wanted else {}
    return '' if sum(shares.get(language, 0) for language in wanted) >= .5 or not shares else max(shares, key=shares.get)


# ---- duplicates and versions ----


def base_title(title):
    """"Night Bus (Remix) [Explicit]", "Night Bus - Live at X", "Night Bus Remix", "Night Bus feat. Y" -> "Night Bus"."""
    song = re.sub(rf'\s*(?:\({VERSION}\)|\[{VERSION}\]|\s[-–—]\s+{VERSION}$)', '', title, flags=re.IGNORECASE)
    song = re.sub(r'(?<=\S)\s+(?:(?:feat|ft)\.? .*|remix)$', '', song.strip(), flags=re.IGNORECASE)
    return song.strip(' *') or title


def fold(name):
    """Letters and digits alone, without case and accents; a name of nothing but signs stays as it is."""
    return ''.join(c for c in fold_letters(name) if c.isalnum()) or name.strip().casefold()


def group_of(artist, title):
    """The same string for all versions of an artist's song, by their titles."""
    return f'{fold(artist)}/{fold(base_title(title))}'


def words_of(text):
    """The words without case, headers and apostrophes; a sign of Japanese or Chinese is a word."""
    lines = [line for line in text.split('\n') if not is_header(line)]
    return re.findall(r'[\u3040-\u30ff\u3400-\u9fff]|\w+', re.sub("['’]", '', ' '.join(lines).casefold()))


def shingles_of(words):
    """The different runs of five words, hashed: what two songs have in common is what their runs have in common."""
    runs = {zlib.crc32(' '.join(words[at:at + 5]).encode('utf-8', 'replace')) for at in range(len(words) - 4)}
    return np.sort(np.fromiter(runs, np.uint32, len(runs)))


def similar_pairs(shingles):
    """(song, earlier song, shared / the smaller one's shingles) of all that share a fifth or more.

    Every fourth shingle, by value, is looked up in a sorted list of all: the work grows with the songs, not with the pairs.
    """
    owners = np.repeat(np.arange(len(shingles), dtype=np.int64), [len(each) for each in shingles])
    values = np.concatenate([*shingles, np.zeros(0, np.uint32)])
    sample = values % 4 == 0
    values, owners = values[sample], owners[sample]
    order = np.argsort(values, kind='stable')
    values, owners = values[order], owners[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else values
    lengths = np.diff(np.r_[starts, len(values)])
    keys = []
    for length in np.unique(lengths[lengths > 1]):
        runs = owners[starts[lengths == length][:, None] + np.arange(length)]
        # a phrase of very many songs: each with the three best and the one before
        first, second = np.triu_indices(length, 1)
        near = (first < 3) | (second == first + 1) | (length <= 40)
        keys.append((runs[:, second[near]] * len(shingles) + runs[:, first[near]]).ravel())
    keys, counts = np.unique(np.concatenate([*keys, np.zeros(0, np.int64)]), return_counts=True)
    for key in keys[counts > 1]:
        song, earlier = divmod(int(key), len(shingles))
        shared = len(np.intersect1d(shingles[song], shingles[earlier], assume_unique=True))
        share = shared / min(len(shingles[song]), len(shingles[earlier]))
        if shared >= 8 and share >= .2:
            yield song, earlier, share


def completeness(song):
    """What makes the best of several copies: the most text, less for one with holes ([?], ****), for a version that is not
    the plain one (live, remix), for one without section headers."""
    return len(song['shingles']) * (.9 if song['holes'] else 1) * (.8 if song['version'] else 1) * (1 if song['headers'] else .95)


def drop_copies(songs):
    """Sets 'reason' and 'of' of the songs that are copies of a better one, and 'group' of all. Two songs of which one
    has more than 60% of its runs of five words (about nine words of ten) in the other are copies; from 20% on, a verse or
    a chorus in common, they are versions and share a group, whoever the artist is."""
    best_first = sorted(songs, key=lambda song: -completeness(song))  # equal ones: in the order of the files
    parent = list(range(len(songs)))

    def root(at):
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    same, titled = {}, {}
    for at, song in enumerate(best_first):
        parent[root(at)] = root(titled.setdefault(song['group'], at))
        original = same.setdefault(song['digest'], at)
        if original != at:
            song.update(reason='duplicate', of=best_first[original]['path'])
            parent[root(at)] = root(original)
    for at, earlier, share in similar_pairs([song['shingles'] for song in best_first]):
        song, better = best_first[at], best_first[earlier]
        if share > .6 and 'reason' not in song and 'reason' not in better:  # pairs come with the song's number rising
            song.update(reason='near duplicate', of=better['path'])
        parent[root(at)] = root(earlier)
    groups = {}
    for at, song in enumerate(best_first):
        groups.setdefault(root(at), []).append(song)
    for group in groups.values():
        name = min(song['group'] for song in group)
        for song in group:
            song['group'] = name


# ---- from the crawled files to data.json ----


def one_line(name):
    return ' '.join(cleaning.repair(name).split())


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

    text = cleaning.clean(song['lyrics'], title, options.keep_artists, changed)
    words = words_of(text)
    # numbered and labelled lines are read before a rule may take one for a header
    if kind := text_says(cleaning.page_header(cleaning.repair(song['lyrics']), title), title) or text_says(text, title):
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


def hash_of(words):
    return hashlib.sha256(' '.join(words).encode('utf-8', 'replace')).digest()


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
                        help='drop songs with fewer different words (default: 15, about what one bar or two have; less is a loop)')
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
               'changed': {rule.__name__: changed[rule.__name__] for rule in cleaning.RULES if rule.__name__ in changed},
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
