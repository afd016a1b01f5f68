"""What bench.py measures: one function per mode.

Each takes o, bench.py's options as attributes; rt, the Runtime; figures, where the measurements go; and
functions that make models, since nothing here imports model.py:
    build(**shape)       a model from scratch, of the options' shape but for `shape`
    make_model(**shape)  the model to measure: what --init_from names, or the same as build
"""

import copy
import os
import sys
import tempfile
import time
from functools import partial
from json import dumps
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nanorap.bench import estimate
from nanorap.bench.baselines import compare_rhymed, other_programs
from nanorap.bench.measurements import bandwidth, exponent, plot_scaling, processor
from nanorap.bench.timing import (
    peak_memory,
    profile_operators,
    random_dataset,
    synthetic_documents,
    time_batches,
    time_decoding,
    time_tokenizing,
    training_steps,
)
from nanorap.cache import KVCache
from nanorap.common import UserError
from nanorap.dataset import Batches, find_dataset, read_meta
from nanorap.optim import make_optimizer
from nanorap.quantize import pack
from nanorap.runtime import compile_or_eager
from nanorap.tokenizer import load_tokenizer, padded_vocab_size

ROOT = Path(__file__).resolve().parents[2]
WARMUP_STEPS = 2  # the first steps load kernels and allocate memory: they are not measured
BATCH_SIZES = 1, 2, 4, 8, 16  # of --mode=sample


def show_progress(what, *more, is_main=True):
    return tqdm(what, *more, leave=False, disable=None if is_main else True)  # None: on a terminal only


def describe(rt):
    return f"{rt.device} ({processor(rt)}), {torch.get_num_threads()} threads, torch {torch.__version__}"


def new_optimizer(o, model):
    return make_optimizer(o.optimizer, model, learning_rate=o.learning_rate, betas=(o.beta1, o.beta2),
                          weight_decay=o.weight_decay)


def measure_training(o, rt, figures, build, make_model):
    """Time train.py's step by its parts, and measure its peak memory beside what the estimate says."""
    # 1) what a process takes without the model: a tiny one's step loads the kernels
    tiny = build(n_layer=1, n_head=2, n_embd=64, block_size=8, vocab_size=64).to(rt.device)
    with rt.autocast():
        tiny(*torch.zeros(2, 1, 8, dtype=torch.long, device=rt.device)).backward()
    new_optimizer(o, tiny).step()
    del tiny
    memory_before, peak_flops = rt.peak_memory(), rt.peak_flops()

    # 2) model, data and optimizer, as in train.py
    if o.real_data:
        vocab_size = padded_vocab_size(read_meta(find_dataset(o.dataset))['vocab_size'])
        raw_model = make_model(vocab_size=vocab_size)
    else:
        raw_model = make_model()
    c, T = raw_model.config, raw_model.config.block_size
    size, flops_per_token = estimate.size(raw_model), raw_model.flops_per_token(T)
    rows_per_step = o.batch_size * o.micro_batches * rt.world_size
    files = tempfile.TemporaryDirectory()
    if o.real_data:
        data = Batches(find_dataset(o.dataset), 'train', T, o.batches, o.seed)
    else:
        n_tokens = ((o.repeats + WARMUP_STEPS) * rows_per_step + 2) * T
        data = Batches(random_dataset(files.name, c.vocab_size, n_tokens, o.seed), 'train', T)
    raw_model = rt.shard(raw_model, raw_model.transformer.h)
    opt = new_optimizer(o, raw_model)
    first_batch = data.read(data.row_windows(0, o.batch_size))
    batches = o.batches if o.real_data else 'stream'
    model = rt.wrap(compile_or_eager(raw_model, o.compile, rt, batches, *first_batch))
    if rt.is_main:
        print(f"{size.total / 1e6:.2f}M parameters on {describe(rt)}, {figures.about['dtype']}\n"
              f"per step: {o.batch_size} rows x {T} tokens x {o.micro_batches} micro-batch(es) x "
              f"{rt.world_size} process(es); {o.repeats} of them, median (lowest to highest)", flush=True)

    # 3) the steps
    def steps(count):
        return training_steps(model, opt, data, rt, o.batch_size, o.micro_batches, count, o.grad_clip, o.seed)

    count = o.repeats + WARMUP_STEPS
    laps = list(show_progress(steps(count), 'steps', count, is_main=rt.is_main))[WARMUP_STEPS:]
    seconds = [sum(parts.values()) for parts, _ in laps]
    rates = [n_tokens / s for s, (_, n_tokens) in zip(seconds, laps, strict=True)]
    figures.add('training', 'tokens/s', rates)
    figures.add('work', 'TFLOP/s', [rate * flops_per_token / 1e12 for rate in rates])
    if peak_flops:
        shares = [rate * flops_per_token / peak_flops / rt.world_size for rate in rates]
        peak = f"a matmul reaches {peak_flops / 1e12:.3g} TFLOP/s per process"
        figures.add('MFU', 'of the peak', shares, peak)
    for part in laps[0][0]:
        times = [parts[part] for parts, _ in laps]
        figures.add(part, 's', times, f"{sum(times) / sum(seconds):.1%} of the step")
    if memory := rt.peak_memory():
        on_cpu = rt.device.type == 'cpu'
        job = estimate.Job(o.batch_size, T, rt.world_size, o.parallel, rt.dtype != torch.float32, o.recompute,
                           o.optimizer, o.micro_batches, on_cpu)
        on_paper = estimate.memory(c, size, job)['peak'] / 1e9
        figures.more['memory_on_paper'] = on_paper
        figures.add('peak memory', 'GB', [memory / 1e9])
        of_model = (memory - memory_before * on_cpu) / 1e9
        figures.add('peak memory of model and step', 'GB', [of_model], f"estimated {on_paper:.4g}")

    # 4) by operators
    if o.profile:
        trace = Path('out-bench/trace.json') if rt.is_main else None
        lines = profile_operators(lambda: list(steps(2)), rt, trace)
        if rt.is_main:
            print("\ntwo more steps, in out-bench/trace.json for chrome://tracing or ui.perfetto.dev; the "
                  "slowest operators:", *lines, sep='\n')
    files.cleanup()


def number_formats(o, rt, given):
    """Return the formats to measure, {name: (dtype, quantize)}: the one that was asked for, or all that are
    fast here."""
    dtype_name = str(rt.dtype).removeprefix('torch.')
    if given & {'dtype', 'quantize'}:
        return {o.quantize or dtype_name: (rt.dtype, o.quantize)}
    formats = {'float32': (torch.float32, None), dtype_name: (rt.dtype, None)}
    if rt.device.type == 'cpu':
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # elsewhere it is emulated
            formats['bfloat16'] = torch.bfloat16, None
        formats['int8'] = torch.float32, 'int8'
    return formats


def measure_decoding(o, rt, figures, make_model, given):
    """Time decoding by number format and batch size, then beside other programs with the same weights.

    given: the names of the options that the user set.
    """
    model = make_model().eval()
    c = model.config
    if o.prompt_tokens + o.decode_tokens > c.block_size:
        raise UserError(f"--prompt_tokens={o.prompt_tokens} and --decode_tokens={o.decode_tokens} are more "
                        f"than the context, {c.block_size}: lower one of them, or raise --block_size")
    formats = number_formats(o, rt, given)
    ours = {name: pack(copy.deepcopy(model).to(rt.device, dtype), quantize)
            for name, (dtype, quantize) in formats.items()}
    # weights that are read per token: all but the embeddings, of which a row is looked up
    n_read = sum(p.numel() for p in model.parameters())
    if c.pos == 'learned':
        n_read -= model.transformer.wpe.weight.numel()
    if not c.tie_weights:
        n_read -= model.transformer.wte.weight.numel()
    prompt = np.random.default_rng(o.seed).integers(c.vocab_size, size=o.prompt_tokens).tolist()
    speed = bandwidth(rt)
    print(f"{n_read / 1e6:.1f}M weights read per token, on {describe(rt)}, {speed / 1e9:.1f} GB/s of memory "
          f"bandwidth\n{o.decode_tokens} tokens after a prompt of {len(prompt)}, formats in turn, "
          f"{o.repeats} times, median (lowest to highest)", flush=True)

    def decode(name, batch, **sampler):
        make_cache = partial(KVCache, c, device=rt.device, dtype=formats[name][0])
        return time_decoding(ours[name], make_cache, prompt, batch, o.decode_tokens, c.vocab_size, o.seed,
                             **sampler)

    # 1) by batch size
    for batch in show_progress(BATCH_SIZES, 'batch sizes'):
        runs = [{name: decode(name, batch, top_k=200) for name in formats} for _ in range(o.repeats + 1)][1:]
        for name, (dtype, quantize) in formats.items():
            prefill, decoding = zip(*(run[name] for run in runs), strict=True)
            if batch == 1:
                figures.add(f'prefill, {name}', 'tokens/s', prefill)
            bytes_per_weight = 1 if quantize else dtype.itemsize
            share = np.median(decoding) / batch * n_read * bytes_per_weight / speed
            of_bandwidth = f"{share:.0%} of the bandwidth"
            figures.add(f'decoding, {name}, batch {batch}', 'tokens/s', decoding, of_bandwidth)

    # 2) the same work by other programs
    dtypes = {name: dtype for name, (dtype, quantize) in formats.items() if not quantize}
    for batch in (1, 16):
        try:
            rates, theirs = time_beside_others(
                model, prompt, batch, o, rt, dtypes or {'float32': torch.float32},
                {f'ours {name}': partial(decode, name, batch, temperature=0) for name in formats})
        except UserError as e:
            print(f"\ntransformers and CTranslate2 are left out: {e}")
            break
        print(f"\nnew tokens/s, greedily, the prompt's time included, batch {batch}, all in turn; the share "
              f"of the bandwidth; how many times as fast as {', '.join(theirs)}")
        medians = {name: np.median(values) for name, values in rates.items()}
        for name, values in rates.items():
            bytes_per_weight = 1 if 'int8' in name else 2 if '16' in name else 4
            share = medians[name] / batch * n_read * bytes_per_weight / speed
            ratios = '  '.join(f"{medians[name] / medians[other]:.2f}" for other in theirs)
            figures.add(f'{name}, batch {batch}', 'tokens/s', values, f"{share:.0%}, {ratios}")


def time_beside_others(model, prompt, batch, o, rt, dtypes, ours):
    """Return ({name: tokens/s per repeat}, names of the other programs); all decode in turn, since machines
    drift.

    ours: {name: a call that decodes}. dtypes: {name: torch.dtype} for transformers.
    """
    with tempfile.TemporaryDirectory() as folder:
        theirs = other_programs(model, folder, [prompt] * batch, o.decode_tokens, rt.device, dtypes)
        calls = ours | theirs
        rates = {name: [] for name in calls}
        for _ in show_progress(range(o.repeats + 1), f'other programs, batch {batch}'):
            for name, call in calls.items():
                t0 = time.perf_counter()
                call()
                rt.synchronize()
                rates[name].append(batch * o.decode_tokens / (time.perf_counter() - t0))
    return {name: values[1:] for name, values in rates.items()}, theirs


def measure_rhyme(o, rt, make_model):
    """Sample with and without a rhyme scheme, and print what rhyming costs and gains."""
    if o.init_from == 'scratch':
        raise UserError("--mode=rhyme needs a model that can write: --init_from=out-lyrics-demo, after make "
                        "demo")
    model = make_model().eval()
    packed = pack(copy.deepcopy(model).to(rt.device, rt.dtype), o.quantize)
    prompt = (ROOT / 'demo.txt').read_text(encoding='utf-8')
    compare_rhymed(packed, model, load_tokenizer(o.init_from), prompt, scheme=o.rhyme, num_samples=10,
                   max_new_tokens=o.decode_tokens, seed=o.seed)


def measure_data(o, rt, figures):
    """Time tokenizing synthetic songs, beside tiktoken alone, and reading batches of them."""
    texts = synthetic_documents(ROOT / 'data/lyrics/demo', o.megabytes * 1e6, o.seed)
    tokenizer = load_tokenizer('gpt2')
    print(f"{len(texts):,} documents, {o.megabytes} MB, GPT-2's tokens, {os.cpu_count()} cores "
          f"({processor(rt)}); in turn, {o.repeats} times, median (lowest to highest)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder, 'documents.jsonl'), Path(folder, 'tokens')
        file.write_text(''.join(dumps(dict(text=text)) + '\n' for text in texts), encoding='utf-8')

        # 1) tokenizing: tiktoken alone, from memory to memory, and as prepare.py does it, from a file to
        # train.bin
        rates = [time_tokenizing(tokenizer, texts, file, out)
                 for _ in show_progress(range(o.repeats + 1), 'tokenizing')][1:]
        alone, whole = zip(*rates, strict=True)
        figures.add('tiktoken.encode_ordinary_batch', 'tokens/s', alone)
        ratio = np.median([b / a for a, b in rates])
        figures.add('reading, tokenizing, writing', 'tokens/s', whole, f"{ratio:.2f}x tiktoken")
        command = [sys.executable, ROOT / 'data/openwebtext/prepare.py', f'--input={file}',
                   f'--out_dir={out}', '--val_share=0.02']
        figures.add('peak memory of prepare.py', 'GB', [peak_memory(command) / 1e9])

        # 2) batches
        for batches in ('stream', 'documents'):
            data = Batches(out, 'train', o.block_size, batches, o.seed)
            rates = time_batches(data, o.batch_size, o.repeats + 1)[1:]
            figures.add(f'drawing {o.batch_size} x {o.block_size}, {batches}', 'tokens/s', rates)


def measure_scaling(o, rt, figures, build):
    """Time steps of models an eighth, a quarter, half and all of the options' size, in width, depth and
    context.

    Heads keep their width, and a step its number of tokens.
    """
    if o.n_kv_head or o.n_hidden or o.init_from != 'scratch':
        raise UserError("--mode=scaling builds models of several widths: leave out --n_kv_head, --n_hidden "
                        "and --init_from")
    heads, layers, contexts = ({max(1, round(whole / k)) for k in (8, 4, 2, 1)}
                               for whole in (o.n_head, o.n_layer, o.block_size))
    if min(len(heads), len(layers), len(contexts)) < 2:
        raise UserError("--mode=scaling needs two or more heads, layers and tokens of context: there is "
                        "nothing to compare")
    head_size = o.n_embd // o.n_head
    shapes = {('width', head_size * n): dict(n_head=n, n_embd=head_size * n) for n in sorted(heads)}
    shapes |= {('depth', n): dict(n_layer=n) for n in sorted(layers)}
    shapes |= {('context', n): dict(block_size=n) for n in sorted(contexts)}
    costs = {point: [] for point in shapes}  # us per token, one value per repeat
    flops = {}  # per token
    peak_flops = rt.peak_flops()
    print(f"{o.n_layer} layers, {o.n_embd} wide, a context of {o.block_size}, and smaller, on "
          f"{describe(rt)}, {figures.about['dtype']}; all in turn, {o.repeats} times, median (lowest to "
          "highest)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        n_tokens = (2 * o.batch_size * o.micro_batches + 3) * o.block_size
        data_dir = random_dataset(folder, o.vocab_size, n_tokens, o.seed)
        # in turn, since machines drift
        for point, shape in show_progress([*shapes.items()] * o.repeats, 'sizes'):
            model = build(**shape).to(rt.device)
            T = model.config.block_size
            batch_size = max(1, o.batch_size * o.block_size // T)
            opt, data = new_optimizer(o, model), Batches(data_dir, 'train', T)
            steps = training_steps(model, opt, data, rt, batch_size, o.micro_batches, 2, o.grad_clip, o.seed)
            *_, (parts, n_targets) = steps  # the last one
            costs[point].append(sum(parts.values()) / n_targets * 1e6)
            flops[point] = model.flops_per_token(T)

    scaling = {}
    for axis, option in (('width', 'n_embd'), ('depth', 'n_layer'), ('context', 'block_size')):
        points = [point for point in shapes if point[0] == axis]
        sizes = [size for _, size in points]
        medians = [np.median(costs[point]) for point in points]
        work = [flops[point] for point in points]
        scaling[axis] = dict(option=option, sizes=sizes, us_per_token=[costs[point] for point in points],
                             flops_per_token=work, exponent=exponent(sizes, medians),
                             expected=exponent(sizes, work))
        for point, us, n in zip(points, medians, work, strict=True):
            more = [f"{n / 1e6:,.3g} MFLOPs per token"]
            if peak_flops:
                more.append(f"MFU {n / us * 1e6 / peak_flops:.0%}")
            figures.add(f'{axis} {point[1]}', 'us/token', costs[point], *more)
        print(f"-> cost grows with {axis}^{scaling[axis]['exponent']:.2f}, "
              f"FLOPs with {axis}^{scaling[axis]['expected']:.2f}")
    figures.more['scaling'] = scaling
    if o.json:
        print(plot_scaling(figures.about | figures.more, Path(o.json).with_suffix('.png')))
