"""The page of serve.py in a real browser."""

import json
import shutil
import time

import pytest
from server import VERSE, generate, model_in_use

pytest.importorskip('fastapi', reason="serve.py needs pip install -r requirements-web.txt")
webdriver = pytest.importorskip('selenium.webdriver', reason="the page is tested with pip install selenium")

KEYS = webdriver.Keys
FLAGS = ['headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run',
         'disable-background-networking', 'disable-component-update', 'disable-sync',
         'disable-dev-shm-usage', 'window-size=1200,900']


@pytest.fixture(scope='module')
def driver(tmp_path_factory):
    chromium, chromedriver = shutil.which('chromium'), shutil.which('chromedriver')
    if not chromium or not chromedriver:
        pytest.skip("the page is tested where chromium and chromedriver are (Debian: apt-get install "
                    "chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', dict(browser='ALL'))
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


class Page:
    """The page in the browser's present tab. Its scripts' names, such as `area`, are visible to js()."""

    def __init__(self, driver, port, hash=''):
        self.driver = driver
        driver.get('about:blank')  # so that a link to the same page loads it
        driver.get(f'http://127.0.0.1:{port}/{hash}')
        self.wait("document.documentElement.dataset.ready")

    def js(self, code, *args):
        """Evaluate a JavaScript expression in the page."""
        return self.driver.execute_script(f'return {code}', *args)

    def wait(self, condition, *args):
        """Wait until a JavaScript expression is truthy, and return its value."""
        for _ in range(600):
            if value := self.js(condition, *args):
                return value
            time.sleep(0.1)
        raise AssertionError(f"{condition} never came true; status: {self.status}")

    def wait_until_written(self):
        """Wait until the model has ended, and return the text."""
        self.wait("!writing")
        return self.text

    def press(self, *keys):
        """Press keys at once, where the focus is."""
        actions = webdriver.ActionChains(self.driver)
        for key in keys:
            actions.key_down(key)
        for key in reversed(keys):
            actions.key_up(key)
        actions.perform()

    def click(self, id):
        self.driver.find_element('id', id).click()

    def type(self, text):
        """Type at the end of the text."""
        self.driver.find_element('id', 'text').send_keys(text)

    def set(self, **fields):
        """Change settings."""
        for name, value in fields.items():
            self.js("(fields[arguments[0]].value = arguments[1], "
                    "fields[arguments[0]].dispatchEvent(new Event('input', {bubbles: true})))",
                    name, str(value))

    def replace_text(self, text):
        self.js("setText(arguments[0])", text)

    @property
    def text(self):
        return self.js("area.value")

    @property
    def status(self):
        return self.js("$('status').textContent")

    @property
    def choices_are_closed(self):
        return self.js("$('choices').hidden && document.activeElement === area")


@pytest.fixture
def page(driver, port):
    page = Page(driver, port)
    page.js("localStorage.clear()")
    page.js("form.reset()")
    page.replace_text('')
    yield page
    errors = [line for line in driver.get_log('browser') if line['level'] == 'SEVERE']
    assert not errors  # no script failed, and the security policy blocked nothing


# ---- the editor

@pytest.mark.slow
def test_rhymes_have_colours_letters_and_counts(page):
    page.type(VERSE + '\nmy day\nno way')
    page.wait("document.querySelectorAll('.line .end').length >= 8")  # four words, four letters in the margin
    margin = page.js("[...mirror.children].map(line => [line.querySelector('.letter')?.textContent, "
                     "line.querySelector('.count')?.textContent])")
    assert margin == [[None, '6'], ['A', '6'], ['A', '4'], [None, None], ['A', '2'], ['A', '2']]
    rhymes = page.js("[...mirror.querySelectorAll('.words .end')].map(word => [word.textContent, "
                     "getComputedStyle(word).backgroundColor])")
    assert [word for word, _ in rhymes] == ['hall', 'fall', 'day', 'way']
    colours = [colour for _, colour in rhymes]
    assert colours[0] == colours[1] != colours[2] == colours[3] != 'rgba(0, 0, 0, 0)'
    assert 'rhyme density' in page.js("$('measures').textContent")
    page.type('\b\b\band a wall')
    page.wait("mirror.lastChild.textContent.includes('a wall') && "
              "!mirror.lastChild.querySelector('.letter')")


def test_the_mirror_has_the_size_of_the_text(page):
    page.replace_text(('a long line that has to wrap   ' * 9 + '\n\n') * 3 + 'x' * 300)
    heights = page.js("[area.scrollHeight, mirror.offsetHeight]")
    assert abs(heights[0] - heights[1]) <= 1
    widths = page.js("[area.clientWidth, renderedLines[0].node.clientWidth - "
                     "parseFloat(getComputedStyle(renderedLines[0].node).paddingLeft)]")
    assert abs(widths[0] - widths[1]) <= 1


def test_html_in_the_text_stays_text(page):
    html = '<script>window.hit = 1</script><img src=x onerror="window.hit = 1">'
    page.type(html + '\n')
    page.click('continue')
    assert page.wait_until_written().startswith(html + '\n') and len(page.text) > len(html) + 1
    page.click('another')
    page.wait_until_written()
    page.wait("!document.querySelector('.card').disabled")
    page.js("document.querySelector('.card').click()")
    page.wait("renderedLines[0].analysis")
    assert html in page.js("mirror.textContent") and page.text.startswith(html)
    assert page.js("window.hit === undefined && !mirror.querySelector('script, img')")


# ---- writing

@pytest.mark.slow
def test_continue_undo_and_edits(page):
    page.type('Yo the cat')
    page.set(seed=3, lines=3)
    page.click('continue')
    written = page.wait_until_written()
    assert written.startswith('Yo the cat\n')
    assert len([line for line in written.split('\n') if line.strip()]) == 4
    assert 'seed 3' in page.status
    page.click('undo')
    assert page.text == 'Yo the cat'
    page.click('redo')
    assert page.text == written
    # the model continues a text that was edited in the middle
    page.js("(area.focus(), area.setSelectionRange(3, 6))")
    page.press('o')
    page.press('n')
    page.press('e')
    page.press(KEYS.CONTROL, KEYS.ENTER)
    edited = written.replace('the', 'one', 1)
    assert page.wait_until_written().startswith(edited) and len(page.text) > len(edited)
    page.click('undo')
    page.click('undo')
    assert page.text == written


@pytest.mark.slow
def test_stop_while_the_model_writes(page, port):
    page.set(model=page.js("models.find(model => model.name.endsWith('endless')).name"), lines=32)
    # the page itself watches for the first text, since the model is faster than a driver that asks
    page.js("void setInterval(() => { if (area.value.length > 0) $('stop').click() }, 1)")
    page.click('continue')
    assert 0 < len(page.wait_until_written()) < 1280 and page.status == 'stopped'
    assert generate(port, prompt='Yo', max_new_tokens=2)['done']


def test_stop_while_another_client_is_served(page, port):
    with model_in_use(port):
        page.click('continue')
        page.wait("$('status').textContent.startsWith('waiting: 1')")
        page.type('mine')  # the page is not blocked
        page.type(KEYS.ESCAPE)
        assert page.wait_until_written() == 'mine' and page.status == 'stopped'
    assert generate(port, prompt='Yo', max_new_tokens=2)['done']


@pytest.mark.slow
def test_an_alternative_replaces_the_last_lines(page):
    page.type('Yo the cat\n')
    page.set(seed=3, lines=2)
    page.click('continue')
    written = page.wait_until_written()
    page.set(scheme='ABAB', samples=8, syllables=4)
    page.click('another')
    page.wait_until_written()
    page.wait("[...document.querySelectorAll('.card')].every(card => card.lastChild.children.length)")
    cards = page.js("[...document.querySelectorAll('.card .verse')].map(verse => verse.textContent)")
    assert len(cards) == 8 and len(set(cards)) > 1 and page.text == written
    page.press('3')
    assert page.text == 'Yo the cat\n' + page.js("lastPiece.text") and cards[2] in page.text
    assert page.choices_are_closed
    page.click('undo')
    assert page.text == written
    page.click('another')
    page.wait_until_written()
    page.wait("!document.querySelector('.card').disabled")
    page.press(KEYS.ESCAPE)
    assert page.text == written and page.choices_are_closed


@pytest.mark.slow
def test_two_tabs_write_at_the_same_time(page, port):
    first_tab = page.driver.current_window_handle
    page.type('Yo one')
    page.driver.switch_to.new_window('tab')
    other_tab = page.driver.current_window_handle
    other = Page(page.driver, port)
    other.replace_text('')
    other.type('Yo two')
    other.set(lines=32)
    other.click('continue')
    page.driver.switch_to.window(first_tab)
    page.click('continue')
    assert page.wait_until_written().startswith('Yo one\n') and len(page.text) > 7
    page.driver.switch_to.window(other_tab)
    assert other.wait_until_written().startswith('Yo two\n') and len(other.text) > 7
    page.driver.close()
    page.driver.switch_to.window(first_tab)


# ---- saving

def test_save_as_text_page_or_json(page, tmp_path):
    page.driver.execute_cdp_cmd('Browser.setDownloadBehavior',
                                dict(behavior='allow', downloadPath=str(tmp_path)))
    text = '🎤 “Yo” <b>\n' + VERSE
    page.replace_text(text)
    page.set(scheme='own', own='AABBA')
    for kind in ('txt', 'html', 'json'):
        page.click('save')
        page.driver.find_element('css selector', f'[data-save={kind}]').click()
        for _ in range(100):
            if (tmp_path / f'verse.{kind}').exists():
                break
            time.sleep(0.1)
    assert (tmp_path / 'verse.txt').read_text() == text
    saved = json.loads((tmp_path / 'verse.json').read_text())
    assert saved['text'] == text and saved['settings'] == page.js("settings()")
    assert saved['settings']['own'] == 'AABBA'
    html = (tmp_path / 'verse.html').read_text()
    assert '&lt;b&gt;' in html and 'class="r0"' in html


@pytest.mark.slow
def test_a_link_holds_text_and_settings(page, port):
    text = '🎤 “Yo” <b>\n' + VERSE
    page.replace_text(text)
    page.set(temperature=1.25, scheme='own', own='AABBA', seed=9, top_k='')
    settings = page.js("settings()")
    page.click('link')
    hash = page.wait("location.hash.length > 1 && location.hash")
    page.js("localStorage.clear()")
    linked = Page(page.driver, port, hash)
    assert linked.text == text and linked.js("settings()") == settings and linked.js("location.hash") == ''
    reopened = Page(page.driver, port)
    assert reopened.text == text  # of the last visit
    assert 'damaged' in Page(page.driver, port, '#nonsense').status


# ---- for everybody

def test_every_control_has_an_accessible_name(page):
    page.type(VERSE)
    roles = ('button', 'textbox', 'combobox', 'spinbutton', 'slider', 'checkbox', 'link')
    nodes = page.driver.execute_cdp_cmd('Accessibility.getFullAXTree', {})['nodes']
    controls = [node for node in nodes if not node.get('ignored') and node['role']['value'] in roles]
    assert len(controls) > 15
    assert [node for node in controls if not node.get('name', {}).get('value')] == []


@pytest.mark.parametrize('width, theme', [(390, 'dark'), (1200, 'light')])
def test_the_page_fits_its_width_and_follows_the_theme(page, width, theme):
    page.type(VERSE)
    metrics = dict(width=width, height=800, deviceScaleFactor=1, mobile=False)
    page.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
    features = [dict(name='prefers-color-scheme', value=theme)]
    page.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=features))
    page.wait("document.documentElement.dataset.theme === arguments[0]", theme)
    assert page.js("document.documentElement.scrollWidth <= innerWidth")
    is_light = page.js("getComputedStyle(document.documentElement).backgroundColor"
                       ".match(/\\d+/g).every(n => n > 128)")
    assert is_light == (theme == 'light')
    page.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_nothing_is_loaded_from_other_sites(page, port):
    page.type(VERSE)
    page.wait("renderedLines[0].analysis")
    urls = page.js("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert urls and all(url.startswith(f'http://127.0.0.1:{port}/') for url in urls)
