"""The same weights in other programs, to be timed beside ours: transformers, and CTranslate2 where it is installed."""

import sys
from functools import partial
from json import dumps
from pathlib import Path

import torch
from safetensors.torch import save_file

from nanorap.pretrained import family, to_transformers, transformers_config


def peers(model, folder, prompts, new, device, dtypes):
    """{name: a call that writes `new` tokens, greedily, after each of the prompts, lists of ids of one length}.

    model: a GPT on the CPU in fp32, of an architecture that family() knows, else UserError. folder: an empty one for files.
    dtypes: {name: torch.dtype} in which transformers is to run. CTranslate2 runs GPT-2's architecture on a CPU.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

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
