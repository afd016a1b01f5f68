"""Parameter groups, the optimizers, and the schedules of learning rate and batch size."""

import math

import torch

from nanorap.common import UserError, ceil_div

# Newton-Schulz iterates x -> a x + b x^3 + c x^5 on the singular values. These (a, b, c), one per step, with
# the last ones repeated if there are more steps, take every value in (0, 1] close to 1; the first few already
# do so for most of them. From Polar Express (https://arxiv.org/abs/2505.16932), for five steps, with a margin
# of 2% for rounding.
NS_COEFFICIENTS = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
]


def make_optimizer(
    name: str,
    model: torch.nn.Module,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    muon_lr: float = 0.02,
    muon_momentum: float = 0.95,
    muon_ns_steps: int = 5,
    embd_lr: float | None = None,
) -> torch.optim.Optimizer:
    """Return the optimizer for the parameters of a model that are trained.

    name: 'adamw' (https://arxiv.org/abs/1711.05101), or 'muon', which is AdamW for all but the matrices
    inside the blocks. muon_lr is the learning rate of those matrices, embd_lr that of embeddings and an
    untied head (None: learning_rate). Each group keeps its own as 'peak_lr', so that a schedule scales all of
    them alike.
    """
    if name not in ('adamw', 'muon'):
        raise UserError(f"optimizer={name!r}: choose one of adamw, muon")
    if not 0 <= muon_momentum < 1 or muon_ns_steps < 1:
        raise UserError(f"muon_momentum={muon_momentum} must lie in [0, 1), and "
                        f"muon_ns_steps={muon_ns_steps} be 1 or more")
    lowest = min(learning_rate, weight_decay, muon_lr, embd_lr or 0)
    if lowest < 0 or not all(0 <= beta < 1 for beta in betas):
        raise UserError(f"learning_rate={learning_rate}, muon_lr={muon_lr}, embd_lr={embd_lr} and "
                        f"weight_decay={weight_decay} must be 0 or more, and beta1 and beta2, {betas}, lie "
                        "in [0, 1)")
    kinds = dict(matrices=[], embeddings=[], vectors=[])
    for key, p in model.named_parameters():
        if p.requires_grad:
            kind = 'vectors' if p.dim() < 2 else 'matrices' if '.h.' in key else 'embeddings'
            kinds[kind].append((key, p))
    # matrices and embeddings decay, but no norm's weight and no bias
    groups = [dict(lr=muon_lr if name == 'muon' else learning_rate, weight_decay=weight_decay),
              dict(lr=learning_rate if embd_lr is None else embd_lr, weight_decay=weight_decay),
              dict(lr=learning_rate, weight_decay=0.0)]
    for group, members in zip(groups, kinds.values(), strict=True):
        group |= dict(params=[p for _, p in members], peak_lr=group['lr'])
    # fused: one pass over the weights, with the same result up to rounding
    fused = next(model.parameters()).device.type in ('cuda', 'cpu')
    if name == 'adamw':
        return torch.optim.AdamW(groups, betas=betas, fused=fused)
    groups[0]['rows'] = [matrix_rows(model.config, key) for key, _ in kinds['matrices']]
    return Muon(groups, betas, fused, muon_momentum, muon_ns_steps)


def matrix_rows(config, name):
    """Return the row counts of the matrices stacked in a parameter of a GPT (c_attn: q, k, v)."""
    if name.endswith('c_attn.weight'):
        n_key = config.n_kv_head * config.head_dim
        return [config.n_head * config.head_dim, n_key, n_key]
    if name.endswith('c_fc.weight'):
        return [config.n_hidden] * (2 if config.is_gated else 1)  # gate, up
    return [config.n_embd]


class Muon(torch.optim.Optimizer):
    """Muon (https://kellerjordan.github.io/posts/muon/) for the groups that have 'rows', AdamW for the
    others.

    The update of a matrix is its momentum with all singular values set to about 1. group['rows'] holds, for
    each of its parameters, the row counts of the matrices stacked in it: query, key and value are three
    matrices in one parameter. Matrices of equal shape go through Newton-Schulz together, in bfloat16 on a GPU
    and in float32 elsewhere, since most CPUs have no fast bfloat16. Sharded parameters (FSDP2) are gathered
    for it, and each process does the same work.
    """

    def __init__(self, groups, betas=(0.9, 0.95), fused=None, momentum=0.95, ns_steps=5):
        others = [group for group in groups if 'rows' not in group]
        # it also completes its groups with AdamW's options
        self.adamw = torch.optim.AdamW(others, betas=betas, fused=fused) if others else None
        super().__init__(groups, {})
        self.momentum, self.ns_steps = momentum, ns_steps

    @torch.no_grad()
    def step(self):
        if self.adamw is not None:
            self.adamw.state = self.state
            self.adamw.param_groups = [group for group in self.param_groups if 'rows' not in group]
            self.adamw.step()
        for group in self.param_groups:
            if 'rows' in group:
                self.step_matrices(group)

    def step_matrices(self, group):
        matrices = {}  # {parameter: its stacked matrices, first their gradients, then their updates}
        same_shape = {}  # {(short side, long side): [(parameter, which of its matrices)]}
        for p, rows in zip(group['params'], group['rows'], strict=True):
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state['momentum'] = torch.zeros_like(p)
            state['momentum'].lerp_(p.grad, 1 - self.momentum)
            g = p.grad.lerp(state['momentum'], self.momentum)  # Nesterov's
            g = g.full_tensor() if hasattr(g, 'full_tensor') else g
            matrices[p] = list(g.split(rows))
            for i, m in enumerate(matrices[p]):
                same_shape.setdefault(tuple(sorted(m.shape)), []).append((p, i))

        # tall matrices are transposed, so that all have their short side first
        for members in same_shape.values():
            is_tall = [matrices[p][i].size(0) > matrices[p][i].size(1) for p, i in members]
            wide = [matrices[p][i].mT if tall else matrices[p][i]
                    for (p, i), tall in zip(members, is_tall, strict=True)]
            updates = orthogonalize(torch.stack(wide), self.ns_steps)
            for (p, i), tall, u in zip(members, is_tall, updates, strict=True):
                u = u.mT if tall else u
                # the rows of a tall matrix are not all independent: the same change per output needs a longer
                # step
                matrices[p][i] = u * max(1, u.size(0) / u.size(1)) ** 0.5

        for p, parts in matrices.items():
            u = torch.cat(parts).to(p.dtype)
            if hasattr(p, 'full_tensor'):  # a DTensor; every process has all of u, so there is no exchange
                from torch.distributed.tensor import distribute_tensor

                u = distribute_tensor(u, p.device_mesh, p.placements, src_data_rank=None)
            p.mul_(1 - group['lr'] * group['weight_decay']).add_(u, alpha=-group['lr'])


def orthogonalize(x: torch.Tensor, ns_steps: int) -> torch.Tensor:
    """Return x, N matrices (N, rows, columns) with rows <= columns, with singular values of about 1.

    The method is Newton-Schulz.
    """
    x = x.to(torch.bfloat16 if x.is_cuda else torch.float32)
    x = x / (1.02 * x.norm(dim=(-2, -1), keepdim=True) + 1e-6)
    steps = NS_COEFFICIENTS[:ns_steps] + NS_COEFFICIENTS[-1:] * (ns_steps - len(NS_COEFFICIENTS))
    if x.dtype == torch.float32 and x.size(-1) >= 2 * x.size(-2):
        # The result is a polynomial of xx^T times x: all products but the last are of small, square matrices.
        # float32 allows that; in bfloat16 xx^T would lose the small singular values
        xxt, product = x @ x.mT, None
        for a, b, c in steps:
            p = torch.baddbmm(xxt, xxt, xxt, beta=b, alpha=c)
            p.diagonal(dim1=-2, dim2=-1).add_(a)
            product = p if product is None else p @ product
            xxt = p @ xxt @ p
        return product @ x
    for a, b, c in steps:
        xxt = x @ x.mT
        x = a * x + torch.baddbmm(xxt, xxt, xxt, beta=b, alpha=c) @ x
    return x


def get_lr(
    it: int,
    learning_rate: float,
    min_lr: float,
    warmup_iters: int,
    lr_decay_iters: int,
    schedule: str = 'cosine',
    cooldown_iters: int = 0,
) -> float:
    """Return the learning rate of update `it`, counted from 0. After a linear warmup it follows a schedule:

    'cosine': half a cosine down to min_lr at lr_decay_iters;
    'trapezoid': learning_rate, then over the cooldown_iters before lr_decay_iters a line down to min_lr
        (warmup-stable-decay, https://arxiv.org/abs/2405.18392);
    'constant': learning_rate.
    """
    # 1) linear warmup for warmup_iters steps
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    if schedule == 'constant':
        return learning_rate
    # 2) after lr_decay_iters, the minimum
    if it >= lr_decay_iters:
        return min_lr
    # 3) in between, from the one to the other
    start = warmup_iters if schedule == 'cosine' else max(warmup_iters, lr_decay_iters - cooldown_iters)
    ratio = max(0, it - start) / (lr_decay_iters - start)
    share = 0.5 * (1 + math.cos(math.pi * ratio)) if schedule == 'cosine' else 1 - ratio
    return min_lr + share * (learning_rate - min_lr)


def n_micro_batches(it, start, end, ramp_iters, multiple=1):
    """Return the number of micro-batches of update `it`, which grows from start to end over ramp_iters
    updates.

    It is a multiple of `multiple`, the number of processes, each of which needs its own. At first small
    batches learn more per token (https://arxiv.org/abs/2005.14165, appendix B).
    """
    n = start + (end - start) * min(1, it / ramp_iters) if ramp_iters else end
    return min(end, multiple * ceil_div(round(n), multiple))
