"""The learning-rate schedule by hand, AdamW's groups by name, and one update against plain PyTorch."""

import numpy as np
import pytest
import torch

from model import GPT, GPTConfig
from nanorap.dataset import MicroBatch
from nanorap.optim import adamw, get_lr, train_step
from nanorap.runtime import Runtime

CONFIG = dict(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=50)


def test_schedule_by_hand():
    def lr(it):
        return get_lr(it, learning_rate=1.0, min_lr=0.1, warmup_iters=4, lr_decay_iters=12)

    assert [lr(it) for it in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert lr(4) == 1.0 and lr(8) == pytest.approx(0.55) and lr(6) == pytest.approx(0.1 + 0.45 * (1 + 2**-0.5))
    assert lr(12) == lr(1000) == 0.1


LLAMA = dict(norm='rmsnorm', mlp='swiglu', pos='rotary', tie_weights=False, bias=False)


@pytest.mark.parametrize('switches', [{}, LLAMA], ids=str)
def test_every_parameter_is_in_one_group(switches):
    model = GPT(GPTConfig(**CONFIG, **switches))
    decay, no_decay = adamw(model, 1e-3, (0.9, 0.95), weight_decay=0.1).param_groups
    names = {p: name for name, p in model.named_parameters()}
    assert sorted(names[p] for group in (decay, no_decay) for p in group['params']) == sorted(names.values())
    assert (decay['weight_decay'], no_decay['weight_decay']) == (0.1, 0.0)
    for p in no_decay['params']:
        assert names[p].endswith('.bias') or 'ln_' in names[p], names[p]
    for p in decay['params']:
        assert names[p].endswith('weight') and 'ln_' not in names[p], names[p]


def test_one_update_is_plain_pytorchs():
    """Micro-batches with padding give the gradient of one mean over all their targets."""
    torch.manual_seed(0)
    model, reference = GPT(GPTConfig(**CONFIG)), GPT(GPTConfig(**CONFIG))
    reference.load_state_dict(model.state_dict())
    tokens = np.random.default_rng(0).integers(50, size=(4, 9))
    x, y = tokens[:, :-1], tokens[:, 1:].copy()
    y[3, 2:] = -1
    count = (y != -1).sum()
    batches = [MicroBatch(x[i : i + 2], y[i : i + 2], (y[i : i + 2] != -1).sum() / count, i, i == 2) for i in (0, 2)]
    runtime = Runtime(torch.device('cpu'), torch.float32)
    optimizer = adamw(model, 1e-2, (0.9, 0.95), 0.1)
    loss, grad_norm, is_taken = train_step(model, optimizer, runtime.grad_scaler(), batches, runtime, grad_clip=0.5, seed=0)

    decay, rest = [], []
    for p in reference.parameters():
        (decay if p.dim() > 1 else rest).append(p)
    plain = torch.optim.AdamW([dict(params=decay, weight_decay=0.1), dict(params=rest, weight_decay=0.0)], 1e-2, (0.9, 0.95))
    wanted = reference(torch.from_numpy(x), torch.from_numpy(y))
    wanted.backward()
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
    plain.step()
    assert loss == pytest.approx(wanted.item(), abs=1e-5) and grad_norm == pytest.approx(norm.item(), rel=1e-4) and is_taken
    assert norm > 0.5  # it was clipped
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(p, q, atol=2e-5), name
    assert all(p.grad is None for p in model.parameters())


def test_dropout_depends_on_the_rows_alone():
    def losses(rows):
        torch.manual_seed(0)
        model = GPT(GPTConfig(**CONFIG, dropout=0.5))
        runtime, optimizer = Runtime(torch.device('cpu'), torch.float32), adamw(model, 0.0, (0.9, 0.95), 0.0)
        x = np.arange(8)[None]
        steps = [[MicroBatch(x, x, 1.0, row, True)] for row in rows]
        return [train_step(model, optimizer, runtime.grad_scaler(), step, runtime, 1.0, seed=7)[0] for step in steps]

    a = losses([0, 1, 2])
    assert losses([2, 0, 1]) == [a[2], a[0], a[1]] and len(set(a)) == 3


@pytest.mark.parametrize('bad', ['loss', 'gradient'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
def test_a_step_that_is_not_finite_is_not_taken(bad, dtype):
    """Weights and AdamW's state stay as they were, and the next step is taken as if it had not been."""
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(2, 2))

        def forward(self, x, y):
            loss = (self.w * x.float().mean()).square().mean()
            return loss if x.min() >= 0 else loss / 0 if bad == 'loss' else loss + (self.w - self.w).pow(0.5).sum()

    def steps(*signs):
        model, runtime = Model(), Runtime(torch.device('cpu'), dtype)
        optimizer, scaler = adamw(model, 1e-2, (0.9, 0.95), 0.1), runtime.grad_scaler()
        x = np.arange(1, 9)[None]
        batches = ([MicroBatch(x, x, 0.5, row, False), MicroBatch(sign * x, x, 0.5, row + 1, True)]
                   for row, sign in enumerate(signs))
        results = [train_step(model, optimizer, scaler, batch, runtime, 1.0, seed=7) for batch in batches]
        return [result[2] for result in results], model.w, optimizer.state[model.w]

    taken, w, state = steps(1, -1, 1)
    wanted_taken, wanted, wanted_state = steps(1, 1)
    assert taken == [True, False, True] and wanted_taken == [True, True]
    assert torch.equal(w, wanted) and all(torch.equal(state[key], wanted_state[key]) for key in state) and state['step'] == 2
