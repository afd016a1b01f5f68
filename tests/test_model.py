"""The model against transformers' own GPT-2 and Llama, and against itself with a cache."""

import json
import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from conftest import ROOT, randomise
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from model import GPT, GPTConfig
from nanorap.cache import KVCache
from nanorap.common import UserError, smollm2_file
from nanorap.positions import alibi_slopes
from nanorap.pretrained import load, to_transformers

TINY = partial(GPTConfig, n_layer=2, n_head=6, n_embd=48, block_size=32, vocab_size=101)
LLAMA = dict(num_hidden_layers=2, num_attention_heads=6, hidden_size=48, intermediate_size=100,
             vocab_size=101, max_position_embeddings=32, bos_token_id=0, eos_token_id=1)
GPT2 = dict(n_layer=2, n_head=6, n_embd=48, vocab_size=101, n_positions=32, bos_token_id=0, eos_token_id=1)
REFERENCES = dict(
    gpt2=lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
    gpt2_inner_untied=lambda: GPT2LMHeadModel(GPT2Config(
        **GPT2, n_inner=77, layer_norm_epsilon=1e-3, tie_word_embeddings=False)),
    llama=lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, num_key_value_heads=6)),
    llama_gqa_tied=lambda: LlamaForCausalLM(LlamaConfig(
        **LLAMA, num_key_value_heads=2, tie_word_embeddings=True, rms_norm_eps=1e-3,
        rope_parameters=dict(rope_type='default', rope_theta=500.0))),
)


@pytest.fixture(params=REFERENCES)
def reference(request, tmp_path):
    """A tiny random model of transformers', and the folder that it is saved in."""
    model = randomise(REFERENCES[request.param]())
    model.save_pretrained(tmp_path)
    return model, tmp_path


@torch.no_grad()
def test_logits_equal_transformers(reference):
    theirs, folder = reference
    ours = GPT.from_pretrained(str(folder)).eval()
    idx = torch.randint(101, (3, 32), generator=torch.manual_seed(0))
    logits = theirs(idx).logits
    assert logits.std() > 0.3  # the models do say something
    assert (ours(idx) - logits).abs().max() < 1e-4
    loss = F.cross_entropy(logits[:, :-1].reshape(-1, 101), idx[:, 1:].reshape(-1))
    assert torch.allclose(ours(idx[:, :-1], idx[:, 1:]), loss, atol=1e-5)


def test_key_table_both_ways(reference):
    theirs, folder = reference
    config, state_dict = load(str(folder))
    back, original = to_transformers(config, state_dict), theirs.state_dict()
    for key, tensor in back.items():
        assert torch.equal(tensor, original[key]), key
    missing = set(original) - set(back)
    assert not missing or missing == {'lm_head.weight'} and config['tie_weights']


@pytest.mark.slow
@torch.no_grad()
def test_smollm2_equals_transformers():
    file = smollm2_file()
    theirs = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32)
    theirs.eval()
    ours = GPT.from_pretrained('smollm2').eval()
    assert sum(p.numel() for p in ours.parameters()) == 134_515_008
    idx = torch.randint(49152, (2, 48), generator=torch.manual_seed(0))
    logits = theirs(idx).logits
    assert logits.std() > 1 and (ours(idx) - logits).abs().max() < 5e-4


def test_hub_layouts(reference):
    """Sharded weights and pytorch_model.bin give the same; the hub's gpt2 has no 'transformer.' prefix."""
    theirs, folder = reference
    wanted = load(str(folder))[1]
    theirs.save_pretrained(folder / 'sharded', max_shard_size='20KB')
    assert (folder / 'sharded' / 'model.safetensors.index.json').exists()
    (folder / 'bin').mkdir()
    (folder / 'bin' / 'config.json').write_bytes((folder / 'config.json').read_bytes())
    prefixless = {key.removeprefix('transformer.'): tensor for key, tensor in theirs.state_dict().items()}
    torch.save(prefixless, folder / 'bin' / 'pytorch_model.bin')
    for layout in ('sharded', 'bin'):
        loaded = load(str(folder / layout))[1]
        assert loaded.keys() == wanted.keys()
        assert all(torch.equal(loaded[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize('kind, change', [
    ('gpt2', dict(n_layer='2')), ('gpt2', dict(n_head=None)), ('gpt2', dict(n_head=0)),
    ('gpt2', dict(n_embd=[8])), ('gpt2', dict(vocab_size=-1)), ('gpt2', dict(n_positions=8.0)),
    ('gpt2', dict(layer_norm_epsilon='1e-5')),
    ('llama', dict(num_attention_heads='4')), ('llama', dict(hidden_size=None)),
    ('llama', dict(rope_parameters='default')), ('llama', dict(num_hidden_layers=True)),
])
def test_config_values_of_a_wrong_type_get_one_line(tmp_path, kind, change):
    randomise(REFERENCES[kind]()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text()) | change
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(UserError, match='config.json: a value is not what it must be') as e:
        GPT.from_pretrained(str(tmp_path))
    assert not any(word in str(e.value) for word in ('Error', 'operand', 'NoneType'))


def test_a_config_may_begin_with_a_byte_order_mark(tmp_path):
    randomise(REFERENCES['gpt2']()).save_pretrained(tmp_path)
    wanted = load(str(tmp_path))[0]
    path = tmp_path / 'config.json'
    path.write_text(path.read_text(), encoding='utf-8-sig')
    assert load(str(tmp_path))[0] == wanted


def test_bad_folders_get_one_line(tmp_path):
    cases = [('gpt2', 'network.*smollm2'), ('no/such-model', 'network.*smollm2'),
             (str(tmp_path), 'no config.json')]
    for name, words in cases:
        with pytest.raises(UserError, match=words):
            load(name)
    randomise(REFERENCES['gpt2']()).save_pretrained(tmp_path)
    weights = (tmp_path / 'model.safetensors').read_bytes()
    (tmp_path / 'model.safetensors').write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match='half-written'):
        load(str(tmp_path))
    (tmp_path / 'model.safetensors').unlink()
    with pytest.raises(UserError, match='no model.safetensors'):
        load(str(tmp_path))


SWITCHES = [dict(pos=pos, norm=norm, mlp=mlp, **more) for pos, norm, mlp, more in [
    ('learned', 'layernorm', 'gelu', {}),
    ('rotary', 'rmsnorm', 'swiglu', dict(n_kv_head=2, bias=False)),
    ('alibi', 'layernorm', 'relu2', dict(bias=False)),
    ('alibi', 'rmsnorm', 'gelu', dict(n_kv_head=3, n_head=3)),
    ('rotary', 'rmsnorm', 'relu2',
     dict(qk_norm=True, tie_weights=False, logit_softcap=15.0, n_hidden=80, smear=3)),
]]


@torch.no_grad()
@pytest.mark.parametrize('switches', SWITCHES, ids=str)
def test_cached_logits_equal_uncached(switches):
    model = randomise(GPT(TINY(**switches)))
    idx = torch.randint(101, (3, 32), generator=torch.manual_seed(0))
    logits = model(idx)
    cache, done = KVCache(model.config, B=3, max_len=32), 0
    for T in (7, 1, 1, 12, 1, 10):  # a prompt, single tokens, blocks
        done += T
        last = model(idx[:, done - T : done], cache=cache)
        assert last.shape == (3, 101) and torch.allclose(last, logits[:, done - 1], atol=1e-4), done
    # one row's cache serves several
    one, many = KVCache(model.config, 1, 32), KVCache(model.config, 3, 32)
    model(idx[:1, :9], cache=one)
    many.copy_from(one)
    tails = torch.cat([idx[:1, :9].expand(3, -1), idx[:, 9:10]], dim=1)
    assert torch.allclose(model(idx[:, 9:10], cache=many), model(tails)[:, -1], atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('switches', SWITCHES, ids=str)
def test_no_token_sees_the_future(switches):
    model = randomise(GPT(TINY(**switches)))
    idx = torch.randint(101, (2, 32), generator=torch.manual_seed(0))
    other = idx.clone()
    other[:, 20:] = (other[:, 20:] + 1) % 101
    a, b = model(idx), model(other)
    assert torch.equal(a[:, :20], b[:, :20]) and not torch.allclose(a[:, 20:], b[:, 20:])


@pytest.mark.parametrize('switches', SWITCHES, ids=str)
def test_every_parameter_has_a_gradient(switches):
    model = randomise(GPT(TINY(**switches)))
    idx = torch.randint(101, (2, 32), generator=torch.manual_seed(0))
    model(idx, idx.roll(-1, 1)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.slow
def test_loading_draws_nothing_and_imports_no_compiler():
    code = """import sys, torch
from model import GPT, GPTConfig
model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=30, tie_weights=False))
state = torch.get_rng_state()
loaded = GPT.from_state_dict(model.config_dict(), model.state_dict())
assert all(a is b or a.equal(b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
assert torch.get_rng_state().equal(state) and 'torch._dynamo' not in sys.modules"""
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


def test_init_is_gpt2s():
    model = GPT(GPTConfig(n_layer=8, n_head=4, n_embd=128, block_size=64, vocab_size=500))
    for name, p in model.named_parameters():
        if p.dim() < 2:
            is_norm_weight = 'ln_' in name and 'weight' in name
            assert torch.equal(p, torch.ones_like(p) if is_norm_weight else torch.zeros_like(p)), name
        else:
            expected = 0.02 / math.sqrt(16) if 'c_proj' in name else 0.02
            assert p.std().item() == pytest.approx(expected, rel=0.05), name
    assert model(torch.zeros(1, 64, dtype=torch.long)).std() < 1  # nearly uniform predictions to begin with


@torch.no_grad()
def test_alibi_by_hand():
    # the paper's own example
    assert alibi_slopes(8, torch.zeros(1)).tolist() == [2.0**-i for i in range(1, 9)]
    # ALiBi's code for 3
    assert torch.allclose(alibi_slopes(3, torch.zeros(1)), torch.tensor([2.0**-4, 2.0**-8, 2.0**-2]))
    model = GPT(TINY(pos='alibi', n_head=2))
    cache = KVCache(model.config, 1, 8)
    cache.pos = [1]
    mask = model.attention_mask(cache.prepare(1, 2), torch.zeros(1), cache)
    m, inf = 2.0**-4, -math.inf
    assert mask[0].tolist() == [[-m, 0, inf], [-2 * m, -m, 0]]


@torch.no_grad()
@pytest.mark.parametrize('pos', ['learned', 'rotary', 'alibi'])
def test_set_block_size(pos):
    model = randomise(GPT(TINY(pos=pos)))
    idx = torch.randint(101, (2, 8), generator=torch.manual_seed(0))
    logits = model(idx)
    model.set_block_size(8)
    assert torch.equal(model(idx), logits)
    with pytest.raises(AssertionError, match='block_size is 8'):
        model(torch.zeros(1, 9, dtype=torch.long))


def test_rotary_and_alibi_go_on_beyond_their_context():
    for pos in ('rotary', 'alibi'):
        model = randomise(GPT(TINY(pos=pos)))
        idx = torch.randint(101, (1, 40), generator=torch.manual_seed(0))
        logits = model(idx[:, :32])
        model.set_block_size(40)
        assert torch.allclose(model(idx)[:, :32], logits, atol=1e-4)


def test_recomputing_changes_no_gradient():
    idx, targets = torch.randint(101, (2, 2, 16), generator=torch.manual_seed(0))
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(1)
        model = GPT(TINY(dropout=0.2))
        model.recompute = recompute
        torch.manual_seed(2)
        model(idx, targets).backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(a.equal(b) for a, b in zip(*gradients, strict=True))


def test_inits():
    models = {init: GPT(TINY(n_embd=96, tie_weights=False), init) for init in ('gpt2', 'zero')}
    std = {init: {name: p.std().item() for name, p in model.named_parameters() if p.dim() > 1}
           for init, model in models.items()}
    for name in std['gpt2']:
        residual = name.endswith('c_proj.weight')
        expected = 0.02 / 2 if residual else 0.02
        assert std['gpt2'][name] == pytest.approx(expected, rel=0.1)
        assert (std['zero'][name] == 0) == residual, name
    assert std['zero']['transformer.wte.weight'] == pytest.approx(0.5, rel=0.1)
    idx = torch.zeros(1, 4, dtype=torch.long)
    x = models['zero'].transformer.wte(idx)
    assert torch.equal(models['zero'].transformer.h[0](x, None, None, None), x)  # a block is the identity
    with pytest.raises(UserError, match='choose one of gpt2, zero'):
        GPT(TINY(), 'xavier')


def test_frozen_embeddings():
    for tie in (True, False):
        model = GPT(TINY(tie_weights=tie))
        model.freeze_embeddings()
        model(*torch.randint(101, (2, 2, 16))).backward()
        frozen = {name for name, p in model.named_parameters() if p.grad is None}
        embeddings = {'transformer.wte.weight', 'transformer.wpe.weight'}
        assert frozen == embeddings | (set() if tie else {'lm_head.weight'})


def test_padding_is_no_part_of_the_loss():
    model = randomise(GPT(TINY()))
    idx, targets = torch.randint(101, (2, 2, 16), generator=torch.manual_seed(0))
    targets[1, 10:] = -1
    losses = [F.cross_entropy(model(idx)[b, :T], targets[b, :T], reduction='sum')
              for b, T in ((0, 16), (1, 10))]
    assert torch.allclose(model(idx, targets), sum(losses) / 26, atol=1e-5)


def test_flops_by_hand():
    model = GPT(TINY(bias=False))
    matrices = 101 * 48 + 2 * (48 * 144 + 48 * 48 + 2 * 48 * 192)
    norms = 5 * 48
    assert model.flops_per_token(T=10) == 6 * (matrices + norms) + 12 * 2 * 48 * 10
    whole = model.flops_per_token(T=10)
    untied = GPT(TINY(bias=False, tie_weights=False))
    assert untied.flops_per_token(T=10) == whole  # a look-up is free
    model.freeze_embeddings()
    assert model.flops_per_token(T=10) == whole - 2 * 101 * 48  # no gradient of the head's weights


@pytest.mark.parametrize('wrong', [
    dict(pos='sinus'), dict(norm='batch'), dict(mlp='tanh'), dict(n_head=5), dict(n_kv_head=4),
    dict(n_head=16, pos='rotary'), dict(n_layer=0), dict(dropout=1.5),
])
def test_a_config_that_cannot_be_is_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        TINY(**wrong)
