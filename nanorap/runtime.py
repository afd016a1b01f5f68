"""
Where and how this process runs: device, number format, ranks, signals. One process is the plain case: then
shard() and wrap() return the model as it is, sum() and max() the numbers, and nothing of torch.distributed is
touched.
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

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

from nanorap.common import GPU_PEAKS, UserError

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


@dataclass(frozen=True)
class Runtime:
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
        """Keeps float16 gradients from underflowing; for the other dtypes it does nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def shard(self, model, blocks):
        """The model on this process's device. With parallel='fsdp' that is its share of every parameter, and
        so of every gradient and the optimizer's state (ZeRO-3, https://arxiv.org/abs/1910.02054); whole
        parameters exist for one of `blocks` at a time. What is outside them, tied embeddings above all, is
        one unit more. From here on every process must call the model equally often."""
        if self.world_size == 1 or self.parallel == 'ddp':
            return model.to(self.device)
        from torch.distributed.device_mesh import init_device_mesh  # nearly a second, which other runs are spared
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        # float16 would need a gradient scaler that knows of shards; setup() refuses it
        half = MixedPrecisionPolicy(param_dtype=self.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        # cast_forward_inputs: cos and sin of rotary positions stay in float32
        options = dict(mesh=init_device_mesh(self.device.type, (self.world_size,)), reshard_after_forward=True,
                       mp_policy=MixedPrecisionPolicy() if self.dtype == torch.float32 else half)
        for block in blocks:  # one after the other: no device ever holds the whole model
            fully_shard(block, **options)
        return fully_shard(model, **options)

    def wrap(self, model):
        """The model as it trains: on several processes, with gradients averaged over them."""
        if self.device.type == 'cpu':
            keep_freed_memory()
        if self.world_size == 1 or self.parallel == 'fsdp':
            return model
        return DDP(model, device_ids=[self.device.index] if self.device.type == 'cuda' else None)

    def gather(self, tensors):
        """{name: tensor} with every shard put together, in the main process's memory; every process must call
        it."""
        whole = {}
        for name, tensor in tensors.items():
            if hasattr(tensor, 'full_tensor'):  # a DTensor
                tensor = tensor.full_tensor()
            if self.is_main:
                whole[name] = tensor.cpu()
        return whole

    def to_device(self, *arrays):
        """numpy arrays as tensors on the device, copied while it goes on computing."""
        tensors = [torch.from_numpy(a) for a in arrays]
        if self.device.type == 'cuda':
            tensors = [t.pin_memory() for t in tensors]
        return [t.to(self.device, non_blocking=self.device.type == 'cuda') for t in tensors]

    def sum(self, *numbers):
        """The numbers, each summed over all processes."""
        return self._reduce(numbers, 'SUM')

    def max(self, *numbers):
        """The numbers, each the highest of all processes."""
        return self._reduce(numbers, 'MAX')

    def _reduce(self, numbers, operation):
        if self.world_size == 1:
            return numbers
        # gloo on CPU tensors and NCCL on CUDA's; MPS runs alone and knows no float64, so it never gets here
        reduced = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(reduced, getattr(dist.ReduceOp, operation))
        return reduced.tolist()

    def synchronize(self):
        """Wait for what the device has still to do, before looking at the clock."""
        if self.device.type in ('cuda', 'mps'):
            getattr(torch, self.device.type).synchronize()

    def peak_memory(self):
        """The most memory in bytes that this process has used so far, on its device; None where unknown."""
        if self.device.type == 'cuda':
            return torch.cuda.max_memory_allocated()
        with suppress(OSError, StopIteration):  # Linux, where getrusage begins with the parent's memory, if that was larger
            return next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith('VmHWM'))
        try:
            import resource
        except ImportError:  # Windows
            return None
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS

    def peak_flops(self):
        """FLOP/s that this process's device could do at best: by data sheet for known GPUs, measured by a
        matmul on a CPU; None where unknown."""
        if self.device.type == 'cuda':
            gpu = torch.cuda.get_device_name(self.device)
            known = [peaks for name, peaks in GPU_PEAKS.items() if re.search(rf'\b{name}\b', gpu)]
            return known[0][self.dtype == torch.float32] if known else None
        if self.device.type != 'cpu':
            return None
        # half precision is emulated on most CPUs, 30 times slower: a small matmul tells it, too
        n, seconds = 1536 if self.dtype == torch.float32 else 256, []
        a = torch.randn(n, n, dtype=self.dtype)
        for _ in range(6):  # a busy machine may stall in some
            t0 = time.perf_counter()
            a @ a
            seconds.append(time.perf_counter() - t0)
        return 2 * n**3 / min(seconds)

    def close(self, code=0):
        """The end of this process, with an exit code."""
        if self.world_size > 1:
            dist.barrier()  # who leaves early tears down what others still read from
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # in an orderly end, gloo's threads abort one FSDP run in thirty
        raise SystemExit(code)


class Signals:
    """SIGINT and SIGTERM, noted from here on instead of obeyed, so that a step and a save are never cut in
    two.

    `first` is the number of the first, 0 before; further ones change nothing (torchrun passes a Ctrl-C on a
    second time).
    """

    def __init__(self):
        self.first = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)
            # on the way out a late one changes nothing either. But after an error (another process has died)
            # gloo and NCCL may hang at the end: there a signal must end it
            atexit.register(signal.signal, number, signal.SIG_DFL if dist.is_initialized() else signal.SIG_IGN)

    def _note(self, number, frame):
        self.first = self.first or number


def keep_freed_memory():
    """From here on freed memory stays with this process. glibc otherwise returns large blocks to the system,
    which has to clear them when the next step asks for them again: a tenth of the time that training takes on
    a CPU.

    Other C libraries, and MALLOC_… variables in the environment, are left to do as they do.
    """
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
    if sys.platform == 'linux' and not any(name.startswith('MALLOC_') for name in os.environ):
        with suppress(AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_TRIM_THRESHOLD, -1)
            mallopt(M_MMAP_MAX, 0)


def setup(device='auto', dtype='auto', parallel='ddp'):
    """The Runtime of this process; joins the others if torchrun started it.

    device: 'auto' (CUDA, else MPS, else the CPU), 'cuda', 'cuda:1', 'mps', 'cpu'. dtype: 'auto' (bfloat16
    where CUDA has it, else float16; float32 elsewhere), or one of DTYPES. parallel: 'ddp' or 'fsdp'. Raises
    UserError for what this machine lacks.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the process, with no traceback
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
    try:
        dev = torch.device(device)
        known = dev.type in ('cuda', 'mps', 'cpu')
    except RuntimeError:
        known = False
    if not known:
        raise UserError(f"--device={device}: choose auto, cuda, cuda:N, mps or cpu")
    if dev.type == 'cuda' and not torch.cuda.is_available() or dev.type == 'mps' and not torch.backends.mps.is_available():
        raise UserError(f"--device={device}, but this PyTorch ({torch.__version__}) finds none here: try "
                        "--device=cpu")
    if dtype != 'auto' and dtype not in DTYPES:
        raise UserError(f"--dtype={dtype}: choose auto, {', '.join(DTYPES)}")
    if parallel not in ('ddp', 'fsdp'):
        raise UserError(f"--parallel={parallel}: choose ddp or fsdp")

    rank, local_rank, world_size = 0, 0, 1
    if 'RANK' in os.environ:  # torchrun sets all three, other launchers not always LOCAL_RANK
        rank, local_rank, world_size = (int(os.environ.get(key, default)) for key, default in
                                        (('RANK', 0), ('LOCAL_RANK', 0), ('WORLD_SIZE', 1)))
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
        half = 'bfloat16' if dev.type == 'cuda' and torch.cuda.is_bf16_supported(including_emulation=False) else 'float16'
        dtype = half if dev.type == 'cuda' else 'float32'
    if dtype == 'float16' and parallel == 'fsdp' and world_size > 1:
        raise UserError("--parallel=fsdp can't train in float16: use --dtype=bfloat16, or float32 where the "
                        "GPU lacks that")
    if world_size > 1:
        dist.init_process_group('nccl' if dev.type == 'cuda' else 'gloo', store=own_store(rank, world_size), rank=rank,
                                world_size=world_size, device_id=dev if dev.type == 'cuda' else None)
    return Runtime(dev, DTYPES[dtype], rank, world_size, parallel)


def own_store(rank, world_size):
    """A store that no earlier start of these processes has written to; None where torchrun gives them a new
    one each time.

    torchrun keeps one store over all --max-restarts, and a process that finds the address of a dead one there
    waits for it for half an hour (https://github.com/pytorch/pytorch/issues/135712); its count of restarts
    differs between nodes. So each process leaves a name of its own, and all go on below a prefix made of the
    names, once all have read the same ones.
    """
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return None
    store = dist.TCPStore(os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), is_master=False)
    store.set(f'name/{rank}', uuid4().hex)
    agreed = set()
    while True:
        names = b' '.join(store.multi_get([f'name/{i}' for i in range(world_size)])).decode()  # waits for missing ones
        # with a name of an earlier start among them they never count up to all, since its process is gone
        if store.add(names, int(names not in agreed)) == world_size:
            return dist.PrefixStore(names, store)
        agreed.add(names)
        time.sleep(0.05)


def compile_or_eager(model, compile, runtime, x, y):
    """torch.compile(model), proved by a trial step on x and y; where that fails, the model as it is, with one
    warning.

    compile: True, False, or None: on CUDA only.
    """
    if not (runtime.device.type == 'cuda' if compile is None else compile):
        return model
    compiled, failed = torch.compile(model), 0
    try:
        with runtime.autocast():
            compiled(*runtime.to_device(x, y)).backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as e:  # no C++ compiler, no Triton, an unsupported platform: the compiler has its own errors for each
        failed, reason = 1, (str(e).strip().splitlines() or [''])[0][:150]
        print(f"warning: torch.compile failed here, going on without it ({type(e).__name__}: "
              f"{reason})", file=sys.stderr)
    model.zero_grad(set_to_none=True)
    return model if runtime.max(failed)[0] else compiled  # all processes alike
