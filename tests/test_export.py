"""Exports as transformers loads them, without code of this project, and as this project loads them again."""

import json
import re
import shutil

import pytest
import torch
from conftest import TINY, run
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer

from model import GPT, GPTConfig
from nanorap.checkpoint import write_folder
from nanorap.common import UserError
from nanorap.pretrained import family
from nanorap.text import encode_prompt
from nanorap.tokenizer import CharTokenizer, load_tokenizer

TEXTS = ["[Verse 1]\nI'm runnin'  2 miles,\n\n\tyo's 1999!", " a  b ", "naïve 😀 <|endoftext|> x"]
FAMILIES = {
    'gpt2': dict(bias=True),
    'gpt2 without biases': dict(bias=False, n_hidden=48, tie_weights=False),
    'llama': dict(pos='rotary', norm='rmsnorm', mlp='swiglu', bias=False, n_kv_head=2, n_hidden=56,
                  rope_theta=5e4),
    'llama, untied': dict(pos='rotary', norm='rmsnorm', mlp='swiglu', bias=False, tie_weights=False,
                          norm_eps=1e-6),
}


def checkpoint(out, tokenizer, header=None, **fields):
    """Write a run's best/ with large random weights, which show every mistake; return the model.

    header: what meta.json says of songs' header lines, None for texts that are no songs.
    """
    fields = dict(n_layer=2, n_head=4, n_embd=32, block_size=64, vocab_size=tokenizer.vocab_size + 3) | fields
    torch.manual_seed(0)
    model = GPT(GPTConfig(**fields)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    about = dict(model=model.config_dict(), tokenizer=tokenizer.meta() | dict(header=header), step=7,
                 val_loss=3.25, run='x')
    write_folder(out / 'best', dict(model=model.state_dict()), dict(config=about), tokenizer)
    return model


@pytest.fixture(scope='module')
def gpt2():
    return load_tokenizer('gpt2')


@torch.no_grad()
@pytest.mark.parametrize('family', FAMILIES)
def test_transformers_computes_the_same_logits(tmp_path, family):
    ours = checkpoint(tmp_path, CharTokenizer("abc \n"), **FAMILIES[family])
    out = run('export.py', f'--out_dir={tmp_path}').stdout
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / 'hf').eval()
    back = GPT.from_pretrained(str(tmp_path / 'hf')).eval()
    assert type(theirs).__module__.startswith('transformers.')
    assert family.split()[0].strip(',') in out
    idx = torch.randint(ours.config.vocab_size, (2, 64), generator=torch.manual_seed(0))
    logits = ours(idx)
    assert logits.std() > 0.2
    assert (theirs(idx).logits - logits).abs().max() < 1e-4
    assert (back(idx) - logits).abs().max() < 1e-5


@pytest.mark.slow
def test_transformers_encodes_the_same_ids(tmp_path, gpt2):
    chars = CharTokenizer("".join(TEXTS))
    for name, tokenizer in (('gpt2', gpt2), ('char', chars), ('smollm2', load_tokenizer('smollm2'))):
        checkpoint(tmp_path / name, tokenizer, n_embd=8, n_head=2)
        run('export.py', f'--out_dir={tmp_path / name}')
        theirs = AutoTokenizer.from_pretrained(tmp_path / name / 'hf')
        back = load_tokenizer(str(tmp_path / name / 'hf'))
        for text in TEXTS[:2] + [TEXTS[2].replace('<|endoftext|>', '')]:
            ids = tokenizer.encode(text)
            assert theirs.encode(text) == ids == back.encode(text), (name, text)
            assert theirs.decode(ids) == text, (name, text)
        # this project reads the text of a special token as plain text
        ids = back.encode(TEXTS[2])
        assert ids == tokenizer.encode(TEXTS[2]) and tokenizer.eot not in ids
        assert theirs.eos_token_id == theirs.bos_token_id == tokenizer.eot == back.eot


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize('family', ['llama, untied', 'gpt2'])
def test_transformers_computes_the_same_logits_from_gguf(tmp_path, gpt2, family):
    # transformers takes 1,024 for the context of every GPT-2 in GGUF, whatever the file says
    n_kv_head = 2 if 'llama' in family else 4
    ours = checkpoint(tmp_path, gpt2, **FAMILIES[family] | dict(block_size=1024, n_kv_head=n_kv_head))
    run('export.py', f'--out_dir={tmp_path}', '--format=gguf')
    idx = torch.randint(ours.config.vocab_size, (2, 64), generator=torch.manual_seed(0))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / 'gguf', gguf_file='model.gguf',
                                                  dtype=torch.float32).eval()
    assert (theirs(idx).logits - ours(idx)).abs().max() < 1e-4
    fields = GGUFReader(tmp_path / 'gguf' / 'model.gguf').fields
    tokens, types = (fields[f'tokenizer.ggml.{key}'].contents() for key in ('tokens', 'token_type'))
    assert len(tokens) == 50260
    assert tokens[50256:] == ['<|endoftext|>', '[PAD50257]', '[PAD50258]', '[PAD50259]']
    assert types[50255:] == [1, 3, 5, 5, 5]
    assert fields['tokenizer.ggml.eos_token_id'].contents() == 50256


@pytest.mark.parametrize('fields, words', [
    (dict(pos='alibi', n_hidden=48), "pos='alibi'"),
    (dict(qk_norm=True), 'qk_norm=True'),
    (dict(n_kv_head=2), 'n_kv_head=2'),
    (dict(smear=2), 'smear=2'),
    (dict(logit_softcap=15.0), 'logit_softcap=15.0'),
    (FAMILIES['llama'] | dict(bias=True), 'bias=True'),
    (FAMILIES['llama'] | dict(mlp='relu2'), "mlp='relu2'"),
])
def test_options_that_no_format_can_express_are_refused(tmp_path, fields, words):
    model = checkpoint(tmp_path, CharTokenizer("abc"), **fields)
    with pytest.raises(UserError, match=words):
        family(model.config_dict())
    if 'qk_norm' in fields:  # a run of the script takes long, so only one case goes through it
        for format in ('hf', 'gguf'):
            assert words in run('export.py', f'--out_dir={tmp_path}', f'--format={format}', ok=False).message
            assert not (tmp_path / format).exists()


@pytest.fixture(scope='module')
def short_run(char_data, tmp_path_factory):
    """The out_dir of a run of two steps on characters."""
    out = tmp_path_factory.mktemp('short') / 'out'
    run('train.py', *TINY, f'--dataset={char_data}', f'--out_dir={out}', '--max_iters=2', '--eval_interval=1',
        '--block_size=32')
    return out


def test_model_card(short_run, char_data, tmp_path):
    numbers = dict(name=f'{tmp_path}/out-x', lyrics=dict(loss=3.21))
    (tmp_path / 'numbers.json').write_text(json.dumps(numbers))
    for out_dir in (short_run, short_run / 'best'):
        run('export.py', f'--out_dir={out_dir}', f'--measures={tmp_path}/numbers.json', '--license=cc0-1.0')
        card = (short_run / 'hf' / 'README.md').read_text()
        for words in ('license: cc0-1.0', 'Explicit content', 'trained from scratch',
                      f'data: {char_data.name},', 'held-out songs', '3.210', 'nats per token',
                      'tokenizer char', '# out\n', '| out-x |'):
            assert words in card, words
        assert str(tmp_path.parent) not in card and '/hf' not in card
        shutil.rmtree(short_run / 'hf')


@pytest.mark.parametrize('is_of_songs', [True, False])
def test_the_cards_example_begins_as_sample_does(tmp_path, is_of_songs, capsys):
    """The example is run: what it gives to the model is what sample.py gives for the same prompt."""
    tokenizer = CharTokenizer('Verse 1[]\n')
    checkpoint(tmp_path, tokenizer, header=['artist'] if is_of_songs else None)
    run('export.py', f'--out_dir={tmp_path}')
    card = (tmp_path / 'hf' / 'README.md').read_text()
    code = re.search(r'```python\n(.*?)```', card, re.S)[1].replace('FOLDER', str(tmp_path / 'hf'))
    scope = {}
    exec(code.replace('max_new_tokens=200', 'max_new_tokens=1'), scope)
    wanted = encode_prompt(tokenizer, '[Verse 1]\n', 99, new_song=is_of_songs)
    assert scope['ids'][0][:-1].tolist() == wanted
    assert capsys.readouterr().out.startswith('[Verse 1]\n')


def test_an_export_replaces_an_older_one_and_is_sampled_from(short_run):
    for _ in range(2):
        run('export.py', f'--out_dir={short_run}')
    run('sample.py', f'--init_from={short_run}/hf', '--start=[Hook]', '--num_samples=1',
        '--max_new_tokens=3', '--device=cpu')


def test_wrong_options_get_one_line(short_run):
    def message(*args):
        return run('export.py', f'--out_dir={short_run}', *args, ok=False).message

    assert "tokenizer='char'" in message('--format=gguf')
    assert 'holds other files' in message(f'--dest={short_run}/best')
