"""
Where and how this process runs: device, number format, ranks, signals.

With one process shard() and wrap() return the model as it is, sum() and max() the numbers, and nothing of
torch.distributed is used.
"""

import atexit
import ctypes
import os
import re
import signal
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

from nanorap.common import GPU_PEAKS, UserError

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


@dataclass(frozen=True)
class Runtime:
    """The device and number format that this process computes with, and its place among the others."""

    device: torch.device
    dtype: torch.dtype  # of matmuls; parameters stay in fp32
    rank: int = 0
    world_size: int = 1
    parallel: str = 'ddp'  # how several processes share a model

    @property
    def is_main(self):
        """Whether this process is the one that prints and writes files."""
        return self.rank == 0

    def autocast(self):
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def grad_scaler(self):
        """Return a scaler against the underflow of float16 gradients; for other dtypes it does nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def shard(self, model, blocks):
        """Return the model on this process's device.

        With parallel='fsdp' the process holds a share of every parameter, and so of every gradient and of the
        optimizer's state (ZeRO-3, https://arxiv.org/abs/1910.02054). Whole parameters exist for one of
        `blocks` at a time; all parameters outside them, tied embeddings above all, are one more unit. Every
        process must then call the model equally often.
        """
        if self.world_size == 1 or self.parallel == 'ddp':
            return model.to(self.device)
        # imported here, since other runs need not wait nearly a second for it
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        if self.dtype == torch.float32:
            policy = MixedPrecisionPolicy()
        else:  # bfloat16: float16 would need a gradient scaler for shards; setup() refuses it
            policy = MixedPrecisionPolicy(
                param_dtype=self.dtype, reduce_dtype=torch.float32,
                cast_forward_inputs=False)  # cos and sin of rotary positions stay in float32
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        options = dict(mesh=mesh, reshard_after_forward=True, mp_policy=policy)
        for block in blocks:  # one after the other, so that no device ever holds the whole model
            fully_shard(block, **options)
        return fully_shard(model, **options)

    def wrap(self, model):
        """Return the model for training, which averages gradients over the processes if there are several."""
        if self.device.type == 'cpu':
            keep_freed_memory()
        if self.world_size == 1 or self.parallel == 'fsdp':
            return model
        return DDP(model, device_ids=[self.device.index] if self.device.type == 'cuda' else None)

    def gather(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return {name: whole tensor} in CPU memory on the main process, an empty dict on the others.

        Every process must call it, since shards are exchanged.
        """
        whole = {}
        for name, tensor in tensors.items():
            if hasattr(tensor, 'full_tensor'):  # a DTensor
                tensor = tensor.full_tensor()
            if self.is_main:
                whole[name] = tensor.cpu()
        return whole

    def to_device(self, *arrays: np.ndarray) -> list[torch.Tensor]:
        """Return numpy arrays as tensors on the device; a GPU continues computing while they are copied."""
        tensors = [torch.from_numpy(a) for a in arrays]
        if self.device.type == 'cuda':
            tensors = [t.pin_memory() for t in tensors]
        return [t.to(self.device, non_blocking=self.device.type == 'cuda') for t in tensors]

    def sum(self, *numbers):
        """Return the numbers, each summed over all processes."""
        return self._reduce(numbers, 'SUM')

    def max(self, *numbers):
        """Return the numbers, each the maximum over all processes."""
        return self._reduce(numbers, 'MAX')

    def _reduce(self, numbers, operation):
        if self.world_size == 1:
            return numbers
        # by gloo or NCCL; MPS, which has no float64, never runs several processes
        reduced = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(reduced, getattr(dist.ReduceOp, operation))
        return reduced.tolist()

    def synchronize(self):
        """Wait until the device has finished its work, which a measurement of time needs."""
        if self.device.type in ('cuda', 'mps'):
            getattr(torch, self.device.type).synchronize()

    def peak_memory(self):
        """Return the peak memory of this process on its device so far, in bytes; None where unknown."""
        if self.device.type == 'cuda':
            return torch.cuda.max_memory_allocated()
        # Linux, where getrusage would begin with the parent's memory if that was larger
        with suppress(OSError, StopIteration), open('/proc/self/status', encoding='latin-1') as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith('VmHWM'))
        try:
            import resource
        except ImportError:  # Windows
            return None
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS

    def peak_flops(self):
        """Return the peak FLOP/s of this process's device; None where unknown.

        They are the data sheet's for known GPUs, and measured by a matmul on a CPU.
        """
        if self.device.type == 'cuda':
            gpu = torch.cuda.get_device_name(self.device)
            for name, (half_precision, single_precision) in GPU_PEAKS.items():
                if re.search(rf'\b{name}\b', gpu):
                    return single_precision if self.dtype == torch.float32 else half_precision
            return None
        if self.device.type != 'cpu':
            return None
        # a small matmul is enough for half precision, which is emulated on most CPUs, 30 times slower
        n = 1536 if self.dtype == torch.float32 else 256
        seconds = []
        a = torch.randn(n, n, dtype=self.dtype)
        for _ in range(6):  # the best of several, since a busy machine may stall in some
            t0 = time.perf_counter()
            a @ a
            seconds.append(time.perf_counter() - t0)
        return 2 * n**3 / min(seconds)

    def close(self, code=0):
        """End this process with an exit code."""
        if self.world_size > 1:
            dist.barrier()  # a rank that exits early closes sockets that others still read
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # in an orderly exit, gloo's threads abort one FSDP run in thirty
        raise SystemExit(code)


class Signals:
    """Record SIGINT and SIGTERM instead of ending, so that no step and no save is interrupted.

    `first` is the number of the first signal, 0 before it. Further ones change nothing, since torchrun passes
    a Ctrl-C on a second time.
    """

    def __init__(self):
        self.first = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._record)
            # Ignore late signals at exit, except after distributed init: gloo and NCCL may hang there, so
            # signals must kill
            at_exit = signal.SIG_DFL if dist.is_initialized() else signal.SIG_IGN
            atexit.register(signal.signal, number, at_exit)

    def _record(self, number, frame):
        self.first = self.first or number


def keep_freed_memory():
    """Make glibc keep freed memory for this process.

    Otherwise it returns large blocks to the system, which has to clear them when the next step allocates them
    again: a tenth of the training time on a CPU. Other C libraries don't change, and MALLOC_… variables in
    the environment take precedence.
    """
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
    if sys.platform == 'linux' and not any(name.startswith('MALLOC_') for name in os.environ):
        with suppress(AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_TRIM_THRESHOLD, -1)
            mallopt(M_MMAP_MAX, 0)


def setup(device='auto', dtype='auto', parallel='ddp'):
    """Return the Runtime of this process, which joins the others if torchrun started it.

    device: 'auto' (CUDA, else MPS, else the CPU), 'cuda', 'cuda:1', 'mps' or 'cpu'.
    dtype: one of DTYPES, or 'auto' (bfloat16 on GPUs that have it, float16 on other GPUs, float32 elsewhere).
    parallel: 'ddp' or 'fsdp'.
    Raises UserError for a device that this machine lacks.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the process without a traceback
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == 'auto':
        device = 'cuda' if has_cuda else 'mps' if has_mps else 'cpu'
    try:
        dev = torch.device(device)
        known = dev.type in ('cuda', 'mps', 'cpu')
    except RuntimeError:
        known = False
    if not known:
        raise UserError(f"--device={device}: choose auto, cuda, cuda:N, mps or cpu")
    if dev.type == 'cuda' and not has_cuda or dev.type == 'mps' and not has_mps:
        raise UserError(f"--device={device}, but this PyTorch ({torch.__version__}) finds none here: try "
                        "--device=cpu")
    if dtype != 'auto' and dtype not in DTYPES:
        raise UserError(f"--dtype={dtype}: choose auto, {', '.join(DTYPES)}")
    if parallel not in ('ddp', 'fsdp'):
        raise UserError(f"--parallel={parallel}: choose ddp or fsdp")

    rank, local_rank, world_size = 0, 0, 1
    if 'RANK' in os.environ:  # torchrun sets all three, other launchers not always LOCAL_RANK
        rank = int(os.environ['RANK'])
        local_rank = int(os.environ.get('LOCAL_RANK', 0))
        world_size = int(os.environ.get('WORLD_SIZE', 1))
    if dev.type == 'mps' and world_size > 1:
        raise UserError("several processes need --device=cuda or --device=cpu: MPS runs one")
    if dev.type == 'cuda':
        index = local_rank if world_size > 1 else dev.index or 0
        if index >= torch.cuda.device_count():
            raise UserError(f"no GPU {index}: this machine has {torch.cuda.device_count()}, which is the "
                            "most that --nproc_per_node and --device=cuda:N can ask for")
        dev = torch.device('cuda', index)
        torch.cuda.set_device(dev)
        torch.set_float32_matmul_precision('high')  # TF32
    if dtype == 'auto':
        if dev.type == 'cuda':
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
            dtype = 'bfloat16' if has_bfloat16 else 'float16'
        else:
            dtype = 'float32'
    if dtype == 'float16' and parallel == 'fsdp' and world_size > 1:
        raise UserError("--parallel=fsdp can't train in float16: use --dtype=bfloat16, or float32 where the "
                        "GPU lacks that")
    if world_size > 1:
        backend, device_id = ('nccl', dev) if dev.type == 'cuda' else ('gloo', None)
        dist.init_process_group(backend, store=own_store(rank, world_size), rank=rank, world_size=world_size,
                                device_id=device_id)
    return Runtime(dev, DTYPES[dtype], rank, world_size, parallel)


def own_store(rank, world_size):
    """Return a store that no earlier start of these processes has written to.

    torchrun keeps one store over all --max-restarts, where a process may read the address of a dead one and
    wait for it for half an hour (https://github.com/pytorch/pytorch/issues/135712). Its count of restarts
    can't be a prefix, since it differs between nodes. So each process writes a random name, and once all have
    read the same names, these are the prefix. Returns None where torchrun makes a new store each time.
    """
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return None
    store = dist.TCPStore(os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), is_master=False)
    store.set(f'name/{rank}', uuid4().hex)
    counted = set()
    while True:
        # multi_get waits for missing names
        names = b' '.join(store.multi_get([f'name/{i}' for i in range(world_size)])).decode()
        # each process counts itself once; with a name of an earlier start in it the count stays below
        # world_size, since that process is gone
        if store.add(names, int(names not in counted)) == world_size:
            return dist.PrefixStore(names, store)
        counted.add(names)
        time.sleep(0.05)


def compile_or_eager(model: torch.nn.Module, compile: bool | None, runtime: Runtime, batches: str,
                     x: np.ndarray, y: np.ndarray):
    """Return torch.compile(model), or the model itself, with one warning, if a trial step on x and y fails.

    compile: True, False, or None: True on CUDA with batches='stream', which all have one shape. Songs differ
    in length, and new lengths compile anew: on an H100 make demo's training, which took 35 s without, had
    done 13 of its 40 steps after 120 s. x, y: a batch, numpy arrays.
    """
    if compile is None:
        compile = runtime.device.type == 'cuda' and batches == 'stream'
    if not compile:
        return model
    compiled, failed = torch.compile(model), 0
    try:
        with runtime.autocast():
            compiled(*runtime.to_device(x, y)).backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as e:  # no C++ compiler, no Triton, an unsupported platform: each has its own error
        failed, reason = 1, (str(e).strip().splitlines() or [''])[0][:150]
        print("warning: torch.compile failed here, going on without it "
              f"({type(e).__name__}: {reason})", file=sys.stderr)
    model.zero_grad(set_to_none=True)
    return model if runtime.max(failed)[0] else compiled  # the same on all processes
