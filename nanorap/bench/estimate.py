"""
Estimates of memory, communication and time of train.py's step, from the model's shape alone: nothing is run.

These are pure functions of numbers. `c` is a model's config (GPTConfig's fields as attributes), `half` the
bytes of a number in the matmuls' format, and memory is in bytes per process. Left out are the CUDA context,
fragments and the workspaces of kernels. The tests hold the estimates against measured peaks.
"""

import re
from typing import NamedTuple

from nanorap.common import GPU_PEAKS, LOGITS_CHUNK, UserError, ceil_div


class GPU(NamedTuple):
    peaks: str  # its line in common.GPU_PEAKS
    memory: float  # bytes, as sold
    # bytes/s in one direction between two GPUs of a node: half of what data sheets call NVLink or PCIe
    # bandwidth
    link: float
    # bytes/s that a GPU sends to other nodes, in the maker's own nodes; None: there are none
    network: float | None = None


# https://www.nvidia.com/en-us/data-center/ has the data sheets, by name; the networks are those of DGX A100
# (8 times 200 Gb/s), DGX H100 and H200 (8 times 400 Gb/s) and DGX-2 (8 times 100 Gb/s for 16 GPUs), by their
# user guides
GPUS = {
    'A100-40GB': GPU('A100', 40e9, 300e9, 25e9),
    'A100-80GB': GPU('A100', 80e9, 300e9, 25e9),
    'H100': GPU('H100', 80e9, 450e9, 50e9),
    'H200': GPU('H200', 141e9, 450e9, 50e9),
    'V100-32GB': GPU('V100', 32e9, 150e9, 6.25e9),
    'L40S': GPU('L40S', 48e9, 32e9),
    'A10G': GPU('A10G', 24e9, 32e9),
    'L4': GPU('L4', 24e9, 32e9),
    'T4': GPU('T4', 16e9, 16e9),
    'RTX4090': GPU('RTX 4090', 24e9, 32e9),
    'RTX3090': GPU('RTX 3090', 24e9, 32e9),
}
RESERVE = 2e9  # bytes of a GPU for what memory() leaves out: a guess


def _shape(n_layer, n_embd, n_head, n_kv_head, n_hidden, vocab_size, **more):
    """Return GPTConfig's fields of a model like Llama."""
    return dict(n_layer=n_layer, n_embd=n_embd, n_head=n_head, n_kv_head=n_kv_head, n_hidden=n_hidden,
                vocab_size=vocab_size, block_size=2048) | dict(
                    bias=False, pos='rotary', norm='rmsnorm', mlp='swiglu') | more


GEMMA3 = dict(qk_norm=True, norms='both', mlp='geglu')
# models that people fine-tune, by the config.json of each on the Hugging Face hub
SHAPES = {
    'gpt2': dict(n_layer=12, n_head=12, n_embd=768, vocab_size=50257, block_size=1024),
    'gpt2-medium': dict(n_layer=24, n_head=16, n_embd=1024, vocab_size=50257, block_size=1024),
    'gpt2-large': dict(n_layer=36, n_head=20, n_embd=1280, vocab_size=50257, block_size=1024),
    'gpt2-xl': dict(n_layer=48, n_head=25, n_embd=1600, vocab_size=50257, block_size=1024),
    'smollm2-135m': _shape(30, 576, 9, 3, 1536, 49152),
    'smollm3-3b': _shape(36, 2048, 16, 4, 11008, 128256, nope_layers=list(range(3, 36, 4))),
    'llama-3.2-1b': _shape(16, 2048, 32, 8, 8192, 128256),
    'llama-3.2-3b': _shape(28, 3072, 24, 8, 8192, 128256),
    'llama-3.1-8b': _shape(32, 4096, 32, 8, 14336, 128256, tie_weights=False),
    'qwen2.5-0.5b': _shape(24, 896, 14, 2, 4864, 151936, qkv_bias=True),
    'qwen2.5-1.5b': _shape(28, 1536, 12, 2, 8960, 151936, qkv_bias=True),
    'qwen2.5-7b': _shape(28, 3584, 28, 4, 18944, 152064, qkv_bias=True, tie_weights=False),
    'qwen3-0.6b': _shape(28, 1024, 16, 8, 3072, 151936, head_dim=128, qk_norm=True),
    'qwen3-1.7b': _shape(28, 2048, 16, 8, 6144, 151936, head_dim=128, qk_norm=True),
    'gemma-3-270m': _shape(18, 640, 4, 1, 2048, 262144, head_dim=256, **GEMMA3),
    'gemma-3-1b': _shape(26, 1152, 4, 1, 6912, 262144, head_dim=256, **GEMMA3),
    'olmo-2-1b': _shape(16, 2048, 16, 16, 8192, 100352, qk_norm='all', norms='after', tie_weights=False),
    'pythia-160m': dict(n_layer=12, n_head=12, n_embd=768, vocab_size=50304, block_size=2048, pos='rotary',
                        rope_fraction=0.25, parallel_mlp=True, mlp='gelu_exact', tie_weights=False),
    'mistral-7b': _shape(32, 4096, 32, 8, 14336, 32768, tie_weights=False),
    'phi-3-mini': _shape(32, 3072, 32, 32, 8192, 32064, tie_weights=False),
}


class Machine(NamedTuple):
    gpu: str  # of GPUS
    gpus_per_node: int
    network: float | None  # bytes/s that a GPU sends to other nodes; None: by GPUS
    mfu: float  # the share of the GPU's peak that work reaches


class Job(NamedTuple):
    """How a model is trained."""

    batch_size: int  # rows of a micro-batch
    T: int  # tokens of a row
    world_size: int = 1  # processes, one per GPU
    parallel: str = 'ddp'
    half: bool = True  # matmuls in bfloat16 or float16
    recompute: bool = False
    optimizer: str = 'adamw'
    micro_batches: int = 1  # per step and process
    on_cpu: bool = False

    @property
    def n_shards(self):
        """Over how many processes weights, gradients and the optimizer's state are split."""
        return self.world_size if self.parallel == 'fsdp' else 1


class Size(NamedTuple):
    """Numbers of parameters."""

    block: int  # of one block
    block_matrices: int  # of a block's matrices alone
    rest: int  # outside the blocks
    n_layer: int

    @property
    def total(self):
        return self.n_layer * self.block + self.rest


def size(model):
    """Return the Size of a GPT, which may be on the meta device, without any weights."""
    blocks = model.transformer.h
    parameters = list(blocks[0].parameters())
    block = sum(p.numel() for p in parameters)
    total = sum(p.numel() for p in model.parameters())
    matrices = sum(p.numel() for p in parameters if p.dim() > 1)
    return Size(block, matrices, total - len(blocks) * block, len(blocks))


def block_activations(c, job):
    """Return the bytes per token that a block keeps for its backward, its input (the residual stream)
    included."""
    half = 2 if job.half else 4
    stream = half if job.half and job.n_shards > 1 else 4
    n_q, n_kv = c.n_head * c.head_dim, c.n_kv_head * c.head_dim
    # attention: the normed input, q, k and v, the output, and the log-sum-exp per head in fp32
    kept = half * (c.n_embd + n_q + 2 * n_kv + n_q) + 4 * c.n_head
    if c.pos == 'rotary' or c.qk_norm:
        # q and k once more; behind a norm they are laid out differently, so that the output needs a copy
        kept += half * (n_q + n_kv + n_q * bool(c.qk_norm))
    # the MLP: the normed input, and the input of the nonlinearity, twice as wide with a gate
    kept += half * (c.n_embd + c.n_hidden * (2 if c.is_gated else 1))
    if c.norms == 'both':  # the sublayers' outputs, before their norms
        kept += half * 2 * c.n_embd
    if c.norm == 'layernorm':
        kept += 16 + 8 * (c.n_head + c.n_kv_head) * bool(c.qk_norm)  # means and standard deviations
    elif job.on_cpu:  # no fused kernel: the norms' inputs, once more
        kept += 4 * (2 * c.n_embd + (n_q + n_kv) * bool(c.qk_norm))
    if c.dropout and job.on_cpu:  # masks are numbers, and the attention matrix exists, three times
        kept += 2 * c.n_embd * half + 3 * 4 * c.n_head * job.T
    elif c.dropout:  # masks are bytes
        kept += 2 * c.n_embd
    return kept + 2 * stream * c.n_embd


def loss_memory(c, job):
    """Return ChunkedLoss's (bytes while it works, bytes kept for the backward): never the logits of all
    tokens."""
    n_tokens, half = job.batch_size * job.T, 2 if job.half else 4
    n_chunks = ceil_div(n_tokens * c.vocab_size, LOGITS_CHUNK)
    # logits, whose memory the gradient takes over; in half precision both exist in fp32, too; the softcap's
    # derivative
    per_logit = 4 + (4 if job.half else 0) + (12 if c.logit_softcap else 0)
    work = ceil_div(n_tokens, n_chunks) * c.vocab_size * per_logit + 4 * n_tokens * c.n_embd
    if job.half:  # the head in half precision, and a chunk's part of its gradient
        work += 2 * half * c.vocab_size * c.n_embd
    kept = 4 * n_tokens * c.n_embd + 4 * c.vocab_size * c.n_embd  # the gradients of x and of the head
    return work, kept


def memory(c, size, job):
    """Return {part: bytes per process}, with the 'peak' and the 'moment' in a step when it is reached."""
    shards, half = job.n_shards, 2 if job.half else 4
    n, n_tokens = size.total, job.batch_size * job.T
    matrices = size.n_layer * size.block_matrices
    gate = c.is_gated

    # 1) what is there during the whole step
    averages = 8 * n - (4 * matrices if job.optimizer == 'muon' else 0)
    parts = dict(weights=4 * n / shards, gradients=4 * n / shards, optimizer=averages / shards)
    is_ddp = job.world_size > 1 and shards == 1
    parts['buckets'] = 4 * n if is_ddp else 0  # DDP sends gradients from buckets of their own
    steady = parts['weights'] + parts['optimizer'] + parts['buckets']

    # 2) what comes and goes
    if shards > 1:  # FSDP gathers two blocks at a time, and what is outside them
        parts['copies'] = half * (size.rest + 2 * size.block)
    else:  # autocast keeps the blocks' matrices in half precision until the backward has used them
        parts['copies'] = 2 * matrices if job.half else 0
    block = block_activations(c, job) * n_tokens
    stream = 4 * n_tokens * c.n_embd
    # the last block's output, and of every block its input alone or all activations
    parts['activations'] = stream + size.n_layer * (stream if job.recompute else block)
    parts['logits'], kept_by_loss = loss_memory(c, job)

    # 3) the moments that may be the peak: the loss, the last block's backward, the end of the backward, the
    # update
    summed = parts['gradients'] if job.micro_batches > 1 else 0  # those of earlier micro-batches
    forward = steady + summed + parts['copies'] + parts['activations'] + kept_by_loss
    loss = forward + parts['logits']
    # the block's activations again, if they are recomputed; the nonlinearity's output, the gradients inside
    # the MLP and of the residual stream
    inside = n_tokens * (half * c.n_hidden * (4 if gate else 2) + 8 * c.n_embd)
    if job.recompute:
        inside += block - stream
    backward = forward + inside
    # a tied embedding has two gradients at the end, as a head and as an embedding
    end = steady + parts['gradients'] + stream + (4 * c.vocab_size * c.n_embd if c.tie_weights else 0)
    if shards > 1:  # whole gradients of what is outside the blocks, and the buffer in which they are summed
        end += parts['copies'] + 4 * size.rest
        backward += (half + 4) * size.block
    update = steady + parts['gradients']
    if job.optimizer == 'muon':  # the matrices' momentum, stacked by shape, and Newton-Schulz's intermediates
        stack = c.n_layer * c.n_embd * c.n_hidden * (3 if gate else 2) * (4 if job.on_cpu else 2)
        update += 4 * matrices + 4 * stack
    moments = dict(loss=loss, backward=backward, end=end, update=update)
    parts['moment'] = max(moments, key=moments.get)
    parts['peak'] = moments[parts['moment']]
    return parts


def largest_batch(c, size, job, available):
    """Return the most rows per micro-batch whose peak is at most `available` bytes; 0 if not even one
    fits."""
    low, high = 0, 1
    while memory(c, size, job._replace(batch_size=high))['peak'] <= available:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = memory(c, size, job._replace(batch_size=middle))['peak'] <= available
        low, high = (middle, high) if fits else (low, middle)
    return low


def exchange(size, job):
    """Return the bytes that each process sends per step, by rings of all processes.

    DDP sends fp32 gradients once per step, there and back. FSDP sends in every micro-batch the weights, in
    the matmuls' format, for forward and backward, and fp32 gradients (https://arxiv.org/abs/1910.02054,
    section 7).
    """
    others = (job.world_size - 1) / job.world_size
    if job.parallel == 'ddp':
        return others * 2 * 4 * size.total
    return others * (2 * (2 if job.half else 4) + 4) * size.total * job.micro_batches


def step_time(flops_per_token, size, job, machine):
    """Return a step's seconds of (work, exchange, the part of the exchange that work can't hide).

    DDP's exchange can hide behind the last micro-batch's backward, FSDP's behind all work. Recomputing is one
    more forward, a third more work.
    """
    gpu = GPUS[machine.gpu]
    flops = job.batch_size * job.T * flops_per_token * (4 / 3 if job.recompute else 1)
    peak = GPU_PEAKS[gpu.peaks][0 if job.half else 1]
    per_micro_batch = flops / (machine.mfu * peak)
    work = per_micro_batch * job.micro_batches

    speed = gpu.link
    if job.world_size > machine.gpus_per_node:  # the ring leaves a node by all of its network cards
        network = machine.network or gpu.network
        if not network:
            raise UserError(f"--gpu={machine.gpu}: no maker's node says how fast its network is: give "
                            "--network, GB/s per GPU")
        speed = min(speed, network * machine.gpus_per_node)
    sending = exchange(size, job) / speed
    hidden = per_micro_batch * 2 / 3 if job.parallel == 'ddp' else work
    return work, sending, max(0.0, sending - hidden)


def report(models, job, machine, counts, rows, max_iters):
    """Yield the lines on one model, {name: GPT, on the meta device}, on counts[0] GPUs.

    rows: per step, over all processes.
    """
    (model,), (world,), gpu = models.values(), counts, GPUS[machine.gpu]
    c, n, T = model.config, size(model), min(job.T, model.config.block_size)
    if rows % (job.batch_size * world):
        raise UserError(f"a step's {rows} rows are no multiple of --batch_size={job.batch_size} times "
                        f"--gpus={world}: change one of them, or --gradient_accumulation_steps")
    job = job._replace(T=T, world_size=world, micro_batches=rows // (job.batch_size * world))
    flops = model.flops_per_token(T)
    by = f" by {job.parallel}" if world > 1 else ""
    yield f"estimate: {c.n_layer} layers, {c.n_head} heads, {c.n_embd} wide, on {world} {machine.gpu}{by}"
    yield f"parameters   {n.total / 1e6:,.2f}M, {n.n_layer * n.block / 1e6:,.2f}M of them in blocks"
    yield f"per token    {flops / 1e9:.4g} GFLOPs, in a context of {T}"
    yield (f"per step     {rows * T:,} tokens: {job.batch_size} rows x {T} x {job.micro_batches} "
           f"micro-batches x {world} GPUs")

    # memory, with and without recomputing
    ways = {'all kept': job._replace(recompute=False), '--recompute=True': job._replace(recompute=True)}
    columns = [memory(c, n, way) for way in ways.values()]
    yield f"\n{'GB per GPU':<40}" + "".join(f"{way:>18}" for way in ways)
    names = dict(weights="weights", gradients="gradients", optimizer=f"state of {job.optimizer}",
                 buckets="DDP's buckets of gradients", copies="weights in half precision or gathered",
                 activations="activations", logits="logits, one chunk at a time",
                 peak="peak; not all exist at once")
    for key, name in names.items():
        yield f"{name:<40}" + "".join(f"{parts[key] / 1e9:>18.2f}" for parts in columns)
    largest = {way.recompute: largest_batch(c, n, way, gpu.memory - RESERVE) for way in ways.values()}
    label = f"largest batch_size, {RESERVE / 1e9:.0f} of {gpu.memory / 1e9:.0f} GB kept free"
    yield f"{label:<40}" + "".join(f"{batch or 'none fits':>18}" for batch in largest.values())

    # time
    work, sending, exposed = step_time(flops, n, job, machine)
    seconds = work + exposed
    yield ""
    if world > 1:
        yield (f"exchange     {exchange(n, job) / 1e9:.2f} GB per GPU and step, {sending * 1e3:,.1f} ms; "
               f"{exposed * 1e3:,.1f} ms of it can't hide behind the work")
    yield (f"time         {seconds * 1e3:,.0f} ms per step at an MFU of {machine.mfu:.0%}, "
           f"{rows * T / seconds:,.0f} tokens/s")
    days = seconds * max_iters / 86400
    yield f"             {max_iters:,} steps, {rows * T * max_iters / 1e9:,.1f}B tokens: {days:.2f} days"
    if job.batch_size > largest[job.recompute]:
        yield f"batch_size={job.batch_size} does not fit: lower it, use --recompute=True or --parallel=fsdp"


def table(models, job, machine, counts, rows, max_iters):
    """Yield the lines of a Markdown table: each model on each number of GPUs, with the largest batch that
    fits."""
    yield ("| model | parameters | GPUs | | GB per GPU, one row | largest batch | with recompute | "
           f"exchange, ms per step | days for {rows * job.T * max_iters / 1e9:,.0f}B tokens |")
    yield "| --- " * 9 + "|"
    for name, model in models.items():
        for world in counts:
            for parallel in ('ddp', 'fsdp') if world > 1 else ('ddp',):
                one = job._replace(world_size=world, parallel=parallel)
                cells = [name, *table_cells(model, one, machine, rows, max_iters)]
                yield "| " + " | ".join(map(str, cells)) + " |"


def table_cells(model, job, machine, rows, max_iters):
    """Return the cells of a model's line in the table, without its name."""
    c, n, T = model.config, size(model), min(job.T, model.config.block_size)
    world, available = job.world_size, GPUS[machine.gpu].memory - RESERVE
    # with several micro-batches, so that gradients stay while activations come and go
    one_row = job._replace(batch_size=1, T=T, micro_batches=2)
    largest = [largest_batch(c, n, one_row._replace(recompute=recompute), available)
               for recompute in (False, True)]
    cells = [f"{n.total / 1e6:,.0f}M", world, job.parallel if world > 1 else "",
             f"{memory(c, n, one_row)['peak'] / 1e9:.1f}", *(batch or "–" for batch in largest)]
    if not any(largest):
        return [*cells, "–", "–"]
    # a step's rows, divided among the processes; in as few micro-batches as the memory allows
    rows_per_process = ceil_div(rows, world)
    n_micro = ceil_div(rows_per_process, largest[0] or largest[1])
    step = one_row._replace(batch_size=rows_per_process / n_micro, micro_batches=n_micro,
                            recompute=not largest[0])
    work, sending, exposed = step_time(model.flops_per_token(T), n, step, machine)
    not_hidden = f", {exposed * 1e3:,.0f} not hidden" if exposed else ""
    days = f"{(work + exposed) * max_iters / 86400:,.1f}" + (" (recompute)" if step.recompute else "")
    return [*cells, f"{sending * 1e3:,.0f}{not_hidden}" if world > 1 else "", days]


def print_estimate(o, models):
    """Print the report on one model on one number of GPUs, or a table of several.

    o: bench.py's options as attributes. models: {name: GPT, on the meta device}.
    """
    job = Job(o.batch_size, o.block_size, 1, o.parallel, o.dtype != 'float32', o.recompute, o.optimizer)
    machine = Machine(o.gpu, o.gpus_per_node, o.network and o.network * 1e9, o.mfu)
    counts = [int(n) for n in o.gpus.split(',')]
    rows_per_step = o.batch_size * o.gradient_accumulation_steps
    lines = report if len(models) == len(counts) == 1 else table
    for line in lines(models, job, machine, counts, rows_per_step, o.max_iters):
        print(line)


def check_estimate(o):
    """Raise UserError if an option of the estimate can't be; o: bench.py's options as attributes."""
    if o.gpu not in GPUS:
        raise UserError(f"--gpu={o.gpu}: choose one of {', '.join(GPUS)}")
    is_list = re.fullmatch(r'[1-9]\d*(,[1-9]\d*)*', o.gpus)
    if o.parallel not in ('ddp', 'fsdp') or not 0 < o.mfu <= 1 or not is_list:
        raise UserError(f"--parallel={o.parallel} must be ddp or fsdp, --mfu={o.mfu} lie in (0, 1], "
                        f"--gpus={o.gpus} be a number, or several as in 1,8,32")
