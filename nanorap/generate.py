"""
Sampling from a model over a KV cache: prefill once, decode token by token, all samples in one batch.

It is handed a model and a cache (nanorap.cache.KVCache); the samplers take logits and know nothing of models.
"""

import math

import numpy as np
import torch


def sample_next(logits, u, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    """One token id a row, (B,), from logits (B, V) and uniform random numbers u (B,).

    temperature 0 takes the most likely token. top_k keeps the k most likely ones, top_p the fewest that hold a share p of
    the probability (https://arxiv.org/abs/1904.09751), min_p those at least min_p times as likely as the likeliest
    (https://arxiv.org/abs/2407.01082). Inverse transform sampling, so one number decides a row's token, whatever its batch
    mates are.
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits, ids = logits.float(), None
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # at most 0: the smallest temperature can't overflow
    if top_k is not None:
        logits, ids = logits.topk(min(top_k, logits.size(-1)), sorted=True)
    elif top_p < 1 or min_p > 0:
        logits, ids = logits.sort(descending=True)
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


def penalise(logits, seen, penalty):
    """Logits (B, V) with those of the tokens that are marked in seen (B, V) made `penalty` times less likely, whatever
    their sign (https://arxiv.org/abs/1909.05858)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


@torch.inference_mode()
def generate(model, make_cache, prompt, num_samples, max_new_tokens, vocab_size, eot, seed, hear=None,
             repetition_penalty=1.0, **sampler):
    """Yield the next token id of each sample as a list, step by step; None for a sample that has ended.

    model: a GPT in eval mode. make_cache: (B, max_len) -> an empty cache. prompt: at least one id, and at most block_size;
    or a list of such prompts, which may differ in length: then samples 0 to num_samples - 1 continue the first, and so on.
    vocab_size: ids from there on, where a model's vocabulary is padded, are never drawn. A sample ends with eot, or where
    hear(sample, token, the token's log-probability by the model itself) returns True. sampler: options of sample_next().

    Random numbers depend on the seed and the number of the sample among its prompt's, on nothing else. At block_size the
    cache goes on (see KVCache); a model with learned positions keeps the later half of the context, prefilled again.
    """
    block_size, device = model.config.block_size, next(model.parameters()).device
    prompts = [list(p) for p in (prompt if isinstance(prompt[0], list) else [prompt])]
    max_len = min(block_size, max(map(len, prompts)) + max_new_tokens)
    rngs = [np.random.default_rng((seed, i)) for i in range(num_samples)]
    u = np.stack([rng.random(max_new_tokens, dtype=np.float32) for rng in rngs], axis=1)
    u = torch.from_numpy(np.tile(u, len(prompts))).to(device)  # (max_new_tokens, B)
    texts = [list(p) for p in prompts for _ in range(num_samples)]
    rows = list(range(len(texts)))  # rows[i]: which sample is in row i of the batch
    one, cache = make_cache(1, max_len), make_cache(len(rows), max_len)

    def prefill(row, ids):
        one.pos = [0]
        logits = model(torch.tensor([ids], device=device), cache=one)
        cache.copy_from(one, target=row)
        return logits

    # 1) each prompt goes through once; its keys and values are copied to all of its samples
    logits = torch.cat([prefill(slice(i * num_samples, (i + 1) * num_samples), p).expand(num_samples, -1)
                        for i, p in enumerate(prompts)])
    seen = torch.zeros(len(rows), vocab_size, dtype=torch.bool, device=device)
    for i, text in enumerate(texts if repetition_penalty != 1 else ()):
        seen[i, text] = True
    for step in range(max_new_tokens):
        # 2) draw
        logits = logits[:, :vocab_size]
        allowed = logits if repetition_penalty == 1 else penalise(logits, seen, repetition_penalty)
        drawn = sample_next(allowed, u[step, rows], **sampler)
        ids = drawn.tolist()
        logprobs = torch.log_softmax(logits.float(), -1).gather(1, drawn[:, None])[:, 0].tolist() if hear else ids
        tokens, ended = [None] * len(texts), []
        for i, (sample, token, logprob) in enumerate(zip(rows, ids, logprobs, strict=True)):
            if token == eot:
                ended.append(i)
                continue
            tokens[sample] = token
            texts[sample].append(token)
            if hear and hear(sample, token, logprob):
                ended.append(i)
        yield tokens
        # 3) whoever has ended leaves: the batch's last row takes the place
        if repetition_penalty != 1:
            seen.scatter_(1, drawn[:, None], True)
        for i in reversed(ended):
            last = len(rows) - 1
            if i < last:
                rows[i], ids[i] = rows[last], ids[last]
                cache.copy_from(cache, last, i)
                seen[i] = seen[last]
            rows.pop()
        seen = seen[: len(rows)]
        if not rows or step + 1 == max_new_tokens:
            return
        # 4) feed
        full = [i for i in range(len(rows)) if model.config.pos == 'learned' and cache.pos[i] == block_size]
        if len(full) < len(rows):
            for i in full:
                cache.pos[i] -= 1  # their turn comes below
            logits = model(torch.tensor(ids[: len(rows)], device=device)[:, None], cache=cache)
        else:
            logits = logits[: len(rows)].clone()
        for i in full:
            logits[i] = prefill(i, texts[rows[i]][-max(1, block_size // 2):])[0, : logits.size(1)]
