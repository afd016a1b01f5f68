"""Norms and maxima against plain computations."""

import math

import pytest
import torch

from model import GPT, GPTConfig
from nanorap import health
from nanorap.health import UpdateNorms, maxima
from nanorap.runtime import Runtime

RUNTIME = Runtime(torch.device('cpu'), torch.float32)


def tiny(**switches):
    torch.manual_seed(0)
    return GPT(GPTConfig(**dict(n_layer=2, n_head=2, n_embd=16, block_size=12, vocab_size=50) | switches))


def test_norms_by_hand():
    model = tiny()
    norms = UpdateNorms(model, RUNTIME)
    norms.before()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += 0.5 if '.mlp.' in name else 0.001 * torch.randn_like(p)
    values = norms.after()
    after = dict(model.named_parameters())
    squares = [p.square().sum().item() for p in after.values()]
    assert values['param_norm'] == pytest.approx(math.sqrt(sum(squares)))
    changes = [(after[name] - p).square().sum().item() for name, p in before.items()]
    assert values['update_norm'] == pytest.approx(math.sqrt(sum(changes)))
    mlp = [name for name in after if '.mlp.' in name]
    n = sum(after[name].numel() for name in mlp)
    assert values['update_ratio_mlp'] == pytest.approx(
        0.5 * math.sqrt(n) / math.sqrt(sum(after[name].square().sum().item() for name in mlp)))
    assert values['update_ratio_mlp'] > 10 * values['update_ratio_attn']
    ratios = {f'update_ratio_{kind}' for kind in ('embd', 'attn', 'mlp', 'norm')}
    assert values.keys() == {'param_norm', 'update_norm'} | ratios


def test_a_large_parameter_is_sampled(monkeypatch):
    model = tiny(n_embd=64, vocab_size=1000)
    norms = UpdateNorms(model, RUNTIME)
    norms.before()
    exact = norms.after()['param_norm']
    monkeypatch.setattr(health, 'SAMPLE_SIZE', 2**10)
    norms.before()
    assert max(len(values) for values in norms.old.values()) < 2**11
    assert norms.after()['param_norm'] == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize('switches', [
    {}, dict(pos='alibi'), dict(pos='rotary', n_kv_head=1, qk_norm=True),
], ids=str)
def test_maxima_by_hand(switches):
    """One query at a time, with the keys up to it."""
    model = tiny(**switches)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(10)
    idx = torch.randint(50, (2, 12), generator=torch.manual_seed(1))
    values = maxima(model, model.transformer.h, idx)
    largest, seen = [], []
    for block in model.transformer.h:
        block.register_forward_hook(lambda _, __, x: seen.append(x.abs().max().item()))
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(q, k, v, attn_mask=None, **options):
        k = k.repeat_interleave(q.size(1) // k.size(1), dim=1)
        for i in range(q.size(2)):
            scores = (q[:, :, i : i + 1] @ k[:, :, : i + 1].mT) / math.sqrt(q.size(-1))
            if attn_mask is not None:
                scores = scores + attn_mask[:, i : i + 1, : i + 1]
            largest.append(scores.max().item())
        return real(q, k, v, attn_mask=attn_mask, **options)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr('torch.nn.functional.scaled_dot_product_attention', spy)
        model(idx)
    assert values['max_attn_logit'] == pytest.approx(max(largest), rel=1e-5)
    assert values['max_activation'] == pytest.approx(max(seen)) and model.training
