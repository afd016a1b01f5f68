"""
What sampling is measured beside: transformers and CTranslate2 with the same weights, and, for lines that are made to rhyme,
samples whose lines are not.
"""

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

from nanorap.bars import write_bars
from nanorap.generate import generate
from nanorap.pretrained import family, to_transformers, transformers_config
from nanorap.rhyme import split_words
from nanorap.scheme import rhyme_counts


def peers(model, folder, prompts, new, device, dtypes):
    """{name: a call that writes `new` tokens, greedily, after each of the prompts, lists of ids of one length}.

    model: a GPT on the CPU in fp32, of an architecture that family() knows, else UserError. folder: an empty one for files.
    dtypes: {name: torch.dtype} in which transformers is to run. CTranslate2 runs GPT-2's architecture on a CPU.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # of a load that takes a second
    c = model.config_dict()
    kind = family(c)
    (Path(folder) / 'config.json').write_text(dumps(transformers_config(c, eot=0)))
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
        calls[f'CTranslate2 {name}'] = partial(generator.generate_batch, tokens, max_length=new, min_length=new,
                                               sampling_topk=1, include_prompt_in_result=False)
    return calls


def rhyme_costs(model, reference, make_cache, tokenizer, start, scheme, n, max_new_tokens, seed):
    """Draw n samples after `start`, plain ones and ones held to the rhyme scheme, and print a line on each kind.

    model: in eval mode, may be packed. reference: the same model in fp32 on the CPU, which says how likely the samples are."""
    print(f"rhyme={scheme}, {n} samples of {max_new_tokens} tokens, temperature 1, whole lines counted")
    ids = [tokenizer.eot, *tokenizer.encode(start)]  # a song of its own, as sample.py has it
    settings = n, max_new_tokens, min(tokenizer.vocab_size, model.config.vocab_size), tokenizer.eot, seed
    for name in ('plain', 'rhymed'):
        samples, t0 = [[] for _ in range(n)], time.perf_counter()
        if name == 'plain':
            for tokens in generate(model, make_cache, ids, *settings):
                for sample, token in zip(samples, tokens, strict=True):
                    sample += [token] * (token is not None)
        else:
            for i, tokens, _ in write_bars(model, make_cache, tokenizer, ids, scheme, *settings):
                samples[i] += tokens
        seconds, total, words, grams, repeated = time.perf_counter() - t0, 0.0, 0, set(), 0
        pairs = np.zeros(3, dtype=int)
        for sample in samples:
            with torch.inference_mode():
                logits = torch.log_softmax(reference(torch.tensor([ids + sample]))[0, len(ids) - 1 : -1], -1)
            total += logits.gather(1, torch.tensor(sample)[:, None]).sum().item()
            text = start + tokenizer.decode(sample)
            pairs += np.subtract(rhyme_counts(text.rpartition('\n')[0], scheme), rhyme_counts(start, scheme))
            said = split_words(text[len(start):])
            grams |= {*pairwise(said)}
            words += max(0, len(said) - 1)
            for section in re.split(r'^\s*(?:\[.*)?$', text, flags=re.M):
                lines = section.strip().split('\n')
                repeated += len(lines) - len({*lines})
        tokens, asked = max(1, sum(map(len, samples))), max(1, pairs[0])
        print(f"{name:<8}{pairs[0]} pairs, rhyming {pairs[1] / asked:.1%}, perfectly {pairs[2] / asked:.1%}, log-probability a "
              f"token {total / tokens:.3f}, distinct-2 {len(grams) / max(1, words):.3f}, lines repeated {repeated}, "
              f"{tokens} tokens, {tokens / seconds:.1f} tokens/s", flush=True)
