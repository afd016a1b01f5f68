"""serve.py as a process, with two tiny models, and a client of its API."""

import http.client
import json
import os
import shutil
import string
import subprocess
import sys
from contextlib import contextmanager

import torch
from conftest import ONE_THREAD, ROOT

from model import GPT, GPTConfig
from nanorap.checkpoint import write_folder
from nanorap.tokenizer import CharTokenizer

LONG = 100_000  # tokens: minutes, even for the smallest model
QUEUE = 40  # requests that may wait
VERSE = 'The cat was on a mat,\nA flat hat in the hall,\nI fell & I fall\n'


@contextmanager
def serving(*args, **env):
    """Run serve.py; yields (its port, what it printed)."""
    command = [sys.executable, 'serve.py', '--port=0', '--device=cpu', *map(str, args)]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, env=os.environ | ONE_THREAD | env)
    try:
        printed = ''
        while 'open http' not in printed:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        yield int(printed.rpartition(':')[2].split()[0]), printed
    finally:
        process.kill()
        process.wait()


@contextmanager
def serving_two_models(trained, songs, char_data, folder):
    """Run serve.py with the models 'letters' and 'endless' and the songs; yields its port."""
    write_letter_model(trained[0], folder / 'letters', 'ateons \n')
    write_letter_model(trained[0], folder / 'endless', 'mh ')  # no line ends
    data = folder / 'data'
    shutil.copytree(char_data, data)
    shutil.copy(songs, data / 'data.json')
    with serving(f'--out_dir={folder}/letters', f'--models={folder}', '--pretrained=', f'--dataset={data}',
                 f'--queue={QUEUE}', f'--max_tokens={LONG}') as (port, _):
        yield port


def write_letter_model(trained, folder, letters):
    """Write a model that gives each of these characters the same probability, and others almost none."""
    tokenizer = CharTokenizer(string.printable[:95] + '\n')
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=128, vocab_size=128, pos='alibi',
                          bias=True))
    with torch.no_grad():
        for p in (model.transformer.wte.weight, model.transformer.ln_f.weight):
            p.zero_()
        model.transformer.ln_f.bias.fill_(1)
        model.transformer.wte.weight[tokenizer.encode(letters)] = 3
    config = json.loads((trained / 'best' / 'config.json').read_text())
    config |= dict(model=model.config_dict(), tokenizer=tokenizer.meta() | dict(header=['artist']))
    write_folder(folder / 'best', dict(model=model.state_dict()), dict(config=config), tokenizer)


def connect(port, path, body=None, **headers):
    """Return an open connection and its response, not yet read. body: a dict, or bytes that are sent as they
    are."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    headers = {key.replace('_', '-'): value for key, value in headers.items()}
    headers = {'Content-Type': 'application/json'} | headers
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    connection.request('GET' if body is None else 'POST', path, data, headers)
    return connection, connection.getresponse()


def call(port, path, body=None, **headers):
    """Return (status, content) of a response; JSON is parsed."""
    connection, response = connect(port, path, body, **headers)
    content = response.read()
    connection.close()
    is_json = response.headers['content-type'] == 'application/json'
    return response.status, json.loads(content) if is_json else content.decode()


def generate(port, **fields):
    """Return the answer of POST /api/generate."""
    status, content = call(port, '/api/generate', fields)
    assert status == 200, content
    return content


def error_detail(port, status, path='/api/generate', **fields):
    """Return the error of a request that must fail with this status."""
    actual_status, content = call(port, path, fields)
    assert actual_status == status and '\n' not in content['detail'], content
    return content['detail']


def stream(port, **fields):
    """Return a connection, and an iterator over the events that come over it."""
    connection, response = connect(port, '/api/generate', fields | dict(stream=True))
    assert response.status == 200, response.read()
    return connection, map(json.loads, response)


@contextmanager
def model_in_use(port):
    """Have the model write for another client meanwhile."""
    connection, events = stream(port, max_new_tokens=LONG)
    assert next(event for event in events if 'text' in event)['sample'] == 0
    try:
        yield
    finally:
        connection.close()
