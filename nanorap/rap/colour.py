"""
Words that rhyme in the same colour: on a terminal, and as an HTML page.

    print(ansi(text))
    page([text, ...], title)     # a whole HTML document
    annotate(text)               # what an editor shows of each line

End rhymes have a colour of their own per rhyme; a word within a line has the colour of the end rhyme that it sounds like.
"""

import html
from bisect import bisect_right
from itertools import groupby

from nanorap.rap.phonemes import vowels
from nanorap.rap.rhyme import NOT_WORDS, WEAK, WORD, label, rhymes, spans, syllables, without_ad_lib
from nanorap.rap.sections import starts_with_bracket

# light enough for dark terminals, dark enough for light ones; the page's are the same
COLOURS = 'e6194b 3cb44b 4363d8 f58231 911eb4 00a0a0 d03fc0 9a8000 4f9ee8 9a6324 808000 e06c75'.split()


def rhyme_spans(text, multisyllabic=False):
    """[(start, end, colour's number, internal), ...] in order: stanza by stanza, its end rhymes, and the words within lines
    that rhyme perfectly with one of them. multisyllabic: the words before a line's last, too, into which its rhyme reaches."""
    found, first, offset = [], 0, 0
    lines = text.split('\n')
    for plain, group in groupby(lines, key=lambda line: bool(line.strip()) and not starts_with_bracket(line)):
        stanza = '\n'.join(group)
        if plain:
            ends, numbers = spans(stanza), {}
            for start, end, name in ends:
                number = numbers.setdefault(name, first + len(numbers))
                found.append((offset + start, offset + end, number, False))
            longer = [(*place, name) for place, name in reaching(stanza, ends)] if multisyllabic else []
            found += [(offset + start, offset + end, numbers[name], True) for start, end, name in longer]
            taken, classes = {start for start, _, _ in [*ends, *longer]}, {}
            for start, end, name in ends:
                classes.setdefault(name, set()).add(stanza[start:end].lower())
            for match in WORD.finditer(NOT_WORDS.sub(lambda m: ' ' * len(m.group()), stanza)):
                word = match.group().lower()
                if match.start() in taken or word.strip("'’") in WEAK or not vowels(word):
                    continue
                name = next((name for name, words in classes.items() if word not in words and any(
                    (rhyme := rhymes(word, other)) and rhyme.kind != 'slant' for other in words)), None)
                if name:
                    found.append((offset + match.start(), offset + match.end(), numbers[name], True))
            first += len(numbers)
        offset += len(stanza) + 1
    return sorted(found)


def reaching(stanza, ends):
    """((start, end), label) of the words before the last of a line into which its longest rhyme with one of the four lines
    before or after it reaches: know in 'a born poet' / 'and I know it'. ends: of rhyme.spans()."""
    lines, starts = stanza.split('\n'), [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    rhymed = [(bisect_right(starts, start) - 1, name) for start, _, name in ends]
    for i, name in rhymed:
        count = max((rhymes(lines[j], lines[i]).syllables for j, other in rhymed if other == name and 0 < abs(i - j) <= 4),
                    default=0)
        for match in reversed(list(WORD.finditer(NOT_WORDS.sub('', without_ad_lib(lines[i]))))):
            if count < 1:
                break
            place, found = (starts[i] + match.start(), starts[i] + match.end()), len(vowels(match.group().lower()))
            count -= found
            if found and place not in {(start, end) for start, end, _ in ends}:
                yield place, name


BLOCK = 64  # lines that are listened to together: beyond, what a text costs would grow with its square


def annotate(text):
    """What an editor shows of each line, [dict, ...]: its syllables; letter, of its end rhyme, from A on in each stanza, or '';
    spans, [[start, end, colour's number, internal], ...] in the line. Stanzas are cut after so many lines as BLOCK."""
    found, first = [], 0
    lines = text.split('\n')
    for i in range(0, len(lines), BLOCK):
        block, letters, start = lines[i : i + BLOCK], {}, 0
        marks = rhyme_spans('\n'.join(block), multisyllabic=True)
        for line in block:
            if not line.strip() or starts_with_bracket(line):
                letters = {}
            end = start + len(line)
            own = [(a - start, b - start, first + number, internal) for a, b, number, internal in marks if start <= a < end]
            letter = next((letters.setdefault(number, label(len(letters))) for _, _, number, internal in own if not internal),
                          '')
            found.append(dict(syllables=syllables(line), letter=letter.upper(), spans=own))
            start = end + 1
        first += 1 + max((number for _, _, number, _ in marks), default=-1)
    return found


def _marked(text, mark, escape=str):
    """The text with mark(word, number, internal) for every rhyming word."""
    parts, done = [], 0
    for start, end, number, internal in rhyme_spans(text):
        parts += [escape(text[done:start]), mark(escape(text[start:end]), number % len(COLOURS), internal)]
        done = end
    return ''.join([*parts, escape(text[done:])])


def ansi(text):
    """For a terminal: end rhymes in bold, internal ones plain, each rhyme in its colour."""
    def mark(word, number, internal):
        red, green, blue = bytes.fromhex(COLOURS[number])
        return f"\x1b[{'' if internal else '1;'}38;2;{red};{green};{blue}m{word}\x1b[0m"

    return _marked(text, mark)


def fragment(text):
    """For a page: <span class="r0">end</span> and <span class="r0 i">internal</span>, in a <pre>."""
    def mark(word, number, internal):
        return f'<span class="r{number}{" i" * internal}">{word}</span>'

    return f'<pre>{_marked(text, mark, html.escape)}</pre>\n'


STYLE = ('body{max-width:46em;margin:2em auto;padding:0 1em;background:#fff;color:#222;font-family:sans-serif}'
         'pre{font:inherit;line-height:1.5;white-space:pre-wrap;border-top:1px solid #ccc;padding-top:1em}'
         '[class^=r]{font-weight:bold}.i{font-weight:normal!important;border-bottom:1px dotted}'
         + ''.join(f'.r{i}{{color:#{colour}}}' for i, colour in enumerate(COLOURS)))


def page(texts, title):
    """A whole HTML document with the texts one below the other; no scripts, nothing from elsewhere."""
    return ('<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
            f'<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n<h1>{html.escape(title)}</h1>\n'
            + ''.join(map(fragment, texts)) + '</html>\n')
