"""
A page to write verses with, and its JSON API, whose documentation is at /api.
make web installs what it needs, and starts it.

$ python serve.py --out_dir=out-lyrics-demo                       # then open http://127.0.0.1:8000
$ python serve.py --init_from=smollm2 --port=9000                 # a pretrained model
$ NANORAP_PASSWORD=… python serve.py --host=0.0.0.0 --user=me     # for other machines; browsers ask for both
"""

import gc
import ipaddress
import os
import socket
from functools import partial
from pathlib import Path

import anyio

try:
    import uvicorn
    from fastapi import HTTPException, Request
    from fastapi.responses import FileResponse, Response
    from pydantic import BaseModel, Field

    from nanorap.serve.web import Stream, guarded_app, last_event
except ImportError as e:
    raise SystemExit(f"serve.py: {e.name} is not installed: pip install -r requirements-web.txt, "
                     "or make web") from None

from model import GPT
from nanorap.common import UserError, model_name, read_json, run_folder
from nanorap.dataset import find_dataset, read_meta
from nanorap.quantize import pack
from nanorap.rap import colour
from nanorap.rap.novelty import MAX_TOKENS, copied_lines, index_songs, song_names
from nanorap.rap.rhyme import density
from nanorap.runtime import setup
from nanorap.serve.jobs import Job, QueueIsFull, Worker
from nanorap.serve.writer import Writer
from nanorap.text import header_keys
from nanorap.tokenizer import load_tokenizer, tokenizer_from_meta

# -----------------------------------------------------------------------------
out_dir: str  # a run's folder, whose best/ is loaded
# resume (from out_dir), or gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, a folder or hub name
init_from = 'resume'
models = '.'  # the page's menu has every run's folder directly below this one,
pretrained = 'smollm2'  # and these models, with commas between. One model is in memory at a time
# the training songs, to mark lines copied from them, as in train.py. Empty: those of the run in out_dir
dataset = ''
host = '127.0.0.1'  # the address to listen at; one that other machines reach needs a user and a password
port = 8000  # 0: any free port
user = ''
password = ''  # better in the environment variable NANORAP_PASSWORD: everybody on a machine can see its flags
# limits
max_prompt = 20_000  # characters of a text
context = 1024  # tokens of the text that the model sees: the last ones
max_tokens = 1000  # new ones per sample
max_cache = 2.0  # GB of a request's KV cache
queue = 64  # requests that may wait; one more is refused
quantize: str | None = None  # int8: a quarter of the memory to read, for a CPU
device: str
dtype: str
# -----------------------------------------------------------------------------
exec(Path(__file__).with_name('configurator.py').read_text(encoding='utf-8'))

rt = setup(device, dtype)
password = password or os.environ.get('NANORAP_PASSWORD', '')
try:
    is_loopback = host == 'localhost' or ipaddress.ip_address(host).is_loopback
except ValueError:
    is_loopback = False
checks = [
    (not is_loopback and not (user and password),
     f"--host={host} lets other machines in: it needs --user=… and a password in the environment variable "
     "NANORAP_PASSWORD"),
    (bool(user) != bool(password), "a user needs a password, and a password a --user"),
    (not (user + password).isascii() or ':' in user, "user and password must be ASCII, the user without :"),
    (not 0 <= port < 65536, "port must lie between 0 and 65535"),
    (min(max_prompt, context, max_tokens, queue) < 1 or max_cache <= 0, "limits must be above 0"),
]
for is_wrong, advice in checks:
    if is_wrong:
        raise UserError(f"serve.py: {advice}")
first_model = model_name(out_dir, init_from)


# ---- in the worker's thread

writer = None  # of the model that is in memory


def load(name):
    """Load a model in place of the present one."""
    global writer
    writer = None  # first: two models may be too large for the memory
    gc.collect()
    model = pack(GPT.from_pretrained(name).eval().to(rt.device, rt.dtype), quantize)
    writer = Writer(name=name, model=model, tokenizer=load_tokenizer(name), context=context,
                    max_cache=max_cache)


def work(job):
    """Do a job with the model that it asks for."""
    if writer is None or writer.name != job.request.model:
        job.send(loading=job.request.model)
        load(job.request.model)
    writer.write(job)


def training_songs():
    """Return (novelty.Songs, their names) of --dataset, or else of the data that out_dir was trained on.

    Return (None, []) if that data is unknown or too large.
    """
    name = dataset
    states = sorted(Path(run_folder(first_model)).glob('step-*/state.json'))
    if not name and states:
        name = read_json(states[-1]).get('settings', {}).get('dataset')
    folder = find_dataset(name) if name else None
    if folder is None:
        return None, []
    if not dataset and not (folder / 'meta.json').exists():  # if --dataset lacks it, read_meta() says so
        return None, []
    meta = read_meta(folder)
    if meta['splits']['train']['tokens'] > MAX_TOKENS:
        print(f"{folder} has more than 100 million training tokens, too many to look for copies in",
              flush=True)
        return None, []
    songs = index_songs(folder, tokenizer_from_meta(meta, folder))
    return songs, song_names(folder, songs)


def menu():
    """Return the names of the models that a client may ask for, the first one first."""
    runs = sorted(str(path.parents[1]) for path in Path(models).glob('*/best/config.json'))
    return list(dict.fromkeys([first_model, *runs, *filter(None, pretrained.split(','))]))


# ---- the API

MAX_SAMPLES = 8  # per request
MAX_STOPS = 8  # stop texts per request
MAX_STOP_LENGTH = 100  # characters per stop text

max_body = 12 * max_prompt + 10_000  # a character takes up to 12 bytes of JSON, as a surrogate pair
app = guarded_app('NanoRapGPT', user, password, host if is_loopback else '', max_body)


class GenerateRequest(BaseModel, extra='forbid', allow_inf_nan=False):
    """What to write. The same seed gives the same text; without one each request has its own."""

    prompt: str = Field('', max_length=max_prompt, description="the text that the model continues")
    artist: str = Field('', max_length=100,
                        description="in whose manner, for a model whose songs had header lines")
    title: str = Field('', max_length=100)
    model: str = Field(first_model, description="one of GET /api/models")
    max_new_tokens: int = Field(min(128, max_tokens), ge=1, le=max_tokens, description="per sample")
    lines: int | None = Field(None, ge=1, le=100, description="a sample ends after this number of lines")
    num_samples: int = Field(1, ge=1, le=MAX_SAMPLES)
    seed: int | None = Field(None, ge=0, lt=2**53)
    temperature: float = Field(0.8, ge=0, le=5)
    top_k: int | None = Field(200, ge=1)
    top_p: float = Field(1.0, gt=0, le=1)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, le=10, description="not with a rhyme")
    rhyme: str = Field('', pattern='^[A-Z]{0,16}$',
                       description="a scheme, such as AABB or XAXA, where X is free")
    syllables: int | None = Field(None, ge=2, le=24, description="per line, with a rhyme")
    stop: list[str] = Field([], max_length=MAX_STOPS,
                            description="a sample ends before any of these texts")
    stream: bool = Field(False, description="events as they come, one JSON object per line")


class TextRequest(BaseModel, extra='forbid'):
    """A text, which is analysed or becomes a page."""

    text: str = Field(max_length=max_prompt)
    title: str = Field('', max_length=200)


@app.post('/api/generate')
async def api_generate(body: GenerateRequest, request: Request):
    if body.model not in menu():  # never a path or a hub name that the client chooses
        raise HTTPException(422, f"model: there is no {body.model!r}; choose one of {', '.join(menu())}")
    syllables_without_rhyme = body.syllables and not body.rhyme
    rhyme_with_penalty = body.rhyme and body.repetition_penalty != 1
    if syllables_without_rhyme or rhyme_with_penalty:
        raise HTTPException(422, "syllables need a rhyme (X for free lines), and repetition_penalty must be "
                                 "left out with one")
    if any(not 0 < len(text) <= MAX_STOP_LENGTH for text in body.stop):
        raise HTTPException(422, f"stop: each text has 1 to {MAX_STOP_LENGTH} characters")
    job = Job(body)
    try:
        worker.add(job)
    except QueueIsFull:
        detail = f"{queue} requests are waiting already: try again later"
        raise HTTPException(503, detail, {'Retry-After': '10'}) from None
    if body.stream:
        return Stream(worker, job)
    event = await last_event(worker, job, request)
    if 'error' in event:
        raise HTTPException(400, event['error'])
    return event


@app.get('/api/models')
def api_models():
    limits = dict(max_prompt=max_prompt, context=context, max_new_tokens=max_tokens, num_samples=MAX_SAMPLES,
                  queue=queue)
    choices = [dict(name=name, header=header_keys(name) or []) for name in menu()]
    return dict(models=choices, songs=len(song_titles), limits=limits)


@app.post('/api/analyse')
async def api_analyse(body: TextRequest):
    def analyse():
        lines = colour.annotate(body.text)
        copied = copied_lines(songs, body.text) if songs else {}
        for number, copy in copied.items():
            lines[number]['copied'] = dict(words=copy.words, song=song_titles[copy.song], line=copy.source)
        return dict(lines=lines, density=density(body.text))

    return await anyio.to_thread.run_sync(analyse, limiter=analysis_limiter)


@app.post('/api/page')
def api_page(body: TextRequest):
    """Return the text as an HTML file with its rhymes in colour."""
    return Response(colour.page([body.text], body.title or app.title), media_type='text/html',
                    headers={'Content-Disposition': 'attachment; filename="verse.html"'})


@app.get('/openapi.json', include_in_schema=False)
def openapi():
    return app.openapi()


@app.get('/', include_in_schema=False)
@app.get('/{name}', include_in_schema=False)
def page(name='index.html'):
    file = 'api.html' if name == 'api' else name
    if file not in ('index.html', 'api.html', 'style.css', 'theme.js', 'page.js', 'icon.svg'):
        raise HTTPException(404, "there is no such page: the page to write verses with is /, and the API's "
                                 "documentation /api")
    return FileResponse(Path(__file__).parent / 'web' / file)


# ---- start

try:
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
except OSError as e:
    raise UserError(f"can't listen at --host={host} --port={port} ({e.strerror}): choose another --port, "
                    "0 for any") from None
print(f"loading {first_model}", flush=True)
songs, song_titles = training_songs()
worker = Worker(partial(load, first_model), work, queue)
analysis_limiter = anyio.CapacityLimiter(1)
url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
if song_titles:
    print(f"{len(song_titles)} training songs to look for copies in")
else:
    print("no training songs known: copies are not marked")
print(f"open {url} (Ctrl-C ends it)", flush=True)
server_config = uvicorn.Config(
    app, log_level='warning', access_log=False, server_header=False, lifespan='off', limit_concurrency=256,
    timeout_graceful_shutdown=1)
uvicorn.Server(server_config).run(sockets=[listener])
