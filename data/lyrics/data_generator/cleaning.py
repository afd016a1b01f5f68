"""
The cleaning rules: what a lyrics page holds besides the lyrics goes, and what it broke is mended.

    >>> clean('2 ContributorsNight Bus Lyrics[Couplet 1]\\nI rideYou might also like[Hook x2]\\nWe go3Embed', 'Night Bus')
    '[Verse 1]\\nI ride\\n\\n[Hook]\\nWe go\\nWe go'

A rule is a function (text, title) -> text; `clean` applies all of them until none changes anything. No files, no network.
"""

import difflib
import html
import re
from html.entities import html5

import ftfy
import sections as headers
from sections import BRACKET, is_header, parse_header

# ---- repair: what encodings and web pages did to the letters ----

SAFE = ftfy.TextFixerConfig(
    unescape_html=False,  # the rule entities does it, and not where a page also holds a <
    fix_character_width=False,  # full-width signs belong to Japanese and Chinese; the rule wide_letters takes Latin ones
    uncurl_quotes=True, fix_latin_ligatures=True, normalization='NFC', max_decode_length=100_000)
LATIN_TWIN = str.maketrans('аеорсухіјѕһԁԛԝӏАВЕКМНОРСТУХІЈЅҮԌοναρικΑΒΕΖΗΙΚΜΝΟΡΤΥΧ',
                           'aeopcyxijshdqwlABEKMHOPCTYXIJSYGovapikABEZHIKMNOPTYX')
TWINS = ''.join(map(chr, LATIN_TWIN))


def entities(text, title=''):
    """&amp; and &#x27;, whole names with their semicolon only: unescape() alone finds a &reg in "you&regret"."""

    def replace(match):
        return html.unescape(match[0]) if '#' in match[0] or match[1] in html5 else match[0]

    return re.sub(r'&(#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|[A-Za-z][A-Za-z0-9]{1,30};)', replace, text)


def mojibake(text, title=''):
    """donâ€™t -> don't: ftfy mends wrong encodings, curly quotes, ligatures, control characters, terminal colours."""
    return ftfy.fix_text(text, SAFE)


def odd_spaces(text, title=''):
    """Spaces of other widths become spaces, runs of them one; those without width and marks of direction go.

    A joiner stays where it is part of the writing: between Arabic or Indic letters (Persian می‌روم) and in emoji (👨‍👩‍👧).
    """
    text = re.sub('\r\n?|[\x0b\x0c\x85\u2028\u2029]', '\n', text)
    text = re.sub('[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]', ' ', text)
    text = re.sub('[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]', '', text)
    written, emoji = '\u0600-\u08ff\u0900-\u0dff', '\u2600-\u27bf\ufe0f\U0001f000-\U0001faff'
    text = re.sub(f'(?<![{written}{emoji}])[\u200c\u200d]|[\u200c\u200d](?![{written}\u2640\u2642{emoji}])', '', text)
    return re.sub('\n{3,}', '\n\n', re.sub(' *\n *', '\n', re.sub(' {2,}', ' ', text)))


def wide_letters(text, title=''):
    """Ｎｉｇｈｔ -> Night: full-width letters and digits, but not the signs and quotes of Japanese and Chinese."""
    return re.sub('[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]', lambda match: chr(ord(match[0]) - 0xfee0), text)


def apostrophes(text, title=''):
    """don`t and don´t -> don't."""
    return re.sub(r"(?<=\w)[`´ʹ′](?=\w)", "'", text)


def look_alikes(text, title=''):
    """Cyrillic or Greek letters that look Latin, inside words with Latin letters: thе (Cyrillic е) -> the.

    A word with any letter that Latin lacks (привет with a Latin e) is left alone, and so is a line that is mostly not Latin.
    """

    def word(match):
        mixed = re.search(r'[A-Za-z]', match[0]) and re.fullmatch(rf"[A-Za-zÀ-ɏ'{TWINS}]+", match[0])
        return match[0].translate(LATIN_TWIN) if mixed else match[0]

    def line(match):
        if 2 * len(re.findall('[A-Za-z]', match[0])) < len(re.findall(r'[^\W\d_]', match[0])):
            return match[0]
        return re.sub(r"[^\W\d_]+(?:'[^\W\d_]+)*", word, match[0])

    return re.sub(rf'^.*[{TWINS}].*$', line, text, flags=re.MULTILINE)


def html_tags(text, title=''):
    """<br> is a line break; <i>, <b>, <a href=...> and the like go."""
    text = re.sub(r'<br ?/?>\n?', '\n', text, flags=re.IGNORECASE)
    return re.sub(r'</?(?:i|b|u|em|strong|small|p|a|span|div)(?: [^<>\n]{0,300})?/?>', '', text, flags=re.IGNORECASE)


# ---- the page: what stands around the lyrics ----

CONTRIBUTORS = re.compile(r'\s*\d[\d.,]{0,8}K?\s*Contributors?')
CURRENCY = r'(?:[A-Z]{0,3}[$£€¥₹₩₽₺₴₦฿₫₱₪]|[A-Z]{3}|[Kk]r\.?|zł|Kč|Ft|lei|Rp|RM|R|S/)'
AMOUNT = r'\d{1,3}(?:[.,\u0027 ]\d{3})*(?:[.,]\d{2})?(?!\d)|\d+(?:[.,]\d{2})?'
ADVERT = re.compile(rf'\s?Live\s*Get tickets as low as\s*(?:{CURRENCY}\s?(?:{AMOUNT})|(?:{AMOUNT})(?:\s?{CURRENCY}(?![a-z]))?)')
SHARE = r'Embed\s*Share\s*U(?:rl|RL):?\s*Copy\s*Embed:?\s*Copy'


def before_header(text, most):
    """The text before its first section header, at most so many characters of it."""
    first = next((m.start() for m in BRACKET.finditer(text, 0, most) if parse_header(m[1])), most)
    return text[:first]


def page_header(text, title=''):
    """The head of the page, glued to the first line: "27 ContributorsTranslationsTürkçeNight Bus Lyrics". It ends with the
    title and "Lyrics"; where the page has another title, with the first "Lyrics" that is no word of a sentence."""
    head = CONTRIBUTORS.match(text)
    words = re.sub(r'(?:\\ )+', r'\\s+', re.escape(title.strip()))
    if not head:  # older pages have the title alone
        short = title and re.match(rf'\s*{words}\s+Lyrics(?=\S|\n|\Z)', text, re.IGNORECASE)
        other = re.match(r'\s*[^\n\[\]]{1,100}? Lyrics(?=\[)', text)
        if other and not (short or parse_header((BRACKET.match(text, other.end()) or ['', ''])[1])):
            other = None
        return text[(short or other).end():] if short or other else text
    zone = before_header(text, 1000)
    pattern = re.compile(rf'{words}\s+Lyrics' if words else r'\A.{0,30}\s+Lyrics(?! [a-z])', re.IGNORECASE)
    end = pattern.search(zone, head.end() if words else 0)
    glued = zone[head.end():head.end() + 1].strip(' ')
    if not end and glued:
        end = re.compile(r'(?<=\s)Lyrics(?! [a-z])').search(zone.partition('\n')[0] if glued != '\n' else zone, head.end())
    if end:
        return about(text[end.end():], sure=True)
    if len(zone) == head.end() or (glued == '\n' and 'contributor' not in title.lower()):
        return text[head.end():]  # nothing but the count: "1 Contributor[Verse 1]"
    if translations := re.compile(r'\s*Translations?[^\n\[\]]{0,800}$').match(zone, head.end()):
        return text[translations.end():]
    return text


def about(text, sure=False):
    """The text about the song that ends in "… Read More". sure: the page's head stood before it."""
    zone = before_header(text, 4000)
    if sure:
        end = re.compile(r'Read More(?=\s|\[|[A-Z"\'(]|[^\x00-\x7f]|$)').search(zone)
    else:
        end = re.match(r'\s*[^\n]{30,}?(?:(?:…|\.\.\.)\s*Read More(?! [a-z])|Read More\s*$)', zone)
    return text[end.end():] if end else text


def about_text(text, title=''):
    """“Night Bus” is the first single of ... Read More[Verse 1]: goes, where the page's head is gone already too."""
    return about(text)


def ticket_advert(text, title=''):
    """See Tilly Ohm LiveGet tickets as low as $17: from the "See" that is glued or begins the line, as the artist's name
    and the line before may hold one too."""
    out, done = [], 0
    for match in ADVERT.finditer(text):
        line = max(text.rfind('\n', done, match.start()) + 1, done, match.start() - 150)
        sees = [m.start() for m in re.compile(r'See ').finditer(text, line, match.start())]
        glued = [see for see in sees if see == line or not text[see - 1].isspace()]
        inside = [see for see in glued if see > line]
        if sees:
            start = (inside or glued or sees)[-1]
            out += [text[done:start].rstrip(' ').removesuffix('\n'), '\n']
            done = match.end() + (text[match.end():match.end() + 1] == '\n')
    return ''.join(out) + text[done:]


def might_also_like(text, title=''):
    """You might also like: only alone on its line, or glued to what stands before or after; else it's a lyric."""

    def replace(match):
        before = text[max(0, match.start(1) - 200):match.start(1)].rpartition('\n')[2]
        after = text[match.end(1):match.end(1) + 200].partition('\n')[0]
        alone = not before.strip() and not after.strip()
        closed = re.search(r'[^\s([{"\'“‘„«/–—-]$|\S["\']$', before)  # a line ends here, and no quotation begins
        dashed = re.search(r'\w[–—-]$', before) and re.match(r'\s*$|\[', after)
        opened = re.match(r'\[|[("\']?[^\W_]', after) and not re.match(r"(?:d|s|r|n|ly|ned|ns|wise|ness|able|lier)\b", after)
        return '\n' if alone or closed or dashed or opened and not re.search(r'["\'“‘]$', before) else match[0]

    return re.sub(r'\n?[^\S\n]*(You might also like)[^\S\n]*\n?', replace, text)


def own_digits(line, digits, lines):
    """How many of the digits between a line and "Embed" are the line's own. The counter has up to three: after letters all
    are the counter's; "born in 19943Embed" ends in a year; and a line that comes twice tells where it ends."""
    for own in range(len(digits), 0, -1):
        if line + digits[:own] in lines:
            return own
    if not re.search(r"(?:(?:^|\s)['$£€#(+-]?|\d[/:.,-])$", line):
        return 0
    if re.match(r'(?:19|20)\d\d', digits) and line[-1:].isspace():
        return 4
    if line.endswith(('/', ':', "'")):
        return min(len(digits), 1 if line.endswith('/') else 2)
    if len(digits) <= 3 and (not line or line[-1].isspace()):
        return 0
    splits = [own for own in range(max(1, len(digits) - 3), len(digits)) if digits[own] != '0'] or [len(digits)]
    return next((own for own in splits if digits[own - 1] == '0'), splits[-1])


def embed(text, title=''):
    """3Embed, Embed, EmbedShare Url:CopyEmbed:Copy. The word alone is junk only at the end, glued or on a line of its own
    in a song that doesn't say it; after a space it is a lyric."""
    text = re.sub(rf'\s*{SHARE}\s*$', 'Embed', re.sub(rf'\s*{SHARE}\s*(?=\S)', 'Embed\n', text))

    lines = set(text.split('\n'))

    def counted(match):
        line, digits = match[1], match[2]
        return line + digits[:own_digits(line, digits, lines)]

    text = re.sub(r'^(.{0,500}?)(\d{1,12})(?:\.\d)?K?Embed$', counted, text.rstrip(), flags=re.MULTILINE)
    while text.endswith('Embed'):
        rest = text[:-len('Embed')].rstrip(' ')
        glued = re.search(r'[^\s(\["\'“-]\Z|\S["\']\Z', text[-7:-5])
        alone = rest[-1:] in ('', '\n') and not re.search(r'\bembed\b', rest, re.IGNORECASE)
        if not glued and not alone:
            break
        text = rest.rstrip()
    return text


# ---- the whole ----


def pasted_twice(text, title=''):
    """The whole lyrics twice on one page: the copy with more headers stays, or the first. A chorus that comes again is no
    copy: the halves must be long, in the same order, and have several sections or none."""
    lines = text.split('\n')
    said = [(at, re.sub(r'\W+', ' ', headers.fold(line)).strip()) for at, line in enumerate(lines)
            if line.strip() and not (line.startswith('[') and line.endswith(']'))]
    count = len(said)
    if count < 20 or len({line for _, line in said}) < 8:
        return text
    middles = sorted((at for at in range(int(.4 * count), int(.6 * count) + 1)
                      if any(said[at + line][1] == said[line][1] for line in range(3))), key=lambda at: abs(2 * at - count))
    for middle in middles[:5]:
        first, second = ([line for _, line in half] for half in (said[:middle], said[middle:]))
        cut = said[middle][0]
        while cut and (is_header(lines[cut - 1]) or not lines[cut - 1].strip()):
            cut -= 1
        halves = '\n'.join(lines[:cut]), '\n'.join(lines[cut:])
        found = [sum(map(is_header, half.split('\n'))) for half in halves]
        alike = len({*first} & {*second}) >= .8 * len({*first, *second}) and (max(found) > 1 or max(found) == 0)
        if alike and difflib.SequenceMatcher(None, first[:500], second[:500], autojunk=False).ratio() >= .8:
            return halves[found[1] > found[0]]
    return text


def white_space(text, title=''):
    """Single spaces, none at line ends; one blank line before each header and none after it; no runs of blank lines."""
    out = []
    for line in text.split('\n'):
        line = ' '.join(line.split())
        if line or out and out[-1] and not is_header(out[-1]):
            out += ['', line] if is_header(line) and out and out[-1] else [line]
    return '\n'.join(out).strip()


REPAIRS = [entities, mojibake, odd_spaces, wide_letters, apostrophes, look_alikes]
RULES = [*REPAIRS, html_tags,
         page_header, about_text, ticket_advert, might_also_like, embed,
         headers.broken_headers, headers.credit_lines, headers.glued_headers, headers.bracket_headers, headers.bare_headers,
         pasted_twice, headers.repeated_lines, white_space, headers.expand_sections]


def repair(text):
    """The letters alone: for titles and names."""
    for rule in REPAIRS:
        text = rule(text)
    return text


def clean(text, title='', keep_artists=False, changed=None):
    """The lyrics of a page. changed(rule name, before, after), if given, is told of every change."""
    for _ in range(20):  # one rule may bring to light what another one is for; the second round rarely finds anything
        start = text
        for rule in RULES:
            options = {'keep_artists': True} if keep_artists and rule in (headers.bracket_headers, headers.bare_headers) else {}
            before, text = text, rule(text, title, **options)
            if changed and text != before:
                changed(rule.__name__, before, text)
        if text == start:
            break
    return text
