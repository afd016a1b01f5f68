"""
Clean what crawl.py fetched and put it into one file, data.json: one song a line.

    $ python data/lyrics/data_generator/preprocess.py --data_dir=json      # writes data/lyrics/data.json

data.json is a JSON list of {"text", "song_name", "artist_name", "group"} with exactly one entry a line, so that it can
also be read as a stream. `group` is the same for all versions of a song (remix, live, remastered): a split into
training and validation keeps a group together. preprocess_report.json beside it tells what was dropped, and why.
The crawled files are only read.
"""

import argparse
import html
import json
import os
import re
import sys
import unicodedata
from html.entities import html5
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from nanorap import UserError  # noqa: E402

# a line that is a section header, [Verse 1: Name]; not a remark such as [x2] or [?]
HEADER = re.compile(r'^\[(?!x\d+\])[^\W\d_][^\[\]\n]*\]$', re.MULTILINE | re.IGNORECASE)
# what may follow a title in brackets or after a dash and still be the same song
VERSION = (r'(?:[^()\[\]]*\b(?:remix|remaster|remastered|mix|edit|version|demo|acoustic|instrumental|a cappella|sped up'
           r'|slowed|bonus track|explicit|clean|feat|ft)\b[^()\[\]]*'
           r'|live(?: (?:at|in|from|on)\b[^()\[\]]*)?)')


# ---- the cleaning rules: rule(text, title) -> text, applied in the order of RULES ----


def entities(text, title):
    """&amp; and &#x27;, whole names with their semicolon only: unescape() alone finds a &reg in "you&regret"."""

    def replace(match):
        return html.unescape(match[0]) if '#' in match[0] or match[1] in html5 else match[0]

    return re.sub(r'&(#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|[A-Za-z][A-Za-z0-9]*;)', replace, text)


def odd_spaces(text, title):
    """Spaces of other widths become spaces, those without width nothing, and all line ends \\n."""
    text = re.sub('[\u00a0\u2000-\u200a\u202f\u205f]', ' ', re.sub('[\u200b-\u200d\ufeff]', '', text))
    return re.sub('\r\n?|[\u0085\u2028\u2029]', '\n', text)


def page_header(text, title):
    """The page's head glued to the first line: "27ContributorsTranslations...Last Night Lyrics", and a blurb that ends
    with "... Read More". It ends with the title where it holds that, else with the first " Lyrics" of its line."""
    for head in rf'.{{0,800}}?{re.escape(title)}', r'[^\n]*?':
        match = re.match(rf'\s*\d+\s*Contributors?{head}\s+Lyrics', text, re.DOTALL)
        if match:
            return re.sub(r'\A[^\n\[]{0,800}?(?:…|\.\.\.)\s*Read More\s*', '', text[match.end():])
    return text


def ticket_advert(text, title):
    """See X LiveGet tickets as low as $17: from the nearest "See", as a lyric line may hold one too."""
    return re.sub(r'\n?See (?:(?!See )[^\n]){1,100}?LiveGet tickets as low as [$£€]\d[\d,]*(?:\.\d\d)?\n?', '\n', text)


def might_also_like(text, title):
    """You might also like: only alone on its line, or glued to what stands before or after; else it's a lyric."""

    def replace(match):
        before = text[: match.start(1)].rpartition('\n')[2]
        after = text[match.end(1) :].partition('\n')[0]
        alone = not before.strip() and not after.strip()
        glued_before = re.search(r'[^\W_]$|[.,!?;:)\]…’”]$|[\w.,!?]["\']$', before)
        glued_after = re.match(r'[\[(]|[^\W_]', after) and not after[0].islower()
        return '\n' if alone or glued_before or glued_after else match[0]

    return re.sub(r'\n?[^\S\n]*(You might also like)[^\S\n]*\n?', replace, text)


def embed(text, title):
    """3Embed, Embed, EmbedShare Url:CopyEmbed:Copy at the end; a last word Embed after a space is a lyric."""
    count, share = r'(?:\d+(?:\.\d+)?K|\d+)', r'EmbedShare U(?:rl|RL):?CopyEmbed:?Copy'
    glued = r'(?:^|(?<=[^\s(\[“"-]))Embed'
    return re.sub(rf'(?:{count}?{share}|{count}Embed|{glued})\s*\Z', '', text, flags=re.MULTILINE)


def white_space(text, title):
    """No spaces at line ends, one blank line before each section header, no runs of blank lines."""
    text = re.sub(r'[^\S\n]+$', '', text, flags=re.MULTILINE)
    text = HEADER.sub(r'\n\n\g<0>', text)
    return re.sub(r'\n{3,}', '\n\n', text).strip()


RULES = [entities, odd_spaces, page_header, ticket_advert, might_also_like, embed, white_space]


# ---- from the crawled files to data.json ----


def one_line(name):
    return ' '.join(odd_spaces(entities(name, ''), '').split())


def fold(name):
    """Letters and digits alone, without case and accents; a name of nothing but signs stays as it is."""
    plain = unicodedata.normalize('NFKD', name).casefold()
    return ''.join(c for c in plain if c.isalnum()) or name.strip().casefold()


def group_of(artist, title):
    """The same string for all versions of a song: "Name (Remix)", "Name [Live at X]", "Name - Remastered 2011"."""
    song = re.sub(rf'\s*(?:\({VERSION}\)|\[{VERSION}\]|\s[-–—]\s+{VERSION}$)', '', title, flags=re.IGNORECASE)
    return f'{fold(artist)}/{fold(song.strip() or title)}'


def read_song(path):
    """The song of a crawled file, or None for a broken one."""
    try:
        song = json.loads(path.read_text(encoding='utf-8-sig'))
        if all(isinstance(song[key], str) for key in ('title', 'artist', 'state', 'lyrics')):
            return song
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    return None


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data_dir', type=Path, default='json', help='what crawl.py wrote (default: json)')
    parser.add_argument('--save_dir', type=Path, default=Path(__file__).resolve().parents[1],
                        help="where data.json goes (default: this script's data/lyrics)")
    parser.add_argument('--min_words', type=int, default=50, help='drop shorter songs, headers not counted (50)')
    args = parser.parse_args()
    sys.stdout.reconfigure(errors='replace')  # a console that lacks a letter of a name is no reason to stop
    # by artist folder, then by id: a longer number is a larger one
    paths = sorted(args.data_dir.glob('*/*.json'), key=lambda path: (path.parent.name, len(path.stem), path.stem))
    if not paths:
        raise UserError(f'preprocess.py: no songs in {args.data_dir}; run crawl.py first, or give its --data_dir')

    entries, seen, dropped, changed = [], set(), {}, {}

    def count(table, key, name):
        found = table.setdefault(key, {'count': 0, 'examples': []})
        found['count'] += 1
        found['examples'] = (found['examples'] + [name])[:5]

    for path in paths:
        song = read_song(path)
        if song is None:
            print(f'preprocess.py: skipped {path}: not a song file of crawl.py, or a broken one', file=sys.stderr)
            count(dropped, 'broken file', f'{path.parent.name}/{path.name}')
            continue
        title, text = one_line(song['title']), song['lyrics']
        if song['state'] != 'complete':
            count(dropped, f'not complete: {song["state"]}', title)
            continue
        for rule in RULES:
            before, text = text, rule(text, title)
            if text != before:
                count(changed, rule.__name__, title)
        if len(HEADER.sub('', text).split()) < args.min_words:
            count(dropped, f'fewer than {args.min_words} words', title)
        elif text in seen:
            count(dropped, 'duplicate', title)
        else:
            seen.add(text)
            artist = one_line(song['artist'])
            entries.append({'text': text, 'song_name': title, 'artist_name': artist, 'group': group_of(artist, title)})

    report = {'in': len(paths), 'out': len(entries), 'dropped': dropped, 'changed': changed}
    write_lines(args.save_dir / 'preprocess_report.json', [json.dumps(report, ensure_ascii=False, indent=1), '\n'])
    print(f'{"songs in":<30} {len(paths):>7}')
    for what, table in (('dropped', dropped), ('changed', changed)):
        for reason, found in sorted(table.items()):
            print(f'{what + ", " + reason:<30} {found["count"]:>7}')
    print(f'{"songs out":<30} {len(entries):>7}')
    if not entries:
        raise UserError('preprocess.py: no song is left, so data.json is not written; see preprocess_report.json')
    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    write_lines(args.save_dir / 'data.json', ['[\n', ',\n'.join(lines), '\n]\n'])


if __name__ == '__main__':
    main()
