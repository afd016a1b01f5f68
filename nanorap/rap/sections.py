"""The grammar of section headers, [Verse 1]: which names there are, and what can be counted of a song's form."""

import re

HEADER = re.compile(r'^\s*\[([^\]\n]*)\]\s*$')
SECTIONS = re.compile(r"(intro|verse|pre-?chorus|post-?chorus|chorus|hook|pre-?hook|refrain|bridge|interlude|breakdown|break|"
                      r"skit|part|outro|drop|instrumental|build|artist|title)\b[^\[\]]*", re.I)


def structure(text, cut=False):
    """What can be counted of a song's form, a dict. valid: whether it has section headers, and no other line in brackets;
    repeated_lines: the share of lines that stood before; cut: whether it stopped in the middle of a song."""
    lines = [line.strip() for line in text.split('\n') if line.strip()]
    headers = [match[1] for line in lines if (match := HEADER.match(line))]
    sung = [line.lower() for line in lines if not HEADER.match(line)]
    return dict(valid=float(bool(headers) and all(SECTIONS.fullmatch(name.strip()) for name in headers)), sections=len(headers),
                lines_per_section=len(sung) / max(1, len(headers)),
                repeated_lines=1 - len(set(sung)) / len(sung) if sung else 0.0, empty=float(not sung), cut=float(cut))
