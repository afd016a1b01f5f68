"""
Training on paper: memory, communication and time of train.py's step, from the model's shape alone.

Pure functions of numbers; c is a model's config (GPTConfig's fields as attributes), and memory is counted in bytes a process.
What they leave out: the CUDA context, fragments, the workspaces of kernels. The tests hold them against measured peaks.
"""

from typing import NamedTuple

from nanorap.loss import CHUNK
from nanorap.runtime import GPU_PEAKS


class GPU(NamedTuple):
    peaks: str  # its line in runtime.GPU_PEAKS
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
    if c.pos == 'rotary' or c.qk_norm:  # q and k once more; what attention gives then lies in another order, and is copied
        kept += h * (c.n_embd + kv + c.n_embd)
    # the MLP: the normed input, and before and behind the nonlinearity, which a gate doubles
    kept += h * (c.n_embd + c.n_hidden * (4 if c.mlp == 'swiglu' else 2))
    if c.norm == 'layernorm':
        kept += 16  # two means and standard deviations
    elif job.on_cpu:  # no fused kernel: what is normed, once more
        kept += 4 * (2 * c.n_embd + (c.n_embd + kv) * c.qk_norm)
    if c.dropout:  # masks; on a CPU as numbers, and the attention matrix whole, three times
        kept += 2 * c.n_embd * (h if job.on_cpu else 1) + (4 * c.n_head * job.T * 3 if job.on_cpu else 0)
    return kept + 2 * stream * c.n_embd


def loss_memory(c, job):
    """(bytes at work, bytes kept for the backward) of ChunkedLoss: never the logits of all tokens."""
    n, h = job.batch_size * job.T, 2 if job.half else 4
    n_chunks = -(-n * c.vocab_size // CHUNK)
    # logits and their log-softmax, in fp32; the gradient in half precision; while a chunk is at work, of the last one
    # the log-softmax and the gradient are still there
    per_logit = 8 + (2 if job.half else 0) + (4 if n_chunks > 1 else 0) + (8 if c.logit_softcap else 0)
    kept = 4 * n * c.n_embd + 4 * c.vocab_size * c.n_embd  # the gradients of x and of the head
    work = -(-n // n_chunks) * c.vocab_size * per_logit + 4 * n * c.n_embd
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
    # a block's backward has the gradients of what is inside its MLP, and of the residual stream
    inside = block * job.recompute + tokens * (h * 2 * c.n_hidden * (2 if c.mlp == 'swiglu' else 1) + 8 * c.n_embd)
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


def step_time(flops_per_token, size, job, gpu, mfu, gpus_per_node=8, network=None):
    """(seconds of a step at work, of exchange, of that part of it which work can't hide), of every process alike.

    mfu: the share of the GPU's peak that the work reaches. network: bytes/s that a GPU sends to other nodes.
    DDP's exchange hides behind the last backward, FSDP's behind all that is computed, to the extent that it is as short.
    """
    micro = job.batch_size * job.T * flops_per_token / (mfu * GPU_PEAKS[gpu.peaks][not job.half])
    speed = gpu.link
    if job.world_size > gpus_per_node:  # the ring leaves a node by all of its network cards
        speed = min(speed, (network or gpu.network) * gpus_per_node)
    sent = exchange(size, job) / speed
    hidden = micro * 2 / 3 if job.parallel == 'ddp' else micro * job.micro_batches
    return micro * job.micro_batches, sent, max(0.0, sent - hidden)
