"""
A page to rap with, and the JSON API beneath it, whose documentation is at /api. make web installs what it needs, and starts it.

$ python serve.py --out_dir=out-lyrics-demo                 # then open http://127.0.0.1:8000
$ python serve.py --init_from=smollm2 --port=9000           # a pretrained model
$ NANORAP_PASSWORD=… python serve.py --host=0.0.0.0 --user=me     # for other machines; the browser asks for both
"""

import gc
import ipaddress
import os
import re
import secrets
import socket
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio

try:
    import uvicorn
    from fastapi import Depends, FastAPI, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
    from fastapi.security import HTTPBasic, HTTPBasicCredentials
    from pydantic import BaseModel, Field
    from starlette.datastructures import MutableHeaders
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ImportError as e:
    raise SystemExit(f"serve.py: the package {e.name} is missing: pip install -r requirements-web.txt, or start it by make web"
                     ) from None

from model import GPT
from nanorap import UserError, colour, model_folder, read_json
from nanorap.bars import CANDIDATES, Endings, write_bars
from nanorap.cache import KVCache
from nanorap.dataset import find_dataset, read_documents, read_meta
from nanorap.evaluate import index_songs
from nanorap.generate import generate
from nanorap.jobs import Full, Job, Worker
from nanorap.novelty import copied_lines
from nanorap.quantize import pack
from nanorap.rhyme import density
from nanorap.runtime import setup
from nanorap.text import Sample, encode
from nanorap.tokenizer import load_tokenizer, tokenizer_from_meta

# -----------------------------------------------------------------------------
out_dir: str  # a run's folder, whose best/ is loaded
init_from = 'resume'  # resume (from out_dir), or gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, a folder or hub name
models = '.'  # the page's menu has every run's folder directly beneath this one,
pretrained = 'smollm2'  # and these models, with commas between. One is in memory at a time
dataset = ''  # the training songs, to mark lines copied from them: as in train.py; '': what out_dir's run was trained on
host = '127.0.0.1'  # the address to listen at; others than this machine's own need a user and a password
port = 8000  # 0: any that is free
user = ''
password = ''  # better in the environment variable NANORAP_PASSWORD, as every user of a machine sees flags
# limits of a request
max_prompt = 20_000  # characters
context = 1024  # tokens of a prompt that the model sees, at most: the last ones
max_tokens = 1000  # new ones a sample
max_cache = 2.0  # GB of keys and values
queue = 64  # requests that wait; one more is refused
quantize: str | None = None  # int8: a quarter of the memory to read, for a CPU
device: str
dtype: str
# -----------------------------------------------------------------------------
exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'configurator.py')).read())

rt = setup(device, dtype)
password = password or os.environ.get('NANORAP_PASSWORD', '')
try:
    loopback = host == 'localhost' or ipaddress.ip_address(host).is_loopback
except ValueError:
    loopback = False
for bad, advice in [(not loopback and not (user and password), f"--host={host} lets others in: it needs --user=… and a "
                     "password in the environment variable NANORAP_PASSWORD"),
                    (bool(user) != bool(password), "a user needs a password, and a password a --user"),
                    (not 0 <= port < 65536, "port must lie between 0 and 65535"),
                    (min(max_prompt, context, max_tokens, queue) < 1 or max_cache <= 0, "limits must be above 0")]:
    if bad:
        raise UserError(f"serve.py: {advice}")
first_name = out_dir if init_from == 'resume' else init_from
if init_from == 'resume' and not (Path(out_dir) / 'best' / 'config.json').exists():
    raise UserError(f"{out_dir}/best holds no checkpoint: train one first (make demo), name another --out_dir, or use a "
                    "pretrained model (--init_from=smollm2)")


# ---- the worker's side: one model, one request after the other

class Writer:
    """A model that is ready to write."""

    def __init__(self, name):
        self.name, self.tokenizer = name, load_tokenizer(name)
        self.model = pack(GPT.from_pretrained(name).eval().to(rt.device, rt.dtype), quantize)
        self.make_cache = partial(KVCache, self.model.config, device=rt.device, dtype=rt.dtype)
        self.vocab_size = min(self.tokenizer.vocab_size, self.model.config.vocab_size)
        self.endings = Endings(self.tokenizer, self.vocab_size)
        self.model.register_forward_pre_hook(lambda *_: self.job and self.job.check())  # between tokens: is anyone there?
        self.job, about = None, headers_of(name)
        self.header, self.new_song = about or [], about is not None

    def write(self, job):
        """Tells the job {'sample', 'text'} piece by piece, and at last {'done'}."""
        ask, config, t0 = job.request, self.model.config, time.perf_counter()
        header = ''
        for key in ('artist', 'title'):
            value = ' '.join(getattr(ask, key).split())
            if value and key not in self.header:
                raise UserError(f"{self.name} was trained without {key}s: leave the {key} out")
            header += f"[{key.title()}: {value}]\n" if value else ''
        ids = encode(self.tokenizer, header + ask.prompt, config.vocab_size, self.new_song)
        ids = ids[-min(context, config.block_size):]
        rows = ask.num_samples * (CANDIDATES if ask.rhyme else 1)
        columns = min(config.block_size, len(ids) + ask.max_new_tokens + 40)
        size = 2 * rows * columns * config.n_layer * config.n_kv_head * config.n_embd / config.n_head * rt.dtype.itemsize / 1e9
        if size > max_cache:
            raise UserError(f"this would take {size:.1f} GB of memory, and {max_cache:.1f} are allowed: ask for fewer samples "
                            "or fewer tokens")
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
        sampler = dict(temperature=ask.temperature, top_k=ask.top_k, top_p=ask.top_p, min_p=ask.min_p, hear=hear)
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


def headers_of(name):
    """The keys of a run's header lines, []; None for a model that was not trained on songs prepared here."""
    if not (Path(name) / 'best').is_dir():
        return None
    return read_json(model_folder(name) / 'config.json').get('tokenizer', {}).get('header')


def work(job):
    global writer
    if writer is None or writer.name != job.request.model:
        job.tell(loading=job.request.model)
        writer = None  # first: two may be too much for the memory
        gc.collect()
        writer = Writer(job.request.model)
    writer.write(job)


def training_songs(name):
    """(novelty.Songs, what each is called) of --dataset or of what the run was trained on; (None, []) if that is unknown."""
    state = sorted(Path(name).glob('step-*/state.json'))
    data = dataset or (read_json(state[-1]).get('settings', {}).get('dataset') if state else '')
    folder = find_dataset(data) if data else None
    if not folder or not dataset and not (folder / 'meta.json').exists():
        return None, []
    songs = index_songs(folder, tokenizer_from_meta(read_meta(folder), folder))
    titles = {}
    if (folder / 'data.json').exists():
        titles = {song['text'].strip(): f"“{song['song_name']}” by {song['artist_name']}"
                  for song in read_documents(folder / 'data.json') if 'song_name' in song}
    plain = [re.sub(r'^(\[(Artist|Title): [^\n]*\]\n)+', '', text).strip() for text in songs.texts]
    return songs, [titles.get(text, f"training song {n}") for n, text in enumerate(plain, 1)]


# ---- the clients' side

def menu():
    found = sorted(str(path.parents[1]) for path in Path(models).glob('*/best/config.json'))
    return list(dict.fromkeys([first_name, *found, *filter(None, pretrained.split(','))]))


class Ask(BaseModel, extra='forbid', allow_inf_nan=False):
    """What to write. Without a seed each request gets another one; the same seed gives the same text."""
    prompt: str = Field('', max_length=max_prompt, description="the text so far, from which the model goes on")
    artist: str = Field('', max_length=100)
    title: str = Field('', max_length=100)
    model: str = Field(first_name, description="one of GET /api/models")
    max_new_tokens: int = Field(min(128, max_tokens), ge=1, le=max_tokens, description="of each sample")
    lines: int | None = Field(None, ge=1, le=100, description="a sample ends after so many lines")
    num_samples: int = Field(1, ge=1, le=8)
    seed: int | None = Field(None, ge=0, lt=2**53)
    temperature: float = Field(0.8, ge=0, le=5)
    top_k: int | None = Field(200, ge=1)
    top_p: float = Field(1.0, gt=0, le=1)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, le=10, description="not with rhyme")
    rhyme: str = Field('', pattern='^[A-Z]{0,16}$', description="a scheme, AABB or XAXA, where X is free")
    syllables: int | None = Field(None, ge=2, le=24, description="of each line, with rhyme")
    stop: list[str] = Field([], max_length=8, description="a sample ends before any of these texts")
    stream: bool = Field(False, description="events as they come, one JSON object a line")


class Text(BaseModel, extra='forbid'):
    text: str = Field(max_length=max_prompt)
    title: str = Field('', max_length=200)


async def login(given: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]):
    right = [(given.username if given else '', user), (given.password if given else '', password)]
    if not all([secrets.compare_digest(a.encode(), b.encode()) for a, b in right]):  # both, whatever the first one says
        raise HTTPException(401, "a user and a password are needed", {'WWW-Authenticate': 'Basic realm="NanoRapGPT"'})


class Shield:
    """Headers by which a browser keeps to itself what is none of other sites' business."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_shielded(message):
            if message['type'] == 'http.response.start':
                policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
                MutableHeaders(scope=message).update({
                    'Content-Security-Policy': policy, 'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer',
                    'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Resource-Policy': 'same-origin',
                    'Cache-Control': 'no-store'})
            await send(message)

        await self.app(scope, receive, send_shielded)


# without FastAPI's own pages of documentation, which fetch their scripts from elsewhere. A body must say that it is JSON, which
# a form on another site can't. A site whose name is made to point at this machine comes with a host that is not ours
app = FastAPI(title="NanoRapGPT", docs_url=None, redoc_url=None, openapi_url=None, max_body_size=8 * max_prompt + 10_000,
              dependencies=[Depends(login)] if user else [])
if loopback:
    ours = ['localhost', '127.0.0.1', '::1', '[::1]', host]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=ours, www_redirect=False)
app.add_middleware(Shield)


@app.exception_handler(RequestValidationError)
async def say_what_is_wrong(request, error):
    one = error.errors()[0]
    where = '.'.join(map(str, one['loc'][1:]))
    return JSONResponse({'detail': f"{where}: {one['msg']}" if where else one['msg']}, 422)


async def events(job):
    last = False
    while not last:
        event = await job.events.get()
        last = 'done' in event or 'error' in event
        yield event


class Stream(StreamingResponse):
    """A job's events, a line each; a client that goes away leaves the queue, or ends what is being written for it."""

    def __init__(self, job):
        super().__init__((JSONResponse(event).body + b'\n' async for event in events(job)), media_type='application/x-ndjson')
        self.job = job

    async def __call__(self, *args):
        try:
            await super().__call__(*args)
        finally:
            worker.leave(self.job)


@app.post('/api/generate')
async def api_generate(ask: Ask, request: Request):
    if ask.model not in menu():
        raise HTTPException(422, f"there is no model {ask.model!r}: choose one of {', '.join(menu())}")
    if ask.syllables and not ask.rhyme or ask.rhyme and ask.repetition_penalty != 1:
        raise HTTPException(422, "syllables need a rhyme, X for lines that are free; repetition_penalty goes without one")
    if any(not 0 < len(text) <= 100 for text in ask.stop):
        raise HTTPException(422, "stop: a text has 1 to 100 characters")
    job = Job(ask)
    try:
        worker.add(job)
    except Full:
        raise HTTPException(503, f"{queue} requests are waiting already: try again later", {'Retry-After': '10'}) from None
    if ask.stream:
        return Stream(job)
    async with anyio.create_task_group() as tasks:
        async def watch():
            while not await request.is_disconnected():
                await anyio.sleep(0.2)
            worker.leave(job)
            job.tell(error="the client has gone")

        tasks.start_soon(watch)
        last = [event async for event in events(job)][-1]
        tasks.cancel_scope.cancel()
    return last if 'done' in last else JSONResponse({'detail': last['error']}, 400)


@app.get('/api/models')
def api_models():
    return dict(models=[dict(name=name, header=headers_of(name) or []) for name in menu()], songs=len(titles),
                limits=dict(max_prompt=max_prompt, max_new_tokens=max_tokens, num_samples=8, context=context, queue=queue))


@app.post('/api/analyse')
async def api_analyse(ask: Text):
    def analyse():
        lines = colour.annotate(ask.text)
        for number, copy in (copied_lines(songs, ask.text) if songs else {}).items():
            lines[number]['copied'] = dict(words=copy.words, song=titles[copy.song], line=copy.source)
        return dict(lines=lines, density=density(ask.text))

    return await anyio.to_thread.run_sync(analyse, limiter=listeners)


@app.post('/api/page')
def api_page(ask: Text):
    """The text as an HTML file with its rhymes in colour."""
    return Response(colour.page([ask.text], ask.title or 'NanoRapGPT'), media_type='text/html',
                    headers={'Content-Disposition': 'attachment; filename="verse.html"'})


@app.get('/openapi.json', include_in_schema=False)
def openapi():
    return app.openapi()


@app.get('/{name}', include_in_schema=False)
def page(name=''):
    file = {'': 'index.html', 'api': 'api.html'}.get(name, name)
    if file not in ('index.html', 'api.html', 'style.css', 'page.js', 'icon.svg'):
        raise HTTPException(404, "there is no such page")
    return FileResponse(Path(__file__).parent / 'web' / file)


app.get('/', include_in_schema=False)(page)

try:
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
except OSError as e:
    raise UserError(f"can't listen at --host={host} --port={port} ({e.strerror}): choose another --port, 0 for any") from None
print(f"loading {first_name}", flush=True)
songs, titles = training_songs(first_name)
writer = Writer(first_name)
worker, listeners = Worker(work, queue), anyio.CapacityLimiter(1)
name = f'[{host}]' if ':' in host else host
print(f"{len(titles)} training songs to look for copies in", f"open http://{name}:{listener.getsockname()[1]} (Ctrl-C ends it)",
      sep='\n', flush=True)
server = uvicorn.Server(uvicorn.Config(app, log_level='warning', access_log=False, server_header=False, lifespan='off',
                                       limit_concurrency=256, timeout_graceful_shutdown=1))
server.run(sockets=[listener])
