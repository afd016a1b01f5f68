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

from nanorap.pretrained import family, to_transformers, transformers_config
from nanorap.rap.rhyme import split_words
from nanorap.rap.rhyme_search import RhymeSearch
from nanorap.rap.scheme import Endings, rhyme_counts
from nanorap.text import encode_prompt, write


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


def rhyme_costs(model, reference, tokenizer, prompt, scheme, num_samples, max_new_tokens, seed):
    """Sample after `prompt`, plainly and with lines held to the rhyme scheme, and print a line on each kind.

    model: in eval mode, may be packed. reference: the same model in fp32 on the CPU, which says how likely the samples are.
    """
    print(f"rhyme={scheme}, {num_samples} samples of {max_new_tokens} tokens, temperature 1, whole lines counted")
    endings = Endings(tokenizer, min(tokenizer.vocab_size, model.config.vocab_size))
    prompt_ids = encode_prompt(tokenizer, prompt, model.config.vocab_size, new_song=True)
    for name, search in (('plain', None), ('rhymed', RhymeSearch(endings, scheme))):
        t0 = time.perf_counter()
        samples = write(model, tokenizer, [prompt], num_samples=num_samples, max_new_tokens=max_new_tokens, seed=seed,
                        new_song=True, search=search)
        seconds, total, words, grams, repeated = time.perf_counter() - t0, 0.0, 0, set(), 0
        pairs = np.zeros(3, dtype=int)
        for sample in samples:
            with torch.inference_mode():
                logits = reference(torch.tensor([prompt_ids + sample.ids]))[0, len(prompt_ids) - 1 : -1]
            logprobs = torch.log_softmax(logits, -1)
            total += logprobs.gather(1, torch.tensor(sample.ids)[:, None]).sum().item()
            text = prompt + sample.text
            pairs += np.subtract(rhyme_counts(text.rpartition('\n')[0], scheme), rhyme_counts(prompt, scheme))
            said = split_words(sample.text)
            grams |= {*pairwise(said)}
            words += max(0, len(said) - 1)
            for section in re.split(r'^\s*(?:\[.*)?$', text, flags=re.M):
                lines = section.strip().split('\n')
                repeated += len(lines) - len({*lines})
        tokens, asked = max(1, sum(len(sample.ids) for sample in samples)), max(1, pairs[0])
        print(f"{name:<8}{pairs[0]} pairs, rhyming {pairs[1] / asked:.1%}, perfectly {pairs[2] / asked:.1%}, log-probability a "
              f"token {total / tokens:.3f}, distinct-2 {len(grams) / max(1, words):.3f}, lines repeated {repeated}, "
              f"{tokens} tokens, {tokens / seconds:.1f} tokens/s", flush=True)
