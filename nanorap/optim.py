"""Parameter groups, the optimizer, the learning-rate schedule, and one update of the weights."""

import math

import torch
from torch.nn.parallel import DistributedDataParallel as DDP

from nanorap import UserError


def adamw(model, learning_rate, betas, weight_decay):
    """AdamW (https://arxiv.org/abs/1711.05101) that decays matrices and embeddings, but no norm's weight and no bias."""
    if learning_rate < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
        raise UserError(f"learning_rate={learning_rate} and weight_decay={weight_decay} must be 0 or more, and beta1 and "
                        f"beta2, {betas}, lie in [0, 1)")
    params = [p for p in model.parameters() if p.requires_grad]
    decay, no_decay = [p for p in params if p.dim() >= 2], [p for p in params if p.dim() < 2]
    groups = [dict(params=decay, weight_decay=weight_decay), dict(params=no_decay, weight_decay=0.0)]
    fused = params[0].device.type in ('cuda', 'cpu')  # one pass over the weights; the result is the same to rounding
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=fused)


def get_lr(it, learning_rate, min_lr, warmup_iters, lr_decay_iters):
    """Learning rate of update `it`, counted from 0: cosine with linear warmup."""
    # 1) linear warmup for warmup_iters steps
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    # 2) after lr_decay_iters, the minimum
    if it >= lr_decay_iters:
        return min_lr
    # 3) in between, half a cosine from the one to the other
    ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    return min_lr + 0.5 * (1 + math.cos(math.pi * ratio)) * (learning_rate - min_lr)


def train_step(model, optimizer, scaler, batches, runtime, grad_clip, seed):
    """One update of the weights from this process's dataset.MicroBatches.

    Returns (the mean loss of the step's targets over all processes, the gradient norm before clipping, whether the update
    was made): with a loss or a gradient that is not finite, weights and optimizer stay as they were.
    """
    total = 0.0
    for batch in batches:
        # dropout depends on the rows alone: the same masks after a resume, and on any number of processes
        torch.manual_seed(seed * 1_000_003 + batch.row)
        if isinstance(model, DDP):
            model.require_backward_grad_sync = batch.is_last  # exchange gradients once a step
        x, y = runtime.to_device(batch.x, batch.y)
        with runtime.autocast():
            loss = model(x, y) * batch.weight
        scaler.scale(loss).backward()
        total = total + loss.detach()
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
    return loss, grad_norm, is_finite
