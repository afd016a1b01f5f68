"""One update of the weights, and the loss on held-out data, which train.py, bench.py and the tests share."""

import math
from collections.abc import Callable, Iterable

import torch
from torch.nn.parallel import DistributedDataParallel as DDP

from nanorap.dataset import Batches, MicroBatch
from nanorap.runtime import Runtime


def train_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: Iterable[MicroBatch],
    runtime: Runtime,
    grad_clip: float,
    seed: int,
    lap: Callable[[str], None] = lambda part: None,
) -> tuple[float, float, bool]:
    """Update the weights once, from this process's micro-batches of the step.

    Returns the mean loss of the step's targets over all processes, the gradient norm before clipping, and
    whether the update was made. With a loss or gradient that is not finite it is not made: weights and
    optimizer stay unchanged. lap is called with the name of each part that ends: 'data', 'forward',
    'backward', 'optimizer'.
    """
    total = 0.0
    for batch in batches:
        # dropout depends on the rows alone: the same masks after a resume, and on any number of processes
        torch.manual_seed(seed * 1_000_003 + batch.first_row)
        if isinstance(model, DDP):
            model.require_backward_grad_sync = batch.is_last  # exchange gradients once per step
        x, y = runtime.to_device(batch.x, batch.y)
        lap('data')
        with runtime.autocast():
            loss = model(x, y) * batch.weight  # so that gradients add up to those of the step's mean loss
        lap('forward')
        scaler.scale(loss).backward()
        total = total + loss.detach()
        lap('backward')
    scaler.unscale_(optimizer)
    params = [p for group in optimizer.param_groups for p in group['params']]
    grad_norm = torch.nn.utils.clip_grad_norm_(params, grad_clip or math.inf)
    if hasattr(grad_norm, 'full_tensor'):  # a DTensor
        grad_norm = grad_norm.full_tensor()
    grad_norm = grad_norm.item()
    loss = runtime.sum(total.item())[0] / runtime.world_size
    is_finite = math.isfinite(loss) and math.isfinite(grad_norm)  # both are the same on every process
    if is_finite:
        scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)  # free the gradients' memory
    lap('optimizer')
    return loss, grad_norm, is_finite


@torch.no_grad()
def mean_loss(model: torch.nn.Module, data: Batches, n: int | None, batch_size: int, rt: Runtime) -> float:
    """Return the mean loss per token, in nats, over n evenly spread windows of a split (None: all of them).

    The processes share the work, and every one must call it; the result is the same for any number of them.
    """
    n = min(n or data.n_windows, data.n_windows)
    loss_sum, n_targets = 0.0, 0
    model.eval()
    for first in range(0, n, rt.world_size * batch_size):
        mine = range(n)[first + rt.rank * batch_size :][:batch_size]
        # a process that has no windows left computes one that doesn't count: FSDP needs every process
        x, y = data.read([data.window(i * data.n_windows // n) for i in mine or [0]])
        count = int((y != -1).sum()) if mine else 0
        x, y = rt.to_device(x, y)
        with rt.autocast():
            loss_sum += model(x, y).item() * count
        n_targets += count
    model.train()
    loss_sum, n_targets = rt.sum(loss_sum, n_targets)
    return loss_sum / n_targets
