"""
Sample from a model: one that train.py made, or a pretrained one.

$ python sample.py --out_dir=out-lyrics --start="FILE:demo.txt"
$ python sample.py --init_from=gpt2-xl --start="[Verse 1]" --num_samples=5 --max_new_tokens=100
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from model import GPT, KVCache
from nanorap import UserError
from nanorap.generate import generate
from nanorap.runtime import setup
from nanorap.tokenizer import load_tokenizer

# -----------------------------------------------------------------------------
out_dir: str  # a run's folder, whose best/ is loaded
init_from = 'resume'  # resume (from out_dir), or gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, a folder or hub name
start = ''  # the prompt, or FILE:path. Empty: start from end of text
num_samples = 10  # drawn in one batch
max_new_tokens = 500  # of each sample, which may end before
temperature = 0.8  # 1.0: as the model says; lower: less random; 0.0: always the most likely token
top_k: int | None = 200  # draw from the k most likely tokens. None: from all
top_p = 1.0  # draw from the most likely tokens that hold this share of the probability
seed: int
output: str | None = None  # also write the samples to this file; .jsonl: one JSON object a sample
device: str
dtype: str
# -----------------------------------------------------------------------------
exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'configurator.py')).read())

rt = setup(device, dtype)
for bad, advice in [(num_samples < 1, "num_samples must be 1 or more"),
                    (max_new_tokens < 1, "max_new_tokens must be 1 or more"),
                    (seed < 0, "seed must be 0 or more"),
                    (temperature < 0, "temperature must be 0 or more"),
                    (top_k is not None and top_k < 1, "top_k must be 1 or more, or None for all tokens"),
                    (not 0 < top_p <= 1, "top_p must lie above 0, and at most at 1")]:
    if bad:
        raise UserError(f"sample.py: {advice}")
if start.startswith('FILE:'):
    try:
        start = Path(start[5:]).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"can't read the prompt file {start[5:]}: {getattr(e, 'strerror', None) or e}") from None
if init_from == 'resume' and not (Path(out_dir) / 'best' / 'config.json').exists():
    raise UserError(f"{out_dir}/best holds no checkpoint: train one first (python train.py config/….py --out_dir={out_dir}), "
                    "name another --out_dir, or use a pretrained model (--init_from=gpt2 or smollm2)")

# the model and its tokenizer
name = out_dir if init_from == 'resume' else init_from
tokenizer = load_tokenizer(name)
model = GPT.from_pretrained(name).eval().to(rt.device, rt.dtype)
make_cache = partial(KVCache, model.config, device=rt.device, dtype=rt.dtype)

# the prompt
prompt = tokenizer.encode(start) or [tokenizer.eot]
if max(prompt) >= model.config.vocab_size:
    raise UserError(f"the prompt has token id {max(prompt)}, beyond the model's vocabulary of {model.config.vocab_size}: "
                    f"the tokenizer of {name} is another model's")
if len(prompt) > model.config.block_size:
    print(f"note: the prompt has {len(prompt)} tokens; the model sees the last {model.config.block_size}", file=sys.stderr)
vocab_size = min(tokenizer.vocab_size, model.config.vocab_size)
steps = generate(model, make_cache, prompt[-model.config.block_size :], num_samples, max_new_tokens, vocab_size, tokenizer.eot,
                 seed, temperature=temperature, top_k=top_k, top_p=top_p)


def text_of(ids):
    """The prompt as it was given, and what the new ids add to it."""
    # decoded together: some tokenizers drop the space before a text's first word
    return start + tokenizer.decode(context + ids)[len(tokenizer.decode(context)) :]


# draw; one sample on a terminal is printed as it comes
context = prompt if start else []
samples, shown = [[] for _ in range(num_samples)], 0
stream = num_samples == 1 and sys.stdout.isatty()
progress = tqdm(steps, total=max_new_tokens, unit='token', leave=False, disable=stream or not sys.stderr.isatty())
for ids in progress:
    for sample, token in zip(samples, ids, strict=True):
        if token is not None:
            sample.append(token)
    if stream:
        text = text_of(samples[0]).rstrip('\ufffd')  # the bytes of a character may come in several tokens
        print(text[shown:], end='', flush=True)
        shown = max(shown, len(text))
texts = [text_of(sample) for sample in samples]

if stream:
    print(texts[0][shown:])
else:
    print(*texts, sep='\n---------------\n')
if output:
    if output.endswith('.jsonl'):
        settings = dict(prompt=start, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p, model=name)
        samples = [dict(text=text, sample=i, **settings) for i, text in enumerate(texts)]
        content = ''.join(json.dumps(sample, ensure_ascii=False) + '\n' for sample in samples)
    else:
        content = '\n---------------\n'.join(texts) + '\n'
    try:
        Path(output).write_text(content, encoding='utf-8')
    except OSError as e:
        raise UserError(f"can't write --output={output}: {e.strerror}") from None
