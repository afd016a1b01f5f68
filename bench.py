"""
How fast this machine trains and samples: the step of train.py and the decoding of sample.py, timed.

$ python bench.py config/train_gpt2.py                           # as the config says, on a GPU
$ python bench.py --batch_size=2 --block_size=512 --repeats=3    # GPT-2 (124M) on a CPU
$ python bench.py --training=False --bias=True --compare         # sampling against transformers and CTranslate2
$ python bench.py --training=False --init_from=out-lyrics-demo --rhyme=AABB --decode_tokens=150
"""

import copy
import json
import os
import re
import statistics
import sys
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from model import GPT, GPTConfig
from nanorap import UserError
from nanorap.bars import write_bars
from nanorap.cache import KVCache
from nanorap.dataset import Batches, MicroBatch, find_dataset
from nanorap.generate import generate
from nanorap.optim import make_optimizer, train_step
from nanorap.pretrained import to_transformers
from nanorap.quantize import memory_bandwidth, pack
from nanorap.rhyme import split_words
from nanorap.runtime import compile_or_eager, setup
from nanorap.scheme import check_scheme, rhyme_counts
from nanorap.tokenizer import load_tokenizer

# -----------------------------------------------------------------------------
repeats = 10  # timed steps, after two that are not
real_data = False  # True: rows of --dataset. False: random tokens
prompt_tokens = 32  # for sampling
decode_tokens = 64
training = True  # False: sampling only
quantize: str | None = None  # int8, as in sample.py
compare = False  # also time transformers and, if installed, ctranslate2, on a CPU
rhyme = ''  # a scheme, as in sample.py: also how well lines rhyme, and what that costs; for a run's out_dir as --init_from
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
compile: bool | None
# -----------------------------------------------------------------------------
exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'configurator.py')).read())

for key, least in dict(repeats=1, prompt_tokens=1, decode_tokens=2, batch_size=1).items():
    if config[key] < least:
        raise UserError(f"bench.py: {key}={config[key]} must be {least} or more")
rt = setup(device, dtype)
if compare and (rt.device.type != 'cpu' or rt.dtype != torch.float32 or quantize):
    raise UserError("bench.py: --compare is for --device=cpu --dtype=float32, and times int8 by itself: leave out --quantize")
if compare and (config['pos'], config['norm'], config['mlp'], bias) != ('learned', 'layernorm', 'gelu', True):
    raise UserError("bench.py: --compare is for GPT-2's architecture, which the others have, too: give --bias=True")
if rhyme:
    check_scheme(rhyme)
    if init_from == 'scratch':
        raise UserError("bench.py: --rhyme needs a model that can write: --init_from=out-lyrics-demo, after make demo")
torch.manual_seed(seed)
if init_from == 'scratch':
    model = GPT(GPTConfig(vocab_size=50304, **{key: config[key] for key in GPTConfig.__dataclass_fields__ if key in config}))
else:
    model = GPT.from_pretrained(init_from, dropout=dropout)
model.set_block_size(min(block_size, model.config.block_size))
model.to(rt.device)
vocab_size = model.config.vocab_size

if real_data and training:
    data = Batches(find_dataset(dataset), 'train', model.config.block_size, batches, seed)
    steps = [list(data.step(i * batch_size, batch_size, 1)) for i in range(repeats + 2)]
elif training:
    tokens = np.random.default_rng(seed).integers(vocab_size, size=(repeats + 2, batch_size, model.config.block_size + 1))
    steps = [[MicroBatch(t[:, :-1], t[:, 1:], 1.0, i * batch_size, True)] for i, t in enumerate(tokens)]
n_params = sum(p.numel() for p in model.parameters())
print(f"{n_params / 1e6:.2f}M parameters on {rt.device}, {str(rt.dtype).removeprefix('torch.')}, "
      f"{torch.get_num_threads()} threads, torch {torch.__version__}")


def report(what, rates, *more):
    """rates: tokens/s, one a repeat."""
    line = f"{what:<34}{statistics.median(rates):>9,.1f} tokens/s ({min(rates):,.1f} to {max(rates):,.1f})"
    print(", ".join([line, *more]), flush=True)


def others(model, folder, prompt, new):
    """{name: a call that writes `new` tokens after the prompt}, greedily, by transformers and CTranslate2 with our weights."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, GenerationConfig

    c = model.config_dict()
    about = dict(model_type='gpt2', architectures=['GPT2LMHeadModel'], n_layer=c['n_layer'], n_head=c['n_head'],
                 n_embd=c['n_embd'], n_positions=c['block_size'], vocab_size=c['vocab_size'], layer_norm_epsilon=c['norm_eps'],
                 tie_word_embeddings=c['tie_weights'])
    (Path(folder) / 'config.json').write_text(json.dumps(about))
    tensors = {key: tensor.detach() for key, tensor in to_transformers(c, model.state_dict()).items()}
    save_file(tensors, Path(folder) / 'model.safetensors', metadata=dict(format='pt'))
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    idx = torch.tensor([prompt])
    settings = GenerationConfig(max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)
    calls = dict(transformers=lambda: theirs.generate(idx, attention_mask=torch.ones_like(idx), generation_config=settings))
    try:
        import ctranslate2
        from ctranslate2.converters import transformers as converters
    except ImportError:
        print("CTranslate2 is not installed (pip install ctranslate2): not compared", file=sys.stderr)
        return calls
    for kind in ('float32', 'int8'):
        spec = converters.GPT2Loader().get_model_spec(theirs)
        spec.register_vocabulary([str(i) for i in range(c['vocab_size'])])
        spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = '0'
        spec.validate()
        spec.optimize(quantization=kind)
        (Path(folder) / kind).mkdir()
        spec.save(f'{folder}/{kind}')
        generator = ctranslate2.Generator(f'{folder}/{kind}', compute_type=kind, inter_threads=1,
                                          intra_threads=torch.get_num_threads())
        tokens = [[str(i) for i in prompt]]
        calls[f'CTranslate2 {kind}'] = partial(generator.generate_batch, tokens, max_length=new, min_length=new,
                                               sampling_topk=1, include_prompt_in_result=False)
    return calls


# 1) training steps
if training:
    model.recompute = recompute
    opt = make_optimizer(optimizer, model, learning_rate, (beta1, beta2), weight_decay)
    scaler, peak_flops = rt.grad_scaler(), rt.peak_flops()
    step_model = compile_or_eager(model, compile, rt, steps[0][0].x, steps[0][0].y)
    rates = []
    for micro_batches in tqdm(steps, desc='training steps', leave=False, disable=None):  # None: shown on a terminal only
        rt.synchronize()
        t0 = time.perf_counter()
        train_step(step_model, opt, scaler, micro_batches, rt, grad_clip, seed)
        rt.synchronize()
        n_targets = sum(int((batch.y != -1).sum()) for batch in micro_batches)
        rates.append(n_targets / (time.perf_counter() - t0))
    T = steps[0][0].x.shape[1]
    flops = statistics.median(rates[2:]) * model.flops_per_token(T)
    mfu = f"MFU {flops / peak_flops:.1%} of {peak_flops / 1e9:,.0f} GFLOP/s" if peak_flops else "MFU n/a"
    memory = rt.peak_memory()
    memory = f"peak memory {memory / 1e9:.2f} GB" if memory else "peak memory n/a"
    report(f"training, {batch_size} x {T}", rates[2:], mfu, memory)

# 2) sampling: the time to the first token is the prompt's, the rest is decoding
if training:
    del opt
    model.zero_grad(set_to_none=True)
model.eval().to(rt.dtype)
reference = copy.deepcopy(model) if compare or rhyme else None  # packed weights can't be taken out again
make_cache = partial(KVCache, model.config, device=rt.device, dtype=rt.dtype)
prompt_tokens = min(prompt_tokens, model.config.block_size)
prompt = np.random.default_rng(seed).integers(vocab_size, size=prompt_tokens).tolist()
pack(model, quantize)


def time_ours(model, num_samples, **sampler):
    """Tokens/s of the prompt, of decoding, and of new tokens over all of it."""
    times = [time.perf_counter()]
    # an end of text that never comes, so that every sample has its full length
    for _ in generate(model, make_cache, prompt, num_samples, decode_tokens, vocab_size, eot=-1, seed=seed, **sampler):
        times.append(time.perf_counter())
    new = num_samples * decode_tokens
    return (prompt_tokens / (times[1] - times[0]), (new - num_samples) / (times[-1] - times[1]), new / (times[-1] - times[0]))


for num_samples in (1, 10):
    times = [time_ours(model, num_samples, top_k=200) for _ in range(max(2, repeats // 3) + 1)]
    prefill, decode, _ = zip(*times[1:], strict=True)
    report(f"sampling, prompt of {prompt_tokens}, batch {num_samples}", prefill)
    report(f"sampling, decoding, batch {num_samples}", decode)

# 3) the same work by others: new tokens/s at batch 1, the prompt included
if compare:
    print(f"\n{decode_tokens} tokens after a prompt of {prompt_tokens}, batch 1, greedily, in turn, the best of 3")
    ours = {f"ours, {'float32' if how is None else how}": pack(copy.deepcopy(reference), how) for how in (None, 'int8')}
    runs = {name: partial(time_ours, m, 1, temperature=0) for name, m in ours.items()}
    with tempfile.TemporaryDirectory() as folder:
        theirs = others(reference, folder, prompt, decode_tokens)
        for name, call in theirs.items():
            def timed(call=call):
                t0 = time.perf_counter()
                call()
                return 0, 0, decode_tokens / (time.perf_counter() - t0)
            runs[name] = timed
        best, bandwidth = dict.fromkeys(runs, 0.0), 0.0
        for _ in range(4):  # the first one warms up
            bandwidth = max(bandwidth, memory_bandwidth())
            for name, call in runs.items():
                best[name] = max(best[name], call()[2])
    n = n_params - (reference.transformer.wpe.weight.numel() if reference.config.pos == 'learned' else 0)
    n -= 0 if reference.config.tie_weights else reference.transformer.wte.weight.numel()
    print(f"memory bandwidth {bandwidth / 1e9:.1f} GB/s; share: of the tokens/s at which {n / 1e6:.0f}M weights can be read")
    for name, rate in best.items():
        size = 1 if 'int8' in name else 4
        line = f"{name:<24}{rate:>8.1f} tokens/s, share {rate * n * size / bandwidth:>4.0%}"
        print(line, *(f"{rate / best[other]:.2f}x {other}" for other in theirs), sep=', ')

# 4) what rhyming costs, and gains
if rhyme:
    print(f"\nrhyme={rhyme}, 10 samples of {decode_tokens} tokens after demo.txt, temperature 1, whole lines counted")
    tokenizer = load_tokenizer(init_from)
    start = (Path(__file__).parent / 'demo.txt').read_text()
    ids = [tokenizer.eot] + tokenizer.encode(start)  # a song of its own, as sample.py has it
    settings = 10, decode_tokens, min(tokenizer.vocab_size, vocab_size), tokenizer.eot, seed
    for name in ('plain', 'rhymed'):
        samples, t0 = [[] for _ in range(10)], time.perf_counter()
        if name == 'plain':
            for tokens in generate(model, make_cache, ids, *settings):
                for sample, token in zip(samples, tokens, strict=True):
                    sample += [token] * (token is not None)
        else:
            for i, tokens, _ in write_bars(model, make_cache, tokenizer, ids, rhyme, *settings):
                samples[i] += tokens
        seconds, total, words, grams, repeated = time.perf_counter() - t0, 0.0, 0, set(), 0
        pairs = np.zeros(3, dtype=int)
        for sample in samples:
            with torch.inference_mode():
                logits = torch.log_softmax(reference(torch.tensor([ids + sample]))[0, len(ids) - 1 : -1], -1)
            total += logits.gather(1, torch.tensor(sample)[:, None]).sum().item()
            text = start + tokenizer.decode(sample)
            pairs += np.subtract(rhyme_counts(text.rpartition('\n')[0], rhyme), rhyme_counts(start, rhyme))
            said = split_words(text[len(start):])
            grams |= {*pairwise(said)}
            words += len(said) - 1
            for section in re.split(r'^\s*(?:\[.*)?$', text, flags=re.M):
                lines = section.strip().split('\n')
                repeated += len(lines) - len({*lines})
        n = sum(map(len, samples))
        print(f"{name:<8}{pairs[0]} pairs, rhyming {pairs[1] / pairs[0]:.1%}, perfectly {pairs[2] / pairs[0]:.1%}, "
              f"log-probability a token {total / n:.3f}, distinct-2 {len(grams) / words:.3f}, lines repeated {repeated}, "
              f"{n} tokens, {n / seconds:.1f} tokens/s", flush=True)
