"""
Section headers: one grammar, [Verse], [Verse 2] or [Part II], out of what pages write in many languages and forms.

    >>> parse_header('Couplet 2 - Tilly Ohm & Nori Static')
    Header(name='Verse', number=2, artist='Tilly Ohm & Nori Static', times=1)
    >>> parse_header('laughs') is None
    True

Text -> text, no files. A bracket that is no header ([?], [inaudible], [laughs]) is a remark: it stays where it is, in its
line, since a hole would join words that nobody said together.
"""

import re
from typing import NamedTuple

from words import ALONE, AMBIGUOUS, AT_END, BETWEEN, LYRICS_WORDS, NAMES, NUMBERS, ROMAN, WORDS, any_of, fold

MOST_TIMES = 16  # (x100) is a loop, not a text
LONGEST = 100_000  # characters: no page is longer, and a page of nothing but [Chorus] stubs must not become so


# "2nd verse", "final chorus", "verse #2", "chorus2"
HEAD = re.compile(rf'(?:(?:the|final|last|short|half|extended|alternate|double|repeat|sampled|sung|full|spoken) )*'
                  rf'(?:(?P<first>\d{{1,2}}|{any_of(NUMBERS)})(?:\W|st|nd|rd|th|e?re?|e|eme|[oa]|-?[йя])? ?(?<=\W))?'
                  rf'(?P<name>{any_of(NAMES)})(?![^\W\d])'
                  rf'(?: ?[#№.]? ?(?:(?P<digits>\d{{1,2}})[a-d]?|(?P<word>{any_of(NUMBERS)}))(?!\w))?'
                  r'(?: (?:unique|unico|unica|finale?|reprise|continued|variation|intro|outro|hook|chorus|verse|bridge))?')
TIMES = re.compile(r'[\s,:-]{0,5}(?:[(\[{]\s*|(?<=[\s:,\])]))(?:repeat(?:s|ed)?:?\s*)?'
                   r'(?:[x×]\s?(?P<after>\d{1,2})|(?P<before>\d{1,2})\s?(?:[x×]|times))\s*[)\]}]?(?=\W|$)', re.IGNORECASE)
# at a line's end: (x2), [2x], {repeat x2}; x2 after a space or alone; not the BMW X5, nor "I did it 2x"
MARK = re.compile(r' ?[(\[{] ?(?:repeat(?:s|ed)?:? ?)?'
                  r'(?:[x×] ?(?P<after>\d{1,2})|(?P<before>\d{1,2}) ?(?:[x×]|times)) ?[)\]}]$',
                  re.IGNORECASE)
BARE_MARK = re.compile(r'(?:^| )[x×](?P<after>[2-9]|1\d)(?P<before>)$')
SEPARATOR = re.compile(r'\s*[:：|(/&+,;]\s*|\s+[-–—]+\s*|\s*[-–—]+\s+|\s*[–—]\s*|(?<=\d)-')
BRACKET = re.compile(r'\[([^\[\]\n]{1,200})\]')
CANONICAL = re.compile(rf'\[({any_of(WORDS)})(?: (?:\d+|[IVX]+))?(?:: [^\[\]\n]+)?\]')


class Header(NamedTuple):
    name: str
    number: int = 0
    artist: str = ''
    times: int = 1

    def text(self, keep_artists=False):
        """[Verse 1], [Part II], [Hook] x2 (the rule expand_sections takes the x2 away)."""
        number = f' {ROMAN[self.number] if self.name == "Part" and self.number <= 10 else self.number}' if self.number else ''
        artist = f': {self.artist}' if keep_artists and self.artist else ''
        return f'[{self.name}{number}{artist}]' + (f' x{self.times}' if self.times > 1 else '')


def times_of(match):
    return max(1, min(int(match['after'] or match['before']), MOST_TIMES))


def parse_head(head):
    """(name, number) of "Verse 2", "2nd Verse", "Strophe II"; None for anything else."""
    match = HEAD.fullmatch(re.sub(r'\b(pre|post|pos)(?: ?[-–—] ?| )(?=[^\W\d])', r'\1-', fold(' '.join(head.split()))))
    if not match:
        return None
    number = match['first'] or match['digits'] or match['word'] or '0'
    return NAMES[match['name']], NUMBERS[number] if number in NUMBERS else int(number)


def parse_header(inside):
    """What stands between the brackets, as a Header; None if it is no section: "?", "laughs", "Break it down"."""
    inside, times = ' '.join(inside.split()), 1
    if match := TIMES.search(' ' + inside):
        inside, times = (' ' + inside)[:match.start()] + (' ' + inside)[match.end():], times_of(match)
    inside = inside.strip(' :：-–—.*"\'')
    # 1. the section, then perhaps a separator and an artist
    head, _, artist = inside, '', ''
    if separator := SEPARATOR.search(re.sub(r'(?i)\b(pre|post) [-–—] ', r'\1-', inside)):
        plain = re.sub(r'(?i)\b(pre|post) [-–—] ', r'\1-', inside)
        head, artist = plain[:separator.start()], plain[separator.end():].strip()
        artist = artist.rstrip(')') if '(' in separator[0] else artist
        found = parse_head(head)
        if found and separator[0].strip() in '/&+,-' and (artist.isdigit() and found[1] or parse_header(artist)):
            artist = ''  # "Intro/Chorus", "Verse 1 & 2": the first of them
    if found := parse_head(head):
        if artist.isdigit() and len(artist) < 3 and not found[1]:  # "Verse: 1"
            found, artist = (found[0], int(artist)), ''
        return Header(*found, artist, times)
    # 2. no separator: "Verse 1 Tilly Ohm", "Chorus by Tilly Ohm"; the name is all capitals
    words = inside.split(' ')
    for end in range(min(len(words) - 1, 5), 0, -1):
        found, name = parse_head(' '.join(words[:end])), ' '.join(words[end:])
        if found and len(name) <= 80 and (re.match(r'(?:by|feat\.?|ft\.?|with|w/|con|avec|mit|com) ', name)
                                          or all(not word[0].islower() or word in ('and', 'de', 'y') for word in words[end:])):
            return Header(*found, re.sub(r'^(?:by|with|w/|con|avec|mit|com) ', '', name), times)
    # 3. the artist first: "Tilly Ohm: Verse 1"
    if separator and (found := parse_head(artist)) and head[:1].isupper():
        return Header(*found, head, times)
    return None


# ---- lines that say whose song it is ----

CREDIT = re.compile(
    r'(?:co-?|executive |additional )?(?:produced|prod|producers?|written|writers?|mixed|mastered|recorded|engineered|directed'
    r'|composed|composers?|arranged|vocals|video|music|beat|cover art|artwork|lyrics|scratches|shot|filmed|label'
    r'|album|released?|release date|продюсер|produit|produziert|prodotto|producido|produzido|produktion|muzyka|музыка)'
    r'(?: video| (?:and|&) \w+)?(?:\.? ?(?:by|par|von|da|por|:|av|på) ?.*|\. .*)'
    r'|prod .*|(?:official |music )+(?:lyric )?video.*|clip officiel.*'
    rf'|{any_of([fold(word.strip()) for word in LYRICS_WORDS.split(",")])}'
    rf'(?: (?:{any_of([fold(word) for word in BETWEEN.split()])} .*|["“”„«»\'‘’「].*)|["“„«「].*|)'
    rf'|.*["”“»」\' ](?:na |de |n )?{any_of([fold(word.strip()) for word in AT_END.split(",")])}')


def is_credit(inside):
    """Produced by X, Text of "X", Songtext zu „X“, “X” için şarkı sözleri."""
    return bool(CREDIT.fullmatch(fold(' '.join(inside.split()))))


def is_header(line):
    return bool(CANONICAL.fullmatch(line))


# ---- the rules: rule(text, title) -> text, in this order ----


def broken_headers(text, title=''):
    """A header over several lines, "[Verse 1:\\nTilly Ohm &\\nNori Static]", on one; [[Verse 1]] has one pair of brackets."""

    def join(match):
        inside = re.sub(r'(?<=\w-) ', '', ' '.join(match[1].split()))
        return f'[{inside}]' if parse_header(inside) or is_credit(inside) else match[0]

    text = re.sub(r'\[\[([^\[\]\n]{1,200})\]\]', r'[\1]', text)
    return re.sub(r'\[([^\[\]]{1,200})\]', lambda match: join(match) if '\n' in match[1] else match[0], text)


def credit_lines(text, title=''):
    """[Produced by X] and [Text of "X"] go, where they stand alone or glued; brackets inside them are allowed for."""

    def replace(match):
        before, after = text[match.start() - 1:match.start()], text[match.end():match.end() + 1]
        apart = before == ' ' and after == ' '
        return '\n' if not apart and is_credit(match[1]) else match[0]

    return re.sub(r'\[((?:[^\[\]\n]|\[[^\[\]\n]{0,100}\]){1,200})\]', replace, text)


def glued_headers(text, title=''):
    """A header at a line's end or beginning, "I ride[Hook]", "[Hook]We go", gets a line of its own. With a space on either
    side it is part of the line: "sing the [Hook] again"."""

    def replace(match):
        before, after = text[match.start() - 1:match.start()], text[match.end():match.end() + 1]
        before, after = before.strip(' ') and before, after.strip(' ') and after
        start = text.rfind('\n', max(0, match.start() - 300), match.start()) + 1 or match.start() - 300
        at_start = not text[max(start, 0):match.start()].strip()
        rest = text[match.end():match.end() + 300].partition('\n')[0]
        at_end = not TIMES.sub('', ' ' + rest).strip()
        if not (at_start or at_end or before or after) or not parse_header(match[1]):
            return match[0]
        return ('' if at_start else '\n') + match[0] + ('' if at_end else '\n')

    return BRACKET.sub(replace, text)


def bracket_headers(text, title='', keep_artists=False):
    """A line "[Couplet 1 : Tilly Ohm]", "[HOOK x2]" or "【Chorus】" in the grammar: [Verse 1], [Hook] x2, [Chorus]."""

    def replace(match):
        times = times_of(found) if (found := TIMES.fullmatch(' ' + match[2].rstrip())) else 1
        header = parse_header(match[1])
        if not header or match[2].strip() and not found:
            return match[0]
        return header._replace(times=max(times, header.times)).text(keep_artists)

    return re.sub(r'^[^\S\n]*[\[【［]([^\[\]【】［］\n]{1,200})[\]】］][ :]*([^\[\]\n]{0,20})$', replace, text, flags=re.M)


def bare_headers(text, title='', keep_artists=False):
    """A line "Verse 1:", "Hook x2", "(Chorus)", "*Bridge*", "{Couplet}" or "[Verse 2" without its bracket.

    "Verse one" and "chorus" are lyrics; so is everything in the middle of a stanza but "Hook:" and "Hook x2".
    """
    lines, out = text.split('\n'), []
    for line, following in zip(lines, [*lines[1:], ''], strict=True):
        stripped, opens = line.strip(), not out or not out[-1].strip()
        bare = stripped.strip('(){}<>*_=~#[]-–— ')
        first = SEPARATOR.split(TIMES.sub('', ' ' + bare).strip(' :'))[0] if len(bare) <= 80 else ''
        head = parse_head(first) if first and not is_header(stripped) else None
        header = parse_header(bare) if head else None
        if not header or len(stripped) > 80:
            out.append(line)
            continue
        decorated = stripped[0] in '{*=~#<[' and not re.search(r'\[.*\]', stripped)
        colon = re.search(r'[:：]', bare)
        spelled = head[1] and not re.search(r'\d', first)
        plain = not AMBIGUOUS & {head[0], re.sub(r'[\W\d]+$', '', fold(first))}
        marked = re.search(r'[:：]\W*$', stripped) or TIMES.search(' ' + bare)
        said = bare[colon.end():].strip() if colon else ''
        alone = not SEPARATOR.search(TIMES.sub('', ' ' + bare).strip(' :'))
        marked = marked or head[1] and stripped[0] == '('
        if decorated or plain and marked and alone and (not first[0].islower() or opens):
            out.append(header.text(keep_artists))
        elif not plain or not opens or not first[0].isupper() and first[0].islower() or spelled and not colon:
            out.append(line)
        elif alone:
            out.append(header.text(keep_artists))
        elif header.artist and following.strip() and is_name(header.artist):
            out.append(header.text(keep_artists))
        elif said and (head[1] or said[0].isupper()):  # "Verse 1: I ride the night bus home"
            out += [Header(*head).text(), said]
        else:
            out.append(line)
    return '\n'.join(out)


def is_name(text):
    """Tilly Ohm & Nori Static, not a line of lyrics: up to six words, capitals all."""
    words = text.split()
    return len(words) <= 6 and all(not word[0].islower() or word in ('and', 'feat.', 'ft.') for word in words) \
        and not text.endswith(('.', ',', '!', '?'))


def take_mark(line):
    """'We go (x2)' -> ('We go', 2); a line without a mark -> (line, 1)."""
    times = 1
    while match := MARK.search(line) or BARE_MARK.search(line):
        line, times = line[:match.start()].rstrip(), max(times, times_of(match))
    return line, times


def repeated_lines(text, title=''):
    """"We go (x2)" becomes two lines; "(x2)" alone repeats the lines above it, up to a header or a blank line."""
    out, start = [], 0  # where the block above begins
    for line in text.split('\n'):
        said, times = take_mark(line.rstrip())
        if is_header(said) or not line.strip():  # "[Hook] x2" is for expand_sections
            out.append(line)
            start = len(out)
        elif said == line.rstrip():
            out.append(line)
        elif said:
            out += [said] * times
        else:
            if start == len(out) and out and is_header(out[-1]):
                out[-1] += f' x{times}'
            out += out[start:] * (times - 1)
            start = len(out)  # the next (x2) is about what comes from here
    return '\n'.join(out)


def sections_of(text):
    """[[header, times, [lines]], ...]; the header of what stands before the first one is ''."""
    sections = [['', 1, []]]
    for line in text.split('\n'):
        times = re.search(r'(?<=\]) x(\d+)$', line)
        if is_header(line[:times.start()] if times else line):
            sections.append([line[:times.start()] if times else line, int(times[1]) if times else 1, []])
        else:
            sections[-1][2].append(line)
    return sections


def expand_sections(text, title=''):
    """[Hook] x2 has its lines twice; an empty [Hook] gets those of the last hook with lines, or goes without one."""
    last, out, length = {}, [], 0
    for header, times, lines in sections_of(text):
        said = '\n'.join(lines).strip('\n')
        key = header.split(':')[0].rstrip(']')
        name = re.sub(r' \S+$', '', key) if re.search(r' (\d+|[IVX]+)$', key) else key
        if said:
            last[key] = last[name] = said
        elif header and name.strip('[') not in ALONE:
            said = last.get(key) or last.get(name) or ''
            if not said or name in ('[Verse', '[Intro', '[Outro', '[Skit', '[Interlude'):
                continue
        if times > 1 and said and length < LONGEST:
            said = '\n'.join([said] * times)
        if header and not lines_said(lines) and length >= LONGEST:
            continue
        out.append('\n'.join(part for part in (header, said) if part))
        length += len(out[-1])
    return '\n\n'.join(part for part in out if part)


def lines_said(lines):
    return any(line.strip() for line in lines)
