"""Lines that rhyme on purpose, with SmolLM2's real vocabulary and weights; the scheme's bookkeeping by hand."""

from functools import partial

import pytest
import torch

from model import GPT
from nanorap.cache import KVCache
from nanorap.common import UserError
from nanorap.quantize import pack
from nanorap.rap.rhyme import rhymes, syllables
from nanorap.rap.rhyme_search import RhymeSearch
from nanorap.rap.scheme import Endings, Section, check_scheme, perfect, rhyme_counts
from nanorap.tokenizer import load_tokenizer

PROMPT = "[Verse 1]\nI had a little dog, his name was Ray,\nWe walked along the river every day,\n"


def test_where_a_text_stands_in_its_scheme():
    section = Section('ABAB', '[Hook]\nold line\n\n[Verse 1]\none\ntwo\nthree so f')
    assert section.lines == ['one', 'two'] and section.open == 'three so f'
    assert section.partners() == ['one'] and not section.complete() and section.complete(more=2)
    section.add('three')
    assert section.partners() == ['two']
    section.add('four')
    assert section.partners() == [] and section.complete()
    section.add('five')
    assert section.partners() == [] and not section.complete()
    section.add('  ')
    assert section.lines == [] and section.complete()
    free = Section('XAXA', 'one\ntwo\nthree\n')
    assert free.partners() == ['two'] and Section('XAXA', 'one\n').complete()
    assert Section('AAAA', 'a\nb\nc\n').partners() == ['c', 'b', 'a']  # the nearest first
    assert Section('XX', 'I know it\nyes\n[Hook]\nI know it now\n').length() == 3 and Section('XX', '[Hook]\n').length() is None


def test_counting_by_hand():
    text = '[Verse 1]\nthe cat\nthe hat\na line of time\nnothing else\n\n[Hook]\nthe dog\nthe dog\n'
    assert rhyme_counts(text, 'AABB') == (3, 1, 1)  # cat / hat; the same word is no rhyme
    assert rhyme_counts(text, 'XX') == (0, 0, 0)
    assert perfect('a cat', 'the hat') and perfect('station', 'nation') and not perfect('sea', 'see')
    assert not perfect('time', 'line') and not perfect('a zorble', 'the korble')


@pytest.mark.parametrize('scheme', ['', 'aabb', 'A B', 'A' * 17])
def test_schemes_that_are_none(scheme):
    with pytest.raises(UserError, match='one letter per line'):
        check_scheme(scheme)


@pytest.fixture(scope='module')
def smollm2():
    return pack(GPT.from_pretrained('smollm2').eval()), load_tokenizer('smollm2')


def write(model, tokenizer, n, scheme='AABB', syllables=None, on_token=None):
    """(texts of n samples after PROMPT, [(token, log-probability), ...] of each)."""
    texts, tokens = [PROMPT] * n, [[] for _ in range(n)]

    def add(sample, *token):
        tokens[sample].append(token)
        texts[sample] += tokenizer.decode([token[0]])
        return on_token and on_token(sample, len(tokens[sample]))

    search = RhymeSearch(Endings(tokenizer, tokenizer.vocab_size), scheme, syllables, candidates=3)
    prompt = [tokenizer.eot] + tokenizer.encode(PROMPT)
    search(model, partial(KVCache, model.config), [prompt], add, num_samples=n, max_new_tokens=32,
           vocab_size=tokenizer.vocab_size, eot=tokenizer.eot, seed=0, temperature=0.9, top_k=50)
    return texts, tokens


def test_rhyming_words_are_words_that_rhyme(smollm2):
    endings = Endings(smollm2[1], 49152)
    words = {endings.texts[i] for i in endings.rhyming('along the river every day,', used={'pay'})}
    assert {' way', ' say', ' today'} <= words and not {' pay', ' day', ' days', ' dog'} & words
    assert all(rhymes('day', word).kind in ('perfect', 'multisyllabic') for word in words)


@pytest.mark.parametrize('smear', [0, 2])
def test_lines_rhyme_and_their_log_probabilities_are_the_models(smollm2, smear):
    model, tokenizer = smollm2
    if smear:  # the cache then has the ids, too
        model = GPT.from_pretrained('smollm2').eval()
        weights = model.state_dict() | {'transformer.smear': torch.tensor([[0.2], [0.1]]).expand(-1, model.config.n_embd)}
        model = pack(GPT.from_state_dict(model.config_dict() | dict(smear=smear), weights).eval())
    texts, tokens = write(model, tokenizer, 2)
    pairs, rhyming, exact = map(sum, zip(*[rhyme_counts(text, 'AABB') for text in texts], strict=True))
    assert pairs >= 3 and rhyming == pairs and exact >= pairs - 1, texts
    assert all(text.endswith('\n') for text in texts)  # whole lines
    # the cache, patched together from candidates' rows and steered endings, is that of the text
    ids = [tokenizer.eot] + tokenizer.encode(PROMPT)
    model_ids = ids + [token for token, _ in tokens[0]]
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(torch.tensor([model_ids]))[0], -1)[len(ids) - 1 : -1]
    wanted = logprobs.gather(1, torch.tensor(model_ids[len(ids):])[:, None])[:, 0].tolist()
    assert [logprob for _, logprob in tokens[0]] == pytest.approx(wanted, abs=2e-3)
    assert write(model, tokenizer, 1)[0] == texts[:1]  # whatever the batch


def test_syllables_are_held(smollm2):
    [text, other], _ = write(*smollm2, 2, scheme='XX', syllables=8)
    counts = [syllables(line) for line in text.removeprefix(PROMPT).split('\n')[:-1]]
    assert counts and sum(abs(count - 8) <= 1 for count in counts) >= 0.7 * len(counts), text
    # on_token ends a sample where it says so, and the other one goes on as before
    texts, tokens = write(*smollm2, 2, scheme='XX', syllables=8, on_token=lambda sample, n: sample == 0 and n == 5)
    assert len(tokens[0]) == 5 and text.startswith(texts[0]) and texts[1] == other
