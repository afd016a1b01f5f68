"""
Sampling from a model over a KV cache: prefill once, decode token by token, all samples in one batch.

It is handed a model and a cache (model.KVCache); the samplers take logits and know nothing of models.
"""

import numpy as np
import torch


def sample_next(logits, u, temperature=1.0, top_k=None, top_p=1.0):
    """One token id a row, (B,), from logits (B, V) and uniform random numbers u (B,).

    temperature 0 takes the most likely token. top_k keeps the k most likely ones, top_p the fewest that hold a share p of
    the probability (https://arxiv.org/abs/1904.09751). Inverse transform sampling, so one number decides a row's token,
    whatever its batch mates are.
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits, ids = logits.float(), None
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # at most 0: the smallest temperature can't overflow
    if top_k is not None:
        logits, ids = logits.topk(min(top_k, logits.size(-1)), sorted=True)
    elif top_p < 1:
        logits, ids = logits.sort(descending=True)
    cumulative = torch.softmax(logits, -1).cumsum(-1)
    total = cumulative[:, -1:]
    if top_p < 1:
        # up to the first token at which the share is reached
        total = cumulative.gather(1, (cumulative < top_p * total).sum(-1, keepdim=True).clamp(max=cumulative.size(1) - 1))
    choice = torch.searchsorted(cumulative, u[:, None].to(total) * total, right=True)
    choice = choice.clamp(max=cumulative.size(1) - 1)
    return (choice if ids is None else ids.gather(1, choice)).squeeze(1)


@torch.inference_mode()
def generate(model, make_cache, prompt, num_samples, max_new_tokens, vocab_size, eot, seed, **sampler):
    """Yield the next token id of each sample as a list, step by step; None for a sample that has ended with eot.

    model: a GPT in eval mode. make_cache: (B, max_len) -> an empty cache. prompt: at least one id, and at most block_size.
    vocab_size: ids from there on, where a model's vocabulary is padded, are never drawn. sampler: options of
    sample_next(). Sample i's random numbers depend on (seed, i) alone. At block_size, the later half of the context is
    kept and prefilled again.
    """
    block_size, device = model.config.block_size, next(model.parameters()).device
    max_len = min(block_size, len(prompt) + max_new_tokens)
    rngs = [np.random.default_rng((seed, i)) for i in range(num_samples)]
    u = np.stack([rng.random(max_new_tokens, dtype=np.float32) for rng in rngs], axis=1)
    u = torch.from_numpy(u).to(device)  # (max_new_tokens, num_samples)
    idx = torch.empty(num_samples, len(prompt) + max_new_tokens, dtype=torch.long, device=device)
    idx[:, : len(prompt)] = torch.tensor(prompt, device=device)
    ended = torch.zeros(num_samples, dtype=torch.bool, device=device)

    # 1) the prompt goes through once, for one row, whose keys and values all samples then share
    one, cache = make_cache(1, max_len), make_cache(num_samples, max_len)
    logits = model(idx[:1, : len(prompt)], cache=one).expand(num_samples, -1)
    cache.copy_from(one)
    del one
    for step, T in enumerate(range(len(prompt), idx.size(1))):
        # 2) draw
        idx[:, T] = sample_next(logits[:, :vocab_size], u[step], **sampler)
        ended |= idx[:, T] == eot
        yield [None if end else token for token, end in zip(idx[:, T].tolist(), ended.tolist(), strict=True)]
        if ended.all() or T + 1 == idx.size(1):
            return
        # 3) feed
        new = 1
        if cache.pos == block_size:
            cache.pos, new = 0, max(1, block_size // 2)
        logits = model(idx[:, T + 1 - new : T + 1], cache=cache)
