"""Packed and int8 linear layers against torch's own, by themselves and in a model."""

import sys

import pytest
import torch
from conftest import randomise
from torch.nn import functional as F

from model import GPT, GPTConfig
from nanorap.cache import KVCache
from nanorap.common import UserError
from nanorap.quantize import Int8Linear, int8_kernel, pack, quantized

TINY = dict(n_layer=2, n_head=2, n_embd=48, block_size=32, vocab_size=101)
COMPILERS = dict(native='cc', avx2='cc -mno-avx512f', plain='cc -mno-avx512f -mno-avx2')


@pytest.fixture(scope='module', params=COMPILERS.values(), ids=COMPILERS)
def kernel(request):
    """int8_linear() compiled for this machine, and as for machines with fewer instructions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('CC', request.param)
        kernel_or_reason = int8_kernel()
    if isinstance(kernel_or_reason, str):
        pytest.skip(kernel_or_reason)
    return kernel_or_reason


@pytest.mark.parametrize('N, K', [(1, 1), (3, 8), (4, 16), (7, 13), (5, 25), (101, 48), (64, 3072)])
def test_int8_kernel_by_plain_arithmetic(kernel, N, K):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(N, K), torch.randn(N), torch.randn(11, K)
    int8, scale = quantized(weight)
    assert (int8 * scale[:, None] - weight).abs().max() <= scale.max() / 2 * 1.001
    assert int8.abs().max() == 127
    layer = Int8Linear(weight, bias, kernel)
    wanted = F.linear(x.double(), int8.double() * scale.double()[:, None], bias.double())
    assert torch.allclose(layer(x).double(), wanted, atol=1e-4 * K**0.5)
    for B in range(1, 11):  # a row's result is the same to the bit, whatever the batch
        assert torch.equal(layer(x[:B]), layer(x)[:B])
        assert torch.equal(layer(x[B : B + 1]), layer(x)[B : B + 1])
    assert layer(x[None, :5]).shape == (1, 5, N)
    layer.bias.zero_()
    assert torch.equal(Int8Linear(weight, None, kernel)(x), layer(x))


@torch.inference_mode()
@pytest.mark.parametrize('switches', [
    {}, dict(pos='rotary', mlp='swiglu', norm='rmsnorm', bias=False, tie_weights=False),
], ids=str)
@pytest.mark.parametrize('how, tolerance', [(None, 1e-4), ('int8', 0.1)])
def test_a_packed_model_has_the_same_logits(switches, how, tolerance):
    model = randomise(GPT(GPTConfig(**TINY | switches)))
    idx = torch.randint(101, (3, 32), generator=torch.manual_seed(0))
    wanted = model(idx)
    packed = pack(model, how)
    assert not any(isinstance(module, torch.nn.Linear) for module in packed.modules())
    logits = packed(idx)
    assert (logits - wanted).norm() < tolerance * wanted.norm()
    assert how is None or not torch.equal(logits, wanted)
    cache = KVCache(model.config, 3, 32)
    for done, T in ((7, 7), (8, 1), (32, 24)):
        assert torch.allclose(packed(idx[:, done - T : done], cache=cache), logits[:, done - 1], atol=2e-3)


@torch.inference_mode()
@pytest.mark.parametrize('pos', ['learned', 'rotary', 'alibi'])
def test_bfloat16_over_a_cache(pos):
    """On a CPU the cache is in float32, and so is attention."""
    model, idx = randomise(GPT(GPTConfig(**TINY, pos=pos))).bfloat16(), torch.randint(101, (2, 32))
    wanted, packed = model(idx).float(), pack(model)
    cache = KVCache(model.config, 2, 32, dtype=torch.bfloat16)
    assert cache.k.dtype == torch.float32
    cache.pos = [0, 0]
    for done, T in ((7, 7), (8, 1), (9, 1), (32, 23)):
        logits = packed(idx[:, done - T : done], cache=cache)
        assert logits.dtype == torch.bfloat16
        assert (logits.float() - wanted[:, done - 1]).norm() < 0.05 * wanted[:, done - 1].norm()


@pytest.mark.slow
@torch.inference_mode()
def test_without_a_compiler_the_same_numbers_and_a_warning(monkeypatch, capsys):
    if isinstance(int8_kernel(), str):
        pytest.skip('no compiler')
    idx = torch.randint(101, (2, 20), generator=torch.manual_seed(0))
    wanted = pack(randomise(GPT(GPTConfig(**TINY))), 'int8')(idx)
    for compiler, words in (('no-such-compiler', 'no C compiler'), (sys.executable, 'warning')):
        monkeypatch.setenv('CC', compiler)
        assert torch.allclose(pack(randomise(GPT(GPTConfig(**TINY))), 'int8')(idx), wanted, atol=1e-3)
        warning = capsys.readouterr().err
        assert warning.count('\n') == 1
        assert 'no faster' in warning and words in warning


def test_unknown_formats_and_half_precision_are_refused():
    with pytest.raises(UserError, match='choose int8'):
        pack(GPT(GPTConfig(**TINY)), 'int3')
    with pytest.raises(UserError, match='float32'):
        pack(GPT(GPTConfig(**TINY)).bfloat16(), 'int8')
