"""Every family of models against transformers' own class: tiny, every parameter random, on odd sizes."""

import copy
import json
import shutil

import pytest
import torch
import transformers
from conftest import SHORT, randomise, run, torchrun
from test_tokenizer import library_tokenizer
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from model import GPT
from nanorap.cache import KVCache
from nanorap.common import UserError
from nanorap.families import FAMILIES, family_of
from nanorap.optim import matrix_rows
from nanorap.pretrained import load, to_transformers, transformers_config
from nanorap.quantize import pack

SIZES = dict(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, hidden_size=56,
             intermediate_size=100, vocab_size=101, max_position_embeddings=64, bos_token_id=0,
             eos_token_id=1, pad_token_id=None)
NEOX_SIZES = {key: value for key, value in SIZES.items() if key != 'num_key_value_heads'}
LLAMA3 = dict(rope_type='llama3', rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
YARN = dict(rope_type='yarn', rope_theta=500.0, factor=4.0, original_max_position_embeddings=16)
LINEAR = dict(rope_type='linear', factor=4.0, rope_theta=300.0)
PLAIN = dict(rope_type='default', rope_theta=100.0)


def config_class(name):
    return getattr(transformers, f'{name}Config')


# (the class of transformers' config, its fields, the family that expresses it)
REFERENCES = {
    'gpt2': ('GPT2', dict(n_layer=2, n_head=6, n_embd=48, vocab_size=101, n_positions=64, n_inner=77,
                          bos_token_id=0, eos_token_id=1)),
    'llama': ('Llama', SIZES),
    'llama 3': ('Llama', SIZES | dict(rope_parameters=LLAMA3, head_dim=24, tie_word_embeddings=True)),
    'llama, linear': ('Llama', SIZES | dict(rope_parameters=LINEAR, attention_bias=True)),
    'llama, yarn': ('Llama', SIZES | dict(rope_parameters=YARN)),
    'mistral': ('Mistral', SIZES | dict(sliding_window=7, head_dim=24)),
    'qwen2': ('Qwen2', SIZES | dict(tie_word_embeddings=True)),
    'qwen2, windows': ('Qwen2', SIZES | dict(use_sliding_window=True, sliding_window=9, max_window_layers=2,
                                             rope_parameters=YARN)),
    'qwen3': ('Qwen3', SIZES | dict(head_dim=24)),
    'gemma3': ('Gemma3Text', SIZES | dict(
        num_hidden_layers=7, head_dim=24, sliding_window=9, query_pre_attn_scalar=30,
        rope_parameters=dict(full_attention=LINEAR, sliding_attention=PLAIN))),
    'smollm3': ('SmolLM3', SIZES | dict(num_hidden_layers=5)),
    'olmo2': ('Olmo2', SIZES),
    'phi3': ('Phi3', SIZES | dict(sliding_window=11,
                                  rope_parameters=PLAIN | dict(partial_rotary_factor=3 / 7))),
    'pythia': ('GPTNeoX', NEOX_SIZES | dict(rope_parameters=PLAIN | dict(partial_rotary_factor=2 / 7))),
    'gpt_neox, in turn': ('GPTNeoX', NEOX_SIZES | dict(
        use_parallel_residual=False, hidden_act='gelu_new',
        rope_parameters=PLAIN | dict(partial_rotary_factor=2 / 7))),
    'opt': ('OPT', dict(num_hidden_layers=2, num_attention_heads=4, hidden_size=48, word_embed_proj_dim=48,
                        ffn_dim=77, vocab_size=101, max_position_embeddings=64, bos_token_id=0,
                        eos_token_id=1, pad_token_id=1)),
}
IDX = torch.randint(2, 101, (3, 40), generator=torch.manual_seed(0))  # longer than every window


@pytest.fixture(scope='module', params=REFERENCES)
def reference(request, tmp_path_factory):
    """A tiny random model of transformers', and the folder that it is saved in."""
    name, fields = REFERENCES[request.param]
    config = config_class(name)(**fields)
    model = randomise(AutoModelForCausalLM.from_config(config, attn_implementation='eager').float())
    folder = tmp_path_factory.mktemp(name)
    model.save_pretrained(folder)
    return model, folder


@torch.no_grad()
def test_logits_equal_transformers(reference):
    theirs, folder = reference
    ours = GPT.from_pretrained(str(folder)).eval()
    logits = theirs(IDX).logits
    assert logits.std() > 0.3  # the models do say something
    assert (ours(IDX) - logits).abs().max() < 1e-4
    loss = F.cross_entropy(logits[:, :-1].reshape(-1, 101), IDX[:, 1:].reshape(-1))
    assert torch.allclose(ours(IDX[:, :-1], IDX[:, 1:]), loss, atol=1e-4)


@torch.no_grad()
def test_cached_logits_equal_transformers(reference):
    theirs, folder = reference
    model, logits = GPT.from_pretrained(str(folder)).eval(), theirs(IDX).logits
    cache, done = KVCache(model.config, B=3, max_len=40), 0
    for T in (7, 1, 1, 13, *[1] * 17, 1):  # a prompt, single tokens, blocks across the window
        done += T
        last = model(IDX[:, done - T : done], cache=cache)
        assert (last - logits[:, done - 1]).abs().max() < 1e-4, done

    # rows of different lengths take one token at a time
    cache = KVCache(model.config, B=2, max_len=40)
    for row, length in enumerate((5, 23)):
        single = KVCache(model.config, B=1, max_len=40)
        model(IDX[row : row + 1, :length], cache=single)
        cache.copy_from(single, target=row)
    tokens = torch.stack([IDX[0, 5:6], IDX[1, 23:24]])
    last = model(tokens, cache=cache)
    assert (last - torch.stack([logits[0, 5], logits[1, 23]])).abs().max() < 1e-4


@torch.no_grad()
def test_an_export_is_the_same_model_to_transformers_and_back(reference, tmp_path):
    from safetensors.torch import save_file

    theirs, folder = reference
    config, state_dict = load(str(folder))
    save_file(to_transformers(config, state_dict), tmp_path / 'model.safetensors', metadata=dict(format='pt'))
    (tmp_path / 'config.json').write_text(json.dumps(transformers_config(config, eot=1)))
    exported = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation='eager').eval()
    logits = theirs(IDX).logits
    assert (exported(IDX).logits - logits).abs().max() < 1e-4
    back = GPT.from_pretrained(str(tmp_path)).eval()
    assert (back(IDX) - logits).abs().max() < 1e-4
    if family_of(config).name == theirs.config.model_type:
        assert load(str(tmp_path))[0] == config


def test_training_and_decoding_do_for_every_family(reference):
    _, folder = reference
    model = GPT.from_pretrained(str(folder))
    # matrices are split for Muon as they were joined
    for name, p in model.named_parameters():
        if p.dim() == 2 and '.h.' in name:
            assert sum(matrix_rows(model.config, name)) == p.size(0), name
    targets = IDX.roll(-1, 1)
    plain = copy.deepcopy(model)
    plain(IDX, targets).backward()
    assert [name for name, p in plain.named_parameters() if p.grad is None or not p.grad.any()] == []
    # the backward that computes activations again has the same gradients
    model.recompute = True
    model.train()(IDX, targets).backward()
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-4, rtol=1e-3), name
    with torch.no_grad():
        logits = plain.eval()(IDX)
        assert (pack(copy.deepcopy(plain))(IDX) - logits).abs().max() < 1e-3
        int8 = pack(copy.deepcopy(plain), 'int8')(IDX)
        assert F.cosine_similarity(int8.flatten(), logits.flatten(), dim=0) > 0.98


@pytest.fixture(scope='module')
def data(songs, tmp_path_factory):
    """A tokenizer of single bytes with begin and end of text, and the songs in its ids."""
    folder = tmp_path_factory.mktemp('bytes')
    library_tokenizer(folder / 'model', bos='<s>', eos_token_id=257)
    run('data/lyrics/prepare.py', '--input', songs, f'--tokenizer={folder / "model"}', '--out_dir', folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('name', ['llama 3', 'mistral', 'qwen2', 'qwen3', 'gemma3', 'smollm3', 'olmo2',
                                  'phi3', 'pythia', 'opt'])
def test_scripts_do_for_every_family(data, tmp_path, name):
    """Fine-tuned with Muon's split of the matrices, resumed, sampled and measured."""
    kind, fields = REFERENCES[name]
    model = AutoModelForCausalLM.from_config(config_class(kind)(**fields | dict(
        vocab_size=260, max_position_embeddings=96)))
    model.save_pretrained(tmp_path / 'model')
    shutil.copy(data / 'model' / 'tokenizer.json', tmp_path / 'model')
    config = json.loads((tmp_path / 'model' / 'config.json').read_text()) | dict(eos_token_id=257)
    (tmp_path / 'model' / 'config.json').write_text(json.dumps(config))

    out = f'--out_dir={tmp_path / "out"}'
    flags = [*SHORT, f'--dataset={data}', '--optimizer=muon', out, '--block_size=80', '--batches=documents',
             '--eval_interval=2', '--eval_iters=1']
    start = [*flags, f'--init_from={tmp_path / "model"}', '--max_iters=2']
    if name in ('gemma3', 'pythia', 'olmo2'):  # between them they have every switch
        torchrun(2, 'train.py', *start, '--parallel=ddp' if name == 'olmo2' else '--parallel=fsdp')
    else:
        run('train.py', *start)
    run('train.py', *flags, '--init_from=resume', '--max_iters=4')
    # longer than the context: the cache drops the oldest tokens
    run('sample.py', out, '--num_samples=2', '--max_new_tokens=99', '--device=cpu', '--rhyme=AA',
        '--quantize=int8')
    if name == 'gemma3':
        run('sample.py', out, '--max_new_tokens=9', '--device=cpu', '--dtype=bfloat16')
        run('eval.py', out, f'--dataset={data}', '--tasks=lyrics,rhyme', '--num_samples=2', '--device=cpu',
            '--max_new_tokens=20')


@pytest.mark.parametrize('name', REFERENCES)
def test_configs_survive_a_round_trip(name):
    kind, fields = REFERENCES[name]
    theirs = config_class(kind)(**fields).to_dict()
    family = FAMILIES[theirs['model_type']]
    config = family.read(theirs)
    assert family.misfits(config) == [] and family.read(family.write(config)) == config


@pytest.mark.parametrize('name, change, words', [
    ('llama', dict(hidden_act='relu'), "hidden_act='relu'"), ('llama', dict(mlp_bias=True), 'mlp_bias'),
    ('llama', dict(rope_parameters=dict(rope_type='dynamic', factor=2.0)), "rope_type='dynamic'.*llama3"),
    ('phi3', dict(rope_parameters=dict(rope_type='longrope')), 'longrope'),
    ('gemma3', dict(attn_logit_softcapping=50.0), 'attn_logit_softcapping'),
    ('qwen3', dict(model_type='qwen3_moe'), "model_type='qwen3_moe' is not supported; gpt2, llama"),
    ('opt', dict(word_embed_proj_dim=24), 'word_embed_proj_dim=24'),
    ('gpt2', dict(scale_attn_by_inverse_layer_idx=True), 'scale_attn_by_inverse'),
    ('mistral', dict(hidden_size=40), "doesn't fit its weights"),
    ('olmo2', dict(num_hidden_layers=5), "lack 'model.layers.4"),
    ('llama', dict(num_attention_heads='many'), 'whole number'),
])
def test_what_is_not_covered_is_refused_by_name(tmp_path, name, change, words):
    kind, fields = REFERENCES[name]
    config = config_class(kind)(**fields)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    path = tmp_path / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=words):
        GPT.from_pretrained(str(tmp_path))


def test_weights_keep_the_files_number_format(tmp_path):
    kind, fields = REFERENCES['gemma3']
    AutoModelForCausalLM.from_config(config_class(kind)(**fields)).bfloat16().save_pretrained(tmp_path)
    assert {t.dtype for t in load(str(tmp_path), None)[1].values()} == {torch.bfloat16}
    assert {t.dtype for t in load(str(tmp_path))[1].values()} == {torch.float32}
    assert next(GPT.from_pretrained(str(tmp_path), dtype=torch.bfloat16).parameters()).dtype == torch.bfloat16
