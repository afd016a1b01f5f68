"""serve.py as people use it: a real server on loopback, its API, and its page in a real browser."""

import base64
import http.client
import json
import os
import re
import shutil
import string
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from conftest import ONE_THREAD, ROOT, run

from model import GPT, GPTConfig
from nanorap.checkpoint import write_folder
from nanorap.tokenizer import CharTokenizer

pytest.importorskip('fastapi', reason="serve.py needs pip install -r requirements-web.txt")
VERSE = 'The cat was on a mat,\nA flat hat in the hall,\nI fell & I fall\n'
LONG = 100_000  # tokens: minutes, even of the smallest model


@contextmanager
def serving(*args, **env):
    """A server as a process; yields (its port, what it printed)."""
    process = subprocess.Popen([sys.executable, 'serve.py', '--port=0', '--device=cpu', *map(str, args)], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | ONE_THREAD | env)
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


def babbler(trained, folder, letters):
    """A model that says these characters at random, all alike, and no end."""
    tokenizer = CharTokenizer(string.printable[:95] + '\n')
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=128, vocab_size=128, pos='alibi', bias=True))
    with torch.no_grad():
        for p in (model.transformer.wte.weight, model.transformer.ln_f.weight):
            p.zero_()
        model.transformer.ln_f.bias.fill_(1)
        model.transformer.wte.weight[tokenizer.encode(letters)] = 3
    about = json.loads((trained / 'best' / 'config.json').read_text()) | dict(model=model.config_dict())
    about['tokenizer'] = tokenizer.meta() | dict(header=['artist'])
    write_folder(folder / 'best', dict(model=model.state_dict()), dict(config=about), tokenizer)
    return folder


@pytest.fixture(scope='module')
def port(trained, songs, char_data, tmp_path_factory):
    """A server with two models, the songs, and room for 40 in its queue."""
    folder = tmp_path_factory.mktemp('models')
    babbler(trained[0], folder / 'babbler', 'ateons \n')
    babbler(trained[0], folder / 'hummer', 'mh ')
    data = folder / 'data'
    shutil.copytree(char_data, data)
    shutil.copy(songs, data / 'data.json')
    with serving(f'--out_dir={folder}/babbler', f'--models={folder}', '--pretrained=', f'--dataset={data}', '--queue=40',
                 f'--max_tokens={LONG}') as (port, _):
        yield port


def connect(port, path, body=None, **headers):
    """An open connection and its answer, not yet read. body: a dict, or bytes as they are."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    headers = {'Content-Type': 'application/json'} | {key.replace('_', '-'): value for key, value in headers.items()}
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    connection.request('GET' if body is None else 'POST', path, data, headers)
    return connection, connection.getresponse()


def call(port, path, body=None, **headers):
    """(status, content) of an answer; JSON is read."""
    connection, answer = connect(port, path, body, **headers)
    content = answer.read()
    connection.close()
    is_json = answer.headers['content-type'] == 'application/json'
    return answer.status, json.loads(content) if is_json else content.decode()


def generate(port, **ask):
    status, content = call(port, '/api/generate', ask)
    assert status == 200, content
    return content


def stream(port, **ask):
    """A connection, and the events that come over it."""
    connection, answer = connect(port, '/api/generate', ask | dict(stream=True))
    assert answer.status == 200, answer.read()
    return connection, map(json.loads, answer)


@contextmanager
def busy(port):
    """While one client has the model to itself."""
    connection, events = stream(port, max_new_tokens=LONG)
    assert next(event for event in events if 'text' in event)['sample'] == 0
    try:
        yield
    finally:
        connection.close()


# ---- the API

def test_the_same_text_as_sample_py(port):
    found = generate(port, prompt='[Hook]\nYo', max_new_tokens=60, num_samples=3, seed=5, stop=['st', 'xxxxxxxxx'])
    [folder] = [model['name'] for model in call(port, '/api/models')[1]['models'] if model['name'].endswith('babbler')]
    result = run('sample.py', f'--out_dir={folder}', '--start=[Hook]\nYo', '--max_new_tokens=60', '--num_samples=3', '--seed=5',
                 '--stop=st|xxxxxxxxx', '--device=cpu')
    wanted = [text.removeprefix('[Hook]\nYo') for text in result.stdout.partition('\n')[2][:-1].split('\n---------------\n')]
    assert found['texts'] == wanted and found['seed'] == 5 and len(set(wanted)) == 3
    assert found['tokens'][0] > 0


def test_a_stream_is_the_whole_in_pieces(port):
    ask = dict(prompt='Yo\n', max_new_tokens=200, num_samples=2, seed=1, lines=3)
    for more in (dict(), dict(rhyme='AABB', syllables=3), dict(artist='Fern')):
        events = list(stream(port, **ask, **more)[1])
        pieces = ['', '']
        for event in events[:-1]:
            if 'waiting' not in event:
                pieces[event['sample']] += event['text']
        assert events[-1]['done'] and events[-1]['texts'] == pieces == generate(port, **ask, **more)['texts']
        assert len(events) > 5 and all(sum(map(bool, map(str.strip, text.split('\n')[:-1]))) == 3 for text in pieces)
    seeds = {generate(port, prompt='Yo', max_new_tokens=3)['seed'] for _ in range(3)}
    assert len(seeds) == 3


def test_limits_and_mistakes(port):
    def detail(status, path='/api/generate', **ask):
        found, content = call(port, path, ask)
        assert found == status and '\n' not in content['detail'], content
        return content['detail']

    for ask in (dict(max_new_tokens=LONG + 1), dict(num_samples=9), dict(temperature=-1), dict(top_k=0), dict(top_p=0),
                dict(rhyme='A-B'), dict(seed=-1), dict(prompt='a' * 20_001), dict(syllables=9), dict(prompt=3)):
        assert next(iter(ask)) in detail(422, **ask)
    assert 'extra' in detail(422, nonsense=1).lower()
    assert 'there is no' in detail(422, model='../../etc') and 'there is no' in detail(422, model='gpt2')
    assert "character 'ß'" in detail(400, prompt='ß') and 'without the title' in detail(400, title='Rain')
    assert 'text' in detail(422, '/api/analyse', text='a' * 20_001)
    assert call(port, '/api/generate', b'{"temperature": NaN}')[0] == 422
    assert call(port, '/api/generate', b'{"prompt": "\\ud800"}')[0] == 422  # half a character
    assert call(port, '/api/generate', b' ' * 300_000)[0] == 413
    assert call(port, '/api/generate', b'{"prompt": "a"}', Content_Type='text/plain')[0] == 422  # as a form elsewhere could
    assert call(port, '/api/models', Host='evil.example')[0] == 400  # a name made to point at this machine
    assert call(port, '/web/../serve.py')[0] == call(port, '/serve.py')[0] == 404
    last = list(stream(port, prompt='ß')[1])[-1]
    assert "character 'ß'" in last['error']
    generate(port, prompt='a', max_new_tokens=3)  # and it goes on


def test_pages_and_headers(port):
    for path in ('/', '/api', '/style.css', '/theme.js', '/page.js', '/icon.svg', '/openapi.json'):
        connection, answer = connect(port, path)
        content = answer.read().decode()
        assert answer.status == 200 and "default-src 'self'" in answer.headers['content-security-policy'], path
        assert answer.headers['x-content-type-options'] == 'nosniff'
        links = content.replace('http://127.0.0.1', '').replace('http://www.w3.org/2000/svg', '')
        assert 'http://' not in links and 'https://' not in links  # nothing comes from elsewhere
        connection.close()
    documented = call(port, '/api')[1]
    fields = call(port, '/openapi.json')[1]['components']['schemas']['GenerateRequest']['properties']
    assert len(fields) > 10 and all(f'<code>{field}</code>' in documented for field in fields)


def test_analyse(port, songs):
    song = json.loads(songs.read_text().splitlines()[1].rstrip(','))
    copied = next(line for line in song['text'].split('\n') if len(line.split()) > 8)
    status, found = call(port, '/api/analyse', dict(text=VERSE + '\n' + copied + '\n🎤 my day\nno way'))
    assert status == 200 and found['density'] > 0
    lines = found['lines']
    assert [line['letter'] for line in lines[:3]] == ['', 'A', 'A'] and [line['syllables'] for line in lines[:3]] == [6, 6, 4]
    assert lines[1]['spans'] == [[18, 22, 0, False]] and lines[-2]['spans'][-1][:2] == [5, 8]  # code points
    assert lines[-1]['letter'] == 'A' and lines[-1]['spans'][-1][2] != 0  # a stanza of its own
    assert 'copied' not in lines[0] and lines[4]['copied']['words'] >= 8 and lines[4]['copied']['line'] == copied
    assert song['song_name'] in lines[4]['copied']['song'] and song['artist_name'] in lines[4]['copied']['song']
    page = call(port, '/api/page', dict(text='<script>alert(1)</script>\n' + VERSE, title='<b>'))[1]
    assert '<script' not in page and '<b>' not in page and 'class="r0"' in page


def test_thirty_two_clients_at_once(port):
    """No error, none waits for ever, and the same seed gives the same text as when nobody else is there."""
    ask = dict(prompt='Yo\n', max_new_tokens=100)
    alone = {seed: generate(port, **ask, seed=seed, num_samples=1 + seed)['texts'] for seed in range(4)}
    with ThreadPoolExecutor(32) as pool:
        jobs = [pool.submit(lambda i=i: list(stream(port, **ask, seed=i % 4, num_samples=1 + i % 4)[1])) for i in range(32)]
        found = [job.result(timeout=120) for job in jobs]
    assert all(events[-1]['texts'] == alone[i % 4] for i, events in enumerate(found))
    assert max(event.get('waiting', 0) for events in found for event in events) > 1  # they did wait for each other


def test_order_and_a_full_queue(port):
    """Requests wait in order; who goes away frees a place, and the model; one too many is told so."""
    waiting = []
    with busy(port):
        for i in range(40):
            waiting.append(stream(port, prompt='Yo', max_new_tokens=2, seed=i))
            assert next(waiting[-1][1]) == {'waiting': i + 1}
        status, content = call(port, '/api/generate', dict(prompt='Yo'))
        assert status == 503 and '40 requests are waiting' in content['detail']
        assert call(port, '/api/analyse', dict(text=VERSE))[0] == 200  # a long one doesn't block the page
        waiting.pop(3)[0].close()
        events = waiting[-1][1]
        assert next(event for event in events if event['waiting'] == 39)  # the others move up
        waiting.append(stream(port, prompt='Yo', max_new_tokens=2))
        assert next(waiting[-1][1]) == {'waiting': 40}
    # the one before them has gone, in the midst of its tokens: now they are served
    assert all(list(events)[-1]['done'] for _, events in waiting)
    # and so has one that waits for the whole
    whole = http.client.HTTPConnection('127.0.0.1', port)
    whole.request('POST', '/api/generate', json.dumps(dict(max_new_tokens=LONG)), {'Content-Type': 'application/json'})
    time.sleep(0.2)
    while not next(events := stream(port, prompt='Yo', max_new_tokens=2)[1])['waiting']:
        list(events)  # it has not come yet
    whole.close()
    assert list(events)[-1]['done']


def test_other_machines_need_a_password(trained):
    flags = [f'--out_dir={trained[0]}', '--host=0.0.0.0', '--pretrained=']
    result = run('serve.py', *flags, '--password=secret', ok=False)
    assert 'password' in result.message and 'secret' not in result.stdout
    assert 'train one first' in run('serve.py', '--out_dir=nowhere', ok=False).message
    with serving(*flags, '--user=me', NANORAP_PASSWORD='sesame') as (port, printed):
        assert re.search(r'\b[1-9]\d* training songs', printed)  # those that the run was trained on
        assert 'another --port' in run('serve.py', *flags, '--user=me', '--password=secret', f'--port={port}', ok=False).message
        for path, body in (('/', None), ('/page.js', None), ('/api/models', None), ('/openapi.json', None),
                           ('/api/generate', dict(prompt='a')), ('/api/analyse', dict(text='a'))):
            for given in ({}, dict(Authorization='Basic ' + base64.b64encode(b'me:wrong').decode())):
                assert call(port, path, body, **given)[0] == 401
            right = dict(Authorization='Basic ' + base64.b64encode(b'me:sesame').decode())
            assert call(port, path, body, **right)[0] == 200


# ---- the page, in a browser

@pytest.fixture(scope='module')
def driver(tmp_path_factory):
    webdriver = pytest.importorskip('selenium.webdriver', reason="the page is tested with pip install selenium")
    chromium, chromedriver = shutil.which('chromium'), shutil.which('chromedriver')
    if not chromium or not chromedriver:
        pytest.skip("the page is tested where chromium and chromedriver are (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ('headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-background-networking',
                 'disable-component-update', 'disable-sync', 'disable-dev-shm-usage', 'window-size=1200,900',
                 f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', dict(browser='ALL'))
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


class Page:
    def __init__(self, driver, port, hash=''):
        self.driver = driver
        driver.get('about:blank')  # so that a link to the same page loads it
        driver.get(f'http://127.0.0.1:{port}/{hash}')
        self.wait("document.documentElement.dataset.ready")

    def js(self, code, *args):
        return self.driver.execute_script(f'return {code}', *args)

    def wait(self, condition, *args):
        """Until it is true in the page; what it is then."""
        for _ in range(600):
            if found := self.js(condition, *args):
                return found
            time.sleep(0.1)
        raise AssertionError(f"{condition} never came true; status: {self.js('$(`status`).textContent')}")

    def keys(self):
        """Keys for whatever has the focus; unlike type(), they leave the caret where it is."""
        from selenium.webdriver import ActionChains

        return ActionChains(self.driver)

    def click(self, id):
        self.driver.find_element('id', id).click()

    def type(self, text):
        self.driver.find_element('id', 'text').send_keys(text)

    def set(self, **fields):
        for name, value in fields.items():
            self.js("(fields[arguments[0]].value = arguments[1], fields[arguments[0]].dispatchEvent(new Event('input', "
                    "{bubbles: true})))", name, str(value))

    def clear(self):
        self.js("setText('')")

    def done(self):
        self.wait("!writing")
        return self.text

    @property
    def text(self):
        return self.js("area.value")


@pytest.fixture
def page(driver, port):
    page = Page(driver, port)
    page.js("localStorage.clear()")
    page.js("form.reset()")
    page.clear()
    yield page
    errors = [line for line in driver.get_log('browser') if line['level'] == 'SEVERE']
    assert not errors  # no script that failed, nothing that the security policy forbade


def test_colours_and_margin(page):
    page.type(VERSE + '\nmy day\nno way')
    page.wait("document.querySelectorAll('.line .end').length >= 8")  # four words, four letters in the margin
    shown = page.js("[...mirror.children].map(line => [line.querySelector('.letter')?.textContent, "
                    "line.querySelector('.count')?.textContent])")
    assert shown == [[None, '6'], ['A', '6'], ['A', '4'], [None, None], ['A', '2'], ['A', '2']]
    colours = page.js("[...mirror.querySelectorAll('.words .end')].map(word => [word.textContent, "
                      "getComputedStyle(word).backgroundColor])")
    assert [word for word, _ in colours] == ['hall', 'fall', 'day', 'way']
    assert colours[0][1] == colours[1][1] != colours[2][1] == colours[3][1] != 'rgba(0, 0, 0, 0)'
    assert 'rhyme density' in page.js("$('measures').textContent")
    # a line is changed: its colours go with its words
    page.type('\b\b\band a wall')
    page.wait("mirror.lastChild.textContent.includes('a wall') && !mirror.lastChild.querySelector('.letter')")
    # the mirror lies exactly behind the text, however it wraps
    page.js("setText(arguments[0])", ('a long line that has to wrap   ' * 9 + '\n\n') * 3 + 'x' * 300)
    boxes = page.js("[area.scrollHeight, mirror.offsetHeight, area.clientWidth, renderedLines[0].node.clientWidth - "
                    "parseFloat(getComputedStyle(renderedLines[0].node).paddingLeft)]")
    assert abs(boxes[0] - boxes[1]) <= 1 and abs(boxes[2] - boxes[3]) <= 1


def test_continue_undo_and_edits(page):
    page.type('Yo the cat')
    page.set(seed=3, lines=3)
    page.click('continue')
    first = page.done()
    assert first.startswith('Yo the cat\n') and sum(map(bool, map(str.strip, first.split('\n')))) == 4
    assert 'seed 3' in page.js("$('status').textContent")
    page.click('undo')
    assert page.text == 'Yo the cat'
    page.click('redo')
    assert page.text == first
    # an edit in the middle is kept, and is what the model goes on from
    page.js("(area.focus(), area.setSelectionRange(3, 6))")
    page.keys().send_keys('one').key_down('\ue009').send_keys('\ue007').key_up('\ue009').perform()  # Ctrl Enter
    edited = first.replace('the', 'one', 1)
    assert page.done().startswith(edited) and len(page.text) > len(edited)
    page.click('undo')
    page.click('undo')
    assert page.text == first


def test_stop(page, port):
    page.set(model=page.js("models.find(model => model.name.endsWith('hummer')).name"), lines=32)
    page.click('continue')
    page.wait("area.value.length > 0 && ($('stop').click(), true)")
    assert 0 < len(page.done()) < 1280 and page.js("$('status').textContent") == 'stopped'
    with busy(port):  # and where others come first
        page.clear()
        page.click('continue')
        page.wait("$('status').textContent.startsWith('waiting: 1')")
        page.type('mine')  # the page is not blocked
        page.type('\ue00c')  # Escape
        assert page.done() == 'mine' and page.js("$('status').textContent") == 'stopped'
    assert generate(port, prompt='Yo', max_new_tokens=2)['done']


def test_alternatives_and_the_scheme(page):
    page.type('Yo the cat\n')
    page.set(seed=3, lines=2)
    page.click('continue')
    first = page.done()
    page.set(scheme='ABAB', samples=8, syllables=4)
    page.click('another')
    page.done()
    cards = page.wait("[...document.querySelectorAll('.card')].every(card => card.lastChild.children.length) && "
                      "[...document.querySelectorAll('.card .verse')].map(verse => verse.textContent)")
    assert len(cards) == 8 and len(set(cards)) > 1 and page.text == first
    page.driver.switch_to.active_element.send_keys('3')
    assert page.text == 'Yo the cat\n' + page.js("lastPiece.text") and cards[2] in page.text
    assert page.js("$('choices').hidden && document.activeElement === area")
    page.click('undo')
    assert page.text == first
    page.click('another')
    page.done()
    page.wait("!document.querySelector('.card').disabled")
    page.driver.switch_to.active_element.send_keys('\ue00c')
    assert page.text == first and page.js("$('choices').hidden")


def test_text_is_text(page):
    evil = '<script>window.hit = 1</script><img src=x onerror="window.hit = 1">'
    page.type(evil + '\n')
    page.click('continue')
    assert page.done().startswith(evil + '\n') and len(page.text) > len(evil) + 1
    page.click('another')
    page.done()
    page.wait("!document.querySelector('.card').disabled && document.querySelector('.card').click() === undefined")
    page.wait("renderedLines[0].analysis")
    assert page.js("mirror.textContent").find(evil) >= 0 and page.text.startswith(evil)
    assert page.js("window.hit === undefined && !mirror.querySelector('script, img')")


def test_save_and_link(page, port, tmp_path):
    page.driver.execute_cdp_cmd('Browser.setDownloadBehavior', dict(behavior='allow', downloadPath=str(tmp_path)))
    text = '🎤 “Yo” <b>\n' + VERSE
    page.js("setText(arguments[0])", text)
    page.set(temperature=1.25, scheme='own', own='AABBA', seed=9, top_k='')
    for kind in ('txt', 'html', 'json'):
        page.click('save')
        page.driver.find_element('css selector', f'[data-save={kind}]').click()
        for _ in range(100):
            if (tmp_path / f'verse.{kind}').exists():
                break
            time.sleep(0.1)
    assert (tmp_path / 'verse.txt').read_text() == text
    saved = json.loads((tmp_path / 'verse.json').read_text())
    assert saved['text'] == text and saved['settings']['own'] == 'AABBA'
    html = (tmp_path / 'verse.html').read_text()
    assert '&lt;b&gt;' in html and 'class="r0"' in html
    page.click('link')
    hash = page.wait("location.hash.length > 1 && location.hash")
    page.js("localStorage.clear()")
    other = Page(page.driver, port, hash)
    assert other.text == text and other.js("settings()") == saved['settings'] and other.js("location.hash") == ''
    again = Page(page.driver, port)
    assert again.text == text  # the last visit's text is still there
    assert 'damaged' in Page(page.driver, port, '#nonsense').js("$('status').textContent")


def test_two_writers_at_once(page, port):
    first = page.driver.current_window_handle
    page.type('Yo one')
    page.driver.switch_to.new_window('tab')
    other = Page(page.driver, port)
    other.clear()
    other.type('Yo two')
    other.set(lines=32)
    other.click('continue')
    page.driver.switch_to.window(first)
    page.click('continue')
    assert page.done().startswith('Yo one\n') and len(page.text) > 7
    page.driver.switch_to.window(page.driver.window_handles[-1])
    assert other.done().startswith('Yo two\n') and len(other.text) > 7
    page.driver.close()
    page.driver.switch_to.window(first)


def test_names_widths_and_nothing_from_elsewhere(page, port):
    page.type(VERSE)
    nodes = page.driver.execute_cdp_cmd('Accessibility.getFullAXTree', {})['nodes']
    controls = [(node['role']['value'], node.get('name', {}).get('value')) for node in nodes if not node.get('ignored')
                and node['role']['value'] in ('button', 'textbox', 'combobox', 'spinbutton', 'slider', 'checkbox', 'link')]
    assert len(controls) > 15 and [role for role, name in controls if not name] == []
    for width, scheme in ((390, 'dark'), (1200, 'light')):
        metrics = dict(width=width, height=800, deviceScaleFactor=1, mobile=False)
        page.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
        page.driver.execute_cdp_cmd('Emulation.setEmulatedMedia',
                                    dict(features=[dict(name='prefers-color-scheme', value=scheme)]))
        page.wait("document.documentElement.dataset.theme === arguments[0]", scheme)
        assert page.js("document.documentElement.scrollWidth <= innerWidth")
        light = page.js("getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).every(n => n > 128)")
        assert light == (scheme == 'light')
    page.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    loaded = page.js("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded and all(url.startswith(f'http://127.0.0.1:{port}/') for url in loaded)
