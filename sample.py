"""
Sample from a model: one that train.py made, or a pretrained one.

$ python sample.py --out_dir=out-lyrics --start="FILE:demo.txt"
$ python sample.py --init_from=gpt2-xl --start="[Verse 1]" --num_samples=5 --max_new_tokens=100
$ python sample.py --out_dir=out-lyrics --rhyme=AABB --syllables=10 --show_rhymes
$ python sample.py --out_dir=out-lyrics --interactive
"""

import json
import re
import sys
from functools import partial
from pathlib import Path

from model import GPT
from nanorap.common import UserError, check_writable, model_name, plain_text
from nanorap.quantize import pack
from nanorap.rap.colour import ansi, page
from nanorap.rap.rhyme_search import RhymeSearch
from nanorap.rap.scheme import Endings, check_scheme
from nanorap.runtime import setup
from nanorap.text import decoded, header_keys, header_lines, read_prompt, typed_text, write
from nanorap.tokenizer import load_tokenizer

# -----------------------------------------------------------------------------
out_dir: str  # a run's folder, whose best/ is loaded
# resume (from out_dir), or gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, a folder, hub name or GGUF file
init_from = 'resume'
# the prompt, \n for a line break, or FILE:path, with --- on a line between several. Empty: from end of text
start = ''
artist = ''  # in whose manner, and
title = ''  # under which title: for a model whose songs were prepared with --header
# the prompt begins a song, after an end-of-text token. None: for a model of data/lyrics/prepare.py
new_song: bool | None = None
special_tokens = False  # "<|im_start|>" in the prompt is that token of a chat model, and no text
num_samples = 10  # per prompt; all are drawn in one batch
max_new_tokens = 500  # per sample, which may end before
stop = ''  # a sample ends before this text; | between several, \n for a line break
temperature = 0.8  # 1.0: as the model says; lower: less random; 0.0: always the most likely token
top_k: int | None = 200  # draw from the k most likely tokens. None: from all
top_p = 1.0  # draw from the most likely tokens that hold this share of the probability
min_p = 0.0  # draw from tokens at least this share as likely as the likeliest
repetition_penalty = 1.0  # above 1: tokens that were there before are less likely
rhyme = ''  # a scheme that lines are to keep, AABB, ABAB, XAXA (X is free), repeated over each section
syllables: int | None = None  # per line, give or take one, with --rhyme
show_rhymes = False  # show words that rhyme in the same colour
interactive = False  # type a line, and the model continues
bars = 4  # lines that the model adds to yours, with --interactive
seed: int
quantize: str | None = None  # int8: a quarter of the memory to read, for a CPU
# also write the samples to this file; .jsonl: one JSON object per sample; .html: rhymes in colour
output: str | None = None
device: str
dtype: str
# -----------------------------------------------------------------------------
exec(Path(__file__).with_name('configurator.py').read_text(encoding='utf-8'))

rt = setup(device, dtype)
checks = [
    (num_samples < 1, "num_samples must be 1 or more"),
    (max_new_tokens < 1, "max_new_tokens must be 1 or more"),
    (bars < 1, "bars must be 1 or more"),
    (seed < 0, "seed must be 0 or more"),
    (temperature < 0, "temperature must be 0 or more"),
    (top_k is not None and top_k < 1, "top_k must be 1 or more, or None for all tokens"),
    (not 0 < top_p <= 1, "top_p must lie above 0, and at most at 1"),
    (not 0 <= min_p <= 1, "min_p must lie in [0, 1]"),
    (repetition_penalty <= 0, "repetition_penalty must be above 0"),
    (syllables is not None and not rhyme,
     "syllables must come with --rhyme, as in --rhyme=XX --syllables=10"),
    (syllables is not None and not 2 <= syllables <= 24, "syllables must lie between 2 and 24"),
    (rhyme and repetition_penalty != 1, "repetition_penalty must be left out with --rhyme"),
    (interactive and output, "output must be left out with --interactive"),
]
for is_wrong, advice in checks:
    if is_wrong:
        raise UserError(f"sample.py: {advice}")
if rhyme:
    check_scheme(rhyme)
prompts = [read_prompt(start)]
if start.startswith('FILE:'):
    prompts = re.split(r'^---[ \t]*(?:\n|\Z)', prompts[0], flags=re.M)
    prompts = [prompt for prompt in prompts if prompt.strip()] or ['']
if output:
    check_writable(output)

# the model and its tokenizer
name = model_name(out_dir, init_from)
header = header_lines(name, artist=artist, title=title)
new_song = header_keys(name) is not None if new_song is None else new_song
tokenizer = load_tokenizer(name)
model = pack(GPT.from_pretrained(name, dtype=rt.dtype).eval().to(rt.device), quantize)
stops = [text for text in typed_text(stop).split('|') if text]
sampler = dict(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
if rhyme:
    endings = Endings(tokenizer, min(tokenizer.vocab_size, model.config.vocab_size))
    method = dict(search=RhymeSearch(endings, rhyme, syllables))
else:
    method = dict(repetition_penalty=repetition_penalty)


def sample(prompts, num_samples, **more):
    """Return Samples of each prompt, by the options above; more: further options of nanorap.text.write()."""
    return write(model, tokenizer, prompts, num_samples=num_samples, max_new_tokens=max_new_tokens, seed=seed,
                 new_song=new_song, special_tokens=special_tokens, stops=stops, **sampler, **method, **more)


# line by line
if interactive:
    print(f"Type a line, and the model adds {bars}; an empty line ends it.")
    text = header + prompts[0]
    sys.stdin.reconfigure(errors='surrogateescape')  # decoded() makes letters of what it can't decode
    try:
        while line := input('> '):
            text += plain_text(decoded(line)) + '\n'
            [answer] = sample([text], 1, max_lines=bars)
            new_lines = answer.text.strip('\n') + '\n'
            # a rhyme has its colour by all lines so far
            print(ansi(text + new_lines)[len(ansi(text)) :] if show_rhymes else new_lines, end='')
            text += new_lines
    except EOFError:
        print()
    raise SystemExit(0)

# all samples at once; a single one is shown as it is written
prompts = [header + prompt for prompt in prompts]
is_streamed = len(prompts) * num_samples == 1 and sys.stdout.isatty() and not show_rhymes
if is_streamed:
    print(prompts[0], end='', flush=True)
    show = partial(print, end='', flush=True)
    samples = sample(prompts, num_samples, verbose=True, on_text=lambda _, text: show(text))
    print()
else:
    samples = sample(prompts, num_samples, verbose=True)
texts = [one.prompt + one.text for one in samples]
failure = None
if output:  # before they are printed, since the other end of a pipe may be closed
    if output.endswith('.jsonl'):
        settings = dict(seed=seed, **sampler, repetition_penalty=repetition_penalty, stop=stop, rhyme=rhyme,
                        syllables=syllables, quantize=quantize, model=name)
        entries = [dict(text=text, prompt=one.prompt, sample=i % num_samples, **settings, ids=one.ids,
                        logprobs=one.logprobs)
                   for i, (text, one) in enumerate(zip(texts, samples, strict=True))]
        content = ''.join(json.dumps(entry, ensure_ascii=False) + '\n' for entry in entries)
    elif output.endswith('.html'):
        content = page(texts, f"NanoRapGPT: {name}")
    else:
        content = '\n---------------\n'.join(texts) + '\n'
    try:
        Path(output).write_text(content, encoding='utf-8', errors='replace')
    except OSError as e:
        failure = UserError(f"can't write --output={output}: {e.strerror}")
if not is_streamed:
    print(*(map(ansi, texts) if show_rhymes else texts), sep='\n---------------\n')
if failure:
    raise failure
