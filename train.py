"""
Train a GPT from scratch, or fine-tune a pretrained one, on token files that a prepare.py wrote.

One process, on the GPU if there is one:
$ python train.py config/finetune_lyrics.py
$ python train.py config/train_shakespeare_char.py --batch_size=32 --compile=False

All GPUs of a machine, here 8, with DDP:
$ torchrun --standalone --nproc_per_node=8 train.py config/train_gpt2.py

With FSDP2, where the model with its gradients and AdamW's state is too large for one GPU:
$ torchrun --standalone --nproc_per_node=8 train.py config/finetune_lyrics.py --parallel=fsdp

Two processes on a CPU, to try what would run on two GPUs:
$ torchrun --standalone --nproc_per_node=2 train.py config/finetune_lyrics_demo.py --device=cpu
"""

import math
import os
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import uuid4

import torch

from model import GPT, GPTConfig
from nanorap import checkpoint as ckpt
from nanorap.common import UserError, ceil_div
from nanorap.dataset import Batches, find_dataset
from nanorap.health import UpdateNorms, maxima
from nanorap.log import Log, plot_losses
from nanorap.optim import get_lr, make_optimizer, n_micro_batches
from nanorap.options import check_options
from nanorap.runtime import Signals, compile_or_eager, setup
from nanorap.step import mean_loss, train_step
from nanorap.text import write
from nanorap.tokenizer import load_tokenizer, padded_vocab_size, same_tokenizer, tokenizer_from_meta

# -----------------------------------------------------------------------------
# the defaults train GPT-2 (124M) on OpenWebText
# files
out_dir = 'out'  # where checkpoints and log.csv go
# scratch, resume, gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, a model's folder, out_dir or hub name
init_from = 'scratch'
always_save_checkpoint = True  # False: only at a new best validation loss, at the end and on a signal
# evaluation and logging
eval_interval = 2000  # steps between evaluations
eval_iters: int | None = 2400  # windows of block_size tokens per evaluation. None: the whole split
eval_samples = 0  # samples whose rhyme and copying are measured at each evaluation, for log.csv
sample_interval = 0  # steps between printed samples, a multiple of eval_interval. 0: none
eval_only = False  # evaluate on both splits and exit
patience: int | None = None  # evaluations in a row without a new best that end the run. None: any number
log_interval = 1  # steps between rows of log.csv
wandb_log = False
wandb_project = 'owt'
wandb_run_name = 'gpt2'
log_maxima = False  # also log the largest activation and attention logit: one more forward pass per row
plot = False  # only draw loss.png from the log.csv in out_dir, as a run does at its end
# data
dataset = 'openwebtext'  # a folder below data/, or any other, with train.bin, val.bin and meta.json
# stream: rows of block_size tokens. documents: rows begin where songs begin, one song per row
batches = 'stream'
gradient_accumulation_steps = 5 * 8  # micro-batches of a step, over all processes
batch_size = 12  # rows of a micro-batch
batch_size_start: int | None = None  # rows of the first step; it grows by whole micro-batches. None: no ramp
batch_size_ramp_iters = 0  # steps until it has all of batch_size * gradient_accumulation_steps
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
smear = GPTConfig.smear  # preceding tokens that are added to each one's embedding
qk_norm = GPTConfig.qk_norm
tie_weights = GPTConfig.tie_weights
logit_softcap: float | None = GPTConfig.logit_softcap  # None: off
rope_theta = GPTConfig.rope_theta
norm_eps = GPTConfig.norm_eps
init = 'gpt2'  # gpt2, zero (layers that write to the residual stream begin with zeros)
# any model
dropout = 0.0  # for pretraining 0 is good, for fine-tuning try 0.1
freeze_embd = False  # embeddings, and a head that shares them, stay as they are: for fine-tuning
recompute = False  # compute a block's activations again in its backward: far less memory, a third more work
# the optimizer
optimizer = 'adamw'  # adamw; muon, for training from scratch (the matrices in the blocks; AdamW for the rest)
learning_rate = 6e-4  # the highest
embd_lr: float | None = None  # of embeddings and an untied head. None: learning_rate
muon_lr = 0.02  # of the matrices, with muon; all follow one schedule
muon_momentum = 0.95
muon_ns_steps = 5  # of its Newton-Schulz iteration
max_iters = 600000  # updates in all
max_minutes: float | None = None  # then the run ends, with an evaluation and a checkpoint. None: no limit
weight_decay = 1e-1
beta1 = 0.9
beta2 = 0.95
grad_clip = 1.0  # the largest gradient norm; 0.0 turns clipping off
# learning-rate schedule
lr_schedule = 'cosine'  # cosine, trapezoid (flat, then a line down), constant; each after the warmup
warmup_iters = 2000
lr_decay_iters = 600000  # should be about max_iters, as in Chinchilla
cooldown_iters = 0  # of a trapezoid: its way down, which ends at lr_decay_iters
min_lr = 6e-5  # should be about learning_rate / 10, as in Chinchilla
# system
seed = 1337
device = 'auto'  # auto, cuda, cuda:N, mps, cpu
# auto (bfloat16 on GPUs that have it, float32 on CPUs), float32, bfloat16, float16 (with a gradient scaler)
dtype = 'auto'
parallel = 'ddp'  # with several processes: ddp, each a whole model; fsdp, each a share of it
compile: bool | None = None  # torch.compile. None: on CUDA, where batches have one shape (stream)
# -----------------------------------------------------------------------------
exec(Path(__file__).with_name('configurator.py').read_text(encoding='utf-8'))

t_start = t_last = time.perf_counter()
seconds = Counter()  # where the time goes


def lap(what):
    global t_last
    t_last, before = time.perf_counter(), t_last
    seconds[what] += t_last - before


if plot:
    print(plot_losses(out_dir))
    raise SystemExit

# this process, its data
rt = setup(device, dtype, parallel)
check_options(config, rt.world_size)
data_dir = find_dataset(dataset)
train_data, val_data = (Batches(data_dir, split, block_size, batches, seed) for split in ('train', 'val'))
meta = train_data.meta
tokenizer = tokenizer_from_meta(meta, data_dir)
tokenizer_meta = {key: value for key, value in meta.items() if key not in ('dtype', 'splits')}


@dataclass
class Progress:
    """The run so far: what a resume goes on from, as a step folder's state.json has it."""
    step: int = 0  # updates of the weights
    row: int = 0  # rows of the data that were read
    tokens: int = 0  # targets that were trained on
    first_val_loss: float | None = None
    stale: int = 0  # evaluations since the best one
    evaluated: bool = False  # whether this step has been evaluated
    run: str = field(default_factory=lambda: uuid4().hex)  # tells runs in the same out_dir apart


# the model
progress = Progress()
best_val_loss, best_step = None, None
# torchrun's --rdzv_id. A checkpoint written under the same id means that torchrun restarted us: resume.
# (Restart counts differ between nodes.)
run_id = os.environ.get('TORCHELASTIC_RUN_ID', 'none')
was_restarted = run_id != 'none' and not eval_only and ckpt.was_run(out_dir, run_id)
if rt.max(was_restarted)[0]:
    init_from = 'resume'
elif init_from != 'resume' and not eval_only and ckpt.has_steps(out_dir) and rt.is_main:
    print(f"warning: {out_dir} holds the checkpoints of another run, which this one replaces when it saves; "
          "--init_from=resume would go on from them, another --out_dir keeps them", file=sys.stderr)
settings = config | {f'{split}.bin': count['sha256'] for split, count in meta['splits'].items()}
model_options = {key: config[key] for key in GPTConfig.__dataclass_fields__ if key in config}
fixed_options = set(model_options) - {'dropout', 'block_size'}  # those that a loaded model brings with it
if init_from == 'scratch':
    torch.manual_seed(seed)
    raw_model = GPT(GPTConfig(vocab_size=padded_vocab_size(meta['vocab_size']), **model_options), init)
elif init_from == 'resume':
    weights, optimizer_state, saved, state = ckpt.load_step(out_dir)
    if not same_tokenizer(saved['tokenizer'], meta):
        raise UserError(f"{data_dir} is not prepared with the tokenizer of the run in {out_dir}, "
                        f"'{saved['tokenizer']['tokenizer']}': give the run its own --dataset")
    raw_model = GPT.from_state_dict(saved['model'] | dict(dropout=dropout), weights)
    progress = Progress(**{key: state[key] for key in asdict(progress)})
    # of what best/ holds, which may be newer than the step folder
    best_val_loss, best_step = ckpt.best(out_dir, progress.run)
    if rt.sum(progress.step)[0] != progress.step * rt.world_size:
        raise UserError(f"the processes found different checkpoints in {out_dir}: it must be a folder that "
                        "all nodes share")
    ckpt.compare_settings(out_dir, state['settings'], settings, fixed_options, rt.is_main)
else:
    raw_model = GPT.from_pretrained(init_from, dropout)
    if not same_tokenizer(load_tokenizer(init_from).meta(), meta):
        raise UserError(f"{data_dir} is prepared with the tokenizer '{meta['tokenizer']}', which is not that "
                        f"of {init_from}: prepare it again with --tokenizer={init_from}")
for key in sorted(config_given & fixed_options):
    if config[key] not in (None, getattr(raw_model.config, key)):
        raise UserError(f"{key}={config[key]!r}, but {init_from} brings a model with "
                        f"{getattr(raw_model.config, key)!r}: leave the option out")
trained_size = raw_model.config.block_size  # evaluation may look beyond it, where positions are not learned
is_too_long = block_size > trained_size and not (eval_only and raw_model.config.pos != 'learned')
if is_too_long or init_from == 'resume' and block_size < trained_size:
    raise UserError(f"block_size={block_size}, but the model's context has {trained_size} tokens: "
                    f"give --block_size={trained_size}, or less for a new run")
if meta['vocab_size'] > raw_model.config.vocab_size:
    raise UserError(f"{data_dir} has token ids up to {meta['vocab_size'] - 1}, beyond the model's vocabulary "
                    f"of {raw_model.config.vocab_size}: prepare it with the model's own tokenizer")
raw_model.set_block_size(block_size)
raw_model.recompute = recompute
if freeze_embd:
    raw_model.freeze_embeddings()
raw_model = rt.shard(raw_model, raw_model.transformer.h)
opt = make_optimizer(optimizer, raw_model, learning_rate, (beta1, beta2), weight_decay, muon_lr,
                     muon_momentum, muon_ns_steps, embd_lr)
norms, scaler = UpdateNorms(raw_model, rt), rt.grad_scaler()
if init_from == 'resume':
    ckpt.load_optimizer(raw_model, opt, optimizer_state)
    if state['scaler']:  # empty: the run needed none so far
        scaler.load_state_dict(state['scaler'])
    del weights, optimizer_state
# evaluation uses the compiled model, training what wraps it: DDP would wait for the other processes
first_batch = train_data.read(train_data.row_windows(0, batch_size))
compiled = compile_or_eager(raw_model, compile, rt, batches, *first_batch)
model = rt.wrap(compiled)

log = Log(out_dir, progress.step, max_iters, rt.is_main and not eval_only,
          wandb=dict(project=wandb_project, name=wandb_run_name, config=config) if wandb_log else None)
peak_flops = rt.peak_flops()
songs = None
if eval_samples and rt.is_main:  # all of nanorap.rap that training may need
    from nanorap.rap.eval_report import quick_measures
    from nanorap.rap.novelty import index_songs

    songs = index_songs(data_dir, tokenizer)
lap('loading')


def save(is_best=False, val_loss=None, step_folder=True):
    """Write best/ if this is the best so far, and a step folder. Every process calls it; one writes."""
    weights = dict(model=rt.gather(raw_model.state_dict()))
    optimizer_state = rt.gather(ckpt.optimizer_tensors(raw_model, opt)) if step_folder else {}
    about = dict(config=dict(model=raw_model.config_dict(), tokenizer=tokenizer_meta, step=progress.step,
                             val_loss=val_loss, run=progress.run))
    state = asdict(progress) | dict(run_id=run_id, scaler=scaler.state_dict(), settings=settings)
    failure = None
    try:
        if is_best and rt.is_main:
            ckpt.write_folder(Path(out_dir) / 'best', weights, about, tokenizer)
        if step_folder and rt.is_main:
            weights['optimizer'] = optimizer_state
            ckpt.save_step(out_dir, progress.step, weights, about | dict(state=state), tokenizer)
    except UserError as e:
        failure = e
    if rt.max(failure is not None)[0]:  # the others wait here
        raise failure or SystemExit(1)


rows_per_step = gradient_accumulation_steps * batch_size
first_micro = ceil_div(batch_size_start or rows_per_step, batch_size)  # micro-batches of the first step
if rt.is_main:
    n_params = sum(p.numel() for p in raw_model.parameters())
    print(f"{n_params / 1e6:.2f}M parameters on {rt.device}, {str(rt.dtype).removeprefix('torch.')}, "
          f"{rt.world_size} process(es); {rows_per_step} rows, up to {rows_per_step * block_size:,} tokens, "
          "per step", flush=True)
if eval_only:
    losses = [mean_loss(compiled, data, eval_iters, batch_size, rt) for data in (train_data, val_data)]
    if rt.is_main:
        print(f"step {progress.step}: train loss {losses[0]:.4f}, val loss {losses[1]:.4f}")
    rt.close()

# training loop
signals, time_is_up = Signals(), False
n_refused = 0  # steps in a row that were not taken
# since the last row of log.csv, and at it
n_clipped, t_log, tokens_log = 0, time.perf_counter(), progress.tokens
losses = []  # since the last evaluation


def sample(n, **sampler):
    """Return the texts of n samples from an empty prompt."""
    samples = write(raw_model, tokenizer, [''], num_samples=n, max_new_tokens=min(200, block_size), seed=seed,
                    temperature=0.8, verbose=True, **sampler)
    return [one.text for one in samples]


def stop(reason):
    """End a run that has diverged."""
    log.close()
    advice = f"lower --learning_rate, or look at the data; what {out_dir} held before is unchanged"
    raise UserError(f"{reason}: {advice}") if rt.is_main else SystemExit(1)


def is_over():
    is_stale = patience is not None and progress.stale >= patience
    return progress.step >= max_iters or time_is_up or is_stale


while True:
    step = progress.step

    # 1) evaluate and save
    if (step % eval_interval == 0 or is_over()) and not progress.evaluated:
        lap('training')
        val_loss, progress.evaluated = mean_loss(compiled, val_data, eval_iters, batch_size, rt), True
        lap('evaluating')
        train_loss = f"train loss {sum(losses) / len(losses):.4f}, " if losses else ""
        log.print(f"step {step}: {train_loss}val loss {val_loss:.4f}")
        measured = {}
        if songs is not None:
            measured = quick_measures(songs, sample(eval_samples, top_k=200))
            log.print("samples: " + ", ".join(f"{key} {value:.3f}" for key, value in measured.items()))
        if sample_interval and step % sample_interval == 0 and rt.is_main:
            log.print(sample(1)[0])
        lap('sampling')
        log.write_row(step, val_loss=val_loss, **measured)
        if not math.isfinite(val_loss):
            stop(f"the validation loss is {val_loss} at step {step}")
        if progress.first_val_loss is None:
            progress.first_val_loss = val_loss
        if step > 0:
            if is_best := best_val_loss is None or val_loss < best_val_loss:
                best_val_loss, best_step = val_loss, step
            # equal to best_step without is_best: the run was killed between saving best/ and the step folder
            progress.stale = 0 if step == best_step else progress.stale + 1
            save(is_best, val_loss, step_folder=always_save_checkpoint or step == best_step or is_over())
            lap('saving')
        t_log, tokens_log, losses = time.perf_counter(), progress.tokens, []
    if is_over():
        break

    # 2) update the weights
    lr = get_lr(step, learning_rate, min_lr, warmup_iters, lr_decay_iters, lr_schedule, cooldown_iters)
    for group in opt.param_groups:
        group['lr'] = group['peak_lr'] * (lr / learning_rate if learning_rate else 1)
    n_micro = n_micro_batches(step, first_micro, gradient_accumulation_steps, batch_size_ramp_iters,
                              rt.world_size)
    is_logged = (step + 1) % log_interval == 0
    if is_logged:
        norms.before()
    first_row, n_rows = progress.row, n_micro * batch_size
    micro_batches = train_data.step(first_row, batch_size, n_micro, rt.rank, rt.world_size)
    loss, grad_norm, is_taken = train_step(model, opt, scaler, micro_batches, rt, grad_clip, seed)
    progress.row += n_rows
    if is_taken:
        progress.step += 1
        progress.tokens += train_data.n_targets(first_row, n_rows)
        progress.evaluated, n_refused = False, 0
        losses.append(loss)
        n_clipped += 0 < grad_clip < grad_norm
    else:  # a NaN or an infinity: these rows are left out
        n_refused += 1
        log.print(f"step {step + 1} not taken with rows {first_row} to {progress.row - 1}: loss {loss}, "
                  f"gradient norm {grad_norm}")
        log.write_row(step + 1, row=first_row, loss=loss, grad_norm=grad_norm)
        # float16 begins with a few: its scaler tries smaller and smaller scales. Without one the scale is 1
        if n_refused >= 5 and scaler.get_scale() <= 1:
            stop(f"{n_refused} steps in a row had a loss or gradient that is not finite")

    # 3) log
    if is_taken and is_logged:
        tokens_per_s = (progress.tokens - tokens_log) / (time.perf_counter() - t_log)
        flops = tokens_per_s * raw_model.flops_per_token(T=progress.tokens / progress.row)
        mfu = flops / peak_flops / rt.world_size if peak_flops else None
        more = norms.after()
        if log_maxima:
            x, _ = train_data.read([train_data.row_window(progress.row)])
            more |= maxima(raw_model, raw_model.transformer.h, *rt.to_device(x))
        log.write_row(progress.step, row=first_row, tokens=progress.tokens,
                      seconds=time.perf_counter() - t_start, loss=loss, lr=lr, batch=n_rows,
                      grad_norm=grad_norm, clipped=n_clipped, clip_share=n_clipped / log_interval,
                      tokens_per_s=tokens_per_s, mfu=mfu, memory=rt.peak_memory(), **more)
        n_clipped, t_log, tokens_log = 0, time.perf_counter(), progress.tokens

    # 4) all processes stop at the same step
    minutes = (time.perf_counter() - t_start) / 60
    signal, time_is_up = rt.max(signals.first, max_minutes is not None and minutes >= max_minutes)
    if signal:
        if progress.step > 0:
            save()
        saved = ", which is saved; go on with --init_from=resume" if progress.step > 0 else ""
        log.print(f"stopped by signal {signal:.0f} after step {progress.step}{saved}")
        log.close()
        rt.close(128 + int(signal))

log.close()
if rt.is_main:
    plot_losses(out_dir)
    print("seconds: " + ", ".join(f"{what} {s:.0f}" for what, s in seconds.items()))
    if best_val_loss is not None:
        print(f"held-out loss {progress.first_val_loss:.4f} -> {best_val_loss:.4f}; the best is in "
              f"{out_dir}/best")
rt.close()
