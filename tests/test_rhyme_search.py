"""The search for lines that rhyme, with SmolLM2's real vocabulary and weights."""

from functools import partial

import pytest
import torch

from model import GPT, GPTConfig
from nanorap.cache import KVCache
from nanorap.common import UserError
from nanorap.quantize import pack
from nanorap.rap.rhyme import syllables
from nanorap.rap.rhyme_search import RhymeSearch
from nanorap.rap.scheme import Endings, rhyme_counts
from nanorap.tokenizer import load_tokenizer

PROMPT = "[Verse 1]\nI had a little dog, his name was Ray,\nWe walked along the river every day,\n"


@pytest.fixture(scope='module')
def smollm2():
    return pack(GPT.from_pretrained('smollm2').eval()), load_tokenizer('smollm2')


def write(model, tokenizer, n, scheme='AABB', syllables=None, on_token=None):
    """Return the texts of n samples after PROMPT, and [(token, log-probability), ...] of each."""
    texts, tokens = [PROMPT] * n, [[] for _ in range(n)]

    def add(sample, *token):
        tokens[sample].append(token)
        texts[sample] += tokenizer.decode([token[0]])
        return on_token and on_token(sample, len(tokens[sample]))

    search = RhymeSearch(Endings(tokenizer, tokenizer.vocab_size), scheme, syllables, candidates=3)
    prompt = [tokenizer.eot] + tokenizer.encode(PROMPT)
    search(model, partial(KVCache, model.config), [prompt], add, num_samples=n, max_new_tokens=32,
           vocab_size=tokenizer.vocab_size, ends=tokenizer.ends, seed=0, temperature=0.9, top_k=50)
    return texts, tokens


@pytest.mark.slow
@pytest.mark.parametrize('smear', [0, 2])
def test_lines_rhyme_and_their_log_probabilities_are_the_models(smollm2, smear):
    model, tokenizer = smollm2
    if smear:  # the cache then holds the ids, too
        model = GPT.from_pretrained('smollm2').eval()
        smear_weights = torch.tensor([[0.2], [0.1]]).expand(-1, model.config.n_embd)
        weights = model.state_dict() | {'transformer.smear': smear_weights}
        model = pack(GPT.from_state_dict(model.config_dict() | dict(smear=smear), weights).eval())
    texts, tokens = write(model, tokenizer, 2)
    pairs, rhyming, exact = map(sum, zip(*[rhyme_counts(text, 'AABB') for text in texts], strict=True))
    assert pairs >= 3 and rhyming == pairs and exact >= pairs - 1, texts
    assert all(text.endswith('\n') for text in texts)  # whole lines
    # the cache, assembled from the rows of drafts and steered endings, is that of the whole text
    ids = [tokenizer.eot] + tokenizer.encode(PROMPT)
    model_ids = ids + [token for token, _ in tokens[0]]
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(torch.tensor([model_ids]))[0], -1)[len(ids) - 1 : -1]
    wanted = logprobs.gather(1, torch.tensor(model_ids[len(ids):])[:, None])[:, 0].tolist()
    assert [logprob for _, logprob in tokens[0]] == pytest.approx(wanted, abs=2e-3)
    assert write(model, tokenizer, 1)[0] == texts[:1]  # the batch makes no difference


@pytest.mark.slow
def test_lines_have_the_syllables_asked_for(smollm2):
    [text, other], _ = write(*smollm2, 2, scheme='XX', syllables=8)
    counts = [syllables(line) for line in text.removeprefix(PROMPT).split('\n')[:-1]]
    assert counts and sum(abs(count - 8) <= 1 for count in counts) >= 0.7 * len(counts), text

    # on_token ends one sample early, and the other one is the same as before
    texts, tokens = write(*smollm2, 2, scheme='XX', syllables=8,
                          on_token=lambda sample, n: sample == 0 and n == 5)
    assert len(tokens[0]) == 5 and text.startswith(texts[0]) and texts[1] == other


def test_a_short_request_needs_no_more_context_than_two_lines(smollm2):
    model, tokenizer = smollm2
    search = RhymeSearch(Endings(tokenizer, tokenizer.vocab_size), 'AABB', candidates=2)
    options = dict(num_samples=1, max_new_tokens=5, vocab_size=tokenizer.vocab_size, ends=tokenizer.ends,
                   seed=0)
    tokens = []
    search(model, partial(KVCache, model.config), [[tokenizer.eot]],
           lambda _, token, logprob: tokens.append(token), **options)
    assert 1 <= len(tokens) <= 5

    small = GPT(GPTConfig(block_size=64, vocab_size=tokenizer.vocab_size, n_layer=1, n_head=1, n_embd=8))
    with pytest.raises(UserError, match='block_size of 72 or more, not 64'):
        search(small, partial(KVCache, small.config), [[tokenizer.eot]], tokens.append, **options)
