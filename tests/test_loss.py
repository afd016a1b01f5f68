"""The chunked loss against torch's cross entropy of whole logits: value, gradients, memory."""

import pytest
import torch
from torch.nn import functional as F

from nanorap.loss import ChunkedLoss


def tensors(N, C=8, V=50):
    torch.manual_seed(0)
    targets = torch.randint(V, (N,))
    targets[::3] = -1
    return torch.randn(N, C, requires_grad=True), torch.randn(V, C, requires_grad=True), targets


def plain(x, weight, targets, softcap):
    logits = F.linear(x, weight).float()
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(logits, targets, ignore_index=-1)


def assert_gradients(ours, theirs, tensors, is_close):
    """Check each gradient of `ours` against that of `theirs` by is_close(a, b)."""
    pairs = zip(torch.autograd.grad(ours, tensors), torch.autograd.grad(theirs, tensors), strict=True)
    assert all(is_close(a, b) for a, b in pairs)


@pytest.mark.parametrize('softcap', [None, 2.0])
@pytest.mark.parametrize('chunk', [1, 500, 10**9], ids=['a row', '10 rows', 'all'])
@pytest.mark.parametrize('frozen', [None, 'x', 'weight'])
def test_equals_cross_entropy(monkeypatch, softcap, chunk, frozen):
    monkeypatch.setattr('nanorap.loss.LOGITS_CHUNK', chunk)
    x, weight, targets = tensors(23)
    trained = dict(x=x, weight=weight)
    if frozen:
        trained.pop(frozen).requires_grad_(False)
    ours, theirs = ChunkedLoss.apply(x, weight, targets, softcap), plain(x, weight, targets, softcap)
    assert torch.allclose(ours, theirs)
    assert_gradients(3 * ours, 3 * theirs, [*trained.values()], lambda a, b: torch.allclose(a, b, atol=1e-6))


def test_in_bfloat16_gradients_add_up_in_float32(monkeypatch):
    monkeypatch.setattr('nanorap.loss.LOGITS_CHUNK', 50 * 7)
    x, weight, targets = tensors(700)
    with torch.autocast('cpu', torch.bfloat16):
        ours = ChunkedLoss.apply(x, weight, targets, None)
    theirs = plain(x, weight, targets, None)
    assert ours.dtype == torch.float32 and torch.allclose(ours, theirs, rtol=1e-2)
    assert_gradients(ours, theirs, (x, weight),
                     lambda a, b: a.dtype == torch.float32 and (a - b).norm() < 0.01 * b.norm())


def test_without_targets_loss_and_gradients_are_zero():
    x, weight, targets = tensors(4)
    loss = ChunkedLoss.apply(x, weight, torch.full_like(targets, -1), None)
    assert loss == 0
    assert not torch.autograd.grad(loss, x)[0].any()
