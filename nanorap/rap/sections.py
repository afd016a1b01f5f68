"""The grammar of section headers such as [Verse 1]: their names, their patterns, measures of a song's form.

Cleaning writes these headers, training texts hold them, generation and evaluation recognise them. No torch.
"""

import re

# the names that cleaning writes and evaluation accepts
SECTION_NAMES = (
    'Intro', 'Verse', 'Pre-Chorus', 'Chorus', 'Post-Chorus', 'Pre-Hook', 'Hook', 'Post-Hook', 'Refrain',
    'Bridge', 'Interlude', 'Instrumental', 'Breakdown', 'Break', 'Drop', 'Build', 'Beat Switch',
    'Outro', 'Skit', 'Part', 'Segue', 'Spoken', 'Sample', 'Ad-Libs', 'Freestyle', 'Vamp', 'Chant',
    'Transition', 'Prelude', 'Epilogue', 'Non-Lyrical Vocals', 'Vocals')
NAME_PATTERN = '|'.join(SECTION_NAMES)

# a line that is a section header, or any other text in brackets; the group is what the brackets hold
HEADER_LINE = re.compile(r'^[^\S\n]*\[([^\]\n]*)\][^\S\n]*$', re.MULTILINE)
# the same while a model is still writing it: the closing bracket may be missing
OPEN_HEADER_LINE = re.compile(r'\s*\[[^\]\n]*\]?\s*$')
# a header exactly as cleaning writes it: [Verse], [Verse 2], [Part II], [Verse 2: Tilly Ohm]
CANONICAL_HEADER = re.compile(rf'\[({NAME_PATTERN})(?: (?:\d+|[IVX]+))?(?:: [^\[\]\n]+)?\]')
# the lines [Artist: …] and [Title: …] that a text begins with if its data was prepared with --header
SONG_HEADER = re.compile(r'\A(?:\[(?:Artist|Title): [^\n]*\]\n)+')
# what a valid header may hold: a section's name in any case, with or without its hyphen, or artist or title;
# then anything but brackets
VALID_HEADER = re.compile(rf'(?:{NAME_PATTERN.replace("-", "-?")}|artist|title)\b[^\[\]]*', re.IGNORECASE)


def starts_with_bracket(line):
    """Return whether a line starts like a header; unlike HEADER_LINE, whatever follows."""
    return line.lstrip().startswith('[')


def structure(text, cut=False):
    """Measure a song's form; return a dict of numbers.

    valid: 1.0 if the text has section headers and every line in brackets is one
    sections, lines_per_section: the headers; the other lines per header
    repeated_lines: the share of these other lines that stood before
    empty: 1.0 if there are no other lines
    cut: 1.0 if the text stopped in the middle of a song, which the caller has to know
    """
    lines = [line.strip() for line in text.split('\n') if line.strip()]
    headers = [match[1].strip() for line in lines if (match := HEADER_LINE.match(line))]
    lyrics = [line.lower() for line in lines if not HEADER_LINE.match(line)]
    valid = bool(headers) and all(VALID_HEADER.fullmatch(header) for header in headers)
    return dict(
        valid=float(valid),
        sections=len(headers),
        lines_per_section=len(lyrics) / max(1, len(headers)),
        repeated_lines=1 - len(set(lyrics)) / len(lyrics) if lyrics else 0.0,
        empty=float(not lyrics),
        cut=float(cut))
