"""A model that is ready to write for the clients of a server, one request after the other."""

import secrets
import time
from functools import partial
from pathlib import Path

from nanorap import UserError, model_folder, read_json
from nanorap.bars import CANDIDATES, write_bars
from nanorap.cache import KVCache
from nanorap.generate import generate
from nanorap.scheme import Endings
from nanorap.text import Sample, encode


class Writer:
    """name: a model's folder or name. model: a GPT in eval mode, packed. context: tokens of a prompt that it sees at most.
    max_cache: GB of keys and values that a request may take."""

    def __init__(self, name, model, tokenizer, runtime, context, max_cache):
        self.name, self.model, self.tokenizer, self.max_cache = name, model, tokenizer, max_cache
        self.context = min(context, model.config.block_size)
        self.make_cache = partial(KVCache, model.config, device=runtime.device, dtype=runtime.dtype)
        self.vocab_size = min(tokenizer.vocab_size, model.config.vocab_size)
        self.endings = Endings(tokenizer, self.vocab_size)
        self.header, self.new_song = header_of(name) or [], header_of(name) is not None
        self.job = None
        model.register_forward_pre_hook(lambda *_: self.job and self.job.check())  # before each token: is anyone still there?

    def write(self, job):
        """job.request: as in sample.py's options. Tells {'sample', 'text'} piece by piece, and at last {'done': True, 'texts':
        [the whole of each], 'tokens': [how many], 'seed', 'model', 'seconds'}."""
        ask, t0 = job.request, time.perf_counter()
        header = ''
        for key in ('artist', 'title'):
            value = ' '.join(getattr(ask, key).split())
            if value and key not in self.header:
                raise UserError(f"the songs of {self.name} were prepared without the {key}: leave it out")
            header += f"[{key.title()}: {value}]\n" if value else ''
        ids = encode(self.tokenizer, header + ask.prompt, self.model.config.vocab_size, self.new_song)[-self.context :]
        size = self.cache_size(ask.num_samples * (CANDIDATES if ask.rhyme else 1), len(ids) + ask.max_new_tokens)
        if size > self.max_cache:
            raise UserError(f"this needs {size:.1f} GB of memory, and may take {self.max_cache:.1f}: ask for fewer samples, "
                            "fewer tokens, or go on from a shorter text")
        samples = [Sample(self.tokenizer, ask.prompt, ids, ask.stop) for _ in range(ask.num_samples)]

        def hear(i, token, logprob):
            stopped = samples[i].add(token, logprob)
            tell(i)
            return stopped or ask.lines is not None and samples[i].whole_lines() >= ask.lines

        def tell(i):
            if text := samples[i].fresh():
                job.tell(sample=i, text=text)

        seed = secrets.randbelow(2**31) if ask.seed is None else ask.seed
        options = ask.num_samples, ask.max_new_tokens, self.vocab_size, self.tokenizer.eot, seed
        sampler = dict(hear=hear, temperature=ask.temperature, top_k=ask.top_k, top_p=ask.top_p, min_p=ask.min_p)
        self.job = job
        if ask.rhyme:
            steps = write_bars(self.model, self.make_cache, self.tokenizer, ids, ask.rhyme, *options,
                               syllables_wanted=ask.syllables, endings=self.endings, **sampler)
        else:
            steps = generate(self.model, self.make_cache, ids, *options, repetition_penalty=ask.repetition_penalty, **sampler)
        for _ in steps:
            pass
        for i, sample in enumerate(samples):
            sample.close()
            tell(i)
        job.tell(done=True, texts=[sample.text for sample in samples], tokens=[len(sample.ids) for sample in samples],
                 seed=seed, model=self.name, seconds=round(time.perf_counter() - t0, 3))

    def cache_size(self, rows, columns):
        """GB of a request's keys and values."""
        c = self.model.config
        columns = min(c.block_size, columns + 40)  # a line that is searched for may be longer than is left
        return 2 * rows * columns * c.n_layer * c.n_kv_head * c.n_embd / c.n_head * next(self.model.parameters()).itemsize / 1e9


def header_of(name):
    """The keys of the header lines that a run's songs have, []; None for a model that is no run of ours."""
    if not any((Path(name) / best).is_dir() for best in ('best', '.best.old')):
        return None
    return read_json(model_folder(name) / 'config.json').get('tokenizer', {}).get('header')
