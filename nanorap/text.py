"""
From a prompt to text: the one path that sample.py, eval.py, train.py, serve.py and bench.py take.

    samples = write(model, tokenizer, ['[Verse 1]\\n'], num_samples=2, max_new_tokens=100, seed=1337)
    print(samples[0].prompt + samples[0].text)

The model and its cache come from the caller's choice of device and dtype; what is plain and what rhymes is
decided by `search`, see nanorap.rap.rhyme_search.
"""

import re
import sys
from functools import partial

from tqdm import tqdm

from nanorap.cache import KVCache
from nanorap.common import (
    UserError,
    best_folder,
    header_line,
    is_checkpoint,
    model_folder,
    plain_text,
    read_json,
    read_plain_text,
    reason,
)
from nanorap.generate import generate

# tokens before a new one that are decoded with it: some tokenizers drop the space before a text's first word
DECODING_CONTEXT = 8
MOST_TOKENS = 10**8  # that one call of write() may be asked for; chosen by hand


def read_prompt(start):
    """Return the text that --start gives: itself, by typed_text(), or the content of PATH for FILE:PATH."""
    if not start.startswith('FILE:'):
        return typed_text(start)
    path = start.removeprefix('FILE:')
    try:
        return read_plain_text(path)
    except (OSError, UnicodeError) as e:
        raise UserError(f"can't read the prompt file {path}: {reason(e)}") from None


def typed_text(text):
    r"""Return what is meant by an option's text: \n is a line break."""
    return plain_text(decoded(text)).replace('\\n', '\n')


def decoded(text):
    """Return a command line's or a terminal's text, in UTF-8 where Python has left its bytes undecoded.

    Python does that under LC_ALL=C, for example.
    """
    is_undecoded = re.search('[\udc80-\udcff]', text)
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace') if is_undecoded else text


def header_keys(name):
    """Return the list of header lines that a run's songs begin with, by data/lyrics/prepare.py --header.

    None for a model whose texts are not songs of prepare.py: a pretrained one, for example.
    """
    if best_folder(name) is None and not is_checkpoint(name):
        return None
    return read_json(model_folder(name) / 'config.json').get('tokenizer', {}).get('header')


def header_lines(name, **values):
    """Return '[Artist: …]\\n[Title: …]\\n' of the values that are given.

    UserError for a key that the songs of the run `name` were prepared without.
    """
    keys = header_keys(name) or []
    for key, value in values.items():
        if value.strip() and key not in keys:
            raise UserError(f"{key}={value}, but the songs of {name} were prepared without the {key}: leave "
                            "it out, or prepare them with data/lyrics/prepare.py --header=artist,title and "
                            "train again")
    return ''.join(header_line(key, decoded(values.get(key, ''))) for key in keys)


def encode_prompt(tokenizer, prompt, vocab_size, new_song=False, special_tokens=False):
    """Return a prompt's ids, at least one.

    new_song: put the token before them that begins a text, as in training; models that were trained with a
    token of its own for that always get it. special_tokens: "<|im_end|>" in the prompt is that token.
    """
    ids = tokenizer.encode(prompt, special_tokens)
    if new_song or not prompt or tokenizer.bos != tokenizer.eot:
        ids = [tokenizer.bos, *ids]
    if max(ids) >= vocab_size:
        raise UserError(f"the prompt has token id {max(ids)}, beyond the model's vocabulary of {vocab_size}: "
                        f"the tokenizer '{tokenizer.name}' is another model's")
    return ids


class Sample:
    """The text that new tokens add to a prompt, decoded as they come: whole characters, up to a stop text.

    prompt: the text; prompt_ids: its ids; stops: texts before which the sample ends. Attributes: ids and
    logprobs of the new tokens, text (without the prompt), is_cut (whether it ended for its length alone).
    """

    def __init__(self, tokenizer, prompt, prompt_ids, stops=()):
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.stops = stops
        self.ids, self.logprobs, self.text = [], [], ''
        self.is_closed = False
        self.is_cut = False
        self.decoded = [i for i in prompt_ids[-DECODING_CONTEXT:] if i not in tokenizer.marks]
        self.pending = []  # ids whose text is not complete: a character's bytes may come in several tokens
        self.n_shown = 0  # characters that new_text() has returned

    def add(self, token, logprob):
        """Add one token; return True if a stop text has come, which ends the sample."""
        self.ids.append(token)
        self.logprobs.append(round(logprob, 4))
        self.pending.append(token)
        self._decode()
        at = [start for stop in self.stops if (start := self.text.find(stop)) >= 0]
        if at:
            self.text, self.is_closed = self.text[: min(at)], True
        return bool(at)

    def _decode(self, is_last=False):
        before = self.tokenizer.decode(self.decoded)
        new = self.tokenizer.decode(self.decoded + self.pending)[len(before) :]
        if is_last or not new.endswith('\ufffd'):
            self.text += new
            self.decoded, self.pending = (self.decoded + self.pending)[-DECODING_CONTEXT:], []

    def close(self, is_cut=False):
        """Decode what is left: no token will follow."""
        if self.pending:
            self._decode(is_last=True)
        self.is_closed, self.is_cut = True, is_cut

    def new_text(self):
        """Return the text since the last call, but for what may be the beginning of a stop text."""
        held_back = 0 if self.is_closed else max((len(stop) - 1 for stop in self.stops), default=0)
        start, self.n_shown = self.n_shown, max(self.n_shown, len(self.text) - held_back)
        return self.text[start : self.n_shown]

    def n_lines(self):
        """Return the number of whole lines, blank ones not counted."""
        return sum(bool(line.strip()) for line in self.text.split('\n')[:-1])


def write(
    model,
    tokenizer,
    prompts: list[str],
    *,
    num_samples: int,
    max_new_tokens: int,
    seed: int,
    new_song: bool = False,
    special_tokens: bool = False,
    context: int | None = None,
    search=None,
    stops: list[str] | tuple = (),
    max_lines: int | None = None,
    on_text=None,
    verbose: bool = False,
    **sampler,
) -> list[Sample]:
    """Continue each prompt num_samples times, and return the Samples, those of the first prompt first.

    model: a GPT; the KV cache takes its device and dtype
    prompts: the model sees the last `context` tokens of each (None: block_size)
    new_song, special_tokens: see encode_prompt()
    search: None for plain sampling, or a RhymeSearch for lines that keep a rhyme scheme
    stops, max_lines: a sample ends before any of these texts, after so many lines, or after max_new_tokens
    on_text: called as on_text(number of the sample, text) with each new piece of text
    verbose: a progress bar on a terminal, and a note on prompts that are cropped
    sampler: temperature, top_k, top_p, min_p; for plain sampling also repetition_penalty
    """
    if len(prompts) * num_samples * max_new_tokens > MOST_TOKENS:
        raise UserError(f"num_samples={num_samples} with max_new_tokens={max_new_tokens} are more than "
                        f"{MOST_TOKENS:,} tokens in all: lower one of them")
    context = min(context or model.config.block_size, model.config.block_size)
    prompt_ids = [encode_prompt(tokenizer, prompt, model.config.vocab_size, new_song, special_tokens)
                  for prompt in prompts]
    longest = max(map(len, prompt_ids))
    if verbose and longest > context:
        print(f"note: the prompt has {longest} tokens; the model sees the last {context}", file=sys.stderr)
    prompt_ids = [ids[-context:] for ids in prompt_ids]
    samples = [Sample(tokenizer, prompt, ids, stops)
               for prompt, ids in zip(prompts, prompt_ids, strict=True) for _ in range(num_samples)]
    is_streamed = on_text is not None

    def show(number):
        if is_streamed and (text := samples[number].new_text()):
            on_text(number, text)

    def on_token(number, token, logprob):
        is_stopped = samples[number].add(token, logprob)
        show(number)
        progress.update()
        return is_stopped or max_lines is not None and samples[number].n_lines() >= max_lines

    p = next(model.parameters())
    make_cache = partial(KVCache, model.config, device=p.device, dtype=p.dtype)
    was_training = model.training
    model.eval()
    with tqdm(total=len(samples) * max_new_tokens, desc='sampling', unit='token', leave=False,
              disable=None if verbose and not is_streamed else True) as progress:
        try:
            has_ended = (search or generate)(
                model, make_cache, prompt_ids, on_token, num_samples=num_samples,
                max_new_tokens=max_new_tokens,
                vocab_size=min(tokenizer.vocab_size, model.config.vocab_size), ends=tokenizer.ends, seed=seed,
                **sampler)
        except (MemoryError, RuntimeError) as e:
            if isinstance(e, RuntimeError) and 'memory' not in str(e):  # PyTorch's words for it
                raise
            raise UserError(f"the memory doesn't hold {len(samples)} sample(s) of up to {max_new_tokens} "
                            "tokens: lower num_samples, or max_new_tokens") from None
    model.train(was_training)
    for number, sample in enumerate(samples):
        sample.close(is_cut=not has_ended[number])
        show(number)
    return samples
