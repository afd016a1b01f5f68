"""
Log-likelihoods of texts, and the standard tasks, with the arithmetic of lm-evaluation-harness.

    scores = score(model, rt, [Request(inputs, targets), ...])      # [(log-likelihood, whether greedy), ...]
    encode_pair(tokenizer, 'The cat sat on the', ' mat', 1024)      # Request(inputs, targets)
"""

import math
import re
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from nanorap.common import UNREADABLE, UserError, hub_reason, reason
from nanorap.dataset import read_documents


class Request(NamedTuple):
    """Ids for the model, of whose outputs the last len(targets) are scored."""

    inputs: list[int]  # at most block_size
    targets: list[int]


def windows(ids, bos, block_size, stride):
    """Return Requests that score every id once, by windows that slide over them.

    The first window scores block_size ids, after the token that begins a text; each later one scores the next
    `stride` ids, with the block_size - stride ids before them as context.
    """
    ids, requests, end = [bos, *ids], [], 0
    while end < len(ids) - 1:
        n_new = min(stride if end else block_size, len(ids) - 1 - end)
        end += n_new
        requests.append(Request(ids[max(0, end - block_size) : end], ids[end - n_new + 1 : end + 1]))
    return requests


def encode_pair(tokenizer, context, continuation, block_size):
    """Return the Request that scores a continuation after a context.

    The two are encoded as one text, and cut where the context alone would end; spaces at the end of the
    context belong to the continuation. A context that is too long loses its beginning.
    """
    whole, first = tokenizer.encode(context + continuation), tokenizer.encode(context.rstrip())
    targets = whole[len(first) :]
    first = first or [tokenizer.bos]
    if not targets or len(targets) > block_size:
        raise UserError(f"an example's continuation has {len(targets)} tokens, which must be 1 to "
                        f"{block_size}: {continuation[:60]!r}")
    return Request((first + targets)[-block_size - 1 :][:-1], targets)


@torch.inference_mode()
def score(model, rt, requests, batch_size=4, what='scoring'):
    """Return per Request (log-likelihood of the targets, whether each of them is the likeliest token).

    The sums are in float64, and the same for any batch size and number of processes, but for the rounding of
    the model itself. Every process must call it.
    """
    results = np.zeros((len(requests), 2))
    # long ones first, so that a batch has little padding
    mine = sorted(range(rt.rank, len(requests), rt.world_size), key=lambda i: -len(requests[i].inputs))
    for first in tqdm(range(0, len(mine), batch_size), desc=what, leave=False,
                      disable=None if rt.is_main else True):
        batch = mine[first : first + batch_size]
        idx = torch.zeros(len(batch), max(len(requests[i].inputs) for i in batch), dtype=torch.long)
        for row, i in enumerate(batch):  # padded on the right, which causal attention doesn't see
            idx[row, : len(requests[i].inputs)] = torch.tensor(requests[i].inputs)
        logits = model(idx.to(rt.device))
        for row, i in enumerate(batch):
            end, targets = len(requests[i].inputs), torch.tensor(requests[i].targets, device=rt.device)
            logprobs = torch.log_softmax(logits[row, end - len(targets) : end].float(), -1)  # (targets, V)
            results[i, 0] = logprobs.gather(1, targets[:, None]).cpu().double().sum().item()
            results[i, 1] = bool((logprobs.argmax(-1) == targets).all())
    results = np.array(rt.sum(*results.ravel())).reshape(-1, 2)
    return [(float(log_likelihood), bool(is_greedy)) for log_likelihood, is_greedy in results]


def perplexities(log_likelihood, **counts):
    """Return {'token_perplexity': …, 'word_perplexity': …} for counts tokens=…, words=… of the text."""
    return {f'{unit[:-1]}_perplexity': math.exp(min(700, -log_likelihood / max(1, n)))
            for unit, n in counts.items()}


def lyrics_loss(model, rt, tokenizer, songs, batch_size=4):
    """Return loss and perplexities of songs [(ids, text), ...], each with its end-of-text token.

    Windows slide by half a context.
    """
    T = model.config.block_size
    requests = []
    for ids, _ in songs:
        requests += windows([*ids, tokenizer.eot], tokenizer.bos, T, max(1, T // 2))
    total = sum(log_likelihood for log_likelihood, _ in score(model, rt, requests, batch_size, 'lyrics'))
    n_tokens = sum(len(ids) + 1 for ids, _ in songs)
    per = perplexities(total, tokens=n_tokens, words=sum(len(text.split()) for _, text in songs),
                       characters=sum(len(text) for _, text in songs))
    return dict(songs=len(songs), tokens=n_tokens, loss=-total / n_tokens, **per)


# ---- the standard tasks

HUB = {  # name, configuration, split on the Hugging Face hub, and the column that a row can't do without
    'lambada': ('EleutherAI/lambada_openai', 'default', 'test', 'text'),
    'hellaswag': ('Rowan/hellaswag', None, 'validation', 'ctx_a'),
    'wikitext': ('EleutherAI/wikitext_document_level', 'wikitext-2-raw-v1', 'test', 'page'),
}


def examples(task, file=None):
    """Return a task's rows, dicts, from a local file of JSON lines or from the hub."""
    name, config, split, column = HUB[task]
    if file:
        return list(read_documents(file, column))
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError("the hub's data sets need a package: pip install -r requirements-more.txt, or give "
                        f"the {split} split as a file of JSON lines, --{task}_file=FILE") from None
    try:
        return list(load_dataset(name, config, split=split))
    except Exception as e:  # dozens: offline, renamed, disk full
        raise UserError(f"can't get {name} from the Hugging Face hub ({hub_reason(e)}): give its {split} "
                        f"split as a file of JSON lines, --{task}_file=FILE") from None


def share(hits):
    return float(sum(hits) / max(1, len(hits)))


def lambada(model, rt, tokenizer, rows, batch_size=4):
    """Score the last word of each passage (https://arxiv.org/abs/1606.06031, OpenAI's variant)."""
    requests = []
    for row in rows:
        context, _, last = row['text'].rpartition(' ')
        requests.append(encode_pair(tokenizer, context, ' ' + last, model.config.block_size))
    scores = score(model, rt, requests, batch_size, 'lambada')
    mean = sum(log_likelihood for log_likelihood, _ in scores) / max(1, len(scores))
    return dict(examples=len(rows), acc=share([is_greedy for _, is_greedy in scores]),
                perplexity=math.exp(min(700, -mean)))


def hellaswag(model, rt, tokenizer, rows, batch_size=4):
    """Choose the likeliest of four endings (https://arxiv.org/abs/1905.07830).

    acc_norm: the choice by log-likelihood per character.
    """
    def clean(text):
        text = re.sub(r'\[.*?\]', '', text.strip().replace(' [title]', '. '))
        return text.replace('  ', ' ')

    requests, endings = [], []
    for number, row in enumerate(rows, 1):
        try:
            context = clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
            endings.append([clean(ending) for ending in row['endings']])
            int(row['label'])
        except UNREADABLE as e:
            raise UserError(f"row {number} of hellaswag lacks something ({reason(e)}): it needs "
                            "activity_label, ctx_a, ctx_b, endings, label") from None
        requests += [encode_pair(tokenizer, context, ' ' + ending, model.config.block_size)
                     for ending in endings[-1]]
    scores = iter(score(model, rt, requests, batch_size, 'hellaswag'))
    right, right_norm = [], []
    for row, choices in zip(rows, endings, strict=True):
        log_likelihoods = np.array([next(scores)[0] for _ in choices])
        lengths = [max(1, len(choice)) for choice in choices]
        right.append(log_likelihoods.argmax() == int(row['label']))
        right_norm.append((log_likelihoods / lengths).argmax() == int(row['label']))
    return dict(examples=len(rows), acc=share(right), acc_norm=share(right_norm))


def wikitext(model, rt, tokenizer, rows, batch_size=4):
    """Return perplexities of whole articles, by windows that don't overlap.

    Words and bytes are those of the text with its spaces around punctuation, as in lm-evaluation-harness.
    """
    requests, n_tokens = [], 0
    for row in rows:
        ids = tokenizer.encode(detokenize(row['page']))
        n_tokens += len(ids)
        requests += windows(ids, tokenizer.bos, model.config.block_size, model.config.block_size)
    total = sum(log_likelihood for log_likelihood, _ in score(model, rt, requests, batch_size, 'wikitext'))
    n_bytes = sum(len(row['page'].encode()) for row in rows)
    n_words = sum(len(re.split(r'\s+', row['page'])) for row in rows)
    return dict(examples=len(rows), **perplexities(total, tokens=n_tokens, words=n_words, bytes=n_bytes),
                bits_per_byte=-total / max(1, n_bytes) / math.log(2))


# WikiText's spaces around punctuation, taken out in this order: plain replacements, brackets and quotes,
# headings and the rest
SPACES = ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), *((f" {c} ", f"{c} ") for c in ":;.!?,"))
PAIRS = ((r"\(", r"\)"), (r"\[", r"\]"), ("{", "}"), ('"', '"'), ("'", "'"))
LAST = (("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" ° ", "°"), (" \n", "\n"), ("\n ", "\n"),
        (" N ", " 1 "), (" 's", "'s"))


def detokenize(page):
    """Return a page of WikiText without its spaces around punctuation."""
    page = page.replace("s '", "s'")
    for old, new in SPACES:
        page = page.replace(old, new)
    for left, right in PAIRS:
        page = re.sub(rf"{left}\s*([^{right}]*?)\s*{right}", lambda m: m[0][0] + m[1] + m[0][-1], page)
    for old, new in LAST:
        page = page.replace(old, new)
    return page


STANDARD = dict(lambada=lambada, hellaswag=hellaswag, wikitext=wikitext)
