"""
Sampling from a model over a KV cache: prefill once, decode token by token, all samples in one batch.

generate() is handed a model and a function that makes a cache (nanorap.cache.KVCache); sample_next() and
penalise() take logits and know nothing of models. nanorap.text turns prompts into text by it.
"""

import math
from collections.abc import Collection

import numpy as np
import torch


def sample_next(
    logits: torch.Tensor,
    u: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> torch.Tensor:
    """Sample one token id per row, (B,), from logits (B, V) and uniform random numbers u (B,).

    temperature 0 takes the most likely token. top_k keeps the k most likely tokens, top_p the fewest that
    hold a share p of the probability (nucleus sampling, https://arxiv.org/abs/1904.09751), min_p those at
    least min_p times as likely as the likeliest (https://arxiv.org/abs/2407.01082). This is inverse transform
    sampling: one number decides a row's token, whatever the other rows of the batch are.
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits, ids = logits.float(), None
    # at most 0, so that even the smallest temperature can't overflow
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_k is not None:
        logits, ids = logits.topk(min(top_k, logits.size(-1)), sorted=True)
    elif top_p < 1 or min_p > 0:
        logits, ids = logits.sort(descending=True)
    # the first token whose cumulative probability exceeds u * total; top_p and min_p lower the total
    cumulative = torch.softmax(logits, -1).cumsum(-1)
    total = cumulative[:, -1:]
    if top_p < 1:  # up to the first token at which the share is reached
        last = (cumulative < top_p * total).sum(-1, keepdim=True).clamp(max=cumulative.size(1) - 1)
        total = cumulative.gather(1, last)
    if min_p > 0:
        last = (logits >= math.log(min_p)).sum(-1, keepdim=True).clamp(min=1) - 1
        total = total.minimum(cumulative.gather(1, last))
    choice = torch.searchsorted(cumulative, u[:, None].to(total) * total, right=True)
    choice = choice.clamp(max=cumulative.size(1) - 1)
    return (choice if ids is None else ids.gather(1, choice)).squeeze(1)


def penalise(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Make the tokens that are marked in seen (B, V) `penalty` times less likely in logits (B, V), whatever
    the sign of the logit (CTRL, https://arxiv.org/abs/1909.05858)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


@torch.inference_mode()
def generate(
    model: torch.nn.Module,
    make_cache,
    prompts: list[list[int]],
    on_token,
    *,
    num_samples: int,
    max_new_tokens: int,
    vocab_size: int,
    ends: Collection[int],
    seed: int,
    repetition_penalty: float = 1.0,
    **sampler,
) -> list[bool]:
    """Continue each prompt num_samples times; samples 0 to num_samples - 1 continue the first one, and so on.

    on_token(sample, token, logprob) is called for each new token, with its log-probability by the model
    itself (before temperature and penalties); where it returns True the sample ends. A sample also ends with
    one of the tokens `ends`, which on_token does not get, or after max_new_tokens. Returns for each sample
    whether such a token or on_token has ended it.

    model: a GPT in eval mode.
    make_cache: a function (B, max_len) -> empty KVCache.
    prompts: lists of 1 to block_size ids, whose lengths may differ.
    vocab_size: ids from this one on, the padding of a model's vocabulary, are never sampled.
    sampler: options of sample_next().

    A sample's random numbers depend only on the seed and on its number among its prompt's samples. Beyond
    block_size a rotary or ALiBi model continues with a sliding cache (see KVCache); a model with learned
    positions keeps the later half of the context and prefills it again.
    """
    block_size, device = model.config.block_size, next(model.parameters()).device
    has_learned_positions = model.config.pos == 'learned'
    max_len = min(block_size, max(map(len, prompts)) + max_new_tokens)
    rngs = [np.random.default_rng((seed, i)) for i in range(num_samples)]
    u = np.stack([rng.random(max_new_tokens, dtype=np.float32) for rng in rngs], axis=1)
    u = torch.from_numpy(np.tile(u, len(prompts))).to(device)  # (max_new_tokens, n_samples)
    texts = [list(prompt) for prompt in prompts for _ in range(num_samples)]
    has_ended = [False] * len(texts)
    active = list(range(len(texts)))  # active[b]: the sample in row b of the batch
    prefill_cache, cache = make_cache(1, max_len), make_cache(len(active), max_len)

    def prefill(rows: int | slice, ids: list[int]) -> torch.Tensor:
        prefill_cache.pos = [0]
        logits = model(torch.tensor([ids], device=device), cache=prefill_cache)
        cache.copy_from(prefill_cache, target=rows)
        return logits

    # 1) prefill each prompt once, and copy its keys and values to all of its samples
    logits = torch.cat([prefill(slice(i * num_samples, (i + 1) * num_samples), prompt).expand(num_samples, -1)
                        for i, prompt in enumerate(prompts)])
    seen = torch.zeros(len(active), vocab_size, dtype=torch.bool, device=device)
    if repetition_penalty != 1:
        for b, text in enumerate(texts):
            seen[b, text] = True
    for step in range(max_new_tokens):
        # 2) sample the next token of each row
        logits = logits[:, :vocab_size]
        allowed = logits if repetition_penalty == 1 else penalise(logits, seen, repetition_penalty)
        next_ids = sample_next(allowed, u[step, active], **sampler)
        logits = logits.float()
        logprobs = logits.gather(1, next_ids[:, None])[:, 0] - logits.logsumexp(-1)
        if repetition_penalty != 1:
            seen.scatter_(1, next_ids[:, None], True)
        ids = next_ids.tolist()
        ended_rows = []
        for b, (sample, token, logprob) in enumerate(zip(active, ids, logprobs.tolist(), strict=True)):
            if token not in ends:
                texts[sample].append(token)
            if token in ends or on_token(sample, token, logprob):
                has_ended[sample] = True
                ended_rows.append(b)
        # 3) remove the rows that have ended: the last row of the batch takes the place of each
        for b in reversed(ended_rows):
            last = len(active) - 1
            if b < last:
                active[b], ids[b] = active[last], ids[last]
                cache.copy_from(cache, last, b)
                seen[b] = seen[last]
            active.pop()
        seen = seen[: len(active)]
        if not active or step + 1 == max_new_tokens:
            return has_ended
        # 4) feed the new tokens to the model
        full = [b for b in range(len(active)) if has_learned_positions and cache.pos[b] == block_size]
        if len(full) < len(active):
            for b in full:
                cache.pos[b] -= 1  # a placeholder: these rows are prefilled again below
            logits = model(torch.tensor(ids[: len(active)], device=device)[:, None], cache=cache)
        else:
            logits = logits[: len(active)].clone()
        for b in full:
            logits[b] = prefill(b, texts[active[b]][-max(1, block_size // 2):])[0, : logits.size(1)]
