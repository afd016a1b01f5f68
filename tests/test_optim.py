"""The learning-rate schedule by hand, AdamW's groups by name, and one update against plain PyTorch."""

import numpy as np
import pytest
import torch

from model import GPT, GPTConfig
from nanorap.dataset import MicroBatch
from nanorap.optim import (
    NS_COEFFICIENTS,
    Muon,
    get_lr,
    make_optimizer,
    matrix_rows,
    n_micro_batches,
    orthogonalize,
)
from nanorap.runtime import Runtime
from nanorap.step import train_step

CONFIG = dict(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=50)


def test_schedule_by_hand():
    def lr(it):
        return get_lr(it, learning_rate=1.0, min_lr=0.1, warmup_iters=4, lr_decay_iters=12)

    assert [lr(it) for it in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert lr(4) == 1.0 and lr(8) == pytest.approx(0.55)
    assert lr(6) == pytest.approx(0.1 + 0.45 * (1 + 2**-0.5))
    assert lr(12) == lr(1000) == 0.1


LLAMA = dict(norm='rmsnorm', mlp='swiglu', pos='rotary', tie_weights=False, bias=False)


@pytest.mark.parametrize('name', ['adamw', 'muon'])
@pytest.mark.parametrize('switches', [{}, LLAMA], ids=str)
def test_every_parameter_is_in_one_group(switches, name):
    model = GPT(GPTConfig(**CONFIG, **switches))
    optimizer = make_optimizer(name, model, 1e-3, (0.9, 0.95), weight_decay=0.1, muon_lr=0.03,
                               embd_lr=0.002)
    groups = optimizer.param_groups
    names = {p: key for key, p in model.named_parameters()}
    matrices, embeddings, vectors = ([names[p] for p in group['params']] for group in groups)
    assert sorted(matrices + embeddings + vectors) == sorted(names.values())
    assert all(key.endswith('weight') and '.h.' in key for key in matrices)
    assert not any('ln_' in key or '_norm' in key for key in matrices)
    assert set(embeddings) <= {'transformer.wte.weight', 'transformer.wpe.weight', 'lm_head.weight'}
    assert all(key.endswith('.bias') or 'ln_' in key or '_norm' in key for key in vectors)
    assert [group['weight_decay'] for group in groups] == [0.1, 0.1, 0.0]
    matrix_lr = 0.03 if name == 'muon' else 1e-3
    assert [group['peak_lr'] for group in groups] == [matrix_lr, 0.002, 1e-3]
    if name == 'muon':  # all rows of each matrix, and query, key and value apart
        for p, rows in zip(groups[0]['params'], groups[0]['rows'], strict=True):
            is_qkv = 'c_attn' in names[p]
            is_gate_and_up = 'c_fc' in names[p] and switches
            assert sum(rows) == p.size(0)
            assert len(rows) == (3 if is_qkv else 2 if is_gate_and_up else 1)


def test_one_update_equals_plain_pytorch():
    """Micro-batches with padding give the gradient of one mean over all their targets."""
    torch.manual_seed(0)
    model, reference = GPT(GPTConfig(**CONFIG)), GPT(GPTConfig(**CONFIG))
    reference.load_state_dict(model.state_dict())
    tokens = np.random.default_rng(0).integers(50, size=(4, 9))
    x, y = tokens[:, :-1], tokens[:, 1:].copy()
    y[3, 2:] = -1
    count = (y != -1).sum()
    weights = [(part != -1).sum() / count for part in (y[:2], y[2:])]
    batches = [MicroBatch(x[:2], y[:2], weights[0], first_row=0, is_last=False),
               MicroBatch(x[2:], y[2:], weights[1], first_row=2, is_last=True)]
    runtime = Runtime(torch.device('cpu'), torch.float32)
    optimizer = make_optimizer('adamw', model, 1e-2, (0.9, 0.95), 0.1)
    loss, grad_norm, is_taken = train_step(
        model, optimizer, runtime.grad_scaler(), batches, runtime, grad_clip=0.5, seed=0)

    decay, rest = [], []
    for p in reference.parameters():
        (decay if p.dim() > 1 else rest).append(p)
    groups = [dict(params=decay, weight_decay=0.1), dict(params=rest, weight_decay=0.0)]
    plain = torch.optim.AdamW(groups, 1e-2, (0.9, 0.95))
    wanted = reference(torch.from_numpy(x), torch.from_numpy(y))
    wanted.backward()
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
    plain.step()
    assert is_taken and loss == pytest.approx(wanted.item(), abs=1e-5)
    assert grad_norm == pytest.approx(norm.item(), rel=1e-4)
    assert norm > 0.5  # it was clipped
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(p, q, atol=2e-5), name
    assert all(p.grad is None for p in model.parameters())


def test_dropout_depends_on_the_rows_alone():
    def losses(rows):
        torch.manual_seed(0)
        model = GPT(GPTConfig(**CONFIG, dropout=0.5))
        runtime = Runtime(torch.device('cpu'), torch.float32)
        optimizer = make_optimizer('adamw', model, 0.0, (0.9, 0.95), 0.0)
        scaler = runtime.grad_scaler()
        x = np.arange(8)[None]
        steps = [[MicroBatch(x, x, 1.0, row, True)] for row in rows]
        return [train_step(model, optimizer, scaler, step, runtime, 1.0, seed=7)[0] for step in steps]

    a = losses([0, 1, 2])
    assert losses([2, 0, 1]) == [a[2], a[0], a[1]] and len(set(a)) == 3


@pytest.mark.parametrize('bad', ['loss', 'gradient'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
def test_a_step_that_is_not_finite_is_not_taken(bad, dtype):
    """Weights and AdamW's state stay unchanged, and the next step is the same as without the bad one."""
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(2, 2))

        def forward(self, x, y):
            loss = (self.w * x.float().mean()).square().mean()
            if x.min() >= 0:
                return loss
            return loss / 0 if bad == 'loss' else loss + (self.w - self.w).pow(0.5).sum()

    def steps(*signs):
        model, runtime = Model(), Runtime(torch.device('cpu'), dtype)
        optimizer, scaler = make_optimizer('adamw', model, 1e-2, (0.9, 0.95), 0.1), runtime.grad_scaler()
        x = np.arange(1, 9)[None]
        batches = ([MicroBatch(x, x, 0.5, row, False), MicroBatch(sign * x, x, 0.5, row + 1, True)]
                   for row, sign in enumerate(signs))
        results = [train_step(model, optimizer, scaler, batch, runtime, 1.0, seed=7) for batch in batches]
        return [result[2] for result in results], model.w, optimizer.state[model.w]

    taken, w, state = steps(1, -1, 1)
    wanted_taken, wanted, wanted_state = steps(1, 1)
    assert taken == [True, False, True] and wanted_taken == [True, True]
    assert torch.equal(w, wanted) and state['step'] == 2
    assert all(torch.equal(state[key], wanted_state[key]) for key in state)


def test_muon_equals_its_definition():
    """The reference updates one matrix at a time in float64; the other parameters equal torch's AdamW."""
    torch.manual_seed(0)
    config = dict(CONFIG, n_kv_head=1, mlp='swiglu', bias=True)
    model, twin = GPT(GPTConfig(**config)), GPT(GPTConfig(**config))
    twin.load_state_dict(model.state_dict())
    opt = make_optimizer('muon', model, 1e-2, (0.9, 0.95), 0.1, muon_lr=0.05)
    names = {p: key for key, p in model.named_parameters()}
    matrices = {names[p] for p in opt.param_groups[0]['params']}
    rest = [p for key, p in twin.named_parameters() if key not in matrices]
    groups = [dict(params=[p for p in rest if p.dim() > 1], weight_decay=0.1),
              dict(params=[p for p in rest if p.dim() < 2], weight_decay=0.0)]
    adamw = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    theirs, momentum = dict(twin.named_parameters()), {}
    for _ in range(3):
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        opt.step()
        adamw.step()
        with torch.no_grad():
            for p in opt.param_groups[0]['params']:
                q = theirs[names[p]]
                g = q.grad.double()
                momentum[names[p]] = m = 0.95 * momentum.get(names[p], 0) + 0.05 * g
                q *= 1 - 0.05 * 0.1
                rows = matrix_rows(model.config, names[p])
                for part, step in zip(q.split(rows), (0.05 * g + 0.95 * m).split(rows), strict=True):
                    u, s, v = torch.linalg.svd(step, full_matrices=False)
                    s = s / s.square().sum().sqrt() / 1.02
                    for a, b, c in NS_COEFFICIENTS:
                        s = a * s + b * s**3 + c * s**5
                    part -= 0.05 * max(1, part.size(0) / part.size(1)) ** 0.5 * (u * s @ v).float()
    for (key, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, atol=2e-5), key


# the products of the last shape are computed in another order
@pytest.mark.parametrize('shape', [(16, 24), (24, 24), (8, 64)])
def test_singular_values_become_one(shape):
    """Those from 1 down to a hundredth, the better the more steps; the singular vectors stay."""
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    x = (u * torch.logspace(-2, 0, min(shape), dtype=torch.float64) @ v).float() * 7
    for n, least, most in ((3, 0.15, 1.88), (5, 0.84, 1.15), (8, 0.99, 1.09)):
        y = orthogonalize(x[None], n)[0].double()
        s = (u.mT @ y @ v.mT).diagonal()
        assert least < s.min() and s.max() < most, (n, s)
        assert (y - u * s @ v).abs().max() < 1e-3, n


def test_muon_agrees_with_torch_optim_muon(monkeypatch):
    """Within 4%, since torch.optim.Muon iterates in bfloat16, and with the same coefficients in each step."""
    monkeypatch.setattr('nanorap.optim.NS_COEFFICIENTS', [(3.4445, -4.7750, 2.0315)])
    torch.manual_seed(0)
    p, q = (torch.nn.Parameter(torch.zeros(24, 16)) for _ in range(2))
    ours = Muon([dict(params=[p], rows=[24], lr=0.1, weight_decay=0.0)], (0.9, 0.95), fused=False)
    theirs = torch.optim.Muon([q], lr=0.1, weight_decay=0.0, adjust_lr_fn='original')
    for _ in range(3):
        p.grad = torch.randn(24, 16)
        q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    assert (p - q).norm() < 0.04 * q.norm()


@pytest.mark.parametrize('schedule', ['trapezoid', 'constant'])
def test_other_schedules(schedule):
    lrs = [get_lr(it, 1.0, 0.1, 4, 20, schedule, cooldown_iters=8) for it in range(25)]
    warmup = [0.2, 0.4, 0.6, 0.8]
    down = [1 - 0.9 * i / 8 for i in range(8)]
    later = [1.0] * 8 + down + [0.1] * 5 if schedule == 'trapezoid' else [1.0] * 21
    assert lrs == pytest.approx(warmup + later)


def test_batch_size_grows_to_its_final_value():
    assert [n_micro_batches(it, 2, 10, 4) for it in range(6)] == [2, 4, 6, 8, 10, 10]
    # shared by four processes
    assert [n_micro_batches(it, 1, 8, 4, multiple=4) for it in range(6)] == [4, 4, 4, 8, 8, 8]
    assert [n_micro_batches(it, 3, 3, 0) for it in range(3)] == [3, 3, 3]
