"""
Where time and memory go on this machine, and would go on a bigger one.
It takes train.py's options and config files.

The training step of GPT-2 (124M) by its parts; --profile=True adds the slowest operators:
$ python bench.py --batch_size=2 --block_size=512
Decoding, beside transformers and CTranslate2:
$ python bench.py --mode=sample --bias=True
What rhyming costs and gains:
$ python bench.py --mode=rhyme --init_from=out-lyrics-demo --decode_tokens=150
Tokenizing, beside tiktoken alone, and reading batches:
$ python bench.py --mode=data
How the cost of a step grows with width, depth and context:
$ python bench.py --mode=scaling --batch_size=1
Memory and time on GPUs that you don't have: computed, nothing is run:
$ python bench.py --mode=estimate --gpu=A100-40GB --gpus=8 config/train_gpt2.py
Before and after a change:
$ python bench.py --batch_size=2 --block_size=512 --json=new.json --compare=old.json
Several processes:
$ torchrun --standalone --nproc_per_node=2 bench.py --device=cpu --batch_size=1 --parallel=fsdp
"""

from pathlib import Path
from types import SimpleNamespace

import torch

from model import GPT, GPTConfig
from nanorap import pretrained
from nanorap.bench.estimate import GPT2_SHAPES, check_estimate, print_estimate
from nanorap.bench.measurements import Figures, processor, read_figures
from nanorap.bench.modes import (
    measure_data,
    measure_decoding,
    measure_rhyme,
    measure_scaling,
    measure_training,
)
from nanorap.common import UserError, check_writable
from nanorap.options import check_least
from nanorap.rap.scheme import check_scheme
from nanorap.runtime import setup

# -----------------------------------------------------------------------------
mode = 'train'  # train (the training step), sample, rhyme, data, scaling, estimate
repeats = 5  # measurements that count, after one or two that don't
json: str | None = None  # write the figures into this file
compare: str | None = None  # show them beside those of an earlier run, a file that --json wrote
vocab_size = 50304  # of a model from scratch; with real_data that of the dataset
# train, scaling: a step is one of train.py's, of `micro_batches` micro-batches per process
micro_batches = 1
real_data = False  # True: rows of --dataset. False: random tokens
profile = False  # True: also a Chrome trace, out-bench/trace.json, and the ten slowest operators
# sample: --dtype and --quantize choose one number format; without them all are timed that are fast here
prompt_tokens = 32
decode_tokens = 32
quantize: str | None = None  # int8, as in sample.py
# rhyme: how well lines rhyme, and what that costs, of a run whose out_dir --init_from names
rhyme = 'AABB'  # a scheme, as in sample.py
# data
megabytes = 20  # of synthetic text
# estimate: memory, exchange and time of training on GPUs that need not be here. Several of --init_from
# (gpt2,gpt2-xl) or --gpus (1,8,32) make a table
gpu = 'A100-40GB'  # A100-40GB, A100-80GB, H100, H200, V100-32GB, L40S, A10G, L4, T4, RTX4090, RTX3090
gpus = '8'  # processes, one per GPU
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
exec(Path(__file__).with_name('configurator.py').read_text(encoding='utf-8'))

check_least('bench.py', config, repeats=1, prompt_tokens=1, decode_tokens=2, batch_size=1, micro_batches=1,
            megabytes=1, vocab_size=2, gpus_per_node=1, gradient_accumulation_steps=1, block_size=1)
if mode not in ('train', 'sample', 'rhyme', 'data', 'scaling', 'estimate'):
    raise UserError(f"--mode={mode}: choose train, sample, rhyme, data, scaling or estimate")
check_scheme(rhyme)
if profile and mode != 'train':
    raise UserError(f"--profile looks into the training step: leave it out with --mode={mode}")
if compare:
    read_figures(compare)  # an error comes before the work
options = SimpleNamespace(**config)
model_options = {key: config[key] for key in GPTConfig.__dataclass_fields__ if key in config}


def build(**shape):
    """Return a new model of the options' shape, but for what `shape` says."""
    return GPT(GPTConfig(**model_options | shape))


def make_model(**shape):
    """Return the model that is measured: what --init_from names, or a new one."""
    model = build(**shape) if init_from == 'scratch' else GPT.from_pretrained(init_from, dropout)
    model.set_block_size(min(block_size, model.config.block_size))
    model.recompute = recompute
    return model


def model_without_weights(name):
    """Return a model on the meta device, where tensors have shapes and no numbers."""
    if name == 'scratch':
        shape = model_options
    elif name in GPT2_SHAPES:
        shape = GPT2_SHAPES[name] | dict(block_size=min(block_size, 1024), dropout=dropout)
    else:
        shape = pretrained.load(name)[0]
        shape |= dict(block_size=min(block_size, shape['block_size']), dropout=dropout)
    with torch.device('meta'):
        return GPT(GPTConfig(**shape))


if mode == 'estimate':
    check_estimate(options)
    print_estimate(options, {name: model_without_weights(name) for name in init_from.split(',')})
    raise SystemExit

rt = setup(device, dtype, parallel)
if json and rt.is_main:
    check_writable(json)
if rt.world_size > 1 and mode != 'train':
    raise UserError("several processes are for --mode=train: leave out torchrun")
given = {key: config[key] for key in sorted(config_given - {'json', 'compare', 'profile', 'mode', 'repeats'})}
about = dict(mode=mode, machine=processor(rt), threads=torch.get_num_threads(), processes=rt.world_size,
             dtype=str(rt.dtype).removeprefix('torch.'), torch=torch.__version__, options=given)
figures = Figures(about, rt.is_main)
torch.manual_seed(seed)

if mode == 'train':
    measure_training(options, rt, figures, build, make_model)
    if rt.is_main and not config_given & {'profile', 'json', 'compare'}:
        print("\nmore: --profile=True, --mode=sample, rhyme, data, scaling or estimate; python bench.py "
              "--help")
elif mode == 'sample':
    measure_decoding(options, rt, figures, make_model, config_given)
elif mode == 'rhyme':
    measure_rhyme(options, rt, make_model)
elif mode == 'data':
    measure_data(options, rt, figures)
else:
    measure_scaling(options, rt, figures, build)

if rt.is_main and json:
    figures.write(json)
if rt.is_main and compare:
    figures.compare(compare)
rt.close()
