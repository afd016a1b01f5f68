"""The queue of jobs and its worker thread, without a server."""

import asyncio
import threading

import pytest

from nanorap.common import UserError
from nanorap.serve.jobs import Cancelled, Job, QueueIsFull, Worker

TIMEOUT = 20  # seconds


async def all_events(job):
    events = [{}]
    while not {'done', 'error'} & events[-1].keys():
        events += await asyncio.wait_for(job.batches.get(), TIMEOUT)
    return events[1:]


def run_jobs(work, use, capacity=8):
    """Run the coroutine use(worker) with a worker whose thread calls work(job)."""
    asyncio.run(use(Worker(lambda: None, work, capacity)))


def test_jobs_are_done_in_order_of_arrival():
    done = []

    def work(job):
        done.append(job.request)
        job.send(done=True)

    async def use(worker):
        jobs = [Job(i) for i in range(5)]
        for job in jobs:
            worker.add(job)
        assert (await all_events(jobs[-1]))[-1] == {'done': True}
        assert done == [0, 1, 2, 3, 4]

    run_jobs(work, use)


def test_a_full_queue_refuses_and_a_cancelled_job_makes_room():
    may_end = threading.Event()
    started = []

    def work(job):
        started.append(job.request)
        job.send(started=True)
        may_end.wait(TIMEOUT)
        job.send(done=True)

    async def use(worker):
        current, first, second, third = (Job(name) for name in ('current', 'first', 'second', 'third'))
        worker.add(current)
        while 'current' not in started:
            await asyncio.sleep(0.01)
        worker.add(first)
        worker.add(second)
        with pytest.raises(QueueIsFull):
            worker.add(third)
        worker.cancel(first)
        worker.add(third)
        may_end.set()
        positions = [event['waiting'] for event in await all_events(second) if 'waiting' in event]
        assert positions == [2, 1, 0]
        await all_events(third)
        assert started == ['current', 'second', 'third']

    run_jobs(work, use, capacity=2)


def test_a_job_that_is_cancelled_ends_and_the_next_begins():
    def work(job):
        if job.request == 'endless':
            while True:
                job.send(text='a')
                job.check()
        job.send(done=True)

    async def use(worker):
        endless, following = Job('endless'), Job('following')
        worker.add(endless)
        worker.add(following)
        await asyncio.wait_for(endless.batches.get(), TIMEOUT)
        worker.cancel(endless)
        assert (await all_events(following))[-1] == {'done': True}
        with pytest.raises(Cancelled):
            endless.check()

    run_jobs(work, use)


def test_a_failed_job_is_an_error_event_and_the_worker_continues(capfd):
    def work(job):
        if job.request == 'user':
            raise UserError("use another prompt")
        if job.request == 'bug':
            raise ZeroDivisionError
        job.send(done=True)

    async def use(worker):
        jobs = [Job(name) for name in ('user', 'bug', 'good')]
        for job in jobs:
            worker.add(job)
        user, bug, good = [(await all_events(job))[-1] for job in jobs]
        assert user == {'error': "use another prompt"}
        assert 'ZeroDivisionError' in bug['error'] and '\n' not in bug['error']
        assert good == {'done': True}

    run_jobs(work, use)
    assert 'Traceback' in capfd.readouterr().err  # for the terminal of the server


def test_pieces_of_text_stay_in_order():
    def work(job):
        for letter in 'abc':
            job.send(text=letter)
        job.send(done=True)

    async def use(worker):
        job = Job('')
        worker.add(job)
        events = await all_events(job)
        assert ''.join(event.get('text', '') for event in events) == 'abc' and events[-1] == {'done': True}

    run_jobs(work, use)


def test_an_error_of_begin_is_raised_by_the_constructor():
    def begin():
        raise UserError("there is no such model")

    with pytest.raises(UserError, match="no such model"):
        Worker(begin, None, capacity=1)
