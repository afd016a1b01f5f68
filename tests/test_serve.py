"""serve.py as people use it: a real server on loopback, and its API. tests/test_page.py tests its page."""

import base64
import http.client
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import run
from server import LONG, QUEUE, call, connect, generate, model_in_use, serving, serving_two_models, stream

pytest.importorskip('fastapi', reason="serve.py needs pip install -r requirements-web.txt")
VERSE = 'The cat was on a mat,\nA flat hat in the hall,\nI fell & I fall\n'


@pytest.fixture(scope='module')
def port(trained, songs, char_data, tmp_path_factory):
    with serving_two_models(trained, songs, char_data, tmp_path_factory.mktemp('models')) as port:
        yield port


def error_detail(port, status, path='/api/generate', **fields):
    """The error of a request that must fail with this status."""
    actual_status, content = call(port, path, fields)
    assert actual_status == status and '\n' not in content['detail'], content
    return content['detail']


# ---- /api/generate

def test_generate_gives_the_texts_of_sample_py(port):
    prompt = '[Hook]\nYo'
    answer = generate(port, prompt=prompt, max_new_tokens=60, num_samples=3, seed=5, stop=['st', 'xxxxxxxxx'])
    names = [model['name'] for model in call(port, '/api/models')[1]['models']]
    [folder] = [name for name in names if name.endswith('letters')]
    result = run('sample.py', f'--out_dir={folder}', f'--start={prompt}', '--max_new_tokens=60',
                 '--num_samples=3', '--seed=5', '--stop=st|xxxxxxxxx', '--device=cpu')
    samples = result.stdout.partition('\n')[2][:-1].split('\n---------------\n')
    texts = [sample.removeprefix(prompt) for sample in samples]
    assert answer['texts'] == texts and len(set(texts)) == 3
    assert answer['seed'] == 5 and answer['tokens'][0] > 0


@pytest.mark.parametrize('fields', [dict(), dict(rhyme='AABB', syllables=3), dict(artist='Fern')], ids=str)
def test_streamed_pieces_join_to_the_texts(port, fields):
    fields = dict(prompt='Yo\n', max_new_tokens=200, num_samples=2, seed=1, lines=3) | fields
    *events, last = stream(port, **fields)[1]
    pieces = ['', '']
    for event in events:
        if 'waiting' not in event:
            pieces[event['sample']] += event['text']
    assert last['done'] and last['texts'] == pieces == generate(port, **fields)['texts']
    assert len(events) > 4
    for text in pieces:
        whole_lines = text.split('\n')[:-1]
        assert len([line for line in whole_lines if line.strip()]) == 3


def test_each_request_without_a_seed_has_its_own(port):
    seeds = {generate(port, prompt='Yo', max_new_tokens=3)['seed'] for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize('fields', [
    dict(max_new_tokens=LONG + 1), dict(num_samples=9), dict(temperature=-1), dict(top_k=0), dict(top_p=0),
    dict(rhyme='A-B'), dict(seed=-1), dict(prompt='a' * 20_001), dict(syllables=9), dict(prompt=3),
], ids=lambda fields: next(iter(fields)))
def test_the_error_names_the_field(port, fields):
    assert next(iter(fields)) in error_detail(port, 422, **fields)


def test_requests_that_cannot_be_answered_are_refused(port):
    assert 'extra' in error_detail(port, 422, nonsense=1).lower()
    for model in ('../../etc', 'gpt2'):
        assert 'there is no' in error_detail(port, 422, model=model)
    assert "character 'ß'" in error_detail(port, 400, prompt='ß')
    assert 'without the title' in error_detail(port, 400, title='Rain')
    assert 'text' in error_detail(port, 422, '/api/analyse', text='a' * 20_001)
    last = list(stream(port, prompt='ß')[1])[-1]
    assert "character 'ß'" in last['error']
    generate(port, prompt='a', max_new_tokens=3)  # the server still answers


def test_malformed_bodies_are_refused(port):
    assert call(port, '/api/generate', b'{"temperature": NaN}')[0] == 422
    assert call(port, '/api/generate', b'{"prompt": "\\ud800"}')[0] == 422  # half of a surrogate pair
    assert call(port, '/api/generate', b' ' * 300_000)[0] == 413


def test_csrf_and_dns_rebinding_are_refused(port):
    # a form on another site can send text/plain, but not JSON
    assert call(port, '/api/generate', b'{"prompt": "a"}', Content_Type='text/plain')[0] == 422
    assert call(port, '/api/models', Host='evil.example')[0] == 400


# ---- the queue

def test_32_clients_get_the_same_texts_as_one_alone(port):
    def fields(i):
        return dict(prompt='Yo\n', max_new_tokens=100, seed=i % 4, num_samples=1 + i % 4)

    alone = [generate(port, **fields(i))['texts'] for i in range(4)]
    with ThreadPoolExecutor(32) as pool:
        futures = [pool.submit(lambda i=i: list(stream(port, **fields(i))[1])) for i in range(32)]
        events = [future.result(timeout=120) for future in futures]
    for i in range(32):
        assert events[i][-1]['texts'] == alone[i % 4]
    most_ahead = max(event.get('waiting', 0) for client_events in events for event in client_events)
    assert most_ahead > 1  # they did wait for each other


def test_requests_wait_in_order_and_a_full_queue_refuses(port):
    waiting = []
    with model_in_use(port):
        for i in range(QUEUE):
            waiting.append(stream(port, prompt='Yo', max_new_tokens=2, seed=i))
            assert next(waiting[-1][1]) == {'waiting': i + 1}
        assert f'{QUEUE} requests are waiting' in error_detail(port, 503, prompt='Yo')
        assert call(port, '/api/analyse', dict(text=VERSE))[0] == 200  # analysis doesn't wait for the model
        waiting.pop(3)[0].close()
        last_events = waiting[-1][1]
        assert next(event for event in last_events if event['waiting'] == QUEUE - 1)  # the others move up
        waiting.append(stream(port, prompt='Yo', max_new_tokens=2))
        assert next(waiting[-1][1]) == {'waiting': QUEUE}
    # the client before them has left in the middle of its text
    assert all(list(events)[-1]['done'] for _, events in waiting)


def test_a_client_that_leaves_before_its_answer_frees_the_model(port):
    connection = http.client.HTTPConnection('127.0.0.1', port)
    body = json.dumps(dict(max_new_tokens=LONG))
    connection.request('POST', '/api/generate', body, {'Content-Type': 'application/json'})
    time.sleep(0.2)
    while not next(events := stream(port, prompt='Yo', max_new_tokens=2)[1])['waiting']:
        list(events)  # the first request has not arrived yet
    connection.close()
    assert list(events)[-1]['done']


# ---- the other routes

def test_analyse(port):
    status, analysis = call(port, '/api/analyse', dict(text=VERSE + '\n🎤 my day\nno way'))
    assert status == 200 and analysis['density'] > 0
    lines = analysis['lines']
    assert [line['letter'] for line in lines[:3]] == ['', 'A', 'A']
    assert [line['syllables'] for line in lines[:3]] == [6, 6, 4]
    assert lines[1]['spans'] == [[18, 22, 0, False]]
    assert lines[-2]['spans'][-1][:2] == [5, 8]  # code points
    assert lines[-1]['letter'] == 'A' and lines[-1]['spans'][-1][2] != 0  # a new stanza with another rhyme


def test_analyse_marks_lines_copied_from_the_training_songs(port, songs):
    song = json.loads(songs.read_text().splitlines()[1].rstrip(','))
    line = next(line for line in song['text'].split('\n') if len(line.split()) > 8)
    lines = call(port, '/api/analyse', dict(text='The cat was on a mat,\n' + line))[1]['lines']
    assert 'copied' not in lines[0]
    copied = lines[1]['copied']
    assert copied['words'] >= 8 and copied['line'] == line
    assert song['song_name'] in copied['song'] and song['artist_name'] in copied['song']


def test_the_html_page_escapes_its_text(port):
    page = call(port, '/api/page', dict(text='<script>alert(1)</script>\n' + VERSE, title='<b>'))[1]
    assert '<script' not in page and '<b>' not in page and 'class="r0"' in page


@pytest.mark.parametrize('path', ['/', '/api', '/style.css', '/theme.js', '/page.js', '/icon.svg',
                                  '/openapi.json'])
def test_files_have_security_headers_and_no_links_to_other_sites(port, path):
    connection, response = connect(port, path)
    content = response.read().decode()
    connection.close()
    assert response.status == 200
    assert "default-src 'self'" in response.headers['content-security-policy']
    assert response.headers['x-content-type-options'] == 'nosniff'
    links = content.replace('http://127.0.0.1', '').replace('http://www.w3.org/2000/svg', '')
    assert 'http://' not in links and 'https://' not in links


def test_other_files_are_not_served(port):
    assert call(port, '/web/../serve.py')[0] == call(port, '/serve.py')[0] == 404


def test_every_field_is_documented(port):
    page = call(port, '/api')[1]
    schemas = call(port, '/openapi.json')[1]['components']['schemas']
    fields = schemas['GenerateRequest']['properties']
    assert len(fields) > 10
    assert [field for field in fields if f'<code>{field}</code>' not in page] == []


# ---- other machines

def test_other_machines_need_a_password(trained):
    flags = [f'--out_dir={trained[0]}', '--host=0.0.0.0', '--pretrained=']
    result = run('serve.py', *flags, '--password=secret', ok=False)
    assert 'password' in result.message and 'secret' not in result.stdout

    with serving(*flags, '--user=me', NANORAP_PASSWORD='sesame') as (port, printed):
        assert re.search(r'\b[1-9]\d* training songs', printed)  # those that the run was trained on
        result = run('serve.py', *flags, '--user=me', '--password=secret', f'--port={port}', ok=False)
        assert 'another --port' in result.message
        right = dict(Authorization='Basic ' + base64.b64encode(b'me:sesame').decode())
        wrong = dict(Authorization='Basic ' + base64.b64encode(b'me:wrong').decode())
        requests = [('/', None), ('/page.js', None), ('/api/models', None), ('/openapi.json', None),
                    ('/api/generate', dict(prompt='a')), ('/api/analyse', dict(text='a'))]
        for path, body in requests:
            statuses = [call(port, path, body, **headers)[0] for headers in ({}, wrong, right)]
            assert statuses == [401, 401, 200], path


def test_a_missing_model_is_one_line():
    assert 'train one first' in run('serve.py', '--out_dir=nowhere', ok=False).message
