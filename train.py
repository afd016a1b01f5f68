"""
Train a GPT from scratch, or fine-tune a pretrained one, on token files that a prepare.py wrote.

One process, on the GPU if there is one:
$ python train.py config/finetune_lyrics.py
$ python train.py config/train_shakespeare_char.py --batch_size=32 --compile=False

All GPUs of a machine, here 8, with DDP:
$ torchrun --standalone --nproc_per_node=8 train.py config/train_gpt2.py

Two processes on a CPU, to try what would run on two GPUs:
$ torchrun --standalone --nproc_per_node=2 train.py config/finetune_lyrics_demo.py --device=cpu
"""

import math
import os
import time
from collections import Counter
from pathlib import Path

import torch

from model import GPT, GPTConfig
from nanorap import UserError
from nanorap import checkpoint as ckpt
from nanorap.dataset import Batches, find_dataset
from nanorap.optim import adamw, get_lr, train_step
from nanorap.report import Log
from nanorap.runtime import compile_or_eager, setup
from nanorap.tokenizer import load_tokenizer, same_tokenizer, tokenizer_from_meta

# -----------------------------------------------------------------------------
# the defaults train GPT-2 (124M) on OpenWebText
# files
out_dir = 'out'  # where checkpoints and log.csv go
init_from = 'scratch'  # scratch, resume, gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, a model's folder, out_dir or hub name
always_save_checkpoint = True  # False: save only where the validation loss is a new best, and at the end
# evaluation and logging
eval_interval = 2000  # steps between evaluations
eval_iters: int | None = 200  # batches of each evaluation. None: the whole split
eval_only = False  # evaluate on both splits and exit
log_interval = 1  # steps between rows of log.csv
wandb_log = False
wandb_project = 'owt'
wandb_run_name = 'gpt2'
# data
dataset = 'openwebtext'  # a folder below data/, or any other, with train.bin, val.bin and meta.json
batches = 'stream'  # stream: rows of block_size tokens. documents: rows begin where songs begin, one song a row
gradient_accumulation_steps = 5 * 8  # micro-batches of a step, over all processes
batch_size = 12  # rows of a micro-batch
block_size = 1024  # tokens of context; less than a pretrained model's crops it
# model: for init_from=scratch; a pretrained one brings its own
n_layer = 12
n_head = 12
n_embd = 768
bias = False  # in Linear and LayerNorm
n_kv_head: int | None = GPTConfig.n_kv_head  # heads of keys and values. None: n_head
n_hidden: int | None = GPTConfig.n_hidden  # width inside the MLP. None: 4 * n_embd
pos = GPTConfig.pos  # learned, rotary, alibi
norm = GPTConfig.norm  # layernorm, rmsnorm
mlp = GPTConfig.mlp  # gelu, swiglu, relu2
qk_norm = GPTConfig.qk_norm
tie_weights = GPTConfig.tie_weights
logit_softcap: float | None = GPTConfig.logit_softcap  # None: off
rope_theta = GPTConfig.rope_theta
norm_eps = GPTConfig.norm_eps
# regularisation, of any model
dropout = 0.0  # for pretraining 0 is good, for fine-tuning try 0.1
# AdamW
learning_rate = 6e-4  # the highest
max_iters = 600000  # updates in all
weight_decay = 1e-1
beta1 = 0.9
beta2 = 0.95
grad_clip = 1.0  # the largest gradient norm; 0.0 turns clipping off
# learning-rate schedule
decay_lr = True  # False: constant at learning_rate
warmup_iters = 2000
lr_decay_iters = 600000  # should be about max_iters, as in Chinchilla
min_lr = 6e-5  # should be about learning_rate / 10, as in Chinchilla
# system
seed = 1337
device = 'auto'  # auto, cuda, cuda:N, mps, cpu
dtype = 'auto'  # auto (bfloat16 on GPUs that have it, float32 on CPUs), float32, bfloat16, float16 (with a gradient scaler)
compile: bool | None = None  # torch.compile. None: on CUDA only; a run on a CPU is seldom long enough to earn it back
# -----------------------------------------------------------------------------
exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'configurator.py')).read())

t_start = t_last = time.perf_counter()
seconds = Counter()  # where the time goes


def lap(what):
    global t_last
    t_last, before = time.perf_counter(), t_last
    seconds[what] += t_last - before


# this process, its data
for key, least in dict(batch_size=1, block_size=1, gradient_accumulation_steps=1, eval_interval=1, eval_iters=1,
                       log_interval=1, seed=0).items():
    if config[key] is not None and config[key] < least:
        raise UserError(f"train.py: {key}={config[key]} must be {least} or more")
rt = setup(device, dtype)
if gradient_accumulation_steps % rt.world_size:
    raise UserError(f"gradient_accumulation_steps={gradient_accumulation_steps} counts the micro-batches of all processes: "
                    f"make it a multiple of their number, {rt.world_size}")
data_dir = find_dataset(dataset)
train_data, val_data = (Batches(data_dir, split, block_size, batches, seed) for split in ('train', 'val'))
meta = train_data.meta
tokenizer = tokenizer_from_meta(meta, data_dir)
tokenizer_meta = {key: value for key, value in meta.items() if key not in ('dtype', 'splits')}

# the model
# the run so far: updates, rows drawn, targets trained on, validation losses
step, row, tokens, best_val_loss, first_val_loss = 0, 0, 0, None, None
model_options = {key: config[key] for key in GPTConfig.__dataclass_fields__ if key in config}
if init_from == 'scratch':
    # a multiple of 64 is faster on GPUs: 50257 becomes 50304
    vocab_size = meta['vocab_size'] if meta['vocab_size'] < 1024 else -(-meta['vocab_size'] // 64) * 64
    torch.manual_seed(seed)
    raw_model = GPT(GPTConfig(vocab_size=vocab_size, **model_options))
elif init_from == 'resume':
    weights, optimizer_state, saved, state = ckpt.load_step(out_dir)
    if not same_tokenizer(saved['tokenizer'], meta):
        raise UserError(f"{data_dir} is not prepared with the tokenizer of the run in {out_dir}, "
                        f"'{saved['tokenizer']['tokenizer']}': give the run its own --dataset")
    raw_model = GPT.from_state_dict(saved['model'] | dict(dropout=dropout), weights)
    step, row, tokens = state['step'], state['row'], state['tokens']
    best_val_loss, first_val_loss = state['best_val_loss'], state['first_val_loss']
else:
    raw_model = GPT.from_pretrained(init_from, dropout)
    if not same_tokenizer(load_tokenizer(init_from).meta(), meta):
        raise UserError(f"{data_dir} is prepared with the tokenizer '{meta['tokenizer']}', which is not that of {init_from}: "
                        f"prepare it again with --tokenizer={init_from}")
for key in sorted(config_given & set(model_options) - {'dropout', 'block_size'}):
    if config[key] not in (None, getattr(raw_model.config, key)):
        raise UserError(f"{key}={config[key]!r}, but {init_from} brings a model with {getattr(raw_model.config, key)!r}: leave "
                        "the option out")
if block_size > raw_model.config.block_size or init_from == 'resume' and block_size < raw_model.config.block_size:
    raise UserError(f"block_size={block_size}, but the model's context has {raw_model.config.block_size} tokens: give "
                    f"--block_size={raw_model.config.block_size}, or less for a new run")
if meta['vocab_size'] > raw_model.config.vocab_size:
    raise UserError(f"{data_dir} has token ids up to {meta['vocab_size'] - 1}, beyond the model's vocabulary of "
                    f"{raw_model.config.vocab_size}: prepare it with the model's own tokenizer")
raw_model.crop_block_size(block_size)
raw_model.to(rt.device)
optimizer = adamw(raw_model, learning_rate, (beta1, beta2), weight_decay)
scaler = rt.grad_scaler()
if init_from == 'resume':
    ckpt.load_optimizer(raw_model, optimizer, optimizer_state)
    if state['scaler']:  # empty: the run needed none so far
        scaler.load_state_dict(state['scaler'])
    del weights, optimizer_state
# evaluation uses the compiled model, training what wraps it: DDP would wait for the other processes
compiled = compile_or_eager(raw_model, compile, rt, *train_data.draw([train_data.row(b) for b in range(batch_size)]))
model = rt.wrap(compiled)

log = Log(out_dir, step, max_iters, rt.is_main and not eval_only,
          wandb=dict(project=wandb_project, name=wandb_run_name, config=config) if wandb_log else None)
peak_flops = rt.peak_flops()
lap('loading')


@torch.no_grad()
def evaluate(data):
    """Mean loss per token over a fixed set of windows, shared among the processes: the same for any number of them."""
    n = data.n_windows if eval_iters is None else min(eval_iters * batch_size, data.n_windows)
    loss_sum, n_targets = 0.0, 0
    raw_model.eval()
    for first in range(rt.rank * batch_size, n, rt.world_size * batch_size):
        spans = [data.window(i * data.n_windows // n) for i in range(first, min(first + batch_size, n))]
        x, y = data.draw(spans)
        count = int((y != -1).sum())
        x, y = rt.to_device(x, y)
        with rt.autocast():
            loss_sum += compiled(x, y).item() * count
        n_targets += count
    raw_model.train()
    loss_sum, n_targets = rt.sum(loss_sum, n_targets)
    return loss_sum / n_targets


def save(val_loss):
    """best/ if val_loss is a new best, and a step folder. Every process calls it; one writes."""
    global best_val_loss
    is_best = best_val_loss is None or val_loss < best_val_loss
    best_val_loss = val_loss if is_best else best_val_loss
    if rt.is_main:
        weights = dict(model=raw_model.state_dict())
        about = dict(config=dict(model=raw_model.config_dict(), tokenizer=tokenizer_meta, step=step, val_loss=val_loss))
        if is_best:
            ckpt.write_folder(Path(out_dir) / 'best', weights, about, tokenizer)
        if is_best or always_save_checkpoint or step == max_iters:
            weights |= dict(optimizer=ckpt.optimizer_tensors(raw_model, optimizer))
            about |= dict(state=dict(step=step, row=row, tokens=tokens, best_val_loss=best_val_loss,
                                     first_val_loss=first_val_loss, scaler=scaler.state_dict(),
                                     options=config))  # the options only as a record
            ckpt.save_step(out_dir, step, weights, about, tokenizer)
    rt.barrier()


rows_per_step = gradient_accumulation_steps * batch_size
if rt.is_main:
    n_params = sum(p.numel() for p in raw_model.parameters())
    print(f"{n_params / 1e6:.2f}M parameters on {rt.device}, {str(rt.dtype).removeprefix('torch.')}, {rt.world_size} "
          f"process(es); {rows_per_step} rows, up to {rows_per_step * block_size:,} tokens, a step", flush=True)
if eval_only:
    losses = [evaluate(train_data), evaluate(val_data)]
    if rt.is_main:
        print(f"step {step}: train loss {losses[0]:.4f}, val loss {losses[1]:.4f}")
    rt.close()
    raise SystemExit(0)

# training loop
t_log, tokens_log, losses = time.perf_counter(), tokens, []  # at the last row of log.csv; losses since the last evaluation
evaluated = init_from == 'resume'  # a checkpoint is written after the evaluation of its step
while True:
    # 1) evaluate and save
    if (step % eval_interval == 0 or step == max_iters) and not evaluated:
        lap('training')
        val_loss = evaluate(val_data)
        lap('evaluating')
        train_loss = f"train loss {sum(losses) / len(losses):.4f}, " if losses else ""
        log.say(f"step {step}: {train_loss}val loss {val_loss:.4f}")
        log.row(step, val_loss=val_loss)
        if not math.isfinite(val_loss):
            raise UserError(f"the validation loss is {val_loss} at step {step}: lower --learning_rate, or look at the data; "
                            f"what was saved before in {out_dir} is as it was")
        first_val_loss = val_loss if first_val_loss is None else first_val_loss
        if step > 0:
            save(val_loss)
            lap('saving')
        t_log, tokens_log, losses = time.perf_counter(), tokens, []
    evaluated = False
    if step >= max_iters:
        break

    # 2) update the weights
    lr = get_lr(step, learning_rate, min_lr, warmup_iters, lr_decay_iters) if decay_lr else learning_rate
    for group in optimizer.param_groups:
        group['lr'] = lr
    micro_batches = train_data.step(row, batch_size, gradient_accumulation_steps, rt.rank, rt.world_size)
    loss, grad_norm = train_step(model, optimizer, scaler, micro_batches, rt, grad_clip, seed)
    tokens += train_data.n_targets(row, rows_per_step)
    row += rows_per_step
    step += 1

    # 3) log
    if step % log_interval == 0:
        loss = rt.sum(loss.item())[0] / rt.world_size  # .item() waits for the device
        if not math.isfinite(loss):
            raise UserError(f"the loss is {loss} at step {step}: lower --learning_rate, or look at the data; what was saved "
                            f"before in {out_dir} is as it was")
        losses.append(loss)
        tokens_per_s = (tokens - tokens_log) / (time.perf_counter() - t_log)
        flops = tokens_per_s * raw_model.flops_per_token(T=tokens / row)
        mfu = flops / peak_flops / rt.world_size if peak_flops else None
        log.row(step, tokens=tokens, seconds=time.perf_counter() - t_start, loss=loss, lr=lr,
                grad_norm=grad_norm.item(), tokens_per_s=tokens_per_s, mfu=mfu, memory=rt.peak_memory())
        t_log, tokens_log = time.perf_counter(), tokens

log.close()
if rt.is_main:
    print("seconds: " + ", ".join(f"{what} {s:.0f}" for what, s in seconds.items()))
    if best_val_loss is not None:
        print(f"held-out loss {first_val_loss:.4f} -> {best_val_loss:.4f}; the best is in {out_dir}/best")
rt.close()
