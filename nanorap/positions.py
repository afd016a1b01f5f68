"""Positions in attention: the frequencies of rotary embeddings, with their scalings, and ALiBi's slopes."""

import math

import torch

ROPE_TYPES = ('llama3', 'linear', 'yarn')


def rope_frequencies(theta: float, n_dims: int, scaling: dict | None, device):
    """Return the radians per position of each pair of dimensions, (n_dims / 2,), and a factor of cos and sin.

    Pair i turns by theta^(-2i / n_dims), the first pairs fast, the last ones slowly. scaling: one of
    ROPE_TYPES with its numbers, under transformers' names, by which a model was taught a longer context.
    Always in float32: bfloat16 can't tell neighbouring positions above 256 apart.
    """
    exponents = torch.arange(0, n_dims, 2, device=device, dtype=torch.float32) / n_dims
    freqs = theta ** -exponents
    if scaling is None:
        return freqs, 1.0
    kind, factor = scaling['rope_type'], scaling['factor']
    if kind == 'linear':  # https://arxiv.org/abs/2306.15595
        return freqs / factor, 1.0

    # fast pairs stay as they are, slow ones are interpolated, and those between are mixed
    context = scaling['original_max_position_embeddings']
    if kind == 'llama3':  # https://arxiv.org/abs/2407.21783, as in transformers' modeling_rope_utils.py
        low, high = scaling['low_freq_factor'], scaling['high_freq_factor']
        share_kept = ((context * freqs / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        attention_factor = 1.0
    else:  # yarn, https://arxiv.org/abs/2309.00071, equations 17 to 23
        def pair_that_turns(n_turns):
            """Return the index of the pair that makes so many turns over the context."""
            return n_dims * math.log(context / (n_turns * 2 * math.pi)) / (2 * math.log(theta))

        low = pair_that_turns(scaling.get('beta_fast') or 32)
        high = pair_that_turns(scaling.get('beta_slow') or 1)
        if scaling.get('truncate', True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, n_dims - 1)
        pairs = torch.arange(n_dims // 2, device=device, dtype=torch.float32)
        share_kept = 1 - ((pairs - low) / max(high - low, 0.001)).clamp(0, 1)
        attention_factor = scaling.get('attention_factor') or 0.1 * math.log(max(factor, 1)) + 1
    return freqs * share_kept + freqs / factor * (1 - share_kept), attention_factor


def alibi_slopes(n_head: int, like: torch.Tensor) -> torch.Tensor:
    """Return one slope per head: 2^(-8/n), 2^(-16/n), …, with the dtype and device of `like`.

    If n is no power of two: the next lower power's, and every other one of the next higher power's, as in the
    paper's code.
    """
    def powers(n):
        return [2 ** (-8 * (i + 1) / n) for i in range(n)]

    n = 2 ** int(math.log2(n_head))
    slopes = powers(n) + powers(2 * n)[::2][: n_head - n]
    return torch.tensor(slopes, device=like.device, dtype=like.dtype)
