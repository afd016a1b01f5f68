"""
HTTP plumbing: authentication, security headers, one-line errors, streamed answers.

    app = guarded_app(title, user, password, host, max_body) return Stream(worker, job)                     #
    in a route: a job's events (nanorap.serve.jobs) as lines of JSON event = await last_event(worker, job,
    request)    # or the last of them
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

HEADERS = {
    # nothing from elsewhere, no script or style inside the page, no frame around it
    'Content-Security-Policy': "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors "
                               "'none'",
    'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer', 'Cache-Control': 'no-store',
    'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Resource-Policy': 'same-origin'}


class SecurityHeaders:
    """Adds HEADERS to every answer, errors included.

    BaseHTTPMiddleware would do it in fewer lines, but it hides from a stream that its client has left.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_more(message):
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_more)


def guarded_app(title, user, password, host, max_body):
    """Return a FastAPI without routes.

    user, password: of HTTP basic authentication; user='' lets everybody in. host: the address it listens at
    if that is a loopback address, else ''. max_body: bytes per request.

    CSRF: only JSON bodies are accepted, which a form on another site can't send. DNS rebinding:
    TrustedHostMiddleware refuses hosts other than this machine's loopback names. FastAPI's own pages of
    documentation are left out, since they load scripts from other sites.
    """
    async def login(given: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]):
        given_user, given_password = (given.username, given.password) if given else ('', '')
        # both are compared in any case, in constant time
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
    """Yield a job's events, in lists of those that came together, up to the last one."""
    events = [{}]
    while not {'done', 'error'} & events[-1].keys():
        events = await job.batches.get()
        yield events


class Stream(StreamingResponse):
    """A job's events as they come, one line of JSON each. If the client leaves, the job is cancelled."""

    def __init__(self, worker, job):
        super().__init__(self.lines(job), media_type='application/x-ndjson')
        self.worker, self.job = worker, job

    async def lines(self, job):
        async for events in batches(job):
            yield ''.join(json.dumps(event, ensure_ascii=False) + '\n' for event in events)

    async def __call__(self, *args):
        try:
            await super().__call__(*args)
        finally:
            self.worker.cancel(self.job)


async def last_event(worker, job, request):
    """Return a job's last event, for a client that waits for it. If the client leaves, the job is
    cancelled."""
    async def watch_client():
        while not await request.is_disconnected():
            await anyio.sleep(0.2)
        worker.cancel(job)
        job.send(error="the client has left")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch_client)
        async for events in batches(job):
            last = events[-1]
        tasks.cancel_scope.cancel()
    return last
