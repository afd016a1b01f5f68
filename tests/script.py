"""Run a script in a fork of a process that has imported torch, which saves three seconds per run."""

import os
import runpy
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path

forks = get_context('forkserver')
forks.set_forkserver_preload(['torch', 'torch._dynamo', 'matplotlib.figure',
                              'matplotlib.backends.backend_agg'])


def call(path, args, cwd, env, stdout, stderr, timeout):
    """Run the script, and return its exit code; its output goes into the two files."""
    return call_ranks(path, args, cwd, [env], [(stdout, stderr)], timeout)


def call_ranks(path, args, cwd, envs, files, timeout):
    """Run the script in several processes at once, one per env; return the first exit code but 0, or 0.

    files: of each process, those that its output and its errors go to. When one fails, the others are killed.
    """
    processes = [forks.Process(target=become, args=(path, args, cwd, env, *outputs))
                 for env, outputs in zip(envs, files, strict=True)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + timeout
    while any(process.is_alive() for process in processes):
        wait([process.sentinel for process in processes if process.is_alive()], timeout=1)
        failed = [process for process in processes if process.exitcode]
        if failed:  # the others may fail of the same cause
            for process in processes:
                process.join(5)
        if failed or time.monotonic() > deadline:
            for process in processes:
                process.kill()
                process.join()
    if time.monotonic() > deadline:
        raise TimeoutError(f"{path} {args} took more than {timeout} s")
    return next((process.exitcode for process in processes if process.exitcode), 0)


def become(path, args, cwd, env, stdout, stderr):
    import torch

    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(int(env.get('OMP_NUM_THREADS', os.cpu_count())))
    os.chdir(cwd)
    for fd, file in ((0, os.devnull), (1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), fd)
    sys.stdin = open(0, encoding='utf-8')
    sys.argv = [str(path), *args]
    tests = Path(__file__).parent  # its sys.path is to be that of a script alone
    sys.path = [str(Path(path).parent),
                *(p for p in sys.path if p and Path(p).resolve() not in (tests, tests.parent))]
    runpy.run_path(path, run_name='__main__')
