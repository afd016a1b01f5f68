"""The work that bench.py times, by the functions that train.py and sample.py use, and what it is done on."""

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
    """Make a data folder of random tokens, which dataset.Batches reads; returns it."""
    tokens = np.random.default_rng(seed).integers(vocab_size, size=n_tokens, dtype=np.uint32)
    tokens.astype('<u4').tofile(Path(folder) / 'train.bin')
    about = dict(tokenizer='random', vocab_size=vocab_size, eot=0, dtype='uint32', splits=dict(train=dict(tokens=n_tokens)))
    (Path(folder) / 'meta.json').write_text(dumps(about))
    return folder


def made_up_documents(songs, n_bytes, seed):
    """A list of texts of about 3.6 kB, n_bytes in all: lines of the songs below the folder `songs`, as chance puts them."""
    files = sorted(Path(songs).glob('*/*.json'))
    lines = [line for file in files for line in loads(file.read_text(encoding='utf-8'))['lyrics'].split('\n')]
    rng, texts, total = np.random.default_rng(seed), [], 0
    while total < n_bytes:
        texts.append('\n'.join(lines[i] for i in rng.integers(len(lines), size=100)))
        total += len(texts[-1].encode())
    return texts


def time_tokenizing(tokenizer, texts, file, out):
    """Tokens/s of tiktoken alone, from memory to memory, and of the way from `file`, JSON lines of the same texts, to token
    files in `out`."""
    t0 = time.perf_counter()
    n = sum(map(len, tokenizer.enc.encode_ordinary_batch(texts, num_threads=os.cpu_count())))
    t1 = time.perf_counter()
    documents = (('train' if i % 50 else 'val', entry['text']) for i, entry in enumerate(read_documents(file)))
    splits = write_dataset(out, tokenizer, documents)['splits'].values()
    return n / (t1 - t0), sum(split['tokens'] for split in splits) / (time.perf_counter() - t1)


def time_drawing(data, batch_size, repeats):
    """Tokens/s of drawing forty batches from dataset.Batches, so many times."""
    rates, rows = [], 40 * batch_size
    for i in range(repeats):
        t0 = time.perf_counter()
        for _ in data.step(i * rows, batch_size, 40):
            pass
        rates.append(data.n_targets(i * rows, rows) / (time.perf_counter() - t0))
    return rates


def peak_memory(command):
    """Bytes that a command takes at most; by a process in between, since a child's count begins with its parent's."""
    count = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
             "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    done = subprocess.run([sys.executable, '-c', count, *command], check=True, capture_output=True, text=True)
    return int(done.stdout) * (1 if sys.platform == 'darwin' else 1024)


def training_steps(model, opt, data, runtime, batch_size, micro_batches, count, grad_clip, seed):
    """Take `count` of train.py's steps; yields ({part: seconds}, tokens of all processes), step by step.

    On a GPU each part is waited for, so that it can be told from the next."""
    scaler, n = runtime.grad_scaler(), micro_batches * runtime.world_size
    parts, last = Counter(), 0.0

    def lap(part):
        nonlocal last
        runtime.synchronize()
        last, before = time.perf_counter(), last
        parts[part] += last - before

    for i in range(count):
        parts.clear()
        row, last = i * n * batch_size, time.perf_counter()
        rows = data.step(row, batch_size, n, runtime.rank, runtime.world_size)
        train_step(model, opt, scaler, rows, runtime, grad_clip, seed, lap)
        yield dict(parts), data.n_targets(row, n * batch_size)


def operators(work, runtime, trace, n=10):
    """Call `work` under PyTorch's profiler, write a Chrome trace to the path `trace` if there is one, and return lines on the
    n operators that took the most time, without that of operators which they call."""
    on_gpu = runtime.device.type == 'cuda'
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CPU] + [activity.CUDA] * on_gpu) as profiler:
        work()
    if trace:
        trace.parent.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(trace))
    key = 'self_device_time_total' if on_gpu else 'self_cpu_time_total'
    took = [(getattr(op, key), op) for op in profiler.key_averages()]
    total = sum(time for time, _ in took)
    return [f"{op.key:<48.48}{us / 1e3:>10,.1f} ms {us / total:>6.1%}  {op.count} calls"
            for us, op in sorted(took, key=lambda pair: -pair[0])[:n]]


def time_decoding(model, make_cache, prompt, batch_size, max_new_tokens, vocab_size, seed, **sampler):
    """Time the prompt, a list of ids, and decoding max_new_tokens after it, in batch_size samples; tokens/s of the two."""
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
