"""The loss of a language model, computed in chunks to save memory."""

import torch

from nanorap.common import LOGITS_CHUNK, ceil_div


class ChunkedLoss(torch.autograd.Function):
    """The mean cross entropy of the logits x @ weight.T against targets.

    It never holds all logits, which with GPT-2's vocabulary are far larger than anything else. The gradients
    are computed in the forward pass, chunk by chunk, so that nothing is computed twice (the idea of Liger's
    fused kernel, https://arxiv.org/abs/2410.10989).

    x (N, C), weight (V, C), targets (N,) with -1 where there is none. softcap: see GPTConfig.logit_softcap.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, softcap: float | None):
        n_targets = (targets != -1).sum().clamp(min=1)
        device_type = x.device.type
        is_autocast = torch.is_autocast_enabled(device_type)
        dtype = torch.get_autocast_dtype(device_type) if is_autocast else x.dtype
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        w = weight.to(dtype)
        grad_x = torch.empty_like(x)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None

        total, n_chunks = 0.0, ceil_div(x.size(0) * weight.size(0), LOGITS_CHUNK)
        # one buffer for all chunks, and almost everything in place: new memory from the system is slow
        buffer = x.new_empty(ceil_div(x.size(0), n_chunks), weight.size(0), dtype=dtype)
        chunks = zip(*(t.chunk(n_chunks) for t in (x, targets, grad_x)), strict=True)
        for x_chunk, target, grad_x_chunk in chunks:
            x_chunk = x_chunk.to(dtype)
            index = target.clamp(min=0)[:, None]
            is_target = (target != -1)[:, None]
            logits = torch.mm(x_chunk, w.mT, out=buffer[: len(x_chunk)]).float()
            if softcap:
                tanh = torch.tanh(logits / softcap)
                torch.mul(tanh, softcap, out=logits)
            highest = logits.amax(-1, keepdim=True)
            at_target = logits.gather(1, index) - highest
            exp = logits.sub_(highest).exp_()
            z = exp.sum(-1, keepdim=True)
            total = total + ((z.log() - at_target) * is_target).sum()
            if not needs_x and not needs_weight:
                continue
            # d total / d logits: the probabilities exp / z, minus 1 at the target; 0 in rows without a target
            grad = exp.mul_(is_target / z).scatter_add_(1, index, -is_target.float())
            if softcap:
                grad *= 1 - tanh.square()
            grad = grad.to(dtype)
            grad_x_chunk.copy_(grad @ w)
            if needs_weight and dtype == torch.float32:
                grad_weight.addmm_(grad.mT, x_chunk)  # without a temporary of the weight's size
            elif needs_weight:
                grad_weight += grad.mT @ x_chunk
        ctx.save_for_backward(n_targets, grad_x, grad_weight)
        ctx.dtype = weight.dtype
        return total / n_targets

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        n_targets, grad_x, grad_weight = ctx.saved_tensors
        scale = grad / n_targets
        grad_x.mul_(scale)
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(scale).to(ctx.dtype)
        return grad_x, grad_weight, None, None
