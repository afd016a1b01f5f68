"""Timed workloads for bench.py and their synthetic inputs: the functions that train.py and sample.py call."""

import os
import subprocess
import sys
import time
from collections import Counter
from json import dumps, loads
from pathlib import Path

import numpy as np
import torch

from nanorap.dataset import read_documents, write_dataset
from nanorap.generate import generate
from nanorap.step import train_step


def random_dataset(folder, vocab_size, n_tokens, seed):
    """Make a data folder of random tokens, which dataset.Batches reads; return it."""
    tokens = np.random.default_rng(seed).integers(vocab_size, size=n_tokens, dtype=np.uint32)
    tokens.astype('<u4').tofile(Path(folder) / 'train.bin')
    meta = dict(tokenizer='random', vocab_size=vocab_size, eot=0, dtype='uint32',
                splits=dict(train=dict(tokens=n_tokens)))
    (Path(folder) / 'meta.json').write_text(dumps(meta), encoding='utf-8')
    return folder


def synthetic_documents(songs, n_bytes, seed):
    """Return texts of about 3.6 kB, n_bytes in all: lines of the songs below the folder `songs` in random
    order."""
    files = sorted(Path(songs).glob('*/*.json'))
    lines = [line for file in files for line in loads(file.read_text(encoding='utf-8'))['lyrics'].split('\n')]
    rng, texts, total = np.random.default_rng(seed), [], 0
    while total < n_bytes:
        texts.append('\n'.join(lines[i] for i in rng.integers(len(lines), size=100)))
        total += len(texts[-1].encode())
    return texts


def time_tokenizing(tokenizer, texts, file, out):
    """Return tokens/s of tiktoken alone, from memory to memory, and from `file`, JSON lines of the same
    texts, to token files in `out`."""
    t0 = time.perf_counter()
    n = sum(map(len, tokenizer.enc.encode_ordinary_batch(texts, num_threads=os.cpu_count())))
    t1 = time.perf_counter()
    entries = enumerate(read_documents(file))
    documents = (('train' if i % 50 else 'val', entry['text']) for i, entry in entries)
    splits = write_dataset(out, tokenizer, documents)['splits'].values()
    t2 = time.perf_counter()
    return n / (t1 - t0), sum(split['tokens'] for split in splits) / (t2 - t1)


def time_batches(data, batch_size, repeats):
    """Return tokens/s of reading forty batches from a dataset.Batches, one value per repeat."""
    rates, n_rows = [], 40 * batch_size
    for i in range(repeats):
        t0 = time.perf_counter()
        for _ in data.step(i * n_rows, batch_size, 40):
            pass
        rates.append(data.n_targets(i * n_rows, n_rows) / (time.perf_counter() - t0))
    return rates


def peak_memory(command):
    """Return the peak memory of a command in bytes.

    A process in between runs it, since a child's count begins with its parent's.
    """
    script = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
              "stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    command = [sys.executable, '-c', script, *command]
    done = subprocess.run(command, check=True, capture_output=True, encoding='utf-8')
    return int(done.stdout) * (1 if sys.platform == 'darwin' else 1024)


def training_steps(model, opt, data, runtime, batch_size, micro_batches, count, grad_clip, seed):
    """Take `count` of train.py's steps, and yield ({part: seconds}, tokens of all processes) after each.

    On a GPU each part ends when its work has ended, so that it can be told from the next.
    """
    scaler, n_micro = runtime.grad_scaler(), micro_batches * runtime.world_size
    parts, last = Counter(), 0.0

    def lap(part):
        nonlocal last
        runtime.synchronize()
        last, before = time.perf_counter(), last
        parts[part] += last - before

    for i in range(count):
        parts.clear()
        row, last = i * n_micro * batch_size, time.perf_counter()
        rows = data.step(row, batch_size, n_micro, runtime.rank, runtime.world_size)
        train_step(model, opt, scaler, rows, runtime, grad_clip, seed, lap)
        yield dict(parts), data.n_targets(row, n_micro * batch_size)


def profile_operators(work, runtime, trace, n=10):
    """Call `work` under PyTorch's profiler, and return lines on the n operators that took the most time
    themselves.

    trace: the path of the Chrome trace to write, or None.
    """
    on_gpu = runtime.device.type == 'cuda'
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CPU] + [activity.CUDA] * on_gpu) as profiler:
        work()
    if trace:
        trace.parent.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(trace))
    key = 'self_device_time_total' if on_gpu else 'self_cpu_time_total'
    times = [(getattr(op, key), op) for op in profiler.key_averages()]
    total = sum(us for us, _ in times)
    slowest = sorted(times, key=lambda pair: -pair[0])[:n]
    return [f"{op.key:<48.48}{us / 1e3:>10,.1f} ms {us / total:>6.1%}  {op.count} "
            "calls" for us, op in slowest]


def time_decoding(model, make_cache, prompt, batch_size, max_new_tokens, vocab_size, seed, **sampler):
    """Return tokens/s of the prompt, a list of ids, and of decoding max_new_tokens after it in batch_size
    samples."""
    times = [time.perf_counter()]

    def on_token(sample, token, logprob):
        if sample == batch_size - 1:  # the last one of each step
            times.append(time.perf_counter())

    # an end of text that never comes, so that every sample has its full length
    generate(model, make_cache, [prompt], on_token, num_samples=batch_size, max_new_tokens=max_new_tokens,
             vocab_size=vocab_size, eot=-1, seed=seed, **sampler)
    # the time to the first token is the prompt's, the rest is decoding
    decoding = batch_size * (max_new_tokens - 1) / (times[-1] - times[1])
    return len(prompt) / (times[1] - times[0]), decoding
