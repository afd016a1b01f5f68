"""
Linear layers for decoding on a CPU, where reading the weights takes most of the time.

    pack(model)                  # in place: weights in the order that oneDNN reads fastest; the same numbers
    pack(model, 'int8')          # a quarter of the bytes: int8 weights, one scale per row, fp32 activations

A packed model can't be trained or saved.
"""

import ctypes
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn as nn

from nanorap.common import UserError


class PackedLinear(nn.Module):
    """nn.Linear in fp32 or bf16 with its weight in oneDNN's own layout.

    For small batches F.linear reaches a fraction of the memory bandwidth.
    """

    def __init__(self, weight, bias):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, 'none', [], '')


class Int8Linear(nn.Module):
    """nn.Linear with weights in int8 and one scale per output; activations stay in fp32.

    The result of a row does not depend on the other rows of the batch.
    """

    def __init__(self, weight, bias, kernel):
        super().__init__()
        self.weight, self.scale = quantized(weight)
        self.bias = None if bias is None else bias.contiguous()
        self.kernel = kernel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        N, K = self.weight.shape
        x = x.contiguous()
        assert x.size(-1) == K and x.dtype == torch.float32, f"{x.dtype} {tuple(x.shape)} for ({N}, {K})"
        y = x.new_empty(*x.shape[:-1], N)
        self.kernel(x.data_ptr(), self.weight.data_ptr(), self.scale.data_ptr(),
                    None if self.bias is None else self.bias.data_ptr(), y.data_ptr(), x.numel() // K, N, K)
        return y


def quantized(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a matrix (N, K) as int8 (N, K) and one fp32 scale per row (N,).

    weight = int8 * scale, with an error of at most half a scale.
    """
    scale = (weight.abs().amax(1) / 127).clamp(min=1e-30).float()  # of a row of zeros: anything but 0
    return (weight.float() / scale[:, None]).round().to(torch.int8).contiguous(), scale


def int8_kernel():
    """Compile int8.c for this machine, in a second; return its int8_linear(), or a string that says why
    not."""
    library = next((Path(torch.__file__).parent / 'lib').glob('lib*omp*'), None)
    if library is None:
        return "this PyTorch comes without its own OpenMP library"
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(__file__).with_name('int8.c'), f'{folder}/int8.so'
        compiler = shlex.split(os.environ.get('CC') or 'cc')
        is_arm = platform.machine() in ('arm64', 'aarch64')
        compile_flags = ['-O3', '-mcpu=native' if is_arm else '-march=native', '-fPIC', '-fopenmp']
        compile_flags += ['-c', source, '-o', f'{binary}.o']
        link_flags = ['-shared', f'{binary}.o', '-o', binary]
        try:
            # linked without OpenMP, so that it uses PyTorch's threads: a second pool would compete with them
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
            for flags in (compile_flags, link_flags):
                subprocess.run([*compiler, *flags], check=True, capture_output=True,
                               encoding='utf-8', errors='replace')
            kernel = ctypes.CDLL(binary).int8_linear
        except FileNotFoundError:
            return f"there is no C compiler '{compiler[0]}'"
        except (OSError, subprocess.CalledProcessError) as e:
            return (getattr(e, 'stderr', None) or str(e)).strip().splitlines()[0][:150]
    kernel.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_long] * 3
    kernel.restype = None
    return kernel


def pack(model, how=None):
    """Replace every linear layer of a model in eval mode, the head included, for decoding without gradients.

    how: None or 'int8'. None changes nothing on devices other than a CPU, whose kernels need no such help,
    and for a dtype that this CPU has no instructions for.
    """
    weight = next(model.parameters())
    if how not in (None, 'int8'):
        raise UserError(f"--quantize={how}: choose int8, or None")
    if how and (weight.device.type != 'cpu' or weight.dtype != torch.float32):
        raise UserError("--quantize=int8 is for CPUs, with activations in float32: leave it out, or use "
                        "--device=cpu --dtype=float32")
    has_instructions = weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if weight.device.type != 'cpu' or not torch.backends.mkldnn.is_available() or not has_instructions:
        return model
    kernel = int8_kernel() if how else None
    if isinstance(kernel, str):
        print("warning: int8 weights go through float32's kernels, no faster than without --quantize: "
              f"{kernel}",
              file=sys.stderr)

    def packed(weight, bias=None):
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        if how is None:
            return PackedLinear(weight, bias)
        if isinstance(kernel, str):  # the same numbers, by float32's kernel
            int8, scale = quantized(weight)
            return PackedLinear(int8 * scale[:, None], bias)
        return Int8Linear(weight, bias, kernel)

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, packed(child.weight, child.bias))
    if model.lm_head is None:  # tied: the embedding itself stays as it is, since tokens are looked up in it
        model.lm_head = packed(model.transformer.wte.weight)
    return model


def memory_bandwidth(repeats=30):
    """Return the bytes/s that this CPU reads from memory: the best of `repeats` sums over 256 MB."""
    data, seconds = torch.ones(2**26), []
    for _ in range(repeats):
        t0 = time.perf_counter()
        data.sum()
        seconds.append(time.perf_counter() - t0)
    return data.nbytes / min(seconds)

