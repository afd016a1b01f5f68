r"""
The cleaning rules: they remove what a lyrics page holds besides the lyrics, and mend what it broke.

    >>> clean('2 ContributorsBus Lyrics[Couplet 1]\nI rideYou might also like[Hook x2]\nWe go3Embed', 'Bus')
    '[Verse 1]\nI ride\n\n[Hook]\nWe go\nWe go'

A rule is a function (text, title) -> text; clean() applies all of them until none changes anything. No files,
no network. The sizes and shares in this file were chosen by hand.
"""

import difflib
import html
import re
import sys
from html.entities import html5
from pathlib import Path

import ftfy
from headers import (
    BRACKET,
    artist_brackets,
    bare_headers,
    bracket_headers,
    broken_headers,
    credit_lines,
    expand_sections,
    glued_headers,
    is_header,
    parse_header,
    repeated_lines,
)
from words import fold_letters

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from nanorap.rap.sections import HEADER_LINE

# ---- repair: what encodings and web pages did to the letters ----

FTFY_CONFIG = ftfy.TextFixerConfig(
    unescape_html=False,  # the rule entities() does it, and not where a page also holds a <
    fix_character_width=False,  # full-width signs are Japanese and Chinese; wide_letters() takes Latin ones
    uncurl_quotes=True,
    fix_latin_ligatures=True,
    normalization='NFC',
    max_decode_length=100_000)
# Cyrillic and Greek letters that look like Latin ones
LATIN_OF = str.maketrans(
    'аеорсухіјѕһԁԛԝӏАВЕКМНОРСТУХІЈЅҮԌοναρικΑΒΕΖΗΙΚΜΝΟΡΤΥΧ',
    'aeopcyxijshdqwlABEKMHOPCTYXIJSYGovapikABEZHIKMNOPTYX')
LOOK_ALIKES = ''.join(map(chr, LATIN_OF))


def entities(text, title=''):
    """Replace &amp; and &#x27; by their characters.

    Only whole names with their semicolon: html.unescape() alone finds a &reg in "you&regret".
    """

    def replace(match):
        known = '#' in match[0] or match[1] in html5
        return html.unescape(match[0]) if known else match[0]

    return re.sub(r'&(#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|[A-Za-z][A-Za-z0-9]{1,30};)', replace, text)


def mojibake(text, title=''):
    """Mend donâ€™t -> don't by ftfy: wrong encodings, curly quotes, ligatures, control and terminal codes."""
    return ftfy.fix_text(text, FTFY_CONFIG)


def odd_spaces(text, title=''):
    """Make spaces of any width single plain ones; remove those without width and marks of direction.

    A joiner stays where it is part of the writing: between Arabic or Indic letters (Persian می‌روم) and in
    emoji (👨‍👩‍👧).
    """
    text = re.sub('\r\n?|[\x0b\x0c\x85\u2028\u2029]', '\n', text)
    text = re.sub('[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]', ' ', text)
    text = re.sub('[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]', '', text)
    arabic_or_indic, emoji = '\u0600-\u08ff\u0900-\u0dff', '\u2600-\u27bf\ufe0f\U0001f000-\U0001faff'
    joined_before, joined_after = f'{arabic_or_indic}{emoji}', f'{arabic_or_indic}\u2640\u2642{emoji}'
    text = re.sub(f'(?<![{joined_before}])[\u200c\u200d]|[\u200c\u200d](?![{joined_after}])', '', text)
    text = re.sub(' *\n *', '\n', re.sub(' {2,}', ' ', text))
    return re.sub('\n{3,}', '\n\n', text)


def wide_letters(text, title=''):
    """Make full-width letters and digits Latin, Ｎｉｇｈｔ -> Night, but not Japanese and Chinese signs."""
    full_width = '[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]'
    return re.sub(full_width, lambda match: chr(ord(match[0]) - 0xfee0), text)


def apostrophes(text, title=''):
    """Replace don`t and don´t by don't."""
    return re.sub(r"(?<=\w)[`´ʹ′](?=\w)", "'", text)


def look_alikes(text, title=''):
    """Make Cyrillic or Greek letters Latin inside words with Latin letters: thе (Cyrillic е) -> the.

    A word with any letter that Latin lacks (привет with a Latin e) stays, and so does a line that is mostly
    not Latin.
    """

    def replace_in_word(match):
        latin_at_sight = re.fullmatch(rf"[A-Za-zÀ-ɏ'{LOOK_ALIKES}]+", match[0])
        mixed = latin_at_sight and re.search(r'[A-Za-z]', match[0])
        return match[0].translate(LATIN_OF) if mixed else match[0]

    def replace_in_line(match):
        latin, letters = re.findall('[A-Za-z]', match[0]), re.findall(r'[^\W\d_]', match[0])
        if len(latin) < len(letters) / 2:
            return match[0]
        return re.sub(r"[^\W\d_]+(?:'[^\W\d_]+)*", replace_in_word, match[0])

    return re.sub(rf'^.*[{LOOK_ALIKES}].*$', replace_in_line, text, flags=re.MULTILINE)


def html_tags(text, title=''):
    """Make <br> a line break; remove <i>, <b>, <a href=...> and the like."""
    text = re.sub(r'<br ?/?>\n?', '\n', text, flags=re.IGNORECASE)
    inline = r'</?(?:i|b|u|em|strong|small|p|a|span|div)(?: [^<>\n]{0,300})?/?>'
    return re.sub(inline, '', text, flags=re.IGNORECASE)


# https://en.wikipedia.org/wiki/LRC_(file_format): [ar:Tilly Ohm], [00:12.34]a line, <00:12.34>a word
LRC_TAG = re.compile(
    r'^[^\S\n]*\[(?:ar|al|ti|au|lr|by|re|ve|tool|offset|length|la|id|#):[^\[\]\n]{0,200}\][^\S\n]*'
    r'(?:\n|\Z)',
    re.MULTILINE)
TIME = r'\d{1,3}:[0-5]\d(?:[.:]\d{1,3})?'
LINE_STAMPS = re.compile(rf'^[^\S\n]*(?:\[{TIME}\][^\S\n]*)+', re.MULTILINE)
WORD_STAMP = re.compile(rf'<{TIME}>[^\S\n]?')


def time_stamps(text, title=''):
    """Remove the stamps and tags of an LRC file: [00:12.34] before lines, <00:12.34> before words, [ar:X]."""
    stamped = LINE_STAMPS.sub('', text)
    if stamped == text and not WORD_STAMP.search(text):
        return text
    return WORD_STAMP.sub('', LRC_TAG.sub('', stamped))


# ---- the page: what stands around the lyrics ----

CONTRIBUTORS = re.compile(r'\s*\d[\d.,]{0,8}K?\s*Contributors?')
CURRENCY = r'(?:[A-Z]{0,3}[$£€¥₹₩₽₺₴₦฿₫₱₪]|[A-Z]{3}|[Kk]r\.?|zł|Kč|Ft|lei|Rp|RM|R|S/)'
AMOUNT = r'\d{1,3}(?:[.,\u0027 ]\d{3})*(?:[.,]\d{2})?(?!\d)|\d+(?:[.,]\d{2})?'
PRICE = rf'(?:{CURRENCY}\s?(?:{AMOUNT})|(?:{AMOUNT})(?:\s?{CURRENCY}(?![a-z]))?)'
ADVERT = re.compile(rf'\s?Live\s*Get tickets as low as\s*{PRICE}')
SHARE = r'Embed\s*Share\s*U(?:rl|RL):?\s*Copy\s*Embed:?\s*Copy'


def before_header(text, size):
    """Return the text before its first section header, at most `size` characters of it."""
    for match in BRACKET.finditer(text, 0, size):
        if parse_header(match[1]):
            return text[:match.start()]
    return text[:size]


def page_header(text, title=''):
    """Remove the head of a page, glued to the first line: "27 ContributorsTranslationsTürkçeBus Lyrics".

    It ends with the title and "Lyrics"; where the page has another title, with the first "Lyrics" that is
    not a word of a sentence.
    """
    title_pattern = re.sub(r'(?:\\ )+', r'\\s+', re.escape(title.strip()))
    contributors = CONTRIBUTORS.match(text)
    if not contributors:
        return without_title(text, title, title_pattern)
    start = contributors.end()
    zone = before_header(text, 1000)
    if title_pattern:
        end = re.compile(rf'{title_pattern}\s+Lyrics', re.IGNORECASE).search(zone, start)
    else:
        end = re.match(r'.{0,30}\s+Lyrics(?! [a-z])', zone, re.IGNORECASE)
    glued = zone[start:start + 1].strip(' ')
    if not end and glued:
        searched = zone if glued == '\n' else zone.partition('\n')[0]
        end = re.compile(r'(?<=\s)Lyrics(?! [a-z])').search(searched, start)
    if end:
        return without_about(text[end.end():], after_head=True)

    only_count = len(zone) == start  # "1 Contributor[Verse 1]"
    if only_count or glued == '\n' and 'contributor' not in title.lower():
        return text[start:]
    if translations := re.compile(r'\s*Translations?[^\n\[\]]{0,800}$').match(zone, start):
        return text[translations.end():]
    return text


def without_title(text, title, title_pattern):
    """Remove the title and "Lyrics" that older pages begin with, without the number of contributors."""
    own = title and re.match(rf'\s*{title_pattern}\s+Lyrics(?=\S|\n|\Z)', text, re.IGNORECASE)
    if own:
        return text[own.end():]
    other = re.match(r'\s*[^\n\[\]]{1,100}? Lyrics(?=\[)', text)
    bracket = other and BRACKET.match(text, other.end())
    return text[other.end():] if bracket and parse_header(bracket[1]) else text


def without_about(text, after_head=False):
    """Remove the text about the song that ends in "… Read More"; after_head: the page's head preceded it."""
    zone = before_header(text, 4000)
    if after_head:
        end = re.search(r'Read More(?=\s|\[|[A-Z"\'(]|[^\x00-\x7f]|$)', zone)
    else:
        end = re.match(r'\s*[^\n]{30,}?(?:(?:…|\.\.\.)\s*Read More(?! [a-z])|Read More\s*$)', zone)
    return text[end.end():] if end else text


def about_text(text, title=''):
    """Remove “Night Bus” is the first single of ... Read More, also where the page's head is gone already."""
    return without_about(text)


def ticket_advert(text, title=''):
    """Remove See Tilly Ohm LiveGet tickets as low as $17, also where it is glued to a line.

    It starts with the last "See" that is glued or begins the line, as the artist's name and the line before
    may hold one too.
    """
    out, done = [], 0
    for match in ADVERT.finditer(text):
        line_start = max(text.rfind('\n', done, match.start()) + 1, done, match.start() - 150)
        sees = [see.start() for see in re.compile(r'See ').finditer(text, line_start, match.start())]
        if not sees:
            continue
        at_start_or_glued = [see for see in sees if see == line_start or not text[see - 1].isspace()]
        glued = [see for see in at_start_or_glued if see > line_start]
        start = (glued or at_start_or_glued or sees)[-1]
        out += [text[done:start].rstrip(' ').removesuffix('\n'), '\n']
        done = match.end() + (text[match.end():match.end() + 1] == '\n')
    return ''.join(out) + text[done:]


def might_also_like(text, title=''):
    """Remove "You might also like" alone on its line or glued to its neighbours; elsewhere it's a lyric."""

    def replace(match):
        before = text[max(0, match.start(1) - 200):match.start(1)].rpartition('\n')[2]
        after = text[match.end(1):match.end(1) + 200].partition('\n')[0]
        alone = not before.strip() and not after.strip()
        # a line ends before it, and no quotation begins
        line_ended = re.search(r'[^\s([{"\'“‘„«/–—-]$|\S["\']$', before)
        cut_word = re.search(r'\w[–—-]$', before) and re.match(r'\s*$|\[', after)
        # a line begins after it, and it is not "liked" or "likely"
        ending = re.match(r"(?:d|s|r|n|ly|ned|ns|wise|ness|able|lier)\b", after)
        line_begins = re.match(r'\[|[("\']?[^\W_]', after) and not ending
        quoted = re.search(r'["\'“‘]$', before)
        remove = alone or line_ended or cut_word or line_begins and not quoted
        return '\n' if remove else match[0]

    return re.sub(r'\n?[^\S\n]*(You might also like)[^\S\n]*\n?', replace, text)


BEFORE_NUMBERS = (
    'room number floor page chapter district route highway block apartment apt unit level version size age '
    'gate bus line track exit zone sector suite cell pier platform flight mach studio at in of is was since '
    "till until about over under than turned hit top only just like am i'm it's").split()


def own_digits(line, digits, lines):
    """Return how many of the digits between a line and "Embed" are the line's own; the rest is a counter.

    The counter has up to three digits. After letters all are the counter's; "born in 19943Embed" ends in a
    year; and a line that comes twice shows where it ends.
    """
    for own in range(len(digits), 0, -1):
        if line + digits[:own] in lines:
            return own
    ends_in_number = re.search(r"(?:(?:^|\s)['$£€#(+-]?|\d[/:.,-])$", line)
    if not ends_in_number:
        return 0
    if re.match(r'(?:19|20)\d\d', digits) and line[-1:].isspace():
        return 4
    if line.endswith(('/', ':', "'")):  # 24/7, 7:30, '99
        return min(len(digits), 1 if line.endswith('/') else 2)
    if len(digits) <= 3 and line[-1:].isspace():
        takes_number = re.search(rf"\b(?:{'|'.join(BEFORE_NUMBERS)})\s+$", line, re.IGNORECASE)
        return len(digits) if len(digits) == 3 or takes_number else 0  # room 101; in "home 12" it counts
    if not line:
        return 0
    # a counter doesn't begin with 0, and a line's number is likelier to end with it
    splits = [own for own in range(max(1, len(digits) - 3), len(digits)) if digits[own] != '0']
    splits = splits or [len(digits)]
    return next((own for own in splits if digits[own - 1] == '0'), splits[-1])


def embed(text, title=''):
    """Remove 3Embed, Embed and EmbedShare Url:CopyEmbed:Copy.

    The word alone is junk only at the end, glued or on a line of its own in a song that doesn't use it;
    after a space it is a lyric.
    """
    text = re.sub(rf'\s*{SHARE}\s*(?=\S)', 'Embed\n', text)
    text = re.sub(rf'\s*{SHARE}\s*$', 'Embed', text)
    lines = set(text.split('\n'))

    def without_counter(match):
        line, digits = match[1], match[2]
        return line + digits[:own_digits(line, digits, lines)]

    counted = r'^(.{0,500}?)(\d{1,12})(?:\.\d)?K?Embed$'
    text = re.sub(counted, without_counter, text.rstrip(), flags=re.MULTILINE)
    while text.endswith('Embed'):
        rest = text[:-len('Embed')].rstrip(' ')
        glued = re.search(r'[^\s(\["\'“-]\Z|\S["\']\Z', text[-7:-5])
        alone = rest[-1:] in ('', '\n') and not re.search(r'\bembed\b', rest, re.IGNORECASE)
        if not glued and not alone:
            break
        text = rest.rstrip()
    return text


# ---- the whole text ----


def pasted_twice(text, title=''):
    """Keep one copy of lyrics that stand twice on one page: the one with more headers, or the first.

    A chorus that comes again is no copy: the halves must be long, in the same order, and have several
    sections or none.
    """
    lines = text.split('\n')
    lyrics = [(number, re.sub(r'\W+', ' ', fold_letters(line)).strip()) for number, line in enumerate(lines)
              if line.strip() and not HEADER_LINE.match(line)]
    count = len(lyrics)
    if count < 20 or len({line for _, line in lyrics}) < 8:
        return text

    def starts_again(middle):
        """Whether one of the three lines from here on is the text's first, second or third."""
        return any(lyrics[middle + i][1] == lyrics[i][1] for i in range(3))

    middles = [middle for middle in range(int(.4 * count), int(.6 * count) + 1) if starts_again(middle)]
    middles.sort(key=lambda middle: abs(2 * middle - count))
    for middle in middles[:5]:
        first, second = ([line for _, line in half] for half in (lyrics[:middle], lyrics[middle:]))
        cut = lyrics[middle][0]
        while cut and (is_header(lines[cut - 1]) or not lines[cut - 1].strip()):
            cut -= 1
        halves = '\n'.join(lines[:cut]), '\n'.join(lines[cut:])
        headers = [sum(map(is_header, half.split('\n'))) for half in halves]
        same_lines = len({*first} & {*second}) >= .8 * len({*first, *second})
        if not same_lines or max(headers) == 1:
            continue
        if difflib.SequenceMatcher(None, first[:500], second[:500], autojunk=False).ratio() >= .8:
            return halves[1] if headers[1] > headers[0] else halves[0]
    return text


def white_space(text, title=''):
    """Leave single spaces, none at line ends; one blank line before a header, none after it, never two."""
    out = []
    for line in text.split('\n'):
        line = ' '.join(line.split())
        after_text = bool(out and out[-1])
        if is_header(line) and after_text:
            out += ['', line]
        elif line or after_text and not is_header(out[-1]):
            out.append(line)
    return '\n'.join(out).strip()


REPAIRS = [entities, mojibake, odd_spaces, wide_letters, apostrophes, look_alikes]
RULES = [
    *REPAIRS, time_stamps, html_tags,
    page_header, about_text, ticket_advert, might_also_like, embed,
    broken_headers, credit_lines, glued_headers, bracket_headers, bare_headers, artist_brackets,
    pasted_twice, repeated_lines, white_space, expand_sections]
MAX_ROUNDS = 20


def repair(text):
    """Apply the rules for letters alone: for titles and names."""
    for rule in REPAIRS:
        text = rule(text)
    return text


def cleaning_steps(text, title='', keep_artists=False):
    """Apply the rules in turn until none changes anything; yield (rule, text before, text after) of each."""
    for _ in range(MAX_ROUNDS):  # a rule may uncover what an earlier one is for; the second rarely finds any
        start = text
        for rule in RULES:
            writes_headers = rule in (bracket_headers, bare_headers, artist_brackets)
            options = {'keep_artists': True} if keep_artists and writes_headers else {}
            before, text = text, rule(text, title, **options)
            yield rule, before, text
        if text == start:
            break


def clean(text, title='', keep_artists=False):
    """Return the lyrics of a page."""
    for _rule, _before, after in cleaning_steps(text, title, keep_artists):
        text = after
    return text
