"""The loss of a language model, in pieces that fit the memory."""

import torch

from nanorap.common import LOGITS_CHUNK, ceil_div


class ChunkedLoss(torch.autograd.Function):
    """The mean cross entropy of x @ weight.T against targets, without ever holding all logits, which with
    GPT-2's vocabulary are far larger than anything else. Gradients are computed on the way forward, chunk by
    chunk, so nothing is computed twice (the idea of Liger's fused kernel, https://arxiv.org/abs/2410.10989).

    x (N, C), weight (V, C), targets (N,), -1 where there is none.
    """

    @staticmethod
    def forward(ctx, x, weight, targets, softcap):
        kind, n = x.device.type, (targets != -1).sum().clamp(min=1)
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        grad_x, w = torch.empty_like(x), weight.to(dtype)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        total, n_chunks = 0.0, ceil_div(x.size(0) * weight.size(0), LOGITS_CHUNK)
        # one buffer for all chunks, and almost all in place: memory that is fresh from the system is slow
        buffer = x.new_empty(ceil_div(x.size(0), n_chunks), weight.size(0), dtype=dtype)
        for chunk, target, grad_chunk in zip(*(t.chunk(n_chunks) for t in (x, targets, grad_x)), strict=True):
            chunk, index, counts = chunk.to(dtype), target.clamp(min=0)[:, None], (target != -1)[:, None]
            logits = torch.mm(chunk, w.mT, out=buffer[: len(chunk)]).float()
            if softcap:
                tanh = torch.tanh(logits / softcap)
                torch.mul(tanh, softcap, out=logits)
            highest = logits.amax(-1, keepdim=True)
            at_target = logits.gather(1, index) - highest
            probs = logits.sub_(highest).exp_()  # times z
            z = probs.sum(-1, keepdim=True)
            total = total + ((z.log() - at_target) * counts).sum()
            if not needs_x and not needs_weight:
                continue
            # d total / d logits: the probabilities, less 1 at the target; 0 where there is none
            grad = probs.mul_(counts / z).scatter_add_(1, index, -counts.float())
            if softcap:
                grad *= 1 - tanh.square()
            grad = grad.to(dtype)
            grad_chunk.copy_(grad @ w)
            if needs_weight and dtype == torch.float32:
                grad_weight.addmm_(grad.mT, chunk)  # without a temporary of the weight's size
            elif needs_weight:
                grad_weight += grad.mT @ chunk
        ctx.save_for_backward(n, grad_x, grad_weight)
        ctx.dtype = weight.dtype
        return total / n

    @staticmethod
    def backward(ctx, grad):
        n, grad_x, grad_weight = ctx.saved_tensors
        scale = grad / n
        return grad_x.mul_(scale), None if grad_weight is None else grad_weight.mul_(scale).to(ctx.dtype), None, None
