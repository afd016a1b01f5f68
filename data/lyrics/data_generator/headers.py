r"""
Section headers: from what pages write, in many languages and forms, to one grammar, [Verse 2] or [Part II].

    >>> parse_header('Couplet 2 - Tilly Ohm & Nori Static')
    Header(name='Verse', number=2, artist='Tilly Ohm & Nori Static', times=1)
    >>> parse_header('laughs') is None
    True

Text -> text, no files. The names of the sections are those of nanorap/rap/sections.py. A bracket that is no
header ([?], [inaudible], [laughs]) is a remark and stays in its line: without it, words would stand side by
side that don't do so in the song.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

from words import (
    AMBIGUOUS,
    LINKING_WORDS,
    LYRICS_WORDS,
    LYRICS_WORDS_AT_END,
    MEANINGFUL_WHEN_EMPTY,
    NUMBER_OF,
    ROMAN,
    SECTION_OF,
    any_of,
    fold_letters,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from nanorap.rap.sections import CANONICAL_HEADER

MAX_REPEATS = 16  # (x100) is a loop, not a text; chosen by hand
MAX_LENGTH = 100_000  # characters up to which empty headers are filled; chosen by hand, longer than any page
LINE_WINDOW = 300  # characters on either side of a header in which the ends of its line are looked for
MAX_BARE_LINE = 80  # characters: a header without brackets is no longer, nor an artist without separator
NEVER_REPEATED = ('Verse', 'Intro', 'Outro', 'Skit', 'Interlude')  # an empty header of these is removed


# "Verse 2", "2nd verse", "final chorus", "verse #2", "chorus2"
SECTION = re.compile(
    r'(?:(?:the|final|last|short|half|extended|alternate|double|repeat|sampled|sung|full|spoken) )*'
    rf'(?:(?P<first>\d{{1,2}}|{any_of(NUMBER_OF)})(?:\W|st|nd|rd|th|e?re?|e|eme|[oa]|-?[йя])? ?(?<=\W))?'
    rf'(?P<name>{any_of(SECTION_OF)})(?![^\W\d])'
    rf'(?: ?[#№.]? ?(?:(?P<digits>\d{{1,2}})[a-d]?|(?P<word>{any_of(NUMBER_OF)}))(?!\w))?'
    r'(?: (?:unique|unico|unica|finale?|reprise|continued|variation|intro|outro|hook|chorus|verse'
    r'|bridge))?')
# inside a header: (x2), [2x], ": x2", {repeat x2}
TIMES = re.compile(
    r'[\s,:-]{0,5}(?:[(\[{]\s*|(?<=[\s:,\])]))(?:repeat(?:s|ed)?:?\s*)?'
    r'(?:[x×]\s?(?P<after>\d{1,2})|(?P<before>\d{1,2})\s?(?:[x×]|times))\s*[)\]}]?(?=\W|$)',
    re.IGNORECASE)
# at the end of a line: (x2), [2x], {repeat x2}, and x2 after a space or alone; not "my BMW X5", "I did it 2x"
MARK = re.compile(
    r' ?[(\[{] ?(?:repeat(?:s|ed)?:? ?)?'
    r'(?:[x×] ?(?P<after>\d{1,2})|(?P<before>\d{1,2}) ?(?:[x×]|times)) ?[)\]}]$',
    re.IGNORECASE)
BARE_MARK = re.compile(r'(?:^| )[x×](?P<after>[2-9]|1\d)(?P<before>)$')
# between a section and an artist
SEPARATOR = re.compile(r'\s*[:：|(/&+,;]\s*|\s+[-–—]+\s*|\s*[-–—]+\s+|\s*[–—]\s*|(?<=\d)-')
PREFIX = re.compile(r'\b(pre|post) [-–—] ', re.IGNORECASE)
BRACKET = re.compile(r'\[([^\[\]\n]{1,200})\]')


class Header(NamedTuple):
    name: str  # of SECTION_NAMES
    number: int = 0  # 0: none
    artist: str = ''
    times: int = 1  # how often the section is to be sung

    def text(self, keep_artists=False):
        """Return [Verse 1], [Part II] or [Hook] x2; expand_sections() writes out what the x2 repeats."""
        number = str(self.number)
        if self.name == 'Part' and self.number <= 10:
            number = ROMAN[self.number]
        number = f' {number}' if self.number else ''
        artist = f': {self.artist}' if keep_artists and self.artist else ''
        times = f' x{self.times}' if self.times > 1 else ''
        return f'[{self.name}{number}{artist}]{times}'


def times_of(match):
    """Return the number of a match of TIMES, MARK or BARE_MARK, within reason."""
    return max(1, min(int(match['after'] or match['before']), MAX_REPEATS))


def parse_section(text):
    """Return (name, number) of "Verse 2", "2nd Verse" or "Strophe II"; None for anything else."""
    folded = fold_letters(' '.join(text.split()))
    hyphened = re.sub(r'\b(pre|post|pos)(?: ?[-–—] ?| )(?=[^\W\d])', r'\1-', folded)
    match = SECTION.fullmatch(hyphened)
    if not match:
        return None
    number = match['first'] or match['digits'] or match['word'] or '0'
    return SECTION_OF[match['name']], NUMBER_OF[number] if number in NUMBER_OF else int(number)


def parse_header(inside):
    """Return the Header for what stands between brackets; None for "?", "laughs" or "Break it down"."""
    inside, times = ' '.join(inside.split()), 1
    if match := TIMES.search(' ' + inside):
        inside = (' ' + inside)[:match.start()] + (' ' + inside)[match.end():]
        times = times_of(match)
    inside = inside.strip(' :：-–—.*"\'')

    before, after = inside, ''
    hyphened = PREFIX.sub(r'\1-', inside)  # the dash of "Pre - Chorus" separates nothing
    if separator := SEPARATOR.search(hyphened):
        before, after = hyphened[:separator.start()], hyphened[separator.end():].strip()
        after = after.rstrip(')') if '(' in separator[0] else after

    # 1. the section, then perhaps a separator and an artist
    if section := parse_section(before):
        (name, number), artist = section, after
        joins = separator and separator[0].strip() in '/&+,-'
        if joins and (after.isdigit() and number or parse_header(after)):
            artist = ''  # "Intro/Chorus", "Verse 1 & 2": the first of them
        if artist.isdecimal() and len(artist) < 3 and not number:  # "Verse: 1"
            number, artist = int(artist), ''
        return Header(name, number, artist, times)

    # 2. no separator: "Verse 1 Tilly Ohm", "Chorus by Tilly Ohm"
    words = inside.split(' ')
    for end in range(min(len(words) - 1, 5), 0, -1):
        section, artist = parse_section(' '.join(words[:end])), ' '.join(words[end:])
        if not section or len(artist) > MAX_BARE_LINE:
            continue
        introduced = re.match(r'(?:by|feat\.?|ft\.?|with|w/|con|avec|mit|com) ', artist)
        if introduced or all(not word[0].islower() or word in ('and', 'de', 'y') for word in words[end:]):
            return Header(*section, re.sub(r'^(?:by|with|w/|con|avec|mit|com) ', '', artist), times)

    # 3. the artist first: "Tilly Ohm: Verse 1"
    if separator and before[:1].isupper() and (section := parse_section(after)):
        return Header(*section, before, times)
    return None


# ---- credits: lines that say who made the song, or what it is called ----


def folded_words(words):
    """Return a pattern for one of the words, after fold_letters()."""
    return any_of([fold_letters(word.strip()) for word in words])


# the whole text of a credit, after fold_letters()
CREDIT = re.compile(
    r'(?:co-?|executive |additional )?'
    r'(?:produced|prod|producers?|written|writers?|mixed|mastered|recorded|engineered|directed|composed'
    r'|composers?|arranged|vocals|video|music|beat|cover art|artwork|lyrics|scratches|shot|filmed|label'
    r'|album|released?|release date|продюсер|produit|produziert|prodotto|producido|produzido|produktion'
    r'|muzyka|музыка)'
    r'(?: video| (?:and|&) \w+)?(?:\.? ?(?:by|par|von|da|por|:|av|på) ?.*|\. .*)'
    r'|prod .*|(?:official |music )+(?:lyric )?video.*|clip officiel.*'
    rf'|{folded_words(LYRICS_WORDS.split(","))}'
    rf'(?: (?:{folded_words(LINKING_WORDS.split())} .*|["“”„«»\'‘’「].*)|["“„«「].*|)'
    rf'|.*["”“»」\' ](?:na |de |n )?{folded_words(LYRICS_WORDS_AT_END.split(","))}')


def is_credit(inside):
    """Return whether it is like: Produced by X, Text of "X", Songtext zu „X“, “X” için şarkı sözleri."""
    return bool(CREDIT.fullmatch(fold_letters(' '.join(inside.split()))))


def is_header(line):
    """Return whether a line is a header as Header.text() writes it."""
    return bool(CANONICAL_HEADER.fullmatch(line))


# ---- the rules: rule(text, title) -> text, in this order ----


def broken_headers(text, title=''):
    r"""Join a header over several lines, "[Verse 1:\nTilly Ohm &\nNori]"; make [[Verse 1]] [Verse 1]."""

    def join(match):
        if '\n' not in match[1]:
            return match[0]
        inside = re.sub(r'(?<=\w-) ', '', ' '.join(match[1].split()))
        return f'[{inside}]' if parse_header(inside) or is_credit(inside) else match[0]

    text = re.sub(r'\[\[([^\[\]\n]{1,200})\]\]', r'[\1]', text)
    return re.sub(r'\[([^\[\]]{1,200})\]', join, text)


def credit_lines(text, title=''):
    """Remove [Produced by X] and [Text of "X"], alone on a line or glued to one; they may hold brackets.

    [Vocals: X] and [Scratches: X] with lyrics below them are sections.
    """

    def replace(match):
        before, after = text[match.start() - 1:match.start()], text[match.end():match.end() + 1]
        within_a_line = before == ' ' and after == ' '
        if within_a_line or not is_credit(match[1]):
            return match[0]
        next_line = text[match.end():match.end() + LINE_WINDOW].lstrip(' ').removeprefix('\n').lstrip(' ')
        has_lyrics = next_line[:1] not in ('', '\n', '[')
        return match[0] if has_lyrics and parse_header(match[1]) else '\n'

    return re.sub(r'\[((?:[^\[\]\n]|\[[^\[\]\n]{0,100}\]){1,200})\]', replace, text)


def glued_headers(text, title=''):
    """Give a header at the end or beginning of a line, "I ride[Hook]", "[Hook]We go", a line of its own.

    With a space on either side it is part of the line: "sing the [Hook] again".
    """

    def replace(match):
        before, after = text[match.start() - 1:match.start()], text[match.end():match.end() + 1]
        glued = before.strip(' ') or after.strip(' ')
        window = match.start() - LINE_WINDOW
        line_start = text.rfind('\n', max(0, window), match.start()) + 1 or window
        at_start = not text[max(line_start, 0):match.start()].strip()
        rest = text[match.end():match.end() + LINE_WINDOW].partition('\n')[0]
        at_end = not TIMES.sub('', ' ' + rest).strip()
        if not (at_start or at_end or glued) or not parse_header(match[1]):
            return match[0]
        return ('' if at_start else '\n') + match[0] + ('' if at_end else '\n')

    return BRACKET.sub(replace, text)


def bracket_headers(text, title='', keep_artists=False):
    """Write a line like "[Couplet 1 : Tilly Ohm]" or "[HOOK x2]" in the grammar: [Verse 1], [Hook] x2."""

    def replace(match):
        inside, rest = match[1], match[2].rstrip()
        times_after = TIMES.fullmatch(' ' + rest)
        header = parse_header(inside)
        if not header or rest and not times_after:
            return match[0]
        times = times_of(times_after) if times_after else 1
        return header._replace(times=max(times, header.times)).text(keep_artists)

    pattern = r'^[^\S\n]*[\[【［]([^\[\]【】［］\n]{1,200})[\]】］][ :]*([^\[\]\n]{0,20})$'
    return re.sub(pattern, replace, text, flags=re.MULTILINE)


def bare_headers(text, title='', keep_artists=False):
    """Write a line like "Verse 1:", "Hook x2", "(Chorus)", "*Bridge*" or "[Verse 2" in the grammar.

    "Verse one" and "chorus" are lyrics; so is everything in the middle of a stanza but "Hook:" and "Hook x2".
    """
    lines, out = text.split('\n'), []
    for line, following in zip(lines, [*lines[1:], ''], strict=True):
        opens_stanza = not out or not out[-1].strip()
        out += read_bare_header(line, following, opens_stanza, keep_artists)
    return '\n'.join(out)


def read_bare_header(line, following, opens_stanza, keep_artists):
    """Return the lines that a line stands for: a header, a header and a lyric after its colon, or itself."""
    stripped = line.strip()
    if len(stripped) > MAX_BARE_LINE or is_header(stripped):
        return [line]
    bare = stripped.strip('(){}<>*_=~#[]-–— ')
    without_times = TIMES.sub('', ' ' + bare).strip(' :')
    first = SEPARATOR.split(without_times)[0]
    section = parse_section(first) if first else None
    header = parse_header(bare) if section else None
    if not header:
        return [line]

    name, number = section
    decorated = stripped[0] in '{*=~#<[' and not re.search(r'\[.*\]', stripped)
    unambiguous = not AMBIGUOUS & {name, re.sub(r'[\W\d]+$', '', fold_letters(first))}
    ends_in_colon = re.search(r'[:：]\W*$', stripped)
    marked = ends_in_colon or TIMES.search(' ' + bare) or number and stripped[0] == '('
    alone = not SEPARATOR.search(without_times)
    if decorated or unambiguous and marked and alone and (opens_stanza or not first[0].islower()):
        return [header.text(keep_artists)]

    colon = re.search(r'[:：]', bare)
    number_as_word = number and not re.search(r'\d', first)
    if not unambiguous or not opens_stanza or first[0].islower() or number_as_word and not colon:
        return [line]
    if alone or header.artist and following.strip() and is_name(header.artist):
        return [header.text(keep_artists)]
    lyric = bare[colon.end():].strip() if colon else ''
    if lyric and (number or lyric[0].isupper()):  # "Verse 1: I ride the night bus home"
        return [Header(name, number).text(), lyric]
    return [line]


# what is capitalised in brackets, too, and no artist
REMARK = re.compile(
    r'(?:\w+ ){0,4}(?:laugh\w*|gun ?shots?|phone|rings?|ringing|applause|cheer\w*|static|beeps?|bleeps?'
    r'|cough\w*|sighs?|inaudible|unintelligible|indistinct|censored|silence|noises?|music|beat|sounds?'
    r'|sirens?|crowd|talking|speaking|speaks|whisper\w*|scream\w*|echo\w*|repeat\w*|fades?|fade out|end'
    r'|explicit|clean|radio edit|pause|knock\w*|clears throat|thunder|rain|door \w+|explosions?|humming'
    r'|whistl\w*|snippet|translation|unknown|mumbl\w*|both|all|together|male|female|man|woman|speaker'
    r'|announcer|n/a|tba)(?: [a-z]+)?', re.IGNORECASE)
ARTIST_LINE = re.compile(r'^[^\S\n]*\[([^\[\]\n]{1,80})\][^\S\n]*$(\n?)', re.MULTILINE)


def artist_brackets(text, title='', keep_artists=False):
    """Make a line like [Tilly Ohm & Nori Static] a header, if the text has no others.

    Between headers it tells whose voice is next, and goes.
    """
    def is_artist(inside):
        is_like_one = is_name(inside) and re.match(r'[^\W\d_]|\$', inside)
        return is_like_one and not REMARK.fullmatch(inside) and not parse_header(inside)

    has_headers = any(map(is_header, text.split('\n')))
    artists = {inside for inside in (match[1].strip() for match in ARTIST_LINE.finditer(text))
               if is_artist(inside)}

    def replace(match):
        inside = match[1].strip()
        # a single word alone may be anything
        if inside not in artists or len(artists) == 1 and ' ' not in inside:
            return match[0]
        return '' if has_headers else Header('Verse', artist=inside).text(keep_artists) + match[2]

    return ARTIST_LINE.sub(replace, text)


def is_name(text):
    """Return whether a text is like Tilly Ohm & Nori Static, not like lyrics: up to six capitalised words."""
    words = text.split()
    capitalised = all(not word[0].islower() or word in ('and', 'feat.', 'ft.') for word in words)
    return len(words) <= 6 and capitalised and not text.endswith(('.', ',', '!', '?'))


def split_mark(line):
    """Split 'We go (x2)' into ('We go', 2); a line without such a mark is returned with 1."""
    times = 1
    while match := MARK.search(line) or BARE_MARK.search(line):
        line, times = line[:match.start()].rstrip(), max(times, times_of(match))
    return line, times


def repeated_lines(text, title=''):
    """Write "We go (x2)" as two lines; "(x2)" alone repeats the lines of the stanza above it."""
    out, block_start = [], 0  # block_start: where the lines begin that "(x2)" would repeat
    for line in text.split('\n'):
        lyric, times = split_mark(line.rstrip())
        if is_header(lyric) or not line.strip():  # "[Hook] x2" is for expand_sections
            out.append(line)
            block_start = len(out)
        elif lyric == line.rstrip():
            out.append(line)
        elif lyric:
            out += [lyric] * times
        else:
            if block_start == len(out) and out and is_header(out[-1]):
                out[-1] += f' x{times}'
            out += out[block_start:] * (times - 1)
            block_start = len(out)
    return '\n'.join(out)


def sections_of(text):
    """Return [(header, times, lines), ...]; what stands before the first header has the header ''."""
    sections = [('', 1, [])]
    for line in text.split('\n'):
        header, times = line, 1
        if match := re.search(r'(?<=\]) x(\d+)$', line):
            header, times = line[:match.start()], int(match[1])
        if is_header(header):
            sections.append((header, times, []))
        else:
            sections[-1][2].append(line)
    return sections


def expand_sections(text, title=''):
    """Write the lines of [Hook] x2 twice; give an empty [Hook] those of the last hook, or remove it."""
    latest, out, length = {}, [], 0  # latest: {'Hook 2': lyrics, 'Hook': lyrics}
    for header, times, lines in sections_of(text):
        lyrics = '\n'.join(lines).strip('\n')
        has_lines = any(line.strip() for line in lines)
        numbered = header.split(':')[0].strip('[]')
        name = re.sub(r' (\d+|[IVX]+)$', '', numbered)
        if lyrics:
            latest[numbered] = latest[name] = lyrics
        elif header and name not in MEANINGFUL_WHEN_EMPTY:
            lyrics = latest.get(numbered) or latest.get(name) or ''
            if not lyrics or name in NEVER_REPEATED:
                continue
        if times > 1 and lyrics and length < MAX_LENGTH:
            lyrics = '\n'.join([lyrics] * times)
        if header and not has_lines and length >= MAX_LENGTH:
            continue
        out.append('\n'.join(part for part in (header, lyrics) if part))
        length += len(out[-1])
    return '\n\n'.join(part for part in out if part)
