"""Generation with the cache against the model without one: kinds of positions, batches, sliding windows."""

import math
from functools import partial

import pytest
import torch
from conftest import generate_ids, randomise_matrices
from transformers import MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from model import GPT, GPTConfig
from nanorap.cache import KVCache
from nanorap.generate import generate, penalise, sample_next

TINY = partial(GPTConfig, n_layer=2, n_head=4, n_embd=32, block_size=24, vocab_size=64, n_kv_head=2)
PROMPTS = [[5, 9, 2], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [7, 8]]


@torch.no_grad()
def greedy_without_a_cache(model, prompt, n, block_size=24):
    """What the cache must reproduce: learned positions keep the later half of a full context; rotary and
    ALiBi models see the first 4 tokens and the last block_size - 4."""
    model = GPT.from_state_dict(model.config_dict(), model.state_dict()).eval()
    ids, seen = list(prompt), list(prompt)
    if model.config.pos != 'learned':
        model.config.block_size, plain = 1000, model.attention_mask

        def windowed(pos, x, cache=None, is_local=False):
            i, j = pos[:, None], pos[None]
            hidden = (j > i) | (j >= 4) & (i - j >= block_size - 4)
            mask = plain(pos, x, cache)
            return (torch.zeros(1, 1, 1) if mask is None else mask).masked_fill(hidden, -math.inf)

        model.attention_mask = windowed
    for _ in range(n):
        if len(seen) > model.config.block_size:
            seen = seen[-(block_size // 2):]
        seen.append(model(torch.tensor([seen]))[0, -1].argmax().item())
        ids.append(seen[-1])
    return ids[len(prompt):]


@pytest.mark.slow
@pytest.mark.parametrize('smear', [0, 3])
@pytest.mark.parametrize('pos', ['learned', 'rotary', 'alibi'])
def test_greedy_equals_the_uncached_model(pos, smear):
    """With grouped queries, prompts of different lengths in one batch, and far past block_size."""
    model = randomise_matrices(GPT(TINY(pos=pos, smear=smear)))
    wanted = [greedy_without_a_cache(model, prompt, 70) for prompt in PROMPTS]
    assert len({*map(tuple, wanted)}) == 4 and max(len({*ids}) for ids in wanted) > 8
    assert generate_ids(model, PROMPTS, max_new_tokens=70, temperature=0) == wanted
    assert generate_ids(model, PROMPTS[0], n=3, max_new_tokens=70, temperature=0) == wanted[:1] * 3


@pytest.mark.parametrize('pos', ['learned', 'rotary', 'alibi'])
def test_ended_samples_are_removed_and_change_no_other(pos):
    model, batches = randomise_matrices(GPT(TINY(pos=pos, smear=2))), []
    model.register_forward_pre_hook(lambda model, args: batches.append(len(args[0])))
    free = generate_ids(model, PROMPTS, n=3, max_new_tokens=60)

    def n_ends(token):
        return len({ids.index(token) for ids in free if token in ids})

    eot = max(range(64), key=n_ends)  # it ends many samples, at different steps
    batches.clear()
    ended = generate_ids(model, PROMPTS, n=3, max_new_tokens=60, eot=eot)
    assert ended == [ids[: ids.index(eot)] if eot in ids else ids for ids in free]
    assert len({*batches}) > 4  # the batch has shrunk, again and again
    options = dict(repetition_penalty=1.5)
    free = generate_ids(model, PROMPTS, n=3, max_new_tokens=60, **options)
    assert generate_ids(model, PROMPTS, n=3, max_new_tokens=60, eot=eot, **options) == [
        ids[: ids.index(eot)] if eot in ids else ids for ids in free]


def test_a_sample_depends_on_seed_and_number_alone():
    model = randomise_matrices(GPT(TINY(pos='rotary')))
    ten = generate_ids(model, [1, 2], n=10, seed=7, max_new_tokens=40)
    assert len({*map(tuple, ten)}) == 10
    assert generate_ids(model, [1, 2], n=3, seed=7, max_new_tokens=40) == ten[:3]
    assert generate_ids(model, [[4, 4, 4], [1, 2]], n=2, seed=7, max_new_tokens=40)[2:] == ten[:2]
    assert generate_ids(model, [1, 2], n=3, seed=8, max_new_tokens=40) != ten[:3]


@torch.no_grad()
def test_on_token_gets_each_token_and_its_log_probability():
    model, calls = randomise_matrices(GPT(TINY())), {0: [], 1: []}

    def on_token(sample, token, logprob):
        calls[sample].append((token, logprob))
        return sample == 1 and len(calls[1]) == 4

    samples = generate_ids(model, [1, 2], n=2, max_new_tokens=15, on_token=on_token, temperature=0.7, top_k=5)
    assert [len(ids) for ids in samples] == [15, 4]
    assert samples == [[token for token, _ in calls[i]] for i in (0, 1)]
    logprobs = torch.log_softmax(model(torch.tensor([[1, 2, *samples[0]]])), -1)[0, 1:-1]
    wanted = logprobs.gather(1, torch.tensor(samples[0])[:, None])[:, 0].tolist()
    assert [logprob for _, logprob in calls[0]] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize('top_p, min_p', [(1.0, 0.1), (0.8, 0.02), (0.5, 0.3), (0.95, 1.0)])
def test_min_p_and_top_p_keep_what_transformers_keeps(top_p, min_p):
    logits = 3 * torch.randn(50, 40, generator=torch.manual_seed(0))
    after_top_p = TopPLogitsWarper(top_p)(None, logits) if top_p < 1 else logits
    kept = MinPLogitsWarper(min_p)(None, after_top_p) > -math.inf
    u = torch.linspace(0, 1 - 2**-20, 4000)
    for row, wanted in zip(logits, kept, strict=True):
        tokens = sample_next(row.expand(4000, 40), u, top_p=top_p, min_p=min_p)
        is_sampled = torch.bincount(tokens, minlength=40) > 0
        assert not (is_sampled & ~wanted).any()
        probs = torch.softmax(row.masked_fill(~wanted, -math.inf), -1)
        assert is_sampled[probs > 1e-3].all()


def test_repetition_penalty_equals_transformers():
    logits, ids = torch.randn(3, 20), torch.tensor([[1, 2, 2], [0, 5, 9], [7, 7, 7]])
    seen = torch.zeros(3, 20, dtype=torch.bool).scatter_(1, ids, True)
    wanted = RepetitionPenaltyLogitsProcessor(1.7)(ids, logits.clone())
    assert torch.equal(penalise(logits, seen, 1.7), wanted)


def test_the_cache_is_as_large_as_computed_and_stays():
    model, caches, pointers = randomise_matrices(GPT(TINY(pos='rotary'))), [], []

    def make_cache(B, max_len):
        caches.append(KVCache(model.config, B, max_len))
        return caches[-1]

    def on_token(sample, token, logprob):
        pointers.append([cache.k.data_ptr() for cache in caches])

    generate(model, make_cache, [[1, 2]], on_token,
             num_samples=5, max_new_tokens=100, vocab_size=64, ends=(), seed=0)
    n_bytes = [cache.k.nbytes + cache.v.nbytes for cache in caches]
    assert n_bytes == [2 * 2 * B * 2 * 24 * 8 * 4 for B in (1, 5)]
    assert len(pointers) == 500 and all(each == pointers[0] for each in pointers) and len(caches) == 2
