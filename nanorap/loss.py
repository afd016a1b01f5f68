"""The loss of a language model, in pieces that fit the memory."""

import torch
from torch.nn import functional as F

CHUNK = 2**25  # logits that exist at a time in training, 128 MB in float32: smaller chunks are slower matmuls


class ChunkedLoss(torch.autograd.Function):
    """The mean cross entropy of x @ weight.T against targets, without ever holding all logits, which with GPT-2's
    vocabulary are far larger than anything else. Gradients are computed on the way forward, chunk by chunk, so nothing is
    computed twice (the idea of Liger's fused kernel, https://arxiv.org/abs/2410.10989).

    x (N, C), weight (V, C), targets (N,), -1 where there is none.
    """

    @staticmethod
    def forward(ctx, x, weight, targets, softcap):
        kind, n = x.device.type, (targets != -1).sum().clamp(min=1)
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        grad_x, w = torch.empty_like(x), weight.to(dtype)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        total, n_chunks = 0.0, -(-x.size(0) * weight.size(0) // CHUNK)
        for chunk, target, grad_chunk in zip(*(t.chunk(n_chunks) for t in (x, targets, grad_x)), strict=True):
            chunk = chunk.to(dtype)
            logits = F.linear(chunk, w).float()
            if softcap:
                tanh = torch.tanh(logits / softcap)
                logits = tanh * softcap
            log_probs = F.log_softmax(logits, dim=-1)
            del logits  # by far the largest there is: two of its size at most, at any time
            total = total + F.nll_loss(log_probs, target, ignore_index=-1, reduction='sum')
            if not needs_x and not needs_weight:
                continue
            # d total / d logits: the probabilities, less 1 at the target
            grad = log_probs.exp_()
            grad.scatter_add_(1, target.clamp(min=0)[:, None], -torch.ones_like(grad[:, :1]))
            if softcap:
                grad *= 1 - tanh.square()
            grad = grad.masked_fill_((target == -1)[:, None], 0).to(dtype)
            grad_chunk.copy_(grad @ w)
            if needs_weight and dtype == torch.float32:
                grad_weight.addmm_(grad.mT, chunk)  # without a temporary of the weight's size
            elif needs_weight:
                grad_weight += grad.mT @ chunk
            del log_probs, grad
        ctx.save_for_backward(n, grad_x, grad_weight)
        ctx.dtype = weight.dtype
        return total / n

    @staticmethod
    def backward(ctx, grad):
        n, grad_x, grad_weight = ctx.saved_tensors
        scale = grad / n
        return grad_x.mul_(scale), None if grad_weight is None else grad_weight.mul_(scale).to(ctx.dtype), None, None
