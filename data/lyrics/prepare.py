"""
Lyrics to token files: data.json, as preprocess.py writes it, to train.bin, val.bin and meta.json beside it.

$ python data/lyrics/prepare.py
$ python data/lyrics/prepare.py --input=songs.jsonl --tokenizer=smollm2 --out_dir=data/my_lyrics
$ python data/lyrics/prepare.py --header=artist,title       # each song begins with its artist and its title
$ python data/lyrics/prepare.py --input=JunhaoYu/processed_rap_lyrics     # a dataset on the Hugging Face hub

A share of whole songs is held out for validation, chosen by a hash of each song's group: a song is always on
the same side, and so are all versions of it.
"""

import argparse
import sys
import time
from pathlib import Path

from tqdm import tqdm

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parents[1]))

from nanorap.common import UserError, header_line
from nanorap.dataset import is_blank, read_documents, split_documents, write_dataset
from nanorap.tokenizer import CharTokenizer, load_tokenizer

# {what --header may name: its key in data.json}
HEADER_KEYS = {'artist': 'artist_name', 'title': 'song_name'}

sys.stdout.reconfigure(errors='replace')  # for a console that lacks a letter of what is printed
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
add = parser.add_argument
add('--input', default=here / 'data.json', type=Path,
    help="data.json or JSON lines, or a dataset's name on the hub (default: data.json beside this script)")
add('--column', default='text', help="the key of a song's lyrics (default: text)")
add('--header', default='',
    help="artist,title, or one of them: lines [Artist: …] and [Title: …] before each song, so that the model "
         "can be asked for an artist's manner (default: none)")
add('--tokenizer', default='gpt2', help="gpt2, char, smollm2, or a model's folder (default: gpt2)")
add('--out_dir', default=here, type=Path)
add('--val_share', default=0.1, type=float, help="of the songs, held out (default: 0.1)")
args = parser.parse_args()

header = [name for name in args.header.split(',') if name]
if unknown := set(header) - HEADER_KEYS.keys():
    raise UserError(f"prepare.py: --header={args.header}: '{unknown.pop()}' is neither artist nor title")
if args.input == here / 'data.json' and not args.input.exists():
    raise UserError(
        f"{args.input} is missing: make it with data_generator/crawl.py and data_generator/preprocess.py, or "
        "give --input=FILE. `make demo` shows the way with the songs in data/lyrics/demo")


def read_songs():
    """Yield (group, text) of each song; the group decides whether the song is held out."""
    for song in read_documents(args.input, args.column):
        lines = ''
        for name in header:
            value = song.get(HEADER_KEYS[name])
            if not isinstance(value, str):
                raise UserError(
                    f"--header={args.header}, but a song in {args.input} has no '{HEADER_KEYS[name]}': "
                    "leave it out, or add it to every song")
            lines += header_line(name, value)
        text = song[args.column]
        yield str(song.get('group') or text), '' if is_blank(text) else lines + text


start = time.perf_counter()
if args.tokenizer == 'char':
    tokenizer = CharTokenizer({char for _, text in read_songs() for char in text})
else:
    tokenizer = load_tokenizer(args.tokenizer)
songs = split_documents(tqdm(read_songs(), unit=' songs', disable=None), args.val_share)
meta = write_dataset(args.out_dir, tokenizer, songs, header=header)
seconds = time.perf_counter() - start
for split, count in meta['splits'].items():
    print(f"{args.out_dir / split}.bin: {count['documents']:,} songs, {count['tokens']:,} tokens "
          f"({args.tokenizer})")
tokens = sum(count['tokens'] for count in meta['splits'].values())
print(f"{tokens / seconds:,.0f} tokens/s")
