"""
OpenWebText to token files: 8 million documents, 9 billion GPT-2 tokens (figures of nanoGPT's README; untried
here), to train.bin, val.bin and meta.json beside this script.

$ python data/openwebtext/prepare.py
$ python data/openwebtext/prepare.py --input=FILE.jsonl     # these or others, one {"text": …} per line

The dataset is streamed from the Hugging Face hub, https://huggingface.co/datasets/Skylion007/openwebtext.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parents[1]))

from nanorap.dataset import read_documents, split_documents, write_dataset
from nanorap.tokenizer import load_tokenizer

sys.stdout.reconfigure(errors='replace')  # for a console that lacks a letter of what is printed
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
add = parser.add_argument
add('--input', default='Skylion007/openwebtext', help="a dataset on the hub, or a .jsonl file")
add('--tokenizer', default='gpt2', help="gpt2, smollm2, or a model's folder (default: gpt2)")
add('--out_dir', default=here, type=Path)
add('--val_share', default=0.0005, type=float, help="of the documents, held out (default: 0.0005)")
args = parser.parse_args()

texts = (document['text'] for document in read_documents(args.input))
documents = ((text, text) for text in tqdm(texts, unit=' documents', disable=None))
documents = split_documents(documents, args.val_share)
meta = write_dataset(args.out_dir, load_tokenizer(args.tokenizer), documents)
for split, count in meta['splits'].items():
    print(f"{args.out_dir / split}.bin: {count['documents']:,} documents, {count['tokens']:,} tokens")
