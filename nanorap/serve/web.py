"""
HTTP plumbing: authentication, security headers, one-line errors, streamed answers.

    app = guarded_app(title, user, password, host, max_body)
    return Stream(worker, job)  # in a route: the events of a job (nanorap.serve.jobs) as lines of JSON
    event = await last_event(worker, job, request)  # or only the last event
"""

import json
import secrets
from typing import Annotated

import anyio
from fastapi import Depends, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware

CLIENT_CHECK_INTERVAL = 0.2  # seconds, chosen by hand
HEADERS = {
    # nothing from other sites, no inline scripts or styles, no frame around the page
    'Content-Security-Policy': "default-src 'self'; base-uri 'none'; form-action 'none'; "
                               "frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
}


class SecurityHeaders:
    """Adds HEADERS to every answer, errors included.

    It isn't a BaseHTTPMiddleware, since behind one a stream isn't notified that its client has left.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_with_headers(message):
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def guarded_app(title, user, password, host, max_body):
    """Return a FastAPI application without routes.

    user, password: for HTTP basic authentication; with user='' everybody has access. host: the address that
    the server listens at if that is a loopback address, else ''. max_body: the most bytes per request.

    CSRF: only JSON bodies are accepted, which a form on another site can't send. DNS rebinding: on a loopback
    address, TrustedHostMiddleware refuses every other host name. FastAPI's own documentation pages are turned
    off, since they load scripts from other sites.
    """
    async def login(given: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]):
        given_user, given_password = (given.username, given.password) if given else ('', '')
        # compare both, each in constant time, so that the time doesn't reveal which one is wrong
        is_user = secrets.compare_digest(given_user.encode(), user.encode())
        is_password = secrets.compare_digest(given_password.encode(), password.encode())
        if not (is_user and is_password):
            raise HTTPException(401, "a user and a password are needed",
                                {'WWW-Authenticate': f'Basic realm="{title}"'})

    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None, max_body_size=max_body,
                  dependencies=[Depends(login)] if user else [])
    if host:
        hosts = ['localhost', '127.0.0.1', '[::1]', f'[{host}]' if ':' in host else host]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_middleware(SecurityHeaders)

    @app.exception_handler(RequestValidationError)
    async def one_line_error(request, error):
        first = error.errors()[0]
        field = '.'.join(map(str, first['loc'][1:]))
        return JSONResponse({'detail': f"{field}: {first['msg']}" if field else first['msg']}, 422)

    return app


async def batches(job):
    """Yield a job's events up to the last one, in lists of events that came together."""
    events = [{}]
    while not {'done', 'error'} & events[-1].keys():
        events = await job.batches.get()
        yield events


class Stream(StreamingResponse):
    """A job's events as they come, one line of JSON each. If the client leaves, the job is cancelled."""

    def __init__(self, worker, job):
        super().__init__(self.lines(job), media_type='application/x-ndjson')
        self.worker = worker
        self.job = job

    async def lines(self, job):
        async for events in batches(job):
            yield ''.join(json.dumps(event, ensure_ascii=False) + '\n' for event in events)

    async def __call__(self, *args):
        try:
            await super().__call__(*args)
        finally:
            self.worker.cancel(self.job)


async def last_event(worker, job, request):
    """Wait for a job's last event and return it. If the client leaves, the job is cancelled."""
    async def watch_client():
        while not await request.is_disconnected():
            await anyio.sleep(CLIENT_CHECK_INTERVAL)
        worker.cancel(job)
        job.send(error="the client has left")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch_client)
        async for events in batches(job):
            last = events[-1]
        tasks.cancel_scope.cancel()
    return last
