"""
Words that rhyme in the same colour: on a terminal, and as an HTML page.

    print(ansi(text))
    page([text, ...], title)     # a whole HTML document
    annotate(text)               # what an editor shows of each line

Each end rhyme has its own colour; a word within a line has the colour of the end rhyme that it rhymes with.
"""

import html
from bisect import bisect_right
from itertools import accumulate, groupby

from nanorap.rap.phonemes import vowels
from nanorap.rap.rhyme import (
    WEAK,
    find_words,
    rhyme_label,
    rhymes,
    rhyming_words,
    syllables,
    without_ad_lib,
)
from nanorap.rap.sections import starts_with_bracket

# light enough for dark terminals, dark enough for light ones; the page's are the same
COLOURS = 'e6194b 3cb44b 4363d8 f58231 911eb4 00a0a0 d03fc0 9a8000 4f9ee8 9a6324 808000 e06c75'.split()


def rhyme_spans(text, multisyllabic=False):
    """Return where words rhyme, (start, end, number of the colour, whether it is internal), in order.

    Stanza by stanza, these are the end rhymes and the words within lines that rhyme perfectly with one of
    them. multisyllabic: also the words before a line's last that its rhyme extends into.
    """
    spans = []
    first, offset = 0, 0  # of each stanza: the number of its first colour, and where it begins
    for is_lyrics, group in groupby(text.split('\n'), key=is_lyric_line):
        stanza = '\n'.join(group)
        if is_lyrics:
            ends = rhyming_words(stanza)
            labels = dict.fromkeys(label for _, _, label in ends)
            numbers = {label: first + i for i, label in enumerate(labels)}
            inner = list(multisyllabic_words(stanza, ends)) if multisyllabic else []
            inner += internal_rhymes(stanza, ends, {start for start, _, _ in [*ends, *inner]})
            for is_internal, words in ((False, ends), (True, inner)):
                for start, end, label in words:
                    spans.append((offset + start, offset + end, numbers[label], is_internal))
            first += len(numbers)
        offset += len(stanza) + 1
    return sorted(spans)


def is_lyric_line(line):
    """Return whether a line is neither blank nor a header."""
    return bool(line.strip()) and not starts_with_bracket(line)


def multisyllabic_words(stanza, ends):
    """Yield (start, end, label) of words before the line's last that a multisyllabic rhyme extends into.

    One is 'know' in 'a born poet / and I know it'. A line's longest rhyme with one of the four lines before
    or after it counts. ends: rhyming_words() of the stanza.
    """
    lines = stanza.split('\n')
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    rhyming_lines = [(bisect_right(starts, start) - 1, label) for start, _, label in ends]
    last_words = {(start, end) for start, end, _ in ends}
    for i, label in rhyming_lines:
        partners = [j for j, other in rhyming_lines if other == label and 0 < abs(i - j) <= 4]
        n_left = max((rhymes(lines[j], lines[i]).syllables for j in partners), default=0)
        for start, end, word in reversed(find_words(without_ad_lib(lines[i]))):
            if n_left < 1:
                break
            n_left -= len(vowels(word))
            if (starts[i] + start, starts[i] + end) not in last_words:
                yield starts[i] + start, starts[i] + end, label


def internal_rhymes(stanza, ends, taken):
    """Yield (start, end, label) of words within lines that rhyme perfectly with an end rhyme.

    ends: rhyming_words() of the stanza. taken: where words start that have a colour already.
    """
    words = find_words(stanza)
    label_of = {start: label for start, _, label in ends}
    words_of = {}  # label -> the last words of its lines
    for start, _, word in words:
        if start in label_of:
            words_of.setdefault(label_of[start], set()).add(word)

    def rhymes_perfectly(word, others):
        pairs = (rhymes(word, other) for other in others)
        return word not in others and any(rhyme and rhyme.kind != 'slant' for rhyme in pairs)

    for start, end, word in words:
        if start in taken or word.strip("'") in WEAK:
            continue
        for label, others in words_of.items():
            if rhymes_perfectly(word, others):
                yield start, end, label
                break


# lines that are compared with each other: for a whole text, time would grow with its length squared
BLOCK = 64


def annotate(text):
    """Return what an editor shows of each line, a list of dicts.

    syllables: their number. letter: of its end rhyme, from A on in each stanza, or ''. spans: [start, end,
    number of the colour, whether it is internal] within the line. Rhymes don't reach beyond BLOCK lines.
    """
    annotations, first_colour = [], 0
    lines = text.split('\n')
    for i in range(0, len(lines), BLOCK):
        block = lines[i : i + BLOCK]
        block_spans = rhyme_spans('\n'.join(block), multisyllabic=True)
        letters, start = {}, 0
        for line in block:
            if not is_lyric_line(line):
                letters = {}
            end = start + len(line)
            spans = [(a - start, b - start, first_colour + number, is_internal)
                     for a, b, number, is_internal in block_spans if start <= a < end]
            end_rhymes = [number for _, _, number, is_internal in spans if not is_internal]
            letter = ''
            if end_rhymes:
                letter = letters.setdefault(end_rhymes[0], rhyme_label(len(letters))).upper()
            annotations.append(dict(syllables=syllables(line), letter=letter, spans=spans))
            start = end + 1
        first_colour += 1 + max((number for _, _, number, _ in block_spans), default=-1)
    return annotations


def _marked(text, mark, escape=str):
    """Return the text with mark(word, colour, is_internal) in place of every rhyming word."""
    parts, done = [], 0
    for start, end, number, is_internal in rhyme_spans(text):
        parts += [escape(text[done:start]), mark(escape(text[start:end]), number % len(COLOURS), is_internal)]
        done = end
    return ''.join([*parts, escape(text[done:])])


def ansi(text):
    """Return the text for a terminal: end rhymes bold, internal ones not, each rhyme in its colour."""
    def mark(word, colour, is_internal):
        red, green, blue = bytes.fromhex(COLOURS[colour])
        return f"\x1b[{'' if is_internal else '1;'}38;2;{red};{green};{blue}m{word}\x1b[0m"

    return _marked(text, mark)


def fragment(text):
    """Return the text for a page: <span class="r0">end</span> and <span class="r0 i">internal</span>, in a
    <pre>."""
    def mark(word, colour, is_internal):
        return f'<span class="r{colour}{" i" if is_internal else ""}">{word}</span>'

    return f'<pre>{_marked(text, mark, html.escape)}</pre>\n'


STYLE = ('body{max-width:46em;margin:2em auto;padding:0 1em;background:#fff;color:#222;'
         'font-family:sans-serif}'
         'pre{font:inherit;line-height:1.5;white-space:pre-wrap;border-top:1px solid #ccc;padding-top:1em}'
         '[class^=r]{font-weight:bold}.i{font-weight:normal!important;border-bottom:1px dotted}'
         + ''.join(f'.r{i}{{color:#{colour}}}' for i, colour in enumerate(COLOURS)))


def page(texts, title):
    """Return an HTML document with the texts one below the other; it loads nothing and has no scripts."""
    return ('<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width">\n'
            f'<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n<h1>{html.escape(title)}</h1>\n'
            + ''.join(map(fragment, texts)) + '</html>\n')
