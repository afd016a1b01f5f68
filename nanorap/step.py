"""One update of the weights, and the loss on held-out data: what train.py, bench.py and the tests share."""

import math

import torch
from torch.nn.parallel import DistributedDataParallel as DDP


def train_step(model, optimizer, scaler, batches, runtime, grad_clip, seed, lap=lambda part: None):
    """One update of the weights from this process's dataset.MicroBatches.

    Returns (the mean loss of the step's targets over all processes, the gradient norm before clipping, whether the update
    was made): with a loss or a gradient that is not finite, weights and optimizer stay as they were.
    lap is called with the name of each part that ends: 'data', 'forward', 'backward', 'optimizer'.
    """
    total = 0.0
    for batch in batches:
        # dropout depends on the rows alone: the same masks after a resume, and on any number of processes
        torch.manual_seed(seed * 1_000_003 + batch.first_row)
        if isinstance(model, DDP):
            model.require_backward_grad_sync = batch.is_last  # exchange gradients once a step
        x, y = runtime.to_device(batch.x, batch.y)
        lap('data')
        with runtime.autocast():
            loss = model(x, y) * batch.weight
        lap('forward')
        scaler.scale(loss).backward()
        total = total + loss.detach()
        lap('backward')
    scaler.unscale_(optimizer)
    params = [p for group in optimizer.param_groups for p in group['params']]
    grad_norm = torch.nn.utils.clip_grad_norm_(params, grad_clip or math.inf)
    grad_norm = (grad_norm.full_tensor() if hasattr(grad_norm, 'full_tensor') else grad_norm).item()
    loss = runtime.sum(total.item())[0] / runtime.world_size
    is_finite = math.isfinite(loss) and math.isfinite(grad_norm)  # both are the same on every process
    if is_finite:
        scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)  # no need for this memory any more
    lap('optimizer')
    return loss, grad_norm, is_finite


@torch.no_grad()
def mean_loss(model, data, n, batch_size, rt):
    """Mean loss per token over n windows of a dataset.Batches, spread evenly (None: all), in nats. Shared among the
    processes, the same for any number of them; every process must call it."""
    n = min(n or data.n_windows, data.n_windows)
    loss_sum, n_targets = 0.0, 0
    model.eval()
    for first in range(0, n, rt.world_size * batch_size):
        mine = range(n)[first + rt.rank * batch_size :][:batch_size]
        # without windows left, a process goes along with any one, which counts for nothing: FSDP needs all of them
        x, y = data.read([data.window(i * data.n_windows // n) for i in mine or [0]])
        count = int((y != -1).sum()) if mine else 0
        x, y = rt.to_device(x, y)
        with rt.autocast():
            loss_sum += model(x, y).item() * count
        n_targets += count
    model.train()
    loss_sum, n_targets = rt.sum(loss_sum, n_targets)
    return loss_sum / n_targets
