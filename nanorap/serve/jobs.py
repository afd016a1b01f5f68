"""
Jobs of many clients for one worker: a thread that does them one by one, in the order in which they came.

    worker = Worker(begin, work, places=64)    # begin() and work(job) run in its thread; work calls job.tell(…), job.check()
    job = Job(request)                   # in asyncio's loop
    worker.add(job)
    await job.batches.get()              # [{'waiting': 3}], then what work() tells, as lists of events
    worker.leave(job)                    # its client has gone: from now on job.check() raises Gone
"""

import asyncio
import sys
import threading
import traceback
from collections import deque

from nanorap.common import UserError


class Full(Exception):
    """As many jobs are waiting as may."""


class Gone(Exception):
    """Nobody waits for this job any more."""


class Job:
    """One request, and the events on the way to its client. The last of them holds 'done' or 'error'.

    The first piece of text is handed on at once, and what comes within PAUSE after it together: a loop that wakes up for each
    token takes the processor from the worker's threads, which wait for each other.
    """

    PAUSE = 0.05  # seconds

    def __init__(self, request):
        self.request, self.gone = request, False
        self.loop, self.batches = asyncio.get_running_loop(), asyncio.Queue()
        self.pending, self.pausing = deque(), False

    def tell(self, **event):
        """From any thread."""
        self.pending.append(event)
        if not self.pausing or 'text' not in event:
            self.pausing = 'text' in event
            try:
                self.loop.call_soon_threadsafe(self._hand_on)
            except RuntimeError:  # the loop has ended, and the process with it
                self.gone = True

    def _hand_on(self):
        self.pausing = False  # before it looks: what comes later calls again
        events = [self.pending.popleft() for _ in range(len(self.pending))]
        if events:
            self.batches.put_nowait(events)
            if 'text' in events[-1]:
                self.pausing = True
                self.loop.call_later(self.PAUSE, self._hand_on)

    def check(self):
        if self.gone:
            raise Gone


class Worker:
    """At most `places` jobs wait. What begin() raises is raised here.

    All that computes with PyTorch belongs into begin() and work(): each thread that does has OpenMP threads of its own, and
    where these are more than the processors, OpenMP lets them sleep between any two layers, which costs a third of the speed.
    """

    def __init__(self, begin, work, places):
        self.begin, self.work, self.places, self.waiting, self.doing = begin, work, places, deque(), None
        self.changed, self.begun, self.failure = threading.Condition(), threading.Event(), None
        threading.Thread(target=self._run, daemon=True).start()
        self.begun.wait()
        if self.failure:
            raise self.failure

    def add(self, job):
        with self.changed:
            if len(self.waiting) >= self.places:
                raise Full
            self.waiting.append(job)
            job.tell(waiting=len(self.waiting) - 1 + (self.doing is not None))
            self.changed.notify()

    def leave(self, job):
        """May be called for a job that is done, too."""
        job.gone = True
        with self.changed:
            if job in self.waiting:
                self.waiting.remove(job)
                self._tell_places()

    def _tell_places(self):
        for ahead, job in enumerate(self.waiting, self.doing is not None):
            job.tell(waiting=ahead)

    def _run(self):
        try:
            self.begin()
        except BaseException as e:  # a UserError is a SystemExit
            self.failure = e
            return
        finally:
            self.begun.set()
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting)
                self.doing = self.waiting.popleft()
                self.doing.tell(waiting=0)
                self._tell_places()
            try:
                self.doing.check()
                self.work(self.doing)
            except Gone:
                pass
            except UserError as e:
                self.doing.tell(error=str(e))
            except Exception as e:  # one job's failure must not end the others'
                traceback.print_exc()
                print(f"a request failed ({type(e).__name__}); the server goes on", file=sys.stderr)
                self.doing.tell(error=f"the server failed at this request ({type(e).__name__}); its terminal says more")
            with self.changed:
                self.doing = None
