"""
A queue of jobs, requests of many clients, and one worker thread that does them in order of arrival.

    worker = Worker(begin, work, capacity=64)  # begin() and work(job) run in its thread
    job = Job(request)                         # in asyncio's event loop
    worker.add(job)
    await job.batches.get()                    # lists of events: [{'waiting': 3}], then what work() sends
    worker.cancel(job)                         # its client has left: from now on job.check() raises Cancelled
"""

import asyncio
import sys
import threading
import traceback
from collections import deque

from nanorap.common import UserError


class QueueIsFull(Exception):
    """As many jobs are waiting as are allowed."""


class Cancelled(Exception):
    """The client of this job has left."""


class Job:
    """One request, and the events for its client. The last event holds 'done' or 'error'.

    The first piece of text is passed on at once, and pieces that follow within PAUSE seconds together: an
    event loop that wakes up for every token takes the processor from the worker's threads, which wait for
    each other.
    """

    PAUSE = 0.05  # seconds

    def __init__(self, request):
        self.request = request
        self.is_cancelled = False
        self.batches = asyncio.Queue()  # of lists of events, for the client
        self.loop = asyncio.get_running_loop()
        self.pending = deque()  # events that are not in a batch yet
        self.is_pausing = False

    def send(self, **event):
        """Send an event to the client; it may be called from any thread."""
        self.pending.append(event)
        if not self.is_pausing or 'text' not in event:
            self.is_pausing = 'text' in event
            try:
                self.loop.call_soon_threadsafe(self._flush)
            except RuntimeError:  # the loop has ended, and the process with it
                self.is_cancelled = True

    def _flush(self):
        self.is_pausing = False  # before reading `pending`: an event that comes later calls this again
        events = [self.pending.popleft() for _ in range(len(self.pending))]
        if events:
            self.batches.put_nowait(events)
            if 'text' in events[-1]:
                self.is_pausing = True
                self.loop.call_later(self.PAUSE, self._flush)

    def check(self):
        """Raise Cancelled if the client has left."""
        if self.is_cancelled:
            raise Cancelled


class Worker:
    """A thread that does one job at a time, while at most `capacity` others wait.

    If begin() raises an exception, so does the constructor.

    Run PyTorch only in begin() and work(): a second torch thread starts a second OpenMP pool, and decoding is
    a third slower when there are more threads than cores.
    """

    def __init__(self, begin, work, capacity):
        self.begin = begin
        self.work = work
        self.capacity = capacity
        self.waiting = deque()
        self.current = None  # the job that is being done
        self.changed = threading.Condition()
        self.has_begun = threading.Event()
        self.failure = None  # of begin()
        threading.Thread(target=self._run, daemon=True).start()
        self.has_begun.wait()
        if self.failure:
            raise self.failure

    def add(self, job):
        """Put a job at the end of the queue, or raise QueueIsFull."""
        with self.changed:
            if len(self.waiting) >= self.capacity:
                raise QueueIsFull
            self.waiting.append(job)
            job.send(waiting=len(self.waiting) - 1 + (self.current is not None))
            self.changed.notify()

    def cancel(self, job):
        """Remove a job, or end it if it is being done; nothing happens if it is done."""
        job.is_cancelled = True
        with self.changed:
            if job in self.waiting:
                self.waiting.remove(job)
                self._send_positions()

    def _send_positions(self):
        for n_ahead, job in enumerate(self.waiting, 0 if self.current is None else 1):
            job.send(waiting=n_ahead)

    def _run(self):
        try:
            self.begin()
        except BaseException as e:  # a UserError is a SystemExit
            self.failure = e
            return
        finally:
            self.has_begun.set()
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting)
                self.current = job = self.waiting.popleft()
                job.send(waiting=0)
                self._send_positions()
            try:
                job.check()
                self.work(job)
            except Cancelled:  # there is nobody to answer
                pass
            except UserError as e:
                job.send(error=str(e))
            except Exception as e:  # one job's failure must not end the others
                traceback.print_exc()
                print(f"a request failed ({type(e).__name__}); the server continues", file=sys.stderr)
                job.send(error=f"the server failed at this request ({type(e).__name__}); "
                               "its terminal says more")
            with self.changed:
                self.current = None
