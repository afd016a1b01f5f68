"""What the crawler keeps on disk, each file whole or not there, and the names of artists as the user and the disk have them."""

import contextlib
import hashlib
import json
import os
import re
import sys
import unicodedata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from nanorap.common import UserError  # noqa: E402


def fold(name):
    """Letters and digits alone, without case and accents; a name of nothing but signs stays as it is."""
    plain = unicodedata.normalize('NFKD', unicodedata.normalize('NFKD', name).casefold())
    plain = plain.translate(str.maketrans({'ø': 'o', 'ł': 'l', 'đ': 'd', 'ð': 'd', 'æ': 'ae', 'œ': 'oe', 'ı': 'i', 'þ': 'th'}))
    # other scripts write vowels as marks: those stay, only the accents of Latin, Greek and Cyrillic go
    return ''.join(c for c in plain if c.isalnum() or unicodedata.category(c)[0] == 'M' and c > '\u036f') or plain.strip()


def slug(name):
    """A folder name: readable ASCII, with a hash of the whole name unless the readable part gives the name back."""
    ascii_name = unicodedata.normalize('NFKD', name).encode('ascii', 'ignore').decode().lower()
    readable = re.sub(r'[^a-z0-9]+', '-', ascii_name).strip('-')[:50].strip('-')
    # Windows keeps con, nul, com1 ... for its devices
    reserved = re.fullmatch(r'con|prn|aux|nul|com\d|lpt\d', readable)
    if readable and name == readable.replace('-', ' ').title() and not reserved:
        return readable
    return f'{readable or "artist"}-{hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]}'


def plain(text):
    """Text of a stranger on one line of a terminal, without control characters."""
    return ' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())


def read_json(path):
    """The object in a JSON file; {} for a missing or broken one, which is then made again."""
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path, value):
    """All or nothing: a crawl that is cut off, or a disk that is full, leaves no half file under the final name."""
    temp = path.with_name(path.name + '.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temp, 'wb') as file:
            file.write(json.dumps(value, ensure_ascii=False, indent=1).encode('utf-8', 'replace'))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    except OSError as error:
        raise UserError(f"crawl.py: can't write {path} ({error.strerror}); make room or give another --data_dir") from None
    finally:
        with contextlib.suppress(OSError):  # there is none after a good end
            temp.unlink()


def claim(data_dir):
    """Makes the folder this crawl's own until it ends: two in one folder would undo each other's manifest, and ask Genius
    twice as often. The system lifts the lock even of a crawl that is killed; Windows has none."""
    with contextlib.suppress(OSError, ImportError):  # nor have some network disks; that it can't be written to, writing tells
        data_dir.mkdir(parents=True, exist_ok=True)
        import fcntl

        try:
            fcntl.flock(os.open(data_dir, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f'crawl.py: another crawl is at work in {data_dir}; wait for its end') from None


def sweep(data_dir):
    """Removes what a killed run left half-written."""
    for leftover in [*data_dir.glob('*.json.tmp'), *data_dir.glob('*/*.json.tmp')]:
        with contextlib.suppress(OSError):  # it harms no one
            leftover.unlink()


def read_manifest(path):
    """The artists of earlier runs; whatever isn't as save left it is forgotten, since the song files are the truth."""
    return {key: entry for key, entry in read_json(path).items()
            if isinstance(entry, dict) and isinstance(entry.get('id'), int) and isinstance(entry.get('songs'), dict)
            and re.fullmatch(r'[a-z0-9-]+', str(entry.get('folder')))}


def read_folder(folder):
    """{id: song} of the songs on disk; a broken file, or a complete song without lyrics, counts as not there."""
    songs = {int(path.stem): read_json(path) for path in folder.glob('*.json') if path.stem.isdecimal()}
    return {number: song for number, song in songs.items() if song.get('state') != 'complete' or song.get('lyrics')}


def read_names(artists, artist_file):
    """The names of the file, then those of the command line, in order and each once."""
    lines = []
    if artist_file:
        try:
            lines = Path(artist_file).read_text(encoding='utf-8-sig').splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or 'not UTF-8 text'
            raise UserError(f"crawl.py: can't read --artist_file {artist_file} ({reason})") from None
    names = [name.strip() for name in [*(line for line in lines if not line.lstrip().startswith('#')), *artists]]
    if not any(names):
        raise UserError('crawl.py: no artists; give --artists "A" "B", or --artist_file with one name a line')
    return list(dict.fromkeys(name for name in names if name))
