"""
Genius client: lyricsgenius with rate limit, retries, typed errors.

Every request keeps to one rate limit, waits where Genius asks for it, and is tried again where that may
help. Otherwise it ends in Failed, in Blocked, or in a UserError where no request could succeed.
"""

import itertools
import math
import random
import sys
import time
from pathlib import Path

import requests
from lyricsgenius import Genius
from requests.exceptions import ChunkedEncodingError, ConnectTimeout, ProxyError, SSLError, Timeout
from tqdm import tqdm
from urllib3.exceptions import InvalidHeader, NewConnectionError
from urllib3.util import Retry

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from nanorap.common import UserError

MAX_BLOCKS = 5  # refusals in a row that end the crawl: a site that refuses us is left alone
MAX_BACKOFF = 60  # seconds: longest pause between two tries, unless Retry-After asks for more


class Failed(Exception):
    """A song, a list or an artist can't be had now.

    The message is our own text: what the server wrote may hold the token.
    """


class Gone(Failed):
    """Genius has nothing there any more, and another try won't change that."""


class Blocked(Failed):
    """Genius refuses us: 403, 429 at every try, a page in place of data or of the song's own page."""


def print_message(line):
    """Print a line to stderr above the progress bars."""
    tqdm.write(f'crawl.py: {line}', file=sys.stderr)


def connect(args):
    """Return a lyricsgenius client with a PatientSession in place of its own session."""
    genius = Genius(args.token, timeout=args.timeout, sleep_time=0)
    genius._session = PatientSession(genius._session.headers, 1 / args.requests_per_second, args.patience)
    if args.api_root:
        root = args.api_root.rstrip('/')
        genius.API_ROOT, genius.PUBLIC_API_ROOT, genius.WEB_ROOT = f'{root}/', f'{root}/api/', f'{root}/'
    return genius


class PatientSession(requests.Session):
    """A session with a rate limit, retries and typed errors, where lyricsgenius' own hides HTTP statuses."""

    def __init__(self, headers, interval, patience):
        """interval: seconds between two requests; patience: seconds to go on trying one request."""
        super().__init__()
        self.headers, self.interval, self.patience = headers, interval, patience
        self.ready_at = 0.0  # by time.monotonic(): no request leaves before
        self.reason = ''  # of the wait until then, '' for the rate limit
        self.blocks = 0  # in a row
        # counted from each answer on, a redirect's too: a site that has become slow is asked less often
        self.hooks['response'].append(lambda response, **options: self.wait(interval))

    def wait(self, seconds, reason=''):
        """Let no request leave for a number of seconds."""
        self.ready_at, self.reason = max(self.ready_at, time.monotonic() + seconds), reason

    def send(self, request, **options):
        """Send one request when the rate limit allows it; requests calls this for redirects too."""
        seconds = self.ready_at - time.monotonic()
        if self.reason and seconds > 0.5:
            reason = str(self.reason).removeprefix('crawl.py: ')
            print_message(f'{reason}; waiting {math.ceil(seconds)} s')
        time.sleep(max(0, seconds))
        return super().send(request, **options)

    def request(self, method, url, **options):
        """Return a good answer, after as many tries as patience allows.

        Raise Failed or Blocked without one, and UserError if no request could succeed.
        """
        give_up_at = time.monotonic() + self.patience
        for tries in itertools.count(1):
            pause = 0
            try:
                response = super().request(method, url, **options)
                # lyricsgenius gives headers, the token, with API calls and none with pages
                error, may_pass = check_response(response, wants_json=bool(options.get('headers')))
                pause = retry_after(response)
            except (Timeout, requests.ConnectionError, ChunkedEncodingError) as exception:
                error, may_pass = connection_error(exception), True
            if error is None:
                response.encoding = 'utf-8'  # requests takes a page that names no encoding for latin-1
                return response
            if pause > self.patience:
                raise UserError(
                    f'crawl.py: Genius asks for a rest of {math.ceil(pause / 60)} minutes; run the same '
                    'command after that, with a lower --requests_per_second')
            if may_pass:
                pause = max(pause, backoff(self.interval, tries))
            self.wait(pause, error)
            if not may_pass or self.ready_at > give_up_at:
                raise error


def check_response(response, wants_json):
    """Return (what is wrong with an answer or None, whether another try may help)."""
    status = response.status_code
    if status == 401 and wants_json:
        raise UserError(
            'crawl.py: Genius refused the token (HTTP 401); take one from https://genius.com/api-clients')
    if status in (401, 403):
        return Blocked(f'Genius refuses (HTTP {status})'), False
    if status == 429:
        return Blocked('Genius gets too many requests (HTTP 429)'), True
    if status in (404, 410):
        return Gone(f'Genius has nothing there (HTTP {status})'), False
    if status != 200:
        return Failed(f'Genius has trouble (HTTP {status})'), status == 408 or status >= 500
    try:
        if wants_json:
            response.json()
    except ValueError:
        return Blocked('Genius sent a page where data belongs'), True
    return None, False


def backoff(interval, tries):
    """Return the seconds until the next try: doubled each time, up to a limit.

    A random part is taken off, so that several crawlers don't come back at the same moment.
    """
    return min(MAX_BACKOFF, interval * 2**tries) * random.uniform(0.5, 1)


def retry_after(response):
    """Return the seconds that Retry-After asks for, as a number or as a date; 0 if it doesn't."""
    try:
        return Retry().get_retry_after(response) or 0
    except (InvalidHeader, ValueError, OverflowError):
        return 0


def connection_error(exception):
    """Return the error for an answer that was lost: a UserError if not even a connection could be made."""
    reason = getattr(exception.args[0] if exception.args else None, 'reason', None)
    not_connected = isinstance(exception, (ConnectTimeout, ProxyError, SSLError))
    if not_connected or isinstance(reason, NewConnectionError):
        return UserError("crawl.py: can't reach Genius; check the network")
    if isinstance(exception, Timeout):
        return Failed('Genius took too long to answer')
    return Failed('Genius broke the connection off')


def describe(error):
    """Return (state, one line) for an error, without what the server wrote."""
    if isinstance(error, Failed):
        return 'blocked' if isinstance(error, Blocked) else 'failed', str(error)
    return 'failed', f'unexpected answer from Genius ({type(error).__name__})'


def count_blocks(session, state):
    """Count the blocks in a row, up to a UserError; only a song's page shows that the site serves us."""
    session.blocks = 0 if state in ('complete', 'no lyrics') else session.blocks + (state == 'blocked')
    if session.blocks >= MAX_BLOCKS:
        raise UserError(
            f'crawl.py: stopped, Genius blocks us ({MAX_BLOCKS} refusals or foreign pages in a row); '
            'leave it alone for some hours, then run the same command with a lower --requests_per_second')
