"""The health of a run: norms of weights and of their updates, the largest activations and attention
logits."""

import math

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# per-parameter sample size; larger ones are strided, giving norms to about 0.3%
SAMPLE_SIZE = 2**16


class UpdateNorms:
    """Norms of the weights and of one update, over the whole model and as a ratio by kind of layer.

    AdamW's updates have a ratio around 1e-3 in a healthy run of GPT-2's size; a kind of layer with a ratio
    far above the others' is learning too fast. Sharded parameters (FSDP2) count with all their shards: then
    every process must call both methods.
    """

    def __init__(self, model, runtime):
        self.runtime = runtime
        self.params = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def before(self):
        """Remember a sample of the weights before the update."""
        self.old = {name: strided_sample(p).clone() for name, p in self.params.items()}

    def after(self):
        """Return {'param_norm', 'update_norm', 'update_ratio_embd', 'update_ratio_attn', …} after the
        update."""
        squares = {}  # {kind of layer: [sum of squares of its weights, of their update]}
        for name, p in self.params.items():
            new, old = strided_sample(p), self.old[name]
            scale = local_part(p).numel() / max(1, new.numel())
            sums = squares.setdefault(kind_of_layer(name), [0.0, 0.0])
            sums[0] += scale * new.double().square().sum().item()
            sums[1] += scale * (new - old).double().square().sum().item()
        if any(hasattr(p, 'to_local') for p in self.params.values()):
            squares = {kind: self.runtime.sum(*sums) for kind, sums in squares.items()}
        param_norm, update_norm = (math.sqrt(sum(column)) for column in zip(*squares.values(), strict=True))
        ratios = {f'update_ratio_{kind}': math.sqrt(update / weight)
                  for kind, (weight, update) in squares.items() if weight}
        return dict(param_norm=param_norm, update_norm=update_norm) | ratios


def kind_of_layer(name):
    """Return the kind of layer that a parameter of this name belongs to: 'attn', 'mlp', 'norm' or 'embd'."""
    return 'attn' if '.attn.' in name else 'mlp' if '.mlp.' in name else 'norm' if '.ln_' in name else 'embd'


def local_part(p):
    """Return this process's shard of a DTensor, and a plain parameter as it is."""
    return p.to_local() if hasattr(p, 'to_local') else p


def strided_sample(p: torch.Tensor) -> torch.Tensor:
    """Return a view of about SAMPLE_SIZE of a parameter's values, evenly spread; all of a small one's."""
    flat = local_part(p).detach().flatten()
    # an odd stride, since a row's length is even: else only some of the columns would be sampled
    return flat[:: flat.numel() // SAMPLE_SIZE | 1]


@torch.no_grad()
def maxima(model: torch.nn.Module, blocks, idx: torch.Tensor) -> dict[str, float]:
    """Return the largest |activation| at the end of any block, and the largest attention logit.

    They are those of a forward pass over idx (B, T). Both grow long before a loss does
    (https://arxiv.org/abs/2309.14322).
    """
    activations, logits = [], []

    class RecordAttention(TorchFunctionMode):
        """Record the largest logit of every scaled_dot_product_attention, whose fused kernels hide them."""

        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is F.scaled_dot_product_attention:
                (q, k, _), mask = args, kwargs.get('attn_mask')
                k = k.repeat_interleave(q.size(1) // k.size(1), dim=1)
                scores = q.float() @ k.float().mT / math.sqrt(q.size(-1))
                scores = scores if mask is None else scores + mask
                causal = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
                logits.append(scores.masked_fill(~causal, -math.inf).max().item())
            return func(*args, **kwargs or {})

    def record_activation(module, args, x):
        activations.append(x.abs().max().item())

    hooks = [block.register_forward_hook(record_activation) for block in blocks]
    was_training = model.training
    model.eval()
    try:
        with RecordAttention():
            model(idx)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return dict(max_activation=max(activations), max_attn_logit=max(logits))
