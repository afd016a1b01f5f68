"""
Sample from a model: one that train.py made, or a pretrained one.

$ python sample.py --out_dir=out-lyrics --start="FILE:demo.txt"
$ python sample.py --init_from=gpt2-xl --start="[Verse 1]" --num_samples=5 --max_new_tokens=100
$ python sample.py --out_dir=out-lyrics --rhyme=AABB --syllables=10 --show_rhymes
$ python sample.py --out_dir=out-lyrics --interactive
"""

import json
import os
import re
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from model import GPT
from nanorap import UserError, model_folder, read_json
from nanorap.bars import write_bars
from nanorap.cache import KVCache
from nanorap.colour import ansi, page
from nanorap.generate import generate
from nanorap.quantize import pack
from nanorap.runtime import setup
from nanorap.scheme import Endings, check_scheme
from nanorap.text import Sample, encode
from nanorap.tokenizer import load_tokenizer

# -----------------------------------------------------------------------------
out_dir: str  # a run's folder, whose best/ is loaded
init_from = 'resume'  # resume (from out_dir), or gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, a folder or hub name
start = ''  # the prompt, or FILE:path, with --- on a line between several. Empty: start from end of text
artist = ''  # in whose manner, and
title = ''  # under which title: for a model whose songs were prepared with --header
new_song: bool | None = None  # the prompt begins a song, after an end of text. None: for a model of data/lyrics/prepare.py
num_samples = 10  # of each prompt; all are drawn in one batch
max_new_tokens = 500  # of each sample, which may end before
stop = ''  # a sample ends before this text; | between several, \n for a line break
temperature = 0.8  # 1.0: as the model says; lower: less random; 0.0: always the most likely token
top_k: int | None = 200  # draw from the k most likely tokens. None: from all
top_p = 1.0  # draw from the most likely tokens that hold this share of the probability
min_p = 0.0  # draw from tokens at least this share as likely as the likeliest
repetition_penalty = 1.0  # above 1: tokens that were there before are less likely
rhyme = ''  # a scheme that lines are to keep, AABB, ABAB, XAXA (X is free), repeated over each section
syllables: int | None = None  # of each line, give or take one, with --rhyme
show_rhymes = False  # words that rhyme in one colour
interactive = False  # type a line, and the model goes on from there
bars = 4  # lines of an answer, with --interactive
seed: int
quantize: str | None = None  # int8: a quarter of the memory to read, for a CPU
output: str | None = None  # also write the samples to this file; .jsonl: one JSON object a sample; .html: rhymes in colour
device: str
dtype: str
# -----------------------------------------------------------------------------
exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'configurator.py')).read())

rt = setup(device, dtype)
for bad, advice in [(num_samples < 1, "num_samples must be 1 or more"),
                    (max_new_tokens < 1, "max_new_tokens must be 1 or more"),
                    (bars < 1, "bars must be 1 or more"),
                    (seed < 0, "seed must be 0 or more"),
                    (temperature < 0, "temperature must be 0 or more"),
                    (top_k is not None and top_k < 1, "top_k must be 1 or more, or None for all tokens"),
                    (not 0 < top_p <= 1, "top_p must lie above 0, and at most at 1"),
                    (not 0 <= min_p <= 1, "min_p must lie in [0, 1]"),
                    (repetition_penalty <= 0, "repetition_penalty must be above 0"),
                    (syllables is not None and not rhyme, "syllables must come with --rhyme, as in --rhyme=XX --syllables=10"),
                    (syllables is not None and not 2 <= syllables <= 24, "syllables must lie between 2 and 24"),
                    (rhyme and repetition_penalty != 1, "repetition_penalty must be left out with --rhyme"),
                    (interactive and output, "output must be left out with --interactive")]:
    if bad:
        raise UserError(f"sample.py: {advice}")
if rhyme:
    check_scheme(rhyme)
prompts = [start]
if start.startswith('FILE:'):
    try:
        text = Path(start[5:]).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"can't read the prompt file {start[5:]}: {getattr(e, 'strerror', None) or e}") from None
    prompts = re.split(r'^---[ \t]*\n', text, flags=re.M)
    prompts = [prompt for prompt in prompts if prompt.strip()] or ['']
if init_from == 'resume' and not (Path(out_dir) / 'best' / 'config.json').exists():
    raise UserError(f"{out_dir}/best holds no checkpoint: train one first (python train.py config/….py --out_dir={out_dir}), "
                    "name another --out_dir, or use a pretrained model (--init_from=gpt2 or smollm2)")

# the model and its tokenizer
name = out_dir if init_from == 'resume' else init_from
tokenizer = load_tokenizer(name)
model = pack(GPT.from_pretrained(name).eval().to(rt.device, rt.dtype), quantize)
make_cache = partial(KVCache, model.config, device=rt.device, dtype=rt.dtype)
vocab_size = min(tokenizer.vocab_size, model.config.vocab_size)
sampler = dict(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
about = read_json(model_folder(name) / 'config.json').get('tokenizer', {}) if init_from == 'resume' else {}
header = ''
for key in about.get('header', []):
    header += f"[{key.title()}: {' '.join(config[key].split())}]\n" if config[key] else ''
for key in ('artist', 'title'):
    if config[key] and key not in about.get('header', []):
        raise UserError(f"--{key}={config[key]}, but the songs of {name} were prepared without it: leave it out, or prepare "
                        "them with data/lyrics/prepare.py --header=artist,title and train again")
new_song = 'header' in about if new_song is None else new_song
endings = Endings(tokenizer, vocab_size) if rhyme else None


def encode_prompt(prompt):
    """A prompt's ids, at most block_size of them."""
    ids = encode(tokenizer, prompt, model.config.vocab_size, new_song)
    if len(ids) > model.config.block_size and not interactive:
        print(f"note: the prompt has {len(ids)} tokens; the model sees the last {model.config.block_size}", file=sys.stderr)
    return ids[-model.config.block_size :]


def draw(prompts, num_samples, show=False, lines=None):
    """Samples of each prompt, in order. show: print the only one as it comes. lines: end after so many."""
    ids = [encode_prompt(prompt) for prompt in prompts]
    samples = [Sample(tokenizer, prompt, i, stops) for prompt, i in zip(prompts, ids, strict=True) for _ in range(num_samples)]

    def tell(text):
        if show:
            print(text, end='', flush=True)

    def hear(sample, token, logprob, first=0):
        sample = samples[first + sample]
        stopped = sample.add(token, logprob)
        tell(sample.fresh())
        return stopped or lines is not None and sample.whole_lines() >= lines

    tell(prompts[0])
    options = num_samples, max_new_tokens, vocab_size, tokenizer.eot, seed
    with tqdm(total=max_new_tokens, unit='token', leave=False, disable=show or not sys.stderr.isatty()) as progress:
        if rhyme:  # one prompt after the other
            for i, prompt in enumerate(ids):
                for _ in write_bars(model, make_cache, tokenizer, prompt, rhyme, *options, syllables_wanted=syllables,
                                    endings=endings, hear=partial(hear, first=i * num_samples), **sampler):
                    progress.update(min(len(sample.ids) for sample in samples) - progress.n)
        else:
            for _ in generate(model, make_cache, ids, *options, hear=hear, repetition_penalty=repetition_penalty, **sampler):
                progress.update()
    samples = [sample.close() for sample in samples]
    tell(samples[0].fresh())
    return samples


stops = [text.replace('\\n', '\n') for text in stop.split('|') if text]
if interactive:
    print(f"Type a line, and the model adds {bars}; an empty line ends it.")
    text = header + prompts[0]
    try:
        while line := input('> '):
            text += line + '\n'
            [sample] = draw([text], 1, lines=bars)
            added = sample.text.strip('\n') + '\n'
            print(ansi(text + added)[len(ansi(text)) :] if show_rhymes else added, end='')
            text += added
    except EOFError:
        print()
    raise SystemExit(0)

one = len(prompts) * num_samples == 1
stream = one and sys.stdout.isatty() and not show_rhymes
samples = draw([header + prompt for prompt in prompts], num_samples, show=stream)
texts = [sample.prompt + sample.text for sample in samples]
if stream:
    print()
else:
    print(*map(ansi, texts) if show_rhymes else texts, sep='\n---------------\n')
if output:
    if output.endswith('.jsonl'):
        settings = dict(seed=seed, **sampler, repetition_penalty=repetition_penalty, stop=stop, rhyme=rhyme,
                        syllables=syllables, quantize=quantize, model=name)
        content = ''.join(json.dumps(dict(text=text, prompt=sample.prompt, sample=i % num_samples, **settings, ids=sample.ids,
                                          logprobs=sample.logprobs), ensure_ascii=False) + '\n'
                          for i, (text, sample) in enumerate(zip(texts, samples, strict=True)))
    elif output.endswith('.html'):
        content = page(texts, f"NanoRapGPT: {name}")
    else:
        content = '\n---------------\n'.join(texts) + '\n'
    try:
        Path(output).write_text(content, encoding='utf-8')
    except OSError as e:
        raise UserError(f"can't write --output={output}: {e.strerror}") from None
