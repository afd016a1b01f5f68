"""
The one door to Genius: lyricsgenius, with a session that sees what it hides. Every request keeps to one rate limit, waits
where Genius asks for it, is tried again where that may help, and otherwise ends in Failed, in Blocked, or in a UserError
where nothing could succeed.
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
from nanorap.common import UserError  # noqa: E402

BLOCKS = 5  # blocked songs or lists in a row that end the crawl: a site that refuses us is left alone
LONGEST = 60  # seconds: a wait grows up to this, unless Retry-After asks for more


class Failed(Exception):
    """Why a song, a list or an artist can't be had now, in words of our own: what the server wrote may hold the token."""


class Blocked(Failed):
    """Genius refuses us, or pretends: 403, 429 without end, a page where data belongs, a song page without lyrics."""


def say(line):
    """A line to stderr that leaves the progress bars whole."""
    tqdm.write(f'crawl.py: {line}', file=sys.stderr)


def connect(args):
    """lyricsgenius with our session in place of its own, and at another server if one is given."""
    genius = Genius(args.token, timeout=args.timeout, sleep_time=0)
    genius._session = PatientSession(genius._session.headers, 1 / args.requests_per_second, args.patience)
    if args.api_root:
        root = args.api_root.rstrip('/')
        genius.API_ROOT, genius.PUBLIC_API_ROOT, genius.WEB_ROOT = f'{root}/', f'{root}/api/', f'{root}/'
    return genius


class PatientSession(requests.Session):
    """In place of lyricsgenius' own, which hides statuses: here they are seen, waited for, or named."""

    def __init__(self, headers, interval, patience):
        super().__init__()
        self.headers, self.interval, self.patience = headers, interval, patience
        self.ready, self.why = 0.0, ''  # the moment before which no request leaves, and the trouble it waits out
        self.blocks = 0
        # counted from the answer on, each redirect's too: a site that has become slow is asked less often
        self.hooks['response'].append(lambda response, **options: self.wait(interval))

    def wait(self, seconds, why=''):
        """Lets no request leave for so many seconds."""
        self.ready, self.why = max(self.ready, time.monotonic() + seconds), why

    def send(self, request, **options):
        """Every request passes here, a redirect or another try too, and so the one rate limit holds for all."""
        seconds = self.ready - time.monotonic()
        if self.why and seconds > 0.5:
            say(f'{str(self.why).removeprefix("crawl.py: ")}; waiting {math.ceil(seconds)} s')
        time.sleep(max(0, seconds))
        return super().send(request, **options)

    def request(self, method, url, **options):
        """A good answer, after as many tries as patience allows; else Failed, or UserError where nothing can succeed."""
        give_up = time.monotonic() + self.patience
        for tries in itertools.count(1):
            asked = 0
            try:
                response = super().request(method, url, **options)
                # lyricsgenius gives headers, the token, with API calls and none with pages
                error, passes = judge(response, wants_json=bool(options.get('headers')))
                asked = retry_after(response)
            except (Timeout, requests.ConnectionError, ChunkedEncodingError) as trouble:
                error, passes = lost(trouble), True
            if error is None:
                response.encoding = 'utf-8'  # requests takes a page that doesn't say for latin-1
                return response
            if asked > self.patience:
                raise UserError(f'crawl.py: Genius asks for a rest of {math.ceil(asked / 60)} minutes; run the same command '
                                'after that, with a lower --requests_per_second')
            self.wait(max(asked, backoff(self.interval, tries) if passes else 0), error)
            if not passes or self.ready > give_up:
                raise error


def judge(response, wants_json):
    """(what is wrong with an answer or None, whether it may pass if asked again)"""
    status = response.status_code
    if status == 401 and wants_json:
        raise UserError('crawl.py: Genius refused the token (HTTP 401); take one from https://genius.com/api-clients')
    if status in (401, 403):
        return Blocked(f'Genius refuses (HTTP {status})'), False
    if status == 429:
        return Blocked('Genius gets too many requests (HTTP 429)'), True
    if status == 404:
        return Failed('Genius has nothing there (HTTP 404)'), False
    if status != 200:
        return Failed(f'Genius has trouble (HTTP {status})'), status == 408 or status >= 500
    try:
        if wants_json:
            response.json()
    except ValueError:
        return Blocked('Genius sent a page where data belongs'), True
    return None, False


def backoff(interval, tries):
    """Seconds until the next try: doubled each time, and by chance shorter, so that many crawlers don't come back at once."""
    return min(LONGEST, interval * 2**tries) * random.uniform(0.5, 1)


def retry_after(response):
    """The seconds that Retry-After asks for, as a number or as a date; 0 if it doesn't."""
    try:
        return Retry().get_retry_after(response) or 0
    except (InvalidHeader, ValueError, OverflowError):
        return 0


def lost(trouble):
    """The error for an answer that never came whole. Where not even a connection came about, no other song fares better."""
    reason = getattr(trouble.args[0] if trouble.args else None, 'reason', None)
    if isinstance(trouble, (ConnectTimeout, ProxyError, SSLError)) or isinstance(reason, NewConnectionError):
        return UserError("crawl.py: can't reach Genius; check the network")
    return Failed('Genius took too long to answer' if isinstance(trouble, Timeout) else 'Genius broke the connection off')


def explain(error):
    """(state, one line) for an error, without what the server wrote."""
    if isinstance(error, Failed):
        return 'blocked' if isinstance(error, Blocked) else 'failed', str(error)
    return 'failed', f'unexpected answer from Genius ({type(error).__name__})'


def count_blocks(session, state):
    """Ends the crawl after too many blocks in a row; only lyrics show that the site serves us again."""
    session.blocks = 0 if state == 'complete' else session.blocks + (state == 'blocked')
    if session.blocks >= BLOCKS:
        raise UserError(f'crawl.py: stopped, Genius blocks us ({BLOCKS} refusals or pages without lyrics in a row); leave it '
                        'alone for some hours, then run the same command with a lower --requests_per_second')
