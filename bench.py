"""
Where time and memory go on this machine, and on paper on a bigger one. It takes train.py's options and config files.

$ python bench.py --batch_size=2 --block_size=512     # the training step of GPT-2 (124M) by parts; --profile=True: by operators
$ python bench.py --mode=sample --bias=True           # decoding, beside transformers and CTranslate2
$ python bench.py --mode=sample --init_from=out-lyrics-demo --rhyme=AABB --decode_tokens=150     # what rhyming costs, and gains
$ python bench.py --mode=data                         # tokenizing, beside bare tiktoken, and drawing batches
$ python bench.py --mode=scaling --batch_size=1       # how the cost of a step grows with width, depth and context
$ python bench.py --batch_size=2 --block_size=512 --json=new.json --compare=old.json
$ python bench.py --estimate=True --gpu=A100-40GB --gpus=8 config/train_gpt2.py           # on paper: nothing is built or run
$ torchrun --standalone --nproc_per_node=2 bench.py --device=cpu --batch_size=1 --block_size=128 --parallel=fsdp
"""

import copy
import os
import re
import sys
import tempfile
import time
from functools import partial
from json import dumps
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from model import GPT, GPTConfig
from nanorap import pretrained
from nanorap.bench import estimate as paper
from nanorap.bench.baselines import peers, rhyme_costs
from nanorap.bench.measurements import Figures, bandwidth, exponent, plot_scaling, processor, read_figures
from nanorap.bench.timing import (
    made_up_documents,
    operators,
    peak_memory,
    random_dataset,
    time_decoding,
    time_drawing,
    time_tokenizing,
    training_steps,
)
from nanorap.cache import KVCache
from nanorap.common import UserError
from nanorap.dataset import Batches, find_dataset, read_meta
from nanorap.optim import make_optimizer
from nanorap.options import check_least
from nanorap.quantize import pack
from nanorap.rap.scheme import check_scheme
from nanorap.runtime import compile_or_eager, setup
from nanorap.tokenizer import load_tokenizer, padded_vocab_size

# -----------------------------------------------------------------------------
mode = 'train'  # train (the training step), sample, data, scaling
repeats = 5  # measurements that count, after one or two that don't
json: str | None = None  # write the figures into this file
compare: str | None = None  # show them beside those of an earlier run, a file that --json wrote
vocab_size = 50304  # of a model from scratch; with real_data that of the dataset
# train, scaling: a step is one of train.py's, of `micro_batches` micro-batches a process
micro_batches = 1
real_data = False  # True: rows of --dataset. False: random tokens
profile = False  # True: also a Chrome trace, out-bench/trace.json, and the ten largest operators
# sample: --dtype and --quantize pick one number format; without them all are timed that the device is good at
prompt_tokens = 32
decode_tokens = 32
quantize: str | None = None  # int8, as in sample.py
rhyme = ''  # a scheme, as in sample.py: only how well lines rhyme, and what that costs, of a run's out_dir as --init_from
# data
megabytes = 20  # of made-up text
# on paper: memory, exchange and time of training on GPUs that need not be here. Several of --init_from (gpt2,gpt2-xl) or
# --gpus (1,8,32) make a table
estimate = False
gpu = 'A100-40GB'  # A100-40GB, A100-80GB, H100, H200, V100-32GB, L40S, A10G, L4, T4, RTX4090, RTX3090
gpus = '8'  # processes, one a GPU
gpus_per_node = 8
network: float | None = None  # GB/s that a GPU can send to other nodes. None: that of the maker's own nodes
mfu = 0.3  # the share of its peak that a GPU reaches; nanoGPT's 124M on 8 A100 was at 0.29
# as in train.py, whose config files serve here too
dataset: str
batches: str
init_from: str
batch_size: int
gradient_accumulation_steps: int
max_iters: int
block_size: int
n_layer: int
n_head: int
n_embd: int
bias: bool
n_kv_head: int | None
n_hidden: int | None
pos: str
norm: str
mlp: str
smear: int
qk_norm: bool
tie_weights: bool
logit_softcap: float | None
rope_theta: float
norm_eps: float
dropout: float
recompute: bool
optimizer: str
learning_rate: float
weight_decay: float
beta1: float
beta2: float
grad_clip: float
seed: int
device: str
dtype: str
parallel: str
compile: bool | None
# -----------------------------------------------------------------------------
exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'configurator.py')).read())

check_least('bench.py', config, repeats=1, prompt_tokens=1, decode_tokens=2, batch_size=1, micro_batches=1, megabytes=1,
            vocab_size=2, gpus_per_node=1, gradient_accumulation_steps=1, block_size=1)
if mode not in ('train', 'sample', 'data', 'scaling'):
    raise UserError(f"--mode={mode}: choose train, sample, data or scaling")
if rhyme:
    check_scheme(rhyme)
    if init_from == 'scratch' or mode != 'sample':
        raise UserError("--rhyme needs --mode=sample and a model that can write: --init_from=out-lyrics-demo, after make demo")
if profile and mode != 'train':
    raise UserError(f"--profile looks into the training step: leave it out with --mode={mode}")
if json and not Path(json).resolve().parent.is_dir():
    raise UserError(f"--json={json}: there is no such folder")
if compare:
    read_figures(compare)  # an error comes before the work
root = Path(__file__).resolve().parent
model_options = {key: config[key] for key in GPTConfig.__dataclass_fields__ if key in config and key != 'vocab_size'}

# ---- on paper
if estimate:
    if gpu not in paper.GPUS:
        raise UserError(f"--gpu={gpu}: choose one of {', '.join(paper.GPUS)}")
    if parallel not in ('ddp', 'fsdp') or not 0 < mfu <= 1 or not re.fullmatch(r'[1-9]\d*(,[1-9]\d*)*', gpus):
        raise UserError(f"--parallel={parallel} must be ddp or fsdp, --mfu={mfu} lie in (0, 1], --gpus={gpus} be a number, or "
                        "several as in 1,8,32")
    models = {}
    for name in init_from.split(','):
        if name == 'scratch':
            shape = dict(vocab_size=vocab_size, **model_options)
        elif name in paper.GPT2_SHAPES:
            shape = paper.GPT2_SHAPES[name] | dict(block_size=min(block_size, 1024), dropout=dropout)
        else:
            shape = pretrained.load(name)[0]
            shape |= dict(block_size=min(block_size, shape['block_size']), dropout=dropout)
        with torch.device('meta'):  # shapes without numbers
            models[name] = GPT(GPTConfig(**shape))
    job = paper.Job(batch_size, block_size, 1, parallel, dtype != 'float32', recompute, optimizer)
    on = paper.Machine(gpu, gpus_per_node, network and network * 1e9, mfu)
    counts = [int(n) for n in gpus.split(',')]
    run_length = batch_size * gradient_accumulation_steps, max_iters
    for line in (paper.table if len(models) * len(counts) > 1 else paper.report)(models, job, on, counts, *run_length):
        print(line)
    raise SystemExit

# ---- on this machine
rt = setup(device, dtype, parallel)
if rt.world_size > 1 and mode != 'train':
    raise UserError("several processes are for --mode=train: leave out torchrun")
kind, hardware = str(rt.dtype).removeprefix('torch.'), processor(rt)
asked = {key: config[key] for key in sorted(config_given - {'json', 'compare', 'profile', 'mode', 'repeats'})}
figures = Figures(dict(mode=mode, machine=hardware, threads=torch.get_num_threads(), processes=rt.world_size, dtype=kind,
                       torch=torch.__version__, options=asked), rt.is_main)
about = f"{rt.device} ({hardware}), {torch.get_num_threads()} threads, torch {torch.__version__}"
files = tempfile.TemporaryDirectory()
torch.manual_seed(seed)


def make_model():
    if init_from == 'scratch':
        model = GPT(GPTConfig(vocab_size=vocab_size, **model_options))
    else:
        model = GPT.from_pretrained(init_from, dropout)
    model.set_block_size(min(block_size, model.config.block_size))
    model.recompute = recompute
    return model


def progress(what, *more):
    return tqdm(what, *more, leave=False, disable=None if rt.is_main else True)  # None: on a terminal only


def steps(model, opt, data, batch_size, count):
    return training_steps(model, opt, data, rt, batch_size, micro_batches, count, grad_clip, seed)


optimizer_of = partial(make_optimizer, optimizer, learning_rate=learning_rate, betas=(beta1, beta2), weight_decay=weight_decay)

if mode == 'train':
    # 1) what a process takes without the model: a tiny one's step loads the kernels
    tiny = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=64, block_size=8, vocab_size=64)).to(rt.device)
    with rt.autocast():
        tiny(*torch.zeros(2, 1, 8, dtype=torch.long, device=rt.device)).backward()
    optimizer_of(tiny).step()
    del tiny
    memory_before, peak_flops = rt.peak_memory(), rt.peak_flops()
    # 2) model, data and optimizer, as in train.py
    if real_data:
        vocab_size = read_meta(find_dataset(dataset))['vocab_size']
        vocab_size = padded_vocab_size(vocab_size)
    raw_model = make_model()
    c, T, size = raw_model.config, raw_model.config.block_size, paper.size(raw_model)
    flops_per_token, rows = raw_model.flops_per_token(T), batch_size * micro_batches * rt.world_size
    if real_data:
        data = Batches(find_dataset(dataset), 'train', T, batches, seed)
    else:
        data_dir = random_dataset(files.name, c.vocab_size, ((repeats + 2) * rows + 2) * T, seed)
        data = Batches(data_dir, 'train', T)
    raw_model = rt.shard(raw_model, raw_model.transformer.h)
    opt = optimizer_of(raw_model)
    model = rt.wrap(compile_or_eager(raw_model, compile, rt, *data.draw([data.row(b) for b in range(batch_size)])))
    if rt.is_main:
        print(f"{size.total / 1e6:.2f}M parameters on {about}, {kind}\n"
              f"a step: {batch_size} rows x {T} tokens x {micro_batches} micro-batch(es) x {rt.world_size} process(es); "
              f"{repeats} of them, median (lowest to highest)", flush=True)
    # 3) the steps
    laps = list(progress(steps(model, opt, data, batch_size, repeats + 2), 'steps', repeats + 2))[2:]
    seconds = [sum(parts.values()) for parts, _ in laps]
    rates = [n / s for s, (_, n) in zip(seconds, laps, strict=True)]
    figures.add('training', 'tokens/s', rates)
    figures.add('work', 'TFLOP/s', [rate * flops_per_token / 1e12 for rate in rates])
    if peak_flops:
        share = [rate * flops_per_token / peak_flops / rt.world_size for rate in rates]
        figures.add('MFU', 'of the peak', share, f"a matmul's {peak_flops / 1e12:.3g} TFLOP/s a process")
    for part in laps[0][0]:
        times = [parts[part] for parts, _ in laps]
        figures.add(part, 's', times, f"{sum(times) / sum(seconds):.1%} of the step")
    if memory := rt.peak_memory():
        on_cpu = rt.device.type == 'cpu'
        job = paper.Job(batch_size, T, rt.world_size, parallel, kind != 'float32', recompute, optimizer, micro_batches, on_cpu)
        figures.more['memory_on_paper'] = on_paper = paper.memory(c, size, job)['peak'] / 1e9
        figures.add('peak memory', 'GB', [memory / 1e9])
        of_model = (memory - memory_before * on_cpu) / 1e9
        figures.add('peak memory of model and step', 'GB', [of_model], f"on paper {on_paper:.4g}")
    # 4) by operators
    if profile:
        trace = Path('out-bench/trace.json') if rt.is_main else None
        lines = operators(lambda: list(steps(model, opt, data, batch_size, 2)), rt, trace)
        if rt.is_main:
            print("\ntwo more steps, in out-bench/trace.json for chrome://tracing or ui.perfetto.dev; what took longest:",
                  *lines, sep='\n')
    if rt.is_main and not config_given & {'profile', 'json', 'compare'}:
        print("\nmore: --profile=True, --mode=sample, data or scaling, --estimate=True; python bench.py --help")

elif mode == 'sample':
    model = make_model().eval()
    if prompt_tokens + decode_tokens > model.config.block_size and not rhyme:
        raise UserError(f"--prompt_tokens={prompt_tokens} and --decode_tokens={decode_tokens} are more than the context, "
                        f"{model.config.block_size}: lower one of them, or raise --block_size")
    if rhyme:
        fast = pack(copy.deepcopy(model).to(rt.device, rt.dtype), quantize)
        prompt = (root / 'demo.txt').read_text(encoding='utf-8')
        rhyme_costs(fast, model, load_tokenizer(init_from), prompt, rhyme, 10, decode_tokens, seed)
        raise SystemExit
    # 1) the number formats: {name: (dtype, quantize)}
    formats = {'float32': (torch.float32, None), kind: (rt.dtype, None)}
    if config_given & {'dtype', 'quantize'}:
        formats = {quantize or kind: (rt.dtype, quantize)}
    elif rt.device.type == 'cpu':
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # elsewhere it is emulated
            formats['bfloat16'] = torch.bfloat16, None
        formats['int8'] = torch.float32, 'int8'
    ours = {name: pack(copy.deepcopy(model).to(rt.device, dt), how) for name, (dt, how) in formats.items()}
    n_read = sum(p.numel() for p in model.parameters())  # weights that a token needs: all but looked up embeddings
    n_read -= model.transformer.wpe.weight.numel() if model.config.pos == 'learned' else 0
    n_read -= 0 if model.config.tie_weights else model.transformer.wte.weight.numel()
    prompt = np.random.default_rng(seed).integers(model.config.vocab_size, size=prompt_tokens).tolist()
    speed = bandwidth(rt)
    print(f"{n_read / 1e6:.1f}M weights read a token, on {about}, {speed / 1e9:.1f} GB/s of memory bandwidth\n{decode_tokens} "
          f"tokens after a prompt of {len(prompt)}, formats in turn, {repeats} times, median (lowest to highest)", flush=True)

    def decode(name, batch, **sampler):
        make_cache = partial(KVCache, model.config, device=rt.device, dtype=formats[name][0])
        return time_decoding(ours[name], make_cache, prompt, batch, decode_tokens, model.config.vocab_size, seed, **sampler)

    # 2) by batch size
    for batch in progress((1, 2, 4, 8, 16), 'batch sizes'):
        runs = [{name: decode(name, batch, top_k=200) for name in formats} for _ in range(repeats + 1)][1:]
        for name, (dt, how) in formats.items():
            prefill, decoding = zip(*(run[name] for run in runs), strict=True)
            if batch == 1:
                figures.add(f'prefill, {name}', 'tokens/s', prefill)
            share = np.median(decoding) / batch * n_read * (1 if how else dt.itemsize) / speed
            figures.add(f'decoding, {name}, batch {batch}', 'tokens/s', decoding, f"{share:.0%} of the bandwidth")
    # 3) the same work by others
    dtypes = {name: dt for name, (dt, how) in formats.items() if not how} or {'float32': torch.float32}
    for batch in (1, 16):
        try:
            with tempfile.TemporaryDirectory() as folder:
                theirs = peers(model, folder, [prompt] * batch, decode_tokens, rt.device, dtypes)
                runs = {f'ours {name}': partial(decode, name, batch, temperature=0) for name in formats} | theirs
                rates = {name: [] for name in runs}
                for _ in progress(range(repeats + 1), f'peers, batch {batch}'):
                    for name, call in runs.items():
                        t0 = time.perf_counter()
                        call()
                        rt.synchronize()
                        rates[name].append(batch * decode_tokens / (time.perf_counter() - t0))
        except UserError as e:
            print(f"\ntransformers and CTranslate2 are left out: {e}")
            break
        print(f"\nnew tokens/s, greedily, the prompt's time included, batch {batch}, all in turn; the share of the bandwidth; "
              f"how many times as fast as {', '.join(theirs)}")
        middle = {name: np.median(values[1:]) for name, values in rates.items()}
        for name, values in rates.items():
            share = middle[name] / batch * n_read * (1 if 'int8' in name else 2 if '16' in name else 4) / speed
            ratios = '  '.join(f"{middle[name] / middle[other]:.2f}" for other in theirs)
            figures.add(f'{name}, batch {batch}', 'tokens/s', values[1:], f"{share:.0%}, {ratios}")

elif mode == 'data':
    texts = made_up_documents(root / 'data/lyrics/demo', megabytes * 1e6, seed)
    file, out, tokenizer = Path(files.name, 'documents.jsonl'), Path(files.name, 'tokens'), load_tokenizer('gpt2')
    file.write_text(''.join(dumps(dict(text=text)) + '\n' for text in texts), encoding='utf-8')
    print(f"{len(texts):,} documents, {megabytes} MB, GPT-2's tokens, {os.cpu_count()} cores ({hardware}); in turn, {repeats} "
          "times, median (lowest to highest)", flush=True)
    # 1) tokenizing: by tiktoken alone, from memory to memory, and as prepare.py does it, from a file to train.bin
    bare, whole = zip(*(time_tokenizing(tokenizer, texts, file, out) for _ in progress(range(repeats + 1), 'tokenizing')),
                      strict=True)
    figures.add('tiktoken.encode_ordinary_batch', 'tokens/s', bare[1:])
    ratio = np.median([a / b for a, b in zip(whole[1:], bare[1:], strict=True)])
    figures.add('reading, tokenizing, writing', 'tokens/s', whole[1:], f"{ratio:.2f}x tiktoken")
    command = [sys.executable, root / 'data/openwebtext/prepare.py', f'--input={file}', f'--out_dir={out}', '--val_share=0.02']
    figures.add('peak memory of prepare.py', 'GB', [peak_memory(command) / 1e9])
    # 2) drawing batches
    for how in ('stream', 'documents'):
        data = Batches(out, 'train', block_size, how, seed)
        figures.add(f'drawing {batch_size} x {block_size}, {how}', 'tokens/s', time_drawing(data, batch_size, repeats + 1)[1:])

elif mode == 'scaling':
    # an eighth, a quarter, half and all of the config's size; heads keep their width, and a step its tokens
    if n_kv_head or n_hidden or init_from != 'scratch':
        raise UserError("--mode=scaling builds models of several widths: leave out --n_kv_head, --n_hidden and --init_from")
    heads, layers, contexts = [sorted({max(1, round(whole / k)) for k in (8, 4, 2, 1)})
                               for whole in (n_head, n_layer, block_size)]
    if min(len(heads), len(layers), len(contexts)) < 2:
        raise UserError("--mode=scaling needs two or more heads, layers and tokens of context: there is nothing to compare")
    width = n_embd // n_head
    points = [('width', width * n, dict(n_head=n, n_embd=width * n)) for n in heads]
    points += [('depth', n, dict(n_layer=n)) for n in layers] + [('context', n, dict(block_size=n)) for n in contexts]
    data_dir = random_dataset(files.name, vocab_size, (2 * batch_size * micro_batches + 3) * block_size, seed)
    peak_flops, costs, flops, scaling = rt.peak_flops(), {}, {}, {}
    print(f"{n_layer} layers, {n_embd} wide, a context of {block_size}, and smaller, on {about}, {kind}; all in turn, "
          f"{repeats} times, median (lowest to highest)", flush=True)
    for axis, value, options in progress(points * repeats, 'sizes'):  # in turn, since machines drift
        model = GPT(GPTConfig(vocab_size=vocab_size, **model_options | options)).to(rt.device)
        T = model.config.block_size
        data = Batches(data_dir, 'train', T)
        *_, (parts, n) = steps(model, optimizer_of(model), data, max(1, batch_size * block_size // T), 2)
        costs.setdefault((axis, value), []).append(sum(parts.values()) / n * 1e6)
        flops[axis, value] = model.flops_per_token(T)
    for axis, option in (('width', 'n_embd'), ('depth', 'n_layer'), ('context', 'block_size')):
        sizes = [value for of, value in costs if of == axis]
        middle, work = [np.median(costs[axis, value]) for value in sizes], [flops[axis, value] for value in sizes]
        scaling[axis] = dict(option=option, sizes=sizes, us_per_token=[costs[axis, value] for value in sizes],
                             flops_per_token=work, exponent=exponent(sizes, middle), expected=exponent(sizes, work))
        for value, us, n in zip(sizes, middle, work, strict=True):
            more = [f"MFU {n / us * 1e6 / peak_flops:.0%}"] * bool(peak_flops)
            figures.add(f'{axis} {value}', 'us/token', costs[axis, value], f"{n / 1e6:,.3g} MFLOPs a token", *more)
        print(f"-> cost grows with {axis}^{scaling[axis]['exponent']:.2f}, FLOPs with {axis}^{scaling[axis]['expected']:.2f}")
    figures.more['scaling'] = scaling
    if json:
        print(plot_scaling(figures.about | figures.more, Path(json).with_suffix('.png')))

if rt.is_main and json:
    figures.write(json)
if rt.is_main and compare:
    figures.compare(compare)
files.cleanup()  # several processes end without Python's tidying
rt.close()
