"""Log-likelihoods against transformers and lm-evaluation-harness, windows and perplexities by hand.

The comparisons with lm-evaluation-harness need its package, `pip install lm_eval`; without it they are
skipped.
"""

import json
import math

import numpy as np
import pytest
import torch
from conftest import run
from test_export import FAMILIES, checkpoint
from transformers import AutoModelForCausalLM

from nanorap.common import UserError
from nanorap.lm_eval import (
    Request,
    detokenize,
    encode_pair,
    examples,
    hellaswag,
    lambada,
    lyrics_loss,
    score,
    wikitext,
    windows,
)
from nanorap.runtime import setup
from nanorap.tokenizer import CharTokenizer, load_tokenizer

LAMBADA = [{'text': text} for text in (
    "The kettle was on and the rent was late, so Fern looked at the kettle",
    "He said \"why not\", and she said why",
    "yo  double  spaces here", "naïve café, naïve café", "word", "Tell me about the 1999s' don't")]
HELLASWAG = [
    dict(activity_label='Rapping', ctx_a="A man [header] stands on a stage.", ctx_b="he", label='1',
         endings=["sings [title] loudly.", "raps.", "[substeps] sits  down.",
                  "flies away, over the roofs of the town."]),
    dict(activity_label='Tea', ctx_a="The kettle is on.", ctx_b="", label=3,
         endings=["a", "b b", "it whistles", "The end"])]
WIKITEXT = [{'page': " = Rap = \n \n Rap is a \" genre \" of music , which began in the 1970 @-@ 80s "
                     "( New York ) . \n"
                     " = = Form = = \n It has 16 @,@ 000 bars ; it 's the singer ' s song . \n" * 3},
            {'page': " = A = \n \n b . "}]


@pytest.fixture(scope='module')
def rt():
    return setup('cpu')


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """A tiny random Llama with GPT-2's tokenizer, its folder for transformers, and the tokenizer."""
    out, tokenizer = tmp_path_factory.mktemp('tiny'), load_tokenizer('gpt2')
    model = checkpoint(out, tokenizer, n_embd=16, **FAMILIES['llama'])
    run('export.py', f'--out_dir={out}')
    return model, out / 'hf', tokenizer


def test_windows_by_hand():
    assert windows([1, 2, 3, 4, 5, 6, 7], 0, 4, 2) == [
        ([0, 1, 2, 3], [1, 2, 3, 4]), ([2, 3, 4, 5], [5, 6]), ([3, 4, 5, 6], [7])]
    assert windows([1, 2], 0, 4, 2) == [([0, 1], [1, 2])]
    assert windows([], 0, 4, 2) == []


@pytest.mark.parametrize('T, stride, n', [(4, 4, 9), (8, 3, 30), (1, 1, 5)])
def test_windows_have_each_token_as_a_target_once(T, stride, n):
    requests = windows(list(range(1, n + 1)), 0, T, stride)
    assert [i for request in requests for i in request.targets] == list(range(1, n + 1))
    assert all(request.inputs[-1] == request.targets[-1] - 1 for request in requests)
    assert all(len(request.inputs) <= T for request in requests)


@torch.no_grad()
def test_scores_equal_transformers(tiny, rt):
    model, folder, _ = tiny
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    requests = [Request([5, 9, 2, 7, 1], [7, 1, 3]), Request([4], [4]),
                Request(list(range(60)), list(range(1, 61)))]
    scores = score(model, rt, requests)
    for (inputs, targets), (log_likelihood, greedy) in zip(requests, scores, strict=True):
        logprobs = theirs(torch.tensor([inputs])).logits[0, -len(targets) :].log_softmax(-1)
        wanted = logprobs.gather(1, torch.tensor(targets)[:, None]).sum().item()
        assert log_likelihood == pytest.approx(wanted, abs=1e-4)
        assert greedy == (logprobs.argmax(-1).tolist() == targets)
    likeliest = model(torch.tensor([[5, 9]]))[0, -1].argmax().item()
    assert score(model, rt, [Request([5, 9], [likeliest])])[0][1]
    for batch_size in (1, 3):  # padding makes no difference
        assert np.allclose(score(model, rt, requests, batch_size), scores, atol=1e-4)


def test_encode_pair_by_hand():
    """The context's last blanks belong to the continuation; the ids are cut where the context's ids end."""
    tokenizer = CharTokenizer("abc ")
    ids = tokenizer.encode
    for context, continuation in (('ab ', 'c'), ('ab', ' c')):
        assert encode_pair(tokenizer, context, continuation, 9) == (ids('ab '), ids(' c'))
    assert encode_pair(tokenizer, ' ', 'a', 9) == ([tokenizer.eot, *ids(' ')], ids(' a'))
    assert encode_pair(tokenizer, '', 'ab', 9) == ([tokenizer.eot, *ids('a')], ids('ab'))
    assert encode_pair(tokenizer, 'abcabc', 'ab', 4) == (ids('abca'), ids('ab'))
    with pytest.raises(UserError, match='continuation has 5 tokens'):
        encode_pair(tokenizer, 'a', 'abcab', 4)


@pytest.mark.slow
def test_lyrics_loss_by_hand(tiny, rt):
    model, _, tokenizer = tiny
    songs = [(tokenizer.encode(text), text) for text in ("Kettle on, rent is due.\n" * 15, "yo")]
    measured = lyrics_loss(model, rt, tokenizer, songs)
    # by hand: every window has 64 tokens, half of which are new
    total, n = 0, 0
    for ids, _ in songs:
        ids = [tokenizer.eot, *ids, tokenizer.eot]
        for end in range(1, len(ids)):
            first = 0 if end <= 64 else -(-(end - 64) // 32) * 32
            first = min(first, max(0, len(ids) - 1 - 64))
            with torch.no_grad():
                logits = model(torch.tensor([ids[first:end]]))[0, -1]
            total -= logits.log_softmax(-1)[ids[end]].item()
            n += 1
    assert measured['tokens'] == n > 100
    assert measured['loss'] == pytest.approx(total / n, abs=1e-4)
    assert measured['token_perplexity'] == pytest.approx(math.exp(total / n), rel=1e-3)
    words = sum(len(text.split()) for _, text in songs)
    characters = sum(len(text) for _, text in songs)
    assert math.log(measured['word_perplexity']) == pytest.approx(total / words, rel=1e-4)
    assert math.log(measured['character_perplexity']) == pytest.approx(total / characters, rel=1e-4)


@pytest.fixture(scope='module')
def reference(tiny):
    """A function from a kind of request and arguments to lm-evaluation-harness's results for the exported
    model."""
    pytest.importorskip('lm_eval', reason="needs lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(pretrained=str(tiny[1]), device='cpu', dtype='float32', batch_size=2)

    def results(kind, arguments):
        requests = [Instance(kind, {}, arguments=each, idx=i) for i, each in enumerate(arguments)]
        return getattr(theirs, kind)(requests, disable_tqdm=True)

    return results


def test_log_likelihoods_and_lambada_equal_lm_eval(tiny, rt, reference):
    model, _, tokenizer = tiny
    pairs = [(row['text'].rsplit(' ', 1)[0] if ' ' in row['text'] else '',
              ' ' + row['text'].split(' ')[-1]) for row in LAMBADA]
    pairs += [("The cat ", "sat"), ("The cat", " sat"), ("The c", "at sat"), ("", "alone"), ("caf", "é 1"),
              ("a " * 100, " b")]
    wanted = reference('loglikelihood', pairs)
    scores = score(model, rt, [encode_pair(tokenizer, *pair, 64) for pair in pairs], batch_size=3)
    for pair, (a, a_greedy), (b, b_greedy) in zip(pairs, wanted, scores, strict=True):
        assert a == pytest.approx(b, abs=1e-4) and a_greedy == b_greedy, pair
    ours = lambada(model, rt, tokenizer, LAMBADA)
    mean = np.mean([log_likelihood for log_likelihood, _ in wanted[: len(LAMBADA)]])
    assert math.log(ours['perplexity']) == pytest.approx(-mean, abs=1e-4)
    assert ours['acc'] == np.mean([greedy for _, greedy in wanted[: len(LAMBADA)]])


@pytest.mark.slow
def test_hellaswag_equals_lm_eval(tiny, rt, reference):
    from lm_eval.tasks.hellaswag.utils import preprocess

    model, _, tokenizer = tiny
    hits, hits_norm = [], []
    for row in HELLASWAG:
        query = preprocess(row['activity_label'] + ': ' + row['ctx_a'] + ' ' + row['ctx_b'].capitalize())
        choices = [preprocess(ending) for ending in row['endings']]
        results = reference('loglikelihood', [(query, ' ' + choice) for choice in choices])
        scores = np.array([log_likelihood for log_likelihood, _ in results])
        hits.append(scores.argmax() == int(row['label']))
        hits_norm.append((scores / [len(choice) for choice in choices]).argmax() == int(row['label']))
    expected = dict(examples=2, acc=np.mean(hits), acc_norm=np.mean(hits_norm))
    assert hellaswag(model, rt, tokenizer, HELLASWAG) == expected


def test_wikitext_equals_lm_eval(tiny, rt, reference):
    from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer

    model, _, tokenizer = tiny
    total = sum(reference('loglikelihood_rolling', [(wikitext_detokenizer(row),) for row in WIKITEXT]))
    results = [process_results(row, [0]) for row in WIKITEXT]
    n_words, n_bytes = (sum(row[key][1] for row in results) for key in ('word_perplexity', 'byte_perplexity'))
    ours = wikitext(model, rt, tokenizer, WIKITEXT)
    assert math.log(ours['word_perplexity']) == pytest.approx(-total / n_words, abs=1e-4)
    assert math.log(ours['byte_perplexity']) == pytest.approx(-total / n_bytes, abs=1e-4)
    assert ours['bits_per_byte'] == pytest.approx(-total / n_bytes / math.log(2), abs=1e-4)
    assert all(detokenize(row['page']) == wikitext_detokenizer(row) for row in WIKITEXT)


def test_examples_from_a_file(tiny, tmp_path):
    (tmp_path / 'l.jsonl').write_text('\n'.join(map(json.dumps, LAMBADA)))
    assert examples('lambada', tmp_path / 'l.jsonl') == LAMBADA
    _, folder, _ = tiny
    result = run('eval.py', f'--lambada_file={tmp_path}/l.jsonl', f'--init_from={folder}', '--tasks=lambada',
                 '--limit=4')
    assert '| examples   | 4' in result.stdout


def test_an_example_without_its_fields(tiny, rt, tmp_path):
    model, _, tokenizer = tiny
    (tmp_path / 'h.jsonl').write_text('{"ctx_a": "x"}\n')
    with pytest.raises(UserError, match='lacks something'):
        hellaswag(model, rt, tokenizer, examples('hellaswag', tmp_path / 'h.jsonl'))


def test_a_task_without_a_file_or_the_hub():
    with pytest.raises(UserError, match='--wikitext_file'):
        examples('wikitext')
