"""nanorap/serve/jobs.py: the queue and its worker thread, alone and in a real server."""

import asyncio
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from server import LONG, QUEUE, VERSE, call, error_detail, generate, model_in_use, stream

from nanorap.common import UserError
from nanorap.serve.jobs import Cancelled, Job, QueueIsFull, Worker

TIMEOUT = 20  # seconds


# ---- the queue alone

async def all_events(job):
    """Wait for a job's last event; return all."""
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


# ---- the queue of a server

@pytest.mark.slow
def test_32_clients_get_the_same_texts_as_one_alone(port):
    def fields(i):
        return dict(prompt='Yo\n', max_new_tokens=100, seed=i % 4, num_samples=1 + i % 4)

    alone = [generate(port, **fields(i))['texts'] for i in range(4)]
    with ThreadPoolExecutor(32) as pool:
        futures = [pool.submit(lambda i=i: list(stream(port, **fields(i))[1])) for i in range(32)]
        events = [future.result(timeout=120) for future in futures]
    for i in range(32):
        assert events[i][-1]['texts'] == alone[i % 4]
    most_ahead = max(event.get('waiting', 0) for client_events in events for event in client_events)
    assert most_ahead > 1  # they did wait for each other


@pytest.mark.slow
def test_requests_wait_in_order_and_a_full_queue_refuses(port):
    waiting = []
    with model_in_use(port):
        for i in range(QUEUE):
            waiting.append(stream(port, prompt='Yo', max_new_tokens=2, seed=i))
            assert next(waiting[-1][1]) == {'waiting': i + 1}
        assert f'{QUEUE} requests are waiting' in error_detail(port, 503, prompt='Yo')
        assert call(port, '/api/analyse', dict(text=VERSE))[0] == 200  # analysis doesn't wait for the model
        waiting.pop(3)[0].close()
        last_events = waiting[-1][1]
        assert next(event for event in last_events if event['waiting'] == QUEUE - 1)  # the others move up
        waiting.append(stream(port, prompt='Yo', max_new_tokens=2))
        assert next(waiting[-1][1]) == {'waiting': QUEUE}
    # the client before them has left in the middle of its text
    assert all(list(events)[-1]['done'] for _, events in waiting)


def test_a_client_that_leaves_before_its_answer_frees_the_model(port):
    connection = http.client.HTTPConnection('127.0.0.1', port)
    body = json.dumps(dict(max_new_tokens=LONG))
    connection.request('POST', '/api/generate', body, {'Content-Type': 'application/json'})
    time.sleep(0.2)
    while not next(events := stream(port, prompt='Yo', max_new_tokens=2)[1])['waiting']:
        list(events)  # the first request has not arrived yet
    connection.close()
    assert list(events)[-1]['done']
