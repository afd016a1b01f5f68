"""
The works of Shakespeare, 1.1 MB, as GPT-2 tokens: train.bin, val.bin and meta.json beside this script.

$ python data/shakespeare/prepare.py
$ python data/shakespeare/prepare.py --input=FILE      # any other text, or the same without a download
"""

import argparse
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parents[1]))

from nanorap.dataset import read_text, write_dataset
from nanorap.tokenizer import load_tokenizer

SOURCE = 'https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt'

sys.stdout.reconfigure(errors='replace')  # for a console that lacks a letter of what is printed
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--input', default=SOURCE, help="a text file, or its URL")
parser.add_argument('--out_dir', default=here, type=Path)
parser.add_argument('--tokenizer', default='gpt2', help="gpt2, smollm2, or a model's folder")
args = parser.parse_args()

text = read_text(args.input)
n = int(len(text) * 0.9)
meta = write_dataset(args.out_dir, load_tokenizer(args.tokenizer), [('train', text[:n]), ('val', text[n:])])
print(f"train: {meta['splits']['train']['tokens']:,} tokens, "
      f"val: {meta['splits']['val']['tokens']:,} tokens")
