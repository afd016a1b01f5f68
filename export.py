"""
Export a model: a folder that transformers loads without the code here, or a GGUF file for llama.cpp.

$ python export.py --out_dir=out-lyrics                           # into out-lyrics/hf
$ python export.py --out_dir=out-lyrics --format=gguf             # into out-lyrics/gguf/model.gguf
$ python sample.py --init_from=out-lyrics/hf                      # and back
"""

import re
from json import dumps
from pathlib import Path, PureWindowsPath

import torch
from safetensors.torch import save_file

from nanorap import gguf_files, pretrained
from nanorap.common import UserError, model_folder, model_name, read_json, replaced_folder, run_folder
from nanorap.rap.eval_report import read_results, tables
from nanorap.text import header_keys
from nanorap.tokenizer import load_tokenizer

# -----------------------------------------------------------------------------
out_dir: str  # a run's folder, whose best/ is exported
init_from = 'resume'  # resume (from out_dir), or a pretrained model or folder, as in sample.py
format = 'hf'  # hf (a folder for transformers), gguf (a file for llama.cpp)
dest: str | None = None  # the new folder. None: <out_dir>/hf or <out_dir>/gguf
weights = 'float32'  # the number format of the file: float32, bfloat16, float16
measures: str | None = None  # numbers for the model card, a file that eval.py --json=FILE wrote
license: str | None = None  # for the model card. None: that of the base model, where it is known
# -----------------------------------------------------------------------------
exec(Path(__file__).with_name('configurator.py').read_text(encoding='utf-8'))

DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
LICENSES = {'gpt2': 'mit', 'gpt2-medium': 'mit', 'gpt2-large': 'mit', 'gpt2-xl': 'mit',
            'smollm2': 'apache-2.0'}
BASES = {name: f'openai-community/{name}' for name in LICENSES if name.startswith('gpt2')}
BASES['smollm2'] = 'HuggingFaceTB/SmolLM2-135M-Instruct'
for key, choices in (('format', ('hf', 'gguf')), ('weights', tuple(DTYPES))):
    if config[key] not in choices:
        raise UserError(f"--{key}={config[key]}: choose {' or '.join(choices)}")
name = model_name(out_dir, init_from)
run = run_folder(out_dir)
folder = Path(dest or Path(run) / format)
FILES = {'config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json', 'README.md',
         'model.gguf'}
if folder.exists() and not (folder.is_dir() and {file.name for file in folder.iterdir()} <= FILES):
    raise UserError(f"{folder} holds other files: choose another --dest")
numbers = read_results(measures) if measures else {}

gpt, state_dict = pretrained.load(name)
tokenizer = load_tokenizer(name)
kind = pretrained.family(gpt)  # an error for other models comes before anything is written


def run_settings():
    """Return the options of the run in out_dir, as far as its folders still have them."""
    steps = sorted(Path(run).glob('step-*/state.json'))
    return read_json(steps[-1]).get('settings', {}) if steps and init_from == 'resume' else {}


# PROMPT: a song begins after an end-of-text token, as sample.py's do
USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained('FOLDER')
model = AutoModelForCausalLM.from_pretrained('FOLDER')
ids = tokenizer(PROMPT, return_tensors='pt').input_ids
ids = model.generate(ids, max_new_tokens=200, do_sample=True, temperature=0.8, top_k=200)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
```"""


def last_part(name):
    """Return the last part of a path, which is all that others are to know of it."""
    return PureWindowsPath(Path(name).resolve()).name  # of Windows' paths, too


def public_name(name):
    """Return a model's name on the hub whole, and of a local path its last part."""
    is_on_hub = re.fullmatch(r'[\w-][\w.-]*(/[\w.-]+)?', name) and not Path(name).exists()
    return name if is_on_hub else last_part(name)


def model_card():
    """Return the text of the model card, README.md."""
    settings, best = run_settings(), {}
    if init_from == 'resume':
        best = read_json(model_folder(name) / 'config.json')
    base = settings.get('init_from') if init_from == 'resume' else init_from
    base = None if base in ('scratch', 'resume') else base

    head = ['---', f'license: {license or LICENSES.get(base) or "other"}', 'language: en',
            'library_name: transformers', 'pipeline_tag: text-generation', 'tags: [rap, lyrics]']
    if base in BASES:
        head.append(f'base_model: {BASES[base]}')
    head.append('---')

    n_params = sum(tensor.numel() for tensor in state_dict.values())
    no_base = 'none, trained from scratch' if settings else 'unknown'
    base_licence = LICENSES.get(base, 'see the base model' if base else 'none')
    training = [
        f"- architecture: {kind}, {n_params / 1e6:.1f}M parameters, a context of {gpt['block_size']} tokens",
        f"- base model: {public_name(base) if base else no_base}",
        f"- licence of the base model: {base_licence}",
        f"- data: {last_part(settings.get('dataset', 'unknown'))}, tokenizer {tokenizer.name}",
    ]
    if best:
        loss = best.get('val_loss')
        loss = "not measured" if loss is None else f"{loss:.4f} nats per token"
        training.append(f"- {best.get('step')} updates; loss on held-out songs {loss}")

    prompt = ("tokenizer.eos_token + " if header_keys(name) is not None else "") + r"'[Verse 1]\n'"
    if 'name' in numbers:
        numbers['name'] = public_name(str(numbers['name']))
    parts = ['\n'.join(head), f'# {last_part(run_folder(name))}',
             "Rap lyrics, by a GPT that was trained with NanoRapGPT.",
             "**Explicit content**: rap lyrics may hold profanity, slurs, violence, drugs and sex, and so "
             "may what this model writes. Nothing filters it.",
             '## Training', '\n'.join(training),
             '## Use', USE.replace('PROMPT', prompt),
             '## Measures', tables(numbers) if numbers else "None were given (`export.py --measures=FILE`)."]
    return '\n\n'.join(parts) + '\n'


def write_hf(folder):
    """Write a folder in the transformers format."""
    tensors = pretrained.to_transformers(gpt, state_dict)
    tensors = {key: tensor.to(DTYPES[weights]).contiguous() for key, tensor in tensors.items()}
    save_file(tensors, folder / 'model.safetensors', metadata=dict(format='pt'))
    model_config = pretrained.transformers_config(gpt, tokenizer.eot) | dict(dtype=weights)
    library = tokenizer.as_library()
    library.encode_special_tokens = False
    library.save(str(folder / 'tokenizer.json'))
    eot = library.id_to_token(tokenizer.eot)
    tokenizer_config = dict(tokenizer_class='PreTrainedTokenizerFast', bos_token=eot, eos_token=eot,
                            model_max_length=gpt['block_size'], clean_up_tokenization_spaces=False)
    for file, content in (('config.json', model_config), ('tokenizer_config.json', tokenizer_config)):
        (folder / file).write_text(dumps(content, indent=1) + '\n', encoding='utf-8')
    (folder / 'README.md').write_text(model_card(), encoding='utf-8')


def write_gguf(folder):
    """Write model.gguf."""
    gguf_files.write(folder / 'model.gguf', gpt, state_dict, tokenizer, Path(name).name, DTYPES[weights])
    (folder / 'README.md').write_text(model_card(), encoding='utf-8')


try:
    with replaced_folder(folder) as new:
        (write_hf if format == 'hf' else write_gguf)(new)
except OSError as e:
    raise UserError(f"can't write to {folder} ({e.strerror}): choose another --dest") from None
size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
print(f"{folder}: {kind}, {size:,.1f} MB")
