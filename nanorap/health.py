"""How a run is doing inside: norms of weights and of their updates, the largest activations and attention logits."""

import math

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

SAMPLE = 2**16  # values of a parameter that are looked at, evenly spread: all of a small one's, a norm to about 0.3% else


class UpdateNorms:
    """Norms of the weights and of one update, over the whole model and as a ratio by kind of layer.

    Around 1e-3 is what AdamW's updates are in a healthy run of GPT-2's size; a kind of layer with a ratio far above the
    others' is learning too fast. Sharded parameters (FSDP2) count with all their shards; then every process must call both.
    """

    def __init__(self, model, runtime):
        self.runtime, self.params = runtime, {name: p for name, p in model.named_parameters() if p.requires_grad}

    def before(self):
        """Before the update: remember the weights, or a part of them."""
        self.old = {name: sample(p).clone() for name, p in self.params.items()}

    def after(self):
        """After it: {'param_norm', 'update_norm', 'update_ratio_embd', 'update_ratio_attn', …}."""
        squares = {}  # of each kind of layer: [of the weights, of the update]
        for name, p in self.params.items():
            new, old = sample(p), self.old[name]
            local = p.to_local() if hasattr(p, 'to_local') else p
            scale = local.numel() / max(1, new.numel())
            total = squares.setdefault(kind(name), [0.0, 0.0])
            total[0] += scale * new.double().square().sum().item()
            total[1] += scale * (new - old).double().square().sum().item()
        if any(hasattr(p, 'to_local') for p in self.params.values()):
            squares = {key: self.runtime.sum(*total) for key, total in squares.items()}
        norms = [math.sqrt(sum(column)) for column in zip(*squares.values(), strict=True)]
        ratios = {f'update_ratio_{key}': math.sqrt(update / weight) for key, (weight, update) in squares.items() if weight}
        return dict(param_norm=norms[0], update_norm=norms[1]) | ratios


def kind(name):
    """The kind of layer that a parameter of this name belongs to."""
    return 'attn' if '.attn.' in name else 'mlp' if '.mlp.' in name else 'norm' if '.ln_' in name else 'embd'


def sample(p):
    flat = (p.to_local() if hasattr(p, 'to_local') else p).detach().flatten()
    # an odd stride, since a row's length is even: else only some of the columns would be seen
    return flat[:: flat.numel() // SAMPLE | 1]


@torch.no_grad()
def maxima(model, blocks, idx):
    """The largest |activation| behind any of the blocks, and the largest attention logit, of a forward pass over idx (B, T).

    Both grow long before a loss does (https://arxiv.org/abs/2309.14322).
    """
    activations, logits = [], []

    class Attention(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is F.scaled_dot_product_attention:
                (q, k, _), mask = args, kwargs.get('attn_mask')
                k = k.repeat_interleave(q.size(1) // k.size(1), dim=1)
                scores = q.float() @ k.float().mT / math.sqrt(q.size(-1))
                causal = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
                logits.append((scores if mask is None else scores + mask).masked_fill(~causal, -math.inf).max().item())
            return func(*args, **kwargs or {})

    hooks = [block.register_forward_hook(lambda _, __, x: activations.append(x.abs().max().item())) for block in blocks]
    was_training = model.training
    model.eval()
    try:
        with Attention():
            model(idx)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return dict(max_activation=max(activations), max_attn_logit=max(logits))
