"""serve.py as people use it: the API of a real server. Its modules: test_jobs, test_web, test_writer."""

import json

import pytest
from conftest import run
from server import LONG, VERSE, call, error_detail, generate, stream

pytest.importorskip('fastapi', reason="serve.py needs pip install -r requirements-web.txt")


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


def test_other_files_are_not_served(port):
    assert call(port, '/web/../serve.py')[0] == call(port, '/serve.py')[0] == 404


def test_malformed_bodies_are_refused(port):
    assert call(port, '/api/generate', b'{"temperature": NaN}')[0] == 422
    assert call(port, '/api/generate', b'{"prompt": "\\ud800"}')[0] == 422  # half of a surrogate pair


def test_every_field_is_documented(port):
    page = call(port, '/api')[1]
    schemas = call(port, '/openapi.json')[1]['components']['schemas']
    fields = schemas['GenerateRequest']['properties']
    assert len(fields) > 10
    assert [field for field in fields if f'<code>{field}</code>' not in page] == []


def test_a_missing_model_is_one_line():
    assert 'train one first' in run('serve.py', '--out_dir=nowhere', ok=False).message
