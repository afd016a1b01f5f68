"""Norms and maxima against plain computations, and what of them a run logs."""

import math

import pytest
import torch
from conftest import TINY, rows, run

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
    assert values['param_norm'] == pytest.approx(math.sqrt(sum(p.square().sum().item() for p in after.values())))
    changes = [(after[name] - p).square().sum().item() for name, p in before.items()]
    assert values['update_norm'] == pytest.approx(math.sqrt(sum(changes)))
    mlp = [name for name in after if '.mlp.' in name]
    n = sum(after[name].numel() for name in mlp)
    assert values['update_ratio_mlp'] == pytest.approx(
        0.5 * math.sqrt(n) / math.sqrt(sum(after[name].square().sum().item() for name in mlp)))
    assert values['update_ratio_mlp'] > 10 * values['update_ratio_attn']
    assert values.keys() == {'param_norm', 'update_norm', *(f'update_ratio_{kind}' for kind in ('embd', 'attn', 'mlp', 'norm'))}


def test_a_large_parameter_is_sampled(monkeypatch):
    model = tiny(n_embd=64, vocab_size=1000)
    norms = UpdateNorms(model, RUNTIME)
    norms.before()
    exact = norms.after()['param_norm']
    monkeypatch.setattr(health, 'SAMPLE', 2**10)
    norms.before()
    assert max(len(values) for values in norms.old.values()) < 2**11
    assert norms.after()['param_norm'] == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize('switches', [{}, dict(pos='alibi'), dict(pos='rotary', n_kv_head=1, qk_norm=True)], ids=str)
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
            largest.append((scores if attn_mask is None else scores + attn_mask[:, i : i + 1, : i + 1]).max().item())
        return real(q, k, v, attn_mask=attn_mask, **options)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr('torch.nn.functional.scaled_dot_product_attention', spy)
        model(idx)
    assert values['max_attn_logit'] == pytest.approx(max(largest), rel=1e-5)
    assert values['max_activation'] == pytest.approx(max(seen)) and model.training


def test_a_run_logs_them_and_draws_its_losses(char_data, tmp_path):
    flags = [*TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--max_iters=6', '--eval_interval=3', '--log_interval=2']
    run('train.py', *flags, '--grad_clip=0.5', '--log_maxima=True', '--batch_size_start=4', '--batch_size_ramp_iters=4')
    log = [row for row in rows(tmp_path) if 'loss' in row]
    assert [row['batch'] for row in log] == [4, 8, 8] and [row['clip_share'] for row in log] == [1, 1, 1]
    assert all(0 < row[key] for row in log for key in ('max_activation', 'max_attn_logit', 'param_norm', 'update_ratio_attn'))
    picture = tmp_path / 'loss.png'
    assert picture.read_bytes().startswith(b'\x89PNG')
    picture.unlink()
    assert str(picture) in run('train.py', '--plot=True', f'--out_dir={tmp_path}').stdout and picture.exists()
    assert 'name the --out_dir of a run' in run('train.py', '--plot=True', f'--out_dir={tmp_path / "none"}', ok=False).message


@pytest.mark.parametrize('flag, words', [('--lr_schedule=linear', 'choose one of cosine'), ('--batch_size_start=9', 'at most')])
def test_no_schedule_is_guessed(char_data, tmp_path, flag, words):
    assert words in run('train.py', *TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', flag, ok=False).message
