"""nanorap/serve/web.py in a real server: who may ask, and the headers of the answers."""

import base64
import re

import pytest
from conftest import run
from server import call, connect, serving

pytest.importorskip('fastapi', reason="serve.py needs pip install -r requirements-web.txt")


def test_csrf_and_dns_rebinding_are_refused(port):
    # a form on another site can send text/plain, but not JSON
    assert call(port, '/api/generate', b'{"prompt": "a"}', Content_Type='text/plain')[0] == 422
    assert call(port, '/api/models', Host='evil.example')[0] == 400


def test_long_bodies_are_refused(port):
    assert call(port, '/api/generate', b' ' * 300_000)[0] == 413


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


@pytest.mark.slow
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
