"""Parameter groups, the optimizers, and the schedules of learning rate and batch size."""

import math

import torch

from nanorap.common import UserError, ceil_div

# Newton-Schulz: x -> a x + b x^3 + c x^5 with these a, b, c in turn, the last ones again if there are more steps, takes
# every singular value in (0, 1] near to 1, and the first few already most of them (Polar Express, for five steps, with
# 2% to spare for rounding: https://arxiv.org/abs/2505.16932)
NS_COEFFICIENTS = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
]


def make_optimizer(name, model, learning_rate, betas, weight_decay, muon_lr=0.02, muon_momentum=0.95, muon_ns_steps=5,
                   embd_lr=None):
    """'adamw' (https://arxiv.org/abs/1711.05101), or 'muon', which is AdamW for all but the matrices inside the blocks.

    muon_lr: of those matrices; embd_lr: of embeddings and an untied head, None: learning_rate. Each group keeps its own as
    'peak_lr', so that a schedule scales all of them alike.
    """
    if name not in ('adamw', 'muon'):
        raise UserError(f"optimizer={name!r}: choose one of adamw, muon")
    if not 0 <= muon_momentum < 1 or muon_ns_steps < 1:
        raise UserError(f"muon_momentum={muon_momentum} must lie in [0, 1), and muon_ns_steps={muon_ns_steps} be 1 or more")
    if min(learning_rate, weight_decay, muon_lr, embd_lr or 0) < 0 or not all(0 <= beta < 1 for beta in betas):
        raise UserError(f"learning_rate={learning_rate}, muon_lr={muon_lr}, embd_lr={embd_lr} and weight_decay={weight_decay} "
                        f"must be 0 or more, and beta1 and beta2, {betas}, lie in [0, 1)")
    kinds = dict(matrices=[], embeddings=[], vectors=[])
    for key, p in model.named_parameters():
        if p.requires_grad:
            kinds['vectors' if p.dim() < 2 else 'matrices' if '.h.' in key else 'embeddings'].append((key, p))
    # matrices and embeddings decay, but no norm's weight and no bias
    groups = [dict(lr=muon_lr if name == 'muon' else learning_rate, weight_decay=weight_decay),
              dict(lr=learning_rate if embd_lr is None else embd_lr, weight_decay=weight_decay),
              dict(lr=learning_rate, weight_decay=0.0)]
    for group, members in zip(groups, kinds.values(), strict=True):
        group |= dict(params=[p for _, p in members], peak_lr=group['lr'])
    fused = next(model.parameters()).device.type in ('cuda', 'cpu')  # one pass over the weights, the same result to rounding
    if name == 'adamw':
        return torch.optim.AdamW(groups, betas=betas, fused=fused)
    groups[0]['rows'] = [model.matrix_rows(key) for key, _ in kinds['matrices']]
    return Muon(groups, betas, fused, muon_momentum, muon_ns_steps)


class Muon(torch.optim.Optimizer):
    """Muon (https://kellerjordan.github.io/posts/muon/) for the groups that have 'rows', AdamW for the others.

    A matrix moves by its momentum with all singular values made about 1. Group['rows'] says for each of its parameters how
    many rows each of the matrices in it has: query, key and value lie in one parameter, and are three. Matrices of equal
    shape go through Newton-Schulz together, in bfloat16 on a GPU, else in float32: most CPUs have no fast bfloat16.
    Sharded parameters (FSDP2) are put together for it, and each process does the same work.
    """

    def __init__(self, groups, betas=(0.9, 0.95), fused=None, momentum=0.95, ns_steps=5):
        others = [group for group in groups if 'rows' not in group]
        self.adamw = torch.optim.AdamW(others, betas=betas, fused=fused) if others else None  # completes its groups
        super().__init__(groups, {})
        self.momentum, self.ns_steps = momentum, ns_steps

    @torch.no_grad()
    def step(self):
        if self.adamw is not None:
            self.adamw.state, self.adamw.param_groups = self.state, [g for g in self.param_groups if 'rows' not in g]
            self.adamw.step()
        for group in self.param_groups:
            if 'rows' in group:
                self.step_matrices(group)

    def step_matrices(self, group):
        updates = {}  # {shape: [(parameter, which of its matrices)]}, wide ones
        matrices = {}
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
                updates.setdefault(tuple(sorted(m.shape)), []).append((p, i))
        for same in updates.values():
            wide = [m if m.size(0) <= m.size(1) else m.mT for m in (matrices[p][i] for p, i in same)]
            for (p, i), u in zip(same, orthogonalize(torch.stack(wide), self.ns_steps), strict=True):
                u = u if matrices[p][i].size(0) <= matrices[p][i].size(1) else u.mT
                # a tall matrix' rows are not all independent: the same change per output needs a longer step
                matrices[p][i] = u * max(1, u.size(0) / u.size(1)) ** 0.5
        for p, parts in matrices.items():
            u = torch.cat(parts).to(p.dtype)
            if hasattr(p, 'full_tensor'):  # a DTensor: every process has all of u, no exchange
                from torch.distributed.tensor import distribute_tensor

                u = distribute_tensor(u, p.device_mesh, p.placements, src_data_rank=None)
            p.mul_(1 - group['lr'] * group['weight_decay']).add_(u, alpha=-group['lr'])


def orthogonalize(x, ns_steps):
    """(N, rows, columns), rows <= columns: each matrix with its singular values moved to about 1, by Newton-Schulz."""
    x = x.to(torch.bfloat16 if x.is_cuda else torch.float32)
    x = x / (1.02 * x.norm(dim=(-2, -1), keepdim=True) + 1e-6)
    steps = NS_COEFFICIENTS[:ns_steps] + NS_COEFFICIENTS[-1:] * (ns_steps - len(NS_COEFFICIENTS))
    if x.dtype == torch.float32 and x.size(-1) >= 2 * x.size(-2):
        # x is to be multiplied by a polynomial of xx^T: all of the iteration but the last product is among small, square
        # matrices, which float32 allows (in bfloat16 xx^T would lose what is small)
        xxt, product = x @ x.mT, None
        for a, b, c in steps:
            p = torch.baddbmm(xxt, xxt, xxt, beta=b, alpha=c)
            p.diagonal(dim1=-2, dim2=-1).add_(a)
            product, xxt = p if product is None else p @ product, p @ xxt @ p
        return product @ x
    for a, b, c in steps:
        xxt = x @ x.mT
        x = a * x + torch.baddbmm(xxt, xxt, xxt, beta=b, alpha=c) @ x
    return x


def get_lr(it, learning_rate, min_lr, warmup_iters, lr_decay_iters, schedule='cosine', cooldown_iters=0):
    """Learning rate of update `it`, counted from 0: linear warmup, then

    'cosine': half a cosine down to min_lr at lr_decay_iters;
    'trapezoid': learning_rate, and over the cooldown_iters before lr_decay_iters a line down to min_lr
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
    """Micro-batches of update `it`: from start to end along a line of ramp_iters updates, in multiples of `multiple` (the
    number of processes, each of which needs its own). Small batches learn more from a token at first
    (https://arxiv.org/abs/2005.14165, appendix B)."""
    n = start + (end - start) * min(1, it / ramp_iters) if ramp_iters else end
    return min(end, multiple * ceil_div(round(n), multiple))
