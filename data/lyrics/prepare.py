"""
Lyrics to token files: data.json, as preprocess.py writes it, to train.bin, val.bin and meta.json beside this script.

$ python data/lyrics/prepare.py
$ python data/lyrics/prepare.py --input=songs.jsonl --tokenizer=smollm2 --out_dir=data/my_lyrics --header=artist,title
$ python data/lyrics/prepare.py --input=JunhaoYu/processed_rap_lyrics       # a dataset on the Hugging Face hub

A share of whole songs is held out for validation, chosen by a hash of each song's group: it never moves, and versions of
one song stay on one side.
"""

import argparse
import sys
import time
from pathlib import Path

from tqdm import tqdm

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parents[1]))

from nanorap.common import UserError
from nanorap.dataset import is_held_out, read_documents, write_dataset
from nanorap.tokenizer import CharTokenizer, load_tokenizer

HEADERS = {'artist': 'artist_name', 'title': 'song_name'}  # what --header may name, and the entry's key for it

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--input', default=here / 'data.json', type=Path,
                    help="data.json or JSON lines, or a dataset's name on the hub (default: data.json beside this script)")
parser.add_argument('--column', default='text', help="what holds a song's lyrics (default: text)")
parser.add_argument('--header', default='', help="artist,title, or one of them: lines [Artist: …] and [Title: …] before each "
                    "song, so that the model can be asked for an artist's manner (default: none)")
parser.add_argument('--tokenizer', default='gpt2', help="gpt2, char, smollm2, or a model's folder (default: gpt2)")
parser.add_argument('--out_dir', default=here, type=Path)
parser.add_argument('--val_share', default=0.1, type=float, help="of the songs, held out (default: 0.1)")
args = parser.parse_args()

header = [name for name in args.header.split(',') if name]
if unknown := set(header) - HEADERS.keys():
    raise UserError(f"prepare.py: --header={args.header}: '{unknown.pop()}' is neither artist nor title")
if args.input == here / 'data.json' and not args.input.exists():
    raise UserError(f"{args.input} is missing: make it with data_generator/crawl.py and data_generator/preprocess.py, or give "
                    "--input=FILE. `make demo` shows the way with the songs in data/lyrics/demo")


def read_songs():
    """(what decides the song's side, its text) one by one."""
    for song in read_documents(args.input, args.column):
        lines = ''
        for name in header:
            value = song.get(HEADERS[name])
            if not isinstance(value, str):
                raise UserError(f"--header={args.header}, but a song in {args.input} has no '{HEADERS[name]}': leave it "
                                "out, or add it to every song")
            lines += f"[{name.title()}: {' '.join(value.split())}]\n"
        yield song.get('group') or song[args.column], lines + song[args.column]


t0 = time.perf_counter()
if args.tokenizer == 'char':
    tokenizer = CharTokenizer({char for _, text in read_songs() for char in text})
else:
    tokenizer = load_tokenizer(args.tokenizer)
songs = (('val' if is_held_out(str(group), args.val_share) else 'train', text) for group, text in read_songs())
meta = write_dataset(args.out_dir, tokenizer, tqdm(songs, unit=' songs', disable=None), header=header)
for split, count in meta['splits'].items():
    print(f"{args.out_dir / split}.bin: {count['documents']:,} songs, {count['tokens']:,} tokens ({args.tokenizer})")
print(f"{sum(count['tokens'] for count in meta['splits'].values()) / (time.perf_counter() - t0):,.0f} tokens/s")
