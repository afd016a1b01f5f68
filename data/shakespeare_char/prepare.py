"""
The works of Shakespeare, 1.1 MB, a token per character: train.bin, val.bin and meta.json beside this script.

$ python data/shakespeare_char/prepare.py
$ python data/shakespeare_char/prepare.py --input=FILE      # any other text, or the same without a download
"""

import argparse
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parents[1]))

from nanorap.dataset import read_text, write_dataset
from nanorap.tokenizer import CharTokenizer

SOURCE = 'https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt'

sys.stdout.reconfigure(errors='replace')  # for a console that lacks a letter of what is printed
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--input', default=SOURCE, help="a text file, or its URL")
parser.add_argument('--out_dir', default=here, type=Path)
args = parser.parse_args()

text = read_text(args.input)
n = int(len(text) * 0.9)
meta = write_dataset(args.out_dir, CharTokenizer(text), [('train', text[:n]), ('val', text[n:])])
print(f"{meta['vocab_size']} characters, end of text included; "
      f"train: {meta['splits']['train']['tokens']:,} tokens, val: {meta['splits']['val']['tokens']:,} tokens")
