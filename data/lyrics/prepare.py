"""
Lyrics to token files: data.json, as preprocess.py writes it, to train.bin, val.bin and meta.json beside this script.

$ python data/lyrics/prepare.py
$ python data/lyrics/prepare.py --input=songs.json --tokenizer=smollm2 --out_dir=data/my_lyrics

A share of whole songs is held out for validation, chosen by a hash of each song's group: it never moves, and versions of
one song stay on one side.
"""

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parents[1]))

from nanorap import UserError
from nanorap.dataset import is_held_out, write_dataset
from nanorap.tokenizer import CharTokenizer, load_tokenizer


def read_songs(path):
    """The songs of a data.json one by one, without holding the file: it has one entry a line."""
    if not path.exists():
        raise UserError(f"{path} is missing: make it with data_generator/crawl.py and data_generator/preprocess.py, or give "
                        "--input=FILE. `make demo` shows the way with the songs in data/lyrics/demo")
    try:
        with open(path, encoding='utf-8') as f:
            for number, line in enumerate(f, 1):
                line = line.strip().rstrip(',')
                if line not in ('', '[', ']'):
                    try:
                        song = json.loads(line)
                        yield song['text'] + '', (song.get('group') or song['text']) + ''  # a TypeError where it's no string
                    except (ValueError, KeyError, TypeError, AttributeError) as e:
                        raise UserError(f"{path}, line {number}: not a song ({e!r}). Each line between [ and ] holds one: "
                                        '{"text": "…", "group": "…"}, as preprocess.py writes it') from None
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"can't read {path} ({getattr(e, 'strerror', None) or e}): give a file in UTF-8") from None


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--input', default=here / 'data.json', type=Path)
parser.add_argument('--tokenizer', default='gpt2', help="gpt2, char, smollm2, or a model's folder (default: gpt2)")
parser.add_argument('--out_dir', default=here, type=Path)
parser.add_argument('--val_share', default=0.1, type=float, help="of the songs, held out (default: 0.1)")
args = parser.parse_args()

if args.tokenizer == 'char':
    tokenizer = CharTokenizer({char for text, _ in read_songs(args.input) for char in text})
else:
    tokenizer = load_tokenizer(args.tokenizer)
songs = (('val' if is_held_out(group, args.val_share) else 'train', text) for text, group in read_songs(args.input))
meta = write_dataset(args.out_dir, tokenizer, tqdm(songs, unit=' songs', disable=not sys.stderr.isatty()))
for split, count in meta['splits'].items():
    print(f"{args.out_dir / split}.bin: {count['documents']:,} songs, {count['tokens']:,} tokens ({args.tokenizer})")
