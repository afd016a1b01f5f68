"""
Training on paper: memory, communication and time of train.py's step, from the model's shape alone.

Pure functions of numbers; c is a model's config (GPTConfig's fields as attributes), and memory is counted in bytes a process.
What they leave out: the CUDA context, fragments, the workspaces of kernels. The tests hold them against measured peaks.
"""

from typing import NamedTuple

from nanorap.common import GPU_PEAKS, LOGITS_CHUNK, UserError, ceil_div


class GPU(NamedTuple):
    peaks: str  # its line in common.GPU_PEAKS
    memory: float  # bytes, as sold
    link: float  # bytes/s in one direction between two GPUs of a node: half of what data sheets call NVLink or PCIe bandwidth
    network: float | None = None  # bytes/s a GPU sends to other nodes, in the maker's own nodes; None: there are none


# https://www.nvidia.com/en-us/data-center/ has the data sheets, by name; the networks are those of DGX A100 (8 times
# 200 Gb/s), DGX H100 and H200 (8 times 400 Gb/s) and DGX-2 (8 times 100 Gb/s for 16 GPUs), by their user guides
GPUS = {
    'A100-40GB': GPU('A100', 40e9, 300e9, 25e9), 'A100-80GB': GPU('A100', 80e9, 300e9, 25e9),
    'H100': GPU('H100', 80e9, 450e9, 50e9), 'H200': GPU('H200', 141e9, 450e9, 50e9),
    'V100-32GB': GPU('V100', 32e9, 150e9, 6.25e9), 'L40S': GPU('L40S', 48e9, 32e9), 'A10G': GPU('A10G', 24e9, 32e9),
    'L4': GPU('L4', 24e9, 32e9), 'T4': GPU('T4', 16e9, 16e9), 'RTX4090': GPU('RTX 4090', 24e9, 32e9),
    'RTX3090': GPU('RTX 3090', 24e9, 32e9),
}
RESERVE = 2e9  # bytes of a GPU for what memory() leaves out: a guess
# OpenAI's four models, by the config.json of each on the Hugging Face hub (openai-community/gpt2 and so on)
GPT2_SHAPES = {
    name: dict(n_layer=n_layer, n_head=n_head, n_embd=n_embd, vocab_size=50257)
    for name, (n_layer, n_head, n_embd) in {'gpt2': (12, 12, 768), 'gpt2-medium': (24, 16, 1024),
                                            'gpt2-large': (36, 20, 1280), 'gpt2-xl': (48, 25, 1600)}.items()
}


class Machine(NamedTuple):
    gpu: str  # of GPUS
    gpus_per_node: int
    network: float | None  # bytes/s that a GPU sends to other nodes; None: by GPUS
    mfu: float  # the share of the GPU's peak that work reaches


class Job(NamedTuple):
    """How a model trains."""

    batch_size: int  # rows of a micro-batch
    T: int  # tokens of a row
    world_size: int = 1  # processes, one a GPU
    parallel: str = 'ddp'
    half: bool = True  # matmuls in bfloat16 or float16
    recompute: bool = False
    optimizer: str = 'adamw'
    micro_batches: int = 1  # of a step, each process
    on_cpu: bool = False


class Size(NamedTuple):
    """Parameters: of one block, its matrices alone, and of all that is outside the blocks."""

    block: int
    block_matrices: int
    rest: int
    n_layer: int

    @property
    def total(self):
        return self.n_layer * self.block + self.rest


def size(model):
    """The Size of a GPT, which may be on the meta device, without any weights."""
    blocks = model.transformer.h
    block = [p.numel() for p in blocks[0].parameters()]
    matrices = sum(p.numel() for p in blocks[0].parameters() if p.dim() > 1)
    return Size(sum(block), matrices, sum(p.numel() for p in model.parameters()) - len(blocks) * sum(block), len(blocks))


def block_activations(c, job):
    """Bytes a token that a block keeps for its backward, its input, the residual stream, included."""
    h = 2 if job.half else 4
    stream = h if job.half and job.parallel == 'fsdp' and job.world_size > 1 else 4
    kv = c.n_embd * c.n_kv_head // c.n_head
    # attention: the normed input, q, k and v, what it gives, and its log-sum-exp a head in fp32
    kept = h * (c.n_embd + c.n_embd + 2 * kv + c.n_embd) + 4 * c.n_head
    if c.pos == 'rotary' or c.qk_norm:  # q and k once more; behind a norm in another order, as what attention gives: a copy
        kept += h * (c.n_embd + kv + c.n_embd * c.qk_norm)
    # the MLP: the normed input, and what goes into the nonlinearity, twice as wide with a gate
    kept += h * (c.n_embd + c.n_hidden * (2 if c.mlp == 'swiglu' else 1))
    if c.norm == 'layernorm':
        kept += 16 + 8 * (c.n_head + c.n_kv_head) * c.qk_norm  # means and standard deviations
    elif job.on_cpu:  # no fused kernel: what is normed, once more
        kept += 4 * (2 * c.n_embd + (c.n_embd + kv) * c.qk_norm)
    if c.dropout:  # masks; on a CPU as numbers, and the attention matrix whole, three times
        kept += 2 * c.n_embd * (h if job.on_cpu else 1) + (4 * c.n_head * job.T * 3 if job.on_cpu else 0)
    return kept + 2 * stream * c.n_embd


def loss_memory(c, job):
    """(bytes at work, bytes kept for the backward) of ChunkedLoss: never the logits of all tokens."""
    n, h = job.batch_size * job.T, 2 if job.half else 4
    n_chunks = ceil_div(n * c.vocab_size, LOGITS_CHUNK)
    # logits, of which the gradient takes the place; in half precision both are in fp32 besides; a softcap's derivative
    per_logit = 4 + (4 if job.half else 0) + (12 if c.logit_softcap else 0)
    kept = 4 * n * c.n_embd + 4 * c.vocab_size * c.n_embd  # the gradients of x and of the head
    work = ceil_div(n, n_chunks) * c.vocab_size * per_logit + 4 * n * c.n_embd
    work += 2 * h * c.vocab_size * c.n_embd if job.half else 0  # the head in half precision, a chunk's part of its gradient
    return work, kept


def memory(c, size, job):
    """{what: bytes of one process}: what there is during all of a step, the parts that come and go, and 'peak'."""
    shards = job.world_size if job.parallel == 'fsdp' else 1
    is_ddp, h = job.world_size > 1 and shards == 1, 2 if job.half else 4
    n, tokens, head = size.total, job.batch_size * job.T, 4 * c.vocab_size * c.n_embd
    matrices = size.n_layer * size.block_matrices
    averages = 8 * n - (4 * matrices if job.optimizer == 'muon' else 0)
    parts = dict(weights=4 * n / shards, gradients=4 * n / shards, optimizer=averages / shards)
    # DDP sends gradients from buckets of their own
    parts['buckets'] = 4 * n if is_ddp else 0
    # autocast keeps the blocks' matrices in half precision until the backward has used them; FSDP gathers two blocks at a
    # time, and what is outside them
    parts['copies'] = h * (size.rest + 2 * size.block) if shards > 1 else 2 * matrices if job.half else 0
    block = block_activations(c, job) * tokens
    stream = 4 * tokens * c.n_embd
    # what the last block gives, and its inputs alone or all that is in a block
    parts['activations'] = stream + size.n_layer * (stream if job.recompute else block)
    work, kept = loss_memory(c, job)
    parts['logits'] = work
    steady = parts['weights'] + parts['optimizer'] + parts['buckets']
    summed = parts['gradients'] if job.micro_batches > 1 else 0  # those of the micro-batches before
    forward = steady + summed + parts['copies'] + parts['activations'] + work + kept
    # the last block's backward: all that is in it, if it is recomputed, but for its input; what its nonlinearity gave, the
    # gradients inside its MLP and of the residual stream
    inside = (block - stream) * job.recompute + tokens * (h * c.n_hidden * (4 if c.mlp == 'swiglu' else 2) + 8 * c.n_embd)
    backward = steady + summed + parts['copies'] + parts['activations'] + kept + inside
    # at its end a tied embedding has two gradients, as a head and as an embedding
    end = steady + parts['gradients'] + (head if c.tie_weights else 0) + stream
    if shards > 1:  # whole gradients of what is outside the blocks, and the buffer from which they are summed
        end += parts['copies'] + 4 * size.rest
        backward += (h + 4) * size.block
    update = steady + parts['gradients']
    if job.optimizer == 'muon':  # the momentum's matrices, stacked by shape, and what Newton-Schulz makes of them
        stack = c.n_layer * c.n_embd * c.n_hidden * (3 if c.mlp == 'swiglu' else 2) * (4 if job.on_cpu else 2)
        update += 4 * matrices + 4 * stack
    moments = dict(loss=forward, backward=backward, end=end, update=update)
    parts['moment'] = max(moments, key=moments.get)
    parts['peak'] = moments[parts['moment']]
    return parts


def largest_batch(c, size, job, available):
    """The most rows of a micro-batch whose peak is at most `available` bytes; 0 where not even one fits."""
    low, high = 0, 1
    while memory(c, size, job._replace(batch_size=high))['peak'] <= available:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = memory(c, size, job._replace(batch_size=middle))['peak'] <= available
        low, high = (middle, high) if fits else (low, middle)
    return low


def exchange(size, job):
    """Bytes that each process sends in a step, rings of all processes (https://arxiv.org/abs/1910.02054, section 7).

    DDP: fp32 gradients once a step, there and back. FSDP, in every micro-batch: the weights, in the matmuls' format, forward
    and backward, and fp32 gradients.
    """
    others = (job.world_size - 1) / job.world_size
    if job.parallel == 'ddp':
        return others * 2 * 4 * size.total
    return others * (2 * (2 if job.half else 4) + 4) * size.total * job.micro_batches


def step_time(flops_per_token, size, job, machine):
    """(seconds of a step at work, of exchange, of the part of it that work can't hide), of every process alike.

    DDP's exchange hides behind the last backward, FSDP's behind all work, as far as that is as long. Recomputing is one more
    forward, a third more work.
    """
    gpu = GPUS[machine.gpu]
    flops = job.batch_size * job.T * flops_per_token * (4 / 3 if job.recompute else 1)
    micro, speed = flops / (machine.mfu * GPU_PEAKS[gpu.peaks][not job.half]), gpu.link
    if job.world_size > machine.gpus_per_node:  # the ring leaves a node by all of its network cards
        if not (network := machine.network or gpu.network):
            raise UserError(f"--gpu={machine.gpu}: no maker's node says how fast its network is: give --network, GB/s a GPU")
        speed = min(speed, network * machine.gpus_per_node)
    sent = exchange(size, job) / speed
    hidden = micro * 2 / 3 if job.parallel == 'ddp' else micro * job.micro_batches
    return micro * job.micro_batches, sent, max(0.0, sent - hidden)


def report(models, job, machine, counts, rows, max_iters):
    """Lines on one model, {name: GPT, on the meta device}, on counts[0] GPUs; rows: of a step, over all processes."""
    (model,), (world,), gpu = models.values(), counts, GPUS[machine.gpu]
    c, n, T = model.config, size(model), min(job.T, model.config.block_size)
    if rows % (job.batch_size * world):
        raise UserError(f"a step's {rows} rows are no multiple of --batch_size={job.batch_size} times --gpus={world}: change "
                        "one of them, or --gradient_accumulation_steps")
    job = job._replace(T=T, world_size=world, micro_batches=rows // (job.batch_size * world))
    flops = model.flops_per_token(T)
    by = f" by {job.parallel}" if world > 1 else ""
    yield f"on paper: {c.n_layer} layers, {c.n_head} heads, {c.n_embd} wide, on {world} {machine.gpu}{by}"
    yield f"parameters   {n.total / 1e6:,.2f}M, {n.n_layer * n.block / 1e6:,.2f}M of them in blocks"
    yield f"a token      {flops / 1e9:.4g} GFLOPs, in a context of {T}"
    yield (f"a step       {rows * T:,} tokens: {job.batch_size} rows x {T} x {job.micro_batches} micro-batches x {world} GPUs")

    ways = {'all kept': job._replace(recompute=False), '--recompute=True': job._replace(recompute=True)}
    columns = [memory(c, n, way) for way in ways.values()]
    yield f"\n{'GB of a GPU':<40}" + "".join(f"{way:>18}" for way in ways)
    for key, what in dict(weights="weights", gradients="gradients", optimizer=f"state of {job.optimizer}",
                          buckets="DDP's buckets of gradients", copies="weights in half precision or gathered",
                          activations="activations", logits="logits, a chunk at a time",
                          peak="at most, not all being there at once").items():
        yield f"{what:<40}" + "".join(f"{parts[key] / 1e9:>18.2f}" for parts in columns)
    most = {way.recompute: largest_batch(c, n, way, gpu.memory - RESERVE) for way in ways.values()}
    room = f"largest batch_size, {RESERVE / 1e9:.0f} of {gpu.memory / 1e9:.0f} GB kept free"
    yield f"{room:<40}" + "".join(f"{batch or 'none fits':>18}" for batch in most.values())

    work, sent, exposed = step_time(flops, n, job, machine)
    seconds = work + exposed
    yield ""
    if world > 1:
        yield (f"exchange     {exchange(n, job) / 1e9:.2f} GB a GPU and step, {sent * 1e3:,.1f} ms; {exposed * 1e3:,.1f} ms of "
               "it can't hide behind the work")
    yield f"time         {seconds * 1e3:,.0f} ms a step at an MFU of {machine.mfu:.0%}, {rows * T / seconds:,.0f} tokens/s"
    days = seconds * max_iters / 86400
    yield f"             {max_iters:,} steps, {rows * T * max_iters / 1e9:,.1f}B tokens: {days:.2f} days"
    if job.batch_size > most[job.recompute]:
        yield f"batch_size={job.batch_size} does not fit: lower it, use --recompute=True or --parallel=fsdp"


def table(models, job, machine, counts, rows, max_iters):
    """Lines of a Markdown table: each of the models on so many GPUs, with the largest batch that fits."""
    gpu = GPUS[machine.gpu]
    yield ("| model | parameters | GPUs | | GB of a GPU, one row | largest batch | with recompute | exchange, ms a step | "
           f"days for {rows * job.T * max_iters / 1e9:,.0f}B tokens |")
    yield "| --- " * 9 + "|"
    for name, model in models.items():
        c, n, T = model.config, size(model), min(job.T, model.config.block_size)
        for world in counts:
            for parallel in ('ddp', 'fsdp') if world > 1 else ('ddp',):
                # of several micro-batches, so that gradients stay while activations come and go
                one = job._replace(batch_size=1, T=T, world_size=world, parallel=parallel, micro_batches=2)
                most = [largest_batch(c, n, one._replace(recompute=value), gpu.memory - RESERVE) for value in (False, True)]
                cells = [name, f"{n.total / 1e6:,.0f}M", world, parallel if world > 1 else "",
                         f"{memory(c, n, one)['peak'] / 1e9:.1f}", *(batch or "–" for batch in most), "–", "–"]
                if any(most):
                    # a step's rows, shared by all; in as few micro-batches as the memory allows
                    share = ceil_div(rows, world)
                    micro = ceil_div(share, most[0] or most[1])
                    step = one._replace(batch_size=share / micro, micro_batches=micro, recompute=not most[0])
                    work, sent, exposed = step_time(model.flops_per_token(T), n, step, machine)
                    late = f", {exposed * 1e3:,.0f} not hidden" if exposed else ""
                    cells[-2] = f"{sent * 1e3:,.0f}{late}" if world > 1 else ""
                    cells[-1] = f"{(work + exposed) * max_iters / 86400:,.1f}" + (" (recompute)" if step.recompute else "")
                yield "| " + " | ".join(map(str, cells)) + " |"
