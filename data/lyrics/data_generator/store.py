"""The files of crawl.py, each whole or absent, and the names of artists on disk and on a terminal."""

import contextlib
import hashlib
import json
import os
import re
import sys
import unicodedata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from nanorap.common import UserError, replaced_file


def slug(name):
    """Return a folder name: readable ASCII, and a hash of the name unless the readable part identifies it."""
    ascii_name = unicodedata.normalize('NFKD', name).encode('ascii', 'ignore').decode().lower()
    readable = re.sub(r'[^a-z0-9]+', '-', ascii_name).strip('-')[:50].strip('-')
    # Windows keeps con, nul, com1 ... for its devices
    reserved = re.fullmatch(r'con|prn|aux|nul|com\d|lpt\d', readable)
    if readable and name == readable.replace('-', ' ').title() and not reserved:
        return readable
    digest = hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]
    return f'{readable or "artist"}-{digest}'


def printable(text):
    """Return text that somebody else wrote as one line for a terminal, without control characters."""
    return ' '.join(''.join(char if char.isprintable() else ' ' for char in text).split())


def read_object(path):
    """Return the object in a JSON file; {} for a missing or broken one, which is then made again."""
    try:
        value = json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path, value):
    """Write a JSON file; one that is cut off, or meets a full disk, leaves the old file or none."""
    try:
        with replaced_file(path, 'wb') as file:
            file.write(json.dumps(value, ensure_ascii=False, indent=1).encode('utf-8', 'replace'))
    except OSError as error:
        message = f"crawl.py: can't write {path} ({error.strerror}); make room or give another --data_dir"
        raise UserError(message) from None


def lock_folder(data_dir):
    """Lock the folder until this process ends; UserError if another crawl holds the lock.

    Two crawls in one folder would overwrite each other's manifest, and ask Genius twice as often. The
    system lifts the lock even of a crawl that is killed.
    """
    # Windows and some network disks have no such lock; whether the folder can be written to shows when it is
    with contextlib.suppress(OSError, ImportError):
        data_dir.mkdir(parents=True, exist_ok=True)
        import fcntl

        try:
            fcntl.flock(os.open(data_dir, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f'crawl.py: another crawl is at work in {data_dir}; wait for its end') from None


def remove_leftovers(data_dir):
    """Remove what a killed run left half-written."""
    for leftover in [*data_dir.glob('*.json.tmp'), *data_dir.glob('*/*.json.tmp')]:
        with contextlib.suppress(OSError):  # it is never read
            leftover.unlink()


def read_manifest(path):
    """Return the artists of earlier runs.

    An entry that isn't as the crawler writes it is left out: the song files say what is there.
    """

    def is_whole(entry):
        if not isinstance(entry, dict):
            return False
        has_fields = isinstance(entry.get('id'), int) and isinstance(entry.get('songs'), dict)
        return has_fields and re.fullmatch(r'[a-z0-9-]+', str(entry.get('folder')))

    return {key: entry for key, entry in read_object(path).items() if is_whole(entry)}


def read_folder(folder):
    """Return {id: song} of the songs on disk, without broken files and complete songs without lyrics."""
    songs = {int(path.stem): read_object(path) for path in folder.glob('*.json') if path.stem.isdecimal()}

    def is_whole(song):
        return song.get('state') != 'complete' or song.get('lyrics')

    return {number: song for number, song in songs.items() if is_whole(song)}


def read_names(artists, artist_file):
    """Return the names of the file, then those of the command line, in order and without repetitions."""
    lines = []
    if artist_file:
        try:
            lines = Path(artist_file).read_text(encoding='utf-8-sig').splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or 'not UTF-8 text'
            raise UserError(f"crawl.py: can't read --artist_file {artist_file} ({reason})") from None
    in_file = [line for line in lines if not line.lstrip().startswith('#')]
    for line in lines:
        if re.match(r'\s*#[^\s#]', line):  # a comment has a blank there, as a rule
            print(f'crawl.py: {artist_file}: "{printable(line)}" is left out as a comment; if it is a name, '
                  'give it with --artists', file=sys.stderr)
    names = [name.strip() for name in [*in_file, *artists]]
    if not any(names):
        raise UserError(
            'crawl.py: no artists; give --artists "A" "B", or --artist_file with one name per line')
    return list(dict.fromkeys(name for name in names if name))
