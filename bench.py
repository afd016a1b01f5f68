"""
How fast this machine trains and samples: the step of train.py and the decoding of sample.py, timed.

$ python bench.py config/train_gpt2.py                           # as the config says, on a GPU
$ python bench.py --batch_size=2 --block_size=512 --repeats=3    # GPT-2 (124M) on a CPU
"""

import os
import statistics
import time
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from model import GPT, GPTConfig, KVCache
from nanorap import UserError
from nanorap.dataset import Batches, MicroBatch, find_dataset
from nanorap.generate import generate
from nanorap.optim import adamw, train_step
from nanorap.runtime import compile_or_eager, setup

# -----------------------------------------------------------------------------
repeats = 10  # timed steps, after two that are not
real_data = False  # True: rows of --dataset. False: random tokens
prompt_tokens = 32  # for sampling
decode_tokens = 64
# as in train.py, whose config files serve here too; a step is one micro-batch
dataset: str
batches: str
init_from: str
batch_size: int
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
qk_norm: bool
tie_weights: bool
logit_softcap: float | None
rope_theta: float
norm_eps: float
dropout: float
learning_rate: float
weight_decay: float
beta1: float
beta2: float
grad_clip: float
seed: int
device: str
dtype: str
compile: bool | None
# -----------------------------------------------------------------------------
exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'configurator.py')).read())

for key, least in dict(repeats=1, prompt_tokens=1, decode_tokens=2, batch_size=1).items():
    if config[key] < least:
        raise UserError(f"bench.py: {key}={config[key]} must be {least} or more")
rt = setup(device, dtype)
torch.manual_seed(seed)
if init_from == 'scratch':
    model = GPT(GPTConfig(vocab_size=50304, **{key: config[key] for key in GPTConfig.__dataclass_fields__ if key in config}))
else:
    model = GPT.from_pretrained(init_from, dropout=dropout)
model.crop_block_size(min(block_size, model.config.block_size))
model.to(rt.device)
vocab_size = model.config.vocab_size

if real_data:
    data = Batches(find_dataset(dataset), 'train', model.config.block_size, batches, seed)
    steps = [list(data.step(i * batch_size, batch_size, 1)) for i in range(repeats + 2)]
else:
    tokens = np.random.default_rng(seed).integers(vocab_size, size=(repeats + 2, batch_size, model.config.block_size + 1))
    steps = [[MicroBatch(t[:, :-1], t[:, 1:], 1.0, i * batch_size, True)] for i, t in enumerate(tokens)]
optimizer = adamw(model, learning_rate, (beta1, beta2), weight_decay)
scaler, peak_flops = rt.grad_scaler(), rt.peak_flops()
step_model = compile_or_eager(model, compile, rt, steps[0][0].x, steps[0][0].y)
n_params = sum(p.numel() for p in model.parameters())
print(f"{n_params / 1e6:.2f}M parameters on {rt.device}, {str(rt.dtype).removeprefix('torch.')}, "
      f"{torch.get_num_threads()} threads, torch {torch.__version__}")


def report(what, rates, *more):
    """rates: tokens/s, one a repeat."""
    line = f"{what:<34}{statistics.median(rates):>9,.1f} tokens/s ({min(rates):,.1f} to {max(rates):,.1f})"
    print(", ".join([line, *more]), flush=True)


# 1) training steps
rates = []
for micro_batches in tqdm(steps, desc='training steps', leave=False, disable=None):  # None: shown on a terminal only
    rt.synchronize()
    t0 = time.perf_counter()
    train_step(step_model, optimizer, scaler, micro_batches, rt, grad_clip, seed)
    rt.synchronize()
    n_targets = sum(int((batch.y != -1).sum()) for batch in micro_batches)
    rates.append(n_targets / (time.perf_counter() - t0))
T = steps[0][0].x.shape[1]
flops = statistics.median(rates[2:]) * model.flops_per_token(T)
mfu = f"MFU {flops / peak_flops:.1%} of {peak_flops / 1e9:,.0f} GFLOP/s" if peak_flops else "MFU n/a"
memory = rt.peak_memory()
report(f"training, {batch_size} x {T}", rates[2:], mfu, f"peak memory {memory / 1e9:.2f} GB" if memory else "peak memory n/a")

# 2) sampling: the time to the first token is the prompt's, the rest is decoding
del optimizer
model.zero_grad(set_to_none=True)
model.eval().to(rt.dtype)
make_cache = partial(KVCache, model.config, device=rt.device, dtype=rt.dtype)
prompt_tokens = min(prompt_tokens, model.config.block_size)
prompt = np.random.default_rng(seed).integers(vocab_size, size=prompt_tokens).tolist()
for num_samples in (1, 10):
    prefill, decode = [], []
    for i in range(max(3, repeats // 3)):
        times = [time.perf_counter()]
        # an end of text that never comes, so that every sample has its full length
        for _ in generate(model, make_cache, prompt, num_samples, decode_tokens, vocab_size, eot=-1, seed=i):
            times.append(time.perf_counter())
        prefill.append(prompt_tokens / (times[1] - times[0]))
        decode.append(num_samples * (decode_tokens - 1) / (times[-1] - times[1]))
    report(f"sampling, prompt of {prompt_tokens}, batch {num_samples}", prefill[1:])
    report(f"sampling, decoding, batch {num_samples}", decode[1:])
