"""A model that answers the requests of serve.py, one after the other."""

import secrets
import time

from nanorap.common import UserError, plain_text
from nanorap.rap.rhyme_search import CANDIDATES, LINE_ROOM, RhymeSearch
from nanorap.rap.scheme import Endings
from nanorap.text import encode_prompt, header_keys, header_lines, write


class Writer:
    """Does the jobs (nanorap.serve.jobs.Job) of the server with one model.

    name: the model's folder or hub name. model: a GPT in eval mode, packed (nanorap.quantize.pack). context:
    the model sees at most this many tokens of a prompt, the last ones. max_cache: GB, the largest KV cache
    that a request may need.
    """

    def __init__(self, *, name, model, tokenizer, context, max_cache):
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.max_cache = max_cache
        self.context = min(context, model.config.block_size)
        self.endings = Endings(tokenizer, min(tokenizer.vocab_size, model.config.vocab_size))
        self.new_song = header_keys(name) is not None
        self.job = None
        # job.check() raises Cancelled if the client has left: check it before every token
        model.register_forward_pre_hook(lambda *_: self.job and self.job.check())

    def write(self, job):
        """Write the samples of job.request, whose fields are named as sample.py's options.

        It sends events to the client: {'sample', 'text'} per piece of text, and at the end {'done': True,
        'texts', 'tokens', 'seed', 'model', 'seconds'}, where texts and tokens are lists with the text and the
        number of tokens per sample.
        """
        request = job.request
        t0 = time.perf_counter()
        prompt = header_lines(self.name, artist=request.artist, title=request.title)
        prompt += plain_text(request.prompt)
        self.check_cache_size(request, prompt)
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        sampler = dict(temperature=request.temperature, top_k=request.top_k, top_p=request.top_p,
                       min_p=request.min_p)
        if request.rhyme:
            search = RhymeSearch(self.endings, request.rhyme, request.syllables)
        else:
            search = None
            sampler |= dict(repetition_penalty=request.repetition_penalty)
        self.job = job
        samples = write(
            self.model, self.tokenizer, [prompt], num_samples=request.num_samples,
            max_new_tokens=request.max_new_tokens, seed=seed, new_song=self.new_song, context=self.context,
            search=search, stops=request.stop, max_lines=request.lines,
            on_text=lambda number, text: job.send(sample=number, text=text), **sampler)
        job.send(done=True, texts=[sample.text for sample in samples],
                 tokens=[len(sample.ids) for sample in samples], seed=seed, model=self.name,
                 seconds=round(time.perf_counter() - t0, 3))

    def check_cache_size(self, request, prompt):
        """Raise UserError if the KV cache of a request would be larger than max_cache."""
        c = self.model.config
        ids = encode_prompt(self.tokenizer, prompt, c.vocab_size, self.new_song)[-self.context :]
        n_rows = request.num_samples * (CANDIDATES if request.rhyme else 1)
        n_columns = min(c.block_size, len(ids) + request.max_new_tokens + (LINE_ROOM if request.rhyme else 0))
        n_numbers = 2 * n_rows * n_columns * c.n_layer * c.n_kv_head * c.n_embd / c.n_head
        size = n_numbers * next(self.model.parameters()).itemsize / 1e9
        if size > self.max_cache:
            raise UserError(f"this needs {size:.1f} GB of memory, and may take {self.max_cache:.1f}: ask for "
                            "fewer samples, fewer tokens, or continue a shorter text")
