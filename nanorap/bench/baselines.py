"""Baselines for bench.py: transformers and CTranslate2 with the same weights, and samples that needn't
rhyme."""

import re
import sys
import time
from functools import partial
from itertools import pairwise
from json import dumps
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from nanorap.pretrained import family, to_transformers, transformers_config
from nanorap.rap.rhyme import split_words
from nanorap.rap.rhyme_search import RhymeSearch
from nanorap.rap.scheme import Endings, rhyme_counts
from nanorap.text import encode_prompt, write


def other_programs(model, folder: str, prompts: list[list[int]], new: int, device,
                   dtypes: dict[str, torch.dtype]) -> dict:
    """Return {name: a call that decodes `new` tokens greedily after each of the prompts, lists of ids of one
    length}.

    model: a GPT on the CPU in float32, of an architecture that family() knows, else UserError. folder: an
    empty one for their files. dtypes: {name: dtype} in which transformers is to run. CTranslate2 runs GPT-2's
    architecture on a CPU only.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # of a load that takes a second
    c = model.config_dict()
    kind = family(c)
    (Path(folder) / 'config.json').write_text(dumps(transformers_config(c, eot=0)), encoding='utf-8')
    tensors = {key: tensor.detach() for key, tensor in to_transformers(c, model.state_dict()).items()}
    save_file(tensors, Path(folder) / 'model.safetensors', metadata=dict(format='pt'))
    idx = torch.tensor(prompts, device=device)
    settings = GenerationConfig(max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)
    calls = {}
    for name, dtype in dtypes.items():
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)
        calls[f'transformers {name}'] = partial(theirs.generate, idx, attention_mask=torch.ones_like(idx),
                                                generation_config=settings)
    if torch.device(device).type != 'cpu' or kind != 'gpt2':
        print("CTranslate2 is left out: it is timed with GPT-2's architecture on a CPU", file=sys.stderr)
        return calls
    try:
        import ctranslate2
        from ctranslate2.converters import transformers as converters
    except ImportError:
        print("CTranslate2 is left out: it is not installed (pip install ctranslate2)", file=sys.stderr)
        return calls
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name in ('float32', 'int8'):
        spec = converters.GPT2Loader().get_model_spec(theirs)
        spec.register_vocabulary([str(i) for i in range(c['vocab_size'])])
        spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = '0'
        spec.validate()
        spec.optimize(quantization=name)
        (Path(folder) / name).mkdir()
        spec.save(f'{folder}/{name}')
        generator = ctranslate2.Generator(f'{folder}/{name}', compute_type=name, inter_threads=1,
                                          intra_threads=torch.get_num_threads())
        tokens = [[str(i) for i in prompt] for prompt in prompts]
        calls[f'CTranslate2 {name}'] = partial(
            generator.generate_batch, tokens, max_length=new, min_length=new, sampling_topk=1,
            include_prompt_in_result=False)
    return calls


def compare_rhymed(model, reference, tokenizer, prompt: str, *, scheme: str, num_samples: int,
                   max_new_tokens: int, seed: int):
    """Sample after `prompt` with and without a search for rhymed lines, and print a line on each.

    model: in eval mode, may be packed. reference: the same model in float32 on the CPU, which says how likely
    the samples are.
    """
    print(f"rhyme={scheme}, {num_samples} samples of {max_new_tokens} tokens, temperature 1, whole lines "
          "counted")
    endings = Endings(tokenizer, min(tokenizer.vocab_size, model.config.vocab_size))
    prompt_ids = encode_prompt(tokenizer, prompt, model.config.vocab_size, new_song=True)
    for name, search in (('plain', None), ('rhymed', RhymeSearch(endings, scheme))):
        t0 = time.perf_counter()
        samples = write(model, tokenizer, [prompt], num_samples=num_samples, max_new_tokens=max_new_tokens,
                        seed=seed, new_song=True, search=search)
        seconds = time.perf_counter() - t0
        n_tokens = max(1, sum(len(sample.ids) for sample in samples))
        logprob = sum(total_logprob(reference, prompt_ids, sample.ids) for sample in samples)
        pairs = sum(count_rhymes(prompt, sample.text, scheme) for sample in samples)
        n_pairs = max(1, pairs[0])
        repeated = sum(count_repeated_lines(prompt + sample.text) for sample in samples)
        words = [split_words(sample.text) for sample in samples]
        bigrams = {bigram for sample_words in words for bigram in pairwise(sample_words)}
        n_bigrams = sum(max(0, len(sample_words) - 1) for sample_words in words)
        print(f"{name:<8}{pairs[0]} pairs, rhyming {pairs[1] / n_pairs:.1%}, perfectly "
              f"{pairs[2] / n_pairs:.1%}, log-probability per token {logprob / n_tokens:.3f}, "
              f"distinct-2 {len(bigrams) / max(1, n_bigrams):.3f}, lines repeated {repeated}, "
              f"{n_tokens} tokens, {n_tokens / seconds:.1f} tokens/s", flush=True)


@torch.inference_mode()
def total_logprob(model, prompt_ids, ids):
    """Return the log-probability of `ids` after the prompt."""
    logits = model(torch.tensor([prompt_ids + ids]))[0, len(prompt_ids) - 1 : -1]
    logprobs = torch.log_softmax(logits, -1)
    return logprobs.gather(1, torch.tensor(ids)[:, None]).sum().item()


def count_rhymes(prompt, text, scheme):
    """Return rhyme_counts() of the whole lines of a sample, those of the prompt left out, as an array."""
    whole_lines = (prompt + text).rpartition('\n')[0]
    return np.subtract(rhyme_counts(whole_lines, scheme), rhyme_counts(prompt, scheme))


def count_repeated_lines(text):
    """Return how many lines of a text stand earlier in the same section."""
    sections = re.split(r'^\s*(?:\[.*)?$', text, flags=re.M)  # at blank lines and headers
    lines_of = [section.strip().split('\n') for section in sections]
    return sum(len(lines) - len(set(lines)) for lines in lines_of)
