"""
Train a GPT from scratch, or fine-tune a pretrained one, on token files that a prepare.py wrote.

One process, on the GPU if there is one:
$ python train.py config/finetune_lyrics.py
$ python train.py config/train_shakespeare_char.py --batch_size=32 --compile=False

All GPUs of a machine, here 8, with DDP; with FSDP2, where the model with its gradients and AdamW's state is too large for one:
$ torchrun --standalone --nproc_per_node=8 train.py config/train_gpt2.py
$ torchrun --standalone --nproc_per_node=8 train.py config/finetune_lyrics.py --init_from=gpt2-xl --parallel=fsdp

Two processes on a CPU, to try what would run on two GPUs:
$ torchrun --standalone --nproc_per_node=2 train.py config/finetune_lyrics_demo.py --device=cpu
"""

import math
import os
import sys
import time
from collections import Counter
from pathlib import Path
from uuid import uuid4

import torch

from model import GPT, GPTConfig
from nanorap import UserError
from nanorap import checkpoint as ckpt
from nanorap.dataset import Batches, find_dataset
from nanorap.optim import adamw, get_lr, train_step
from nanorap.report import Log
from nanorap.runtime import Signals, compile_or_eager, setup
from nanorap.tokenizer import load_tokenizer, same_tokenizer, tokenizer_from_meta

# -----------------------------------------------------------------------------
# the defaults train GPT-2 (124M) on OpenWebText
# files
out_dir = 'out'  # where checkpoints and log.csv go
init_from = 'scratch'  # scratch, resume, gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, a model's folder, out_dir or hub name
always_save_checkpoint = True  # False: save only where the validation loss is a new best, at the end and on a signal
# evaluation and logging
eval_interval = 2000  # steps between evaluations
eval_iters: int | None = 2400  # windows of block_size tokens that each evaluation covers. None: the whole split
eval_only = False  # evaluate on both splits and exit
patience: int | None = None  # evaluations in a row without a new best that end the run. None: any number
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
max_minutes: float | None = None  # end the run, with an evaluation and a checkpoint, when this time is up. None: no limit
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
parallel = 'ddp'  # with several processes: ddp, each a whole model; fsdp, each a share of it
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
                       log_interval=1, seed=0, patience=1, max_minutes=0).items():
    if config[key] is not None and config[key] < least:
        raise UserError(f"train.py: {key}={config[key]} must be {least} or more")
if seed >= 2**32:
    raise UserError(f"train.py: seed={seed} must be less than 2**32")
rt = setup(device, dtype, parallel)
if gradient_accumulation_steps % rt.world_size:
    raise UserError(f"gradient_accumulation_steps={gradient_accumulation_steps} counts the micro-batches of all processes: "
                    f"make it a multiple of their number, {rt.world_size}")
data_dir = find_dataset(dataset)
train_data, val_data = (Batches(data_dir, split, block_size, batches, seed) for split in ('train', 'val'))
meta = train_data.meta
tokenizer = tokenizer_from_meta(meta, data_dir)
tokenizer_meta = {key: value for key, value in meta.items() if key not in ('dtype', 'splits')}

# the model
# the run so far: updates, rows drawn, targets trained on, validation losses, evaluations since the best, this step's done
step, row, tokens, first_val_loss, stale, evaluated = 0, 0, 0, None, 0, False
best_val_loss, best_step, run = None, None, uuid4().hex
# torchrun's name of the run: what it starts again after a failure goes on. Its count of restarts differs between nodes
run_id = os.environ.get('TORCHELASTIC_RUN_ID', 'none')
if rt.max(run_id != 'none' and not eval_only and ckpt.was_run(out_dir, run_id))[0]:
    init_from = 'resume'
elif init_from != 'resume' and not eval_only and ckpt.has_steps(out_dir) and rt.is_main:
    print(f"warning: {out_dir} holds the checkpoints of another run, which this one replaces when it saves; "
          "--init_from=resume would go on from them, another --out_dir keeps them", file=sys.stderr)
settings = config | {f'{split}.bin': count['sha256'] for split, count in meta['splits'].items()}
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
    step, row, tokens, first_val_loss, stale, evaluated, run = (
        state[key] for key in ('step', 'row', 'tokens', 'first_val_loss', 'stale', 'evaluated', 'run'))
    best_val_loss, best_step = ckpt.best(out_dir, run)  # what best/ holds, whatever happened between its save and this one
    if rt.sum(step)[0] != step * rt.world_size:
        raise UserError(f"the processes found different checkpoints in {out_dir}: it must be a folder that all nodes share")
    # the model's own options are checked below; these leave the numbers as they are
    no_matter = set(model_options) - {'dropout', 'block_size'} | {
        'out_dir', 'init_from', 'eval_only', 'log_interval', 'wandb_log', 'wandb_project', 'wandb_run_name', 'max_minutes'}
    changed = [f"{key} was {state['settings'].get(key)!r} and is {value!r}" for key, value in settings.items()
               if key not in no_matter and state['settings'].get(key) != value]
    if changed and rt.is_main:
        print("warning: resuming with other settings: " + "; ".join(changed), file=sys.stderr)
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
raw_model = rt.shard(raw_model, raw_model.transformer.h)
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
    n = min(eval_iters or data.n_windows, data.n_windows)
    loss_sum, n_targets = 0.0, 0
    raw_model.eval()
    for first in range(0, n, rt.world_size * batch_size):
        mine = range(n)[first + rt.rank * batch_size :][:batch_size]
        # without windows left, a process goes along with any one, which counts for nothing: FSDP needs all of them
        x, y = data.draw([data.window(i * data.n_windows // n) for i in mine or [0]])
        count = int((y != -1).sum()) if mine else 0
        x, y = rt.to_device(x, y)
        with rt.autocast():
            loss_sum += compiled(x, y).item() * count
        n_targets += count
    raw_model.train()
    loss_sum, n_targets = rt.sum(loss_sum, n_targets)
    return loss_sum / n_targets


def save(is_best=False, val_loss=None, step_folder=True):
    """best/ if this is the best so far, and a step folder. Every process calls it; one writes."""
    weights = dict(model=rt.gather(raw_model.state_dict()))
    optimizer_state = rt.gather(ckpt.optimizer_tensors(raw_model, optimizer)) if step_folder else {}
    about = dict(config=dict(model=raw_model.config_dict(), tokenizer=tokenizer_meta, step=step, val_loss=val_loss, run=run))
    failure = None
    try:
        if is_best and rt.is_main:
            ckpt.write_folder(Path(out_dir) / 'best', weights, about, tokenizer)
        if step_folder and rt.is_main:
            ckpt.save_step(out_dir, step, weights | dict(optimizer=optimizer_state), about | dict(state=dict(
                step=step, row=row, tokens=tokens, first_val_loss=first_val_loss, stale=stale, evaluated=evaluated, run=run,
                run_id=run_id, scaler=scaler.state_dict(), settings=settings)), tokenizer)
    except UserError as e:
        failure = e
    if rt.max(failure is not None)[0]:  # the others wait here
        raise failure or SystemExit(1)


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

# training loop
signals, time_is_up, refused = Signals(), False, 0  # steps in a row that were not taken
t_log, tokens_log, losses = time.perf_counter(), tokens, []  # at the last row of log.csv; losses since the last evaluation


def stop(reason):
    log.close()
    advice = f"lower --learning_rate, or look at the data; what was saved before in {out_dir} is as it was"
    raise UserError(f"{reason}: {advice}") if rt.is_main else SystemExit(1)


def is_over():
    return step >= max_iters or time_is_up or patience is not None and stale >= patience


while True:
    # 1) evaluate and save
    if (step % eval_interval == 0 or is_over()) and not evaluated:
        lap('training')
        val_loss, evaluated = evaluate(val_data), True
        lap('evaluating')
        train_loss = f"train loss {sum(losses) / len(losses):.4f}, " if losses else ""
        log.say(f"step {step}: {train_loss}val loss {val_loss:.4f}")
        log.row(step, val_loss=val_loss)
        if not math.isfinite(val_loss):
            stop(f"the validation loss is {val_loss} at step {step}")
        first_val_loss = val_loss if first_val_loss is None else first_val_loss
        if step > 0:
            if is_best := best_val_loss is None or val_loss < best_val_loss:
                best_val_loss, best_step = val_loss, step
            # the same step again: best/ was saved, and the run killed before its step folder was
            stale = 0 if step == best_step else stale + 1
            save(is_best, val_loss, step_folder=always_save_checkpoint or step == best_step or is_over())
            lap('saving')
        t_log, tokens_log, losses = time.perf_counter(), tokens, []
    if is_over():
        break

    # 2) update the weights
    lr = get_lr(step, learning_rate, min_lr, warmup_iters, lr_decay_iters) if decay_lr else learning_rate
    for group in optimizer.param_groups:
        group['lr'] = lr
    micro_batches = train_data.step(row, batch_size, gradient_accumulation_steps, rt.rank, rt.world_size)
    loss, grad_norm, is_taken = train_step(model, optimizer, scaler, micro_batches, rt, grad_clip, seed)
    first_row, row = row, row + rows_per_step
    if is_taken:
        tokens += train_data.n_targets(first_row, rows_per_step)
        step, refused, evaluated = step + 1, 0, False
        losses.append(loss)
    else:  # a NaN or an infinity: these rows are left out
        refused += 1
        log.say(f"step {step + 1} not taken with rows {first_row} to {row - 1}: loss {loss}, gradient norm {grad_norm}")
        log.row(step + 1, row=first_row, loss=loss, grad_norm=grad_norm)
        # float16 begins with a few: its scaler tries smaller and smaller scales. Without one the scale is 1
        if refused >= 5 and scaler.get_scale() <= 1:
            stop(f"{refused} steps in a row had a loss or gradient that is not finite")

    # 3) log
    if is_taken and step % log_interval == 0:
        tokens_per_s = (tokens - tokens_log) / (time.perf_counter() - t_log)
        flops = tokens_per_s * raw_model.flops_per_token(T=tokens / row)
        mfu = flops / peak_flops / rt.world_size if peak_flops else None
        log.row(step, row=first_row, tokens=tokens, seconds=time.perf_counter() - t_start, loss=loss, lr=lr,
                grad_norm=grad_norm, tokens_per_s=tokens_per_s, mfu=mfu, memory=rt.peak_memory())
        t_log, tokens_log = time.perf_counter(), tokens

    # 4) all processes stop at the same step
    minutes = (time.perf_counter() - t_start) / 60
    signal, time_is_up = rt.max(signals.first, max_minutes is not None and minutes >= max_minutes)
    if signal:
        if step > 0:
            save()
        saved = ", which is saved; go on with --init_from=resume" if step > 0 else ""
        log.say(f"stopped by signal {signal:.0f} after step {step}{saved}")
        log.close()
        rt.close(128 + int(signal))

log.close()
if rt.is_main:
    print("seconds: " + ", ".join(f"{what} {s:.0f}" for what, s in seconds.items()))
    if best_val_loss is not None:
        print(f"held-out loss {first_val_loss:.4f} -> {best_val_loss:.4f}; the best is in {out_dir}/best")
rt.close()
