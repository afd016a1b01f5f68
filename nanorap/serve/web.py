"""
What stands between a server's own routes and its clients: who may ask, what a browser may do with the answers, errors in one
line, and answers that come event by event.

    app = guarded_app(title, user, password, host, max_body)
    return Stream(worker, job)                     # in a route: a job's events (nanorap.serve.jobs) as lines of JSON
    event = await outcome(worker, job, request)    # or the last of them
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
    'Content-Security-Policy': "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer', 'Cache-Control': 'no-store',
    'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Resource-Policy': 'same-origin'}


class SecurityHeaders:
    """On every answer, errors included. (BaseHTTPMiddleware would stand between a stream and its client's going.)"""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_more(message):
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_more)


def guarded_app(title, user, password, host, max_body):
    """A FastAPI without routes. user: '' lets everybody in. host: the address it listens at if that is a loopback one, else
    ''. max_body: bytes of a request.

    FastAPI takes a body only if it says that it is JSON, which a form on another site can't say; and a site whose name is
    made to point at this machine comes with a host that is none of ours. FastAPI's own pages of documentation are left out:
    they fetch their scripts from elsewhere.
    """
    async def login(given: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]):
        pairs = [(given.username if given else '', user), (given.password if given else '', password)]
        if not all([secrets.compare_digest(a.encode(), b.encode()) for a, b in pairs]):  # a list: both, whatever the first says
            raise HTTPException(401, "a user and a password are needed", {'WWW-Authenticate': f'Basic realm="{title}"'})

    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None, max_body_size=max_body,
                  dependencies=[Depends(login)] if user else [])
    if host:
        ours = ['localhost', '127.0.0.1', '[::1]', f'[{host}]' if ':' in host else host]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=ours, www_redirect=False)
    app.add_middleware(SecurityHeaders)

    @app.exception_handler(RequestValidationError)
    async def in_one_line(request, error):
        first = error.errors()[0]
        where = '.'.join(map(str, first['loc'][1:]))
        return JSONResponse({'detail': f"{where}: {first['msg']}" if where else first['msg']}, 422)

    return app


async def batches(job):
    """A job's events, those that came together as a list."""
    events = [{}]
    while not {'done', 'error'} & events[-1].keys():
        events = await job.batches.get()
        yield events


class Stream(StreamingResponse):
    """A job's events as they come, a line of JSON each. A client that goes away frees its place."""

    def __init__(self, worker, job):
        lines = (''.join(json.dumps(event, ensure_ascii=False) + '\n' for event in events) async for events in batches(job))
        super().__init__(lines, media_type='application/x-ndjson')
        self.worker, self.job = worker, job

    async def __call__(self, *args):
        try:
            await super().__call__(*args)
        finally:
            self.worker.leave(self.job)


async def outcome(worker, job, request):
    """A job's last event, for a client that waits for the whole. One that goes away frees its place."""
    async def watch():
        while not await request.is_disconnected():
            await anyio.sleep(0.2)
        worker.leave(job)
        job.tell(error="the client has gone")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        async for events in batches(job):
            last = events[-1]
        tasks.cancel_scope.cancel()
    return last
