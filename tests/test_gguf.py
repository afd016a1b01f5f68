"""GGUF files: against transformers' models, the numbers of the package gguf, and the real llama.cpp."""

import json

import gguf
import numpy as np
import pytest
import torch
from conftest import randomise, run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_families import LLAMA3, NEOX_SIZES, PLAIN, REFERENCES, SIZES, YARN, config_class
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM

from model import GPT
from nanorap import gguf_files, gguf_tokenizer
from nanorap.common import UserError, smollm2_file
from nanorap.pretrained import load, to_transformers
from nanorap.tokenizer import ModelTokenizer, load_tokenizer

GPT2 = load_tokenizer('gpt2')


def byte_tokenizer():
    """Return a byte-level tokenizer of 256 letters, one merge and end of text: files of it are small."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    content = json.loads(GPT2.as_library().to_str())
    content['model'] |= dict(vocab={token: i for i, token in enumerate([*letters, 'th', '<|endoftext|>'])},
                             merges=['t h'])
    content['added_tokens'][0]['id'] = 257
    return ModelTokenizer(Tokenizer.from_str(json.dumps(content)), 'bytes', 257)


BYTES = byte_tokenizer()
ASCII = [i for i in range(256) if BYTES.decode([i]).isascii()]  # bytes that are characters
# sizes that llama.cpp and its block formats take, and no window but Gemma's
LARGER = dict(num_key_value_heads=2, hidden_size=256, intermediate_size=256, vocab_size=260,
              max_position_embeddings=128)
GEMMA_ROPE = dict(full_attention=PLAIN, sliding_attention=PLAIN | dict(rope_theta=10000.0))
MODELS = {
    'gpt2': ('GPT2', dict(n_layer=2, n_head=4, n_embd=256, vocab_size=260, n_positions=128, n_inner=512)),
    'llama 3': ('Llama', SIZES | LARGER | dict(rope_parameters=LLAMA3, head_dim=64)),
    'llama, yarn': ('Llama', SIZES | LARGER | dict(rope_parameters=YARN, attention_bias=True)),
    'mistral': ('Mistral', SIZES | LARGER | dict(sliding_window=None, head_dim=32)),
    'qwen2': ('Qwen2', SIZES | LARGER | dict(tie_word_embeddings=True)),
    'qwen3': ('Qwen3', SIZES | LARGER | dict(head_dim=32)),
    'gemma3': ('Gemma3Text', SIZES | LARGER | dict(num_hidden_layers=7, head_dim=64, sliding_window=9,
                                                   query_pre_attn_scalar=64, rope_parameters=GEMMA_ROPE)),
    'smollm3': ('SmolLM3', SIZES | LARGER),
    'olmo2': ('Olmo2', SIZES | LARGER),
    'phi3': ('Phi3', SIZES | LARGER | dict(rope_parameters=PLAIN | dict(partial_rotary_factor=0.75))),
    'pythia': ('GPTNeoX', NEOX_SIZES | {key: LARGER[key] for key in LARGER if key != 'num_key_value_heads'}
               | dict(rope_parameters=PLAIN | dict(partial_rotary_factor=0.25))),
}
IDX = torch.randint(2, 256, (2, 40), generator=torch.manual_seed(0))


@pytest.fixture(scope='module', params=MODELS)
def model(request, tmp_path_factory):
    """A tiny random model of transformers', and the folder that it is saved in, with model.gguf."""
    name, fields = MODELS[request.param]
    config = config_class(name)(**fields)
    model = randomise(AutoModelForCausalLM.from_config(config, attn_implementation='eager').float())
    folder = tmp_path_factory.mktemp('model')
    model.save_pretrained(folder)
    gguf_files.write(folder / 'model.gguf', *load(str(folder)), BYTES, 'x', torch.float32)
    return model, folder


def llama_cpp(path, ids, n):
    """Return the text that llama.cpp continues ids with, greedily, in float32 throughout and in ASCII."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = str(path), 128, 1, False
    params.cpuparams.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    answer = xllamacpp.Server(params).handle_completions(
        dict(prompt=ids, n_predict=n, temperature=0, cache_prompt=False,
             logit_bias=[[i, False] for i in range(260) if i not in ASCII]))
    return answer['choices'][0]['text']


@pytest.mark.slow
@torch.no_grad()
def test_a_file_is_the_same_model_here_and_in_llama_cpp(model):
    theirs, folder = model
    ours = GPT.from_pretrained(str(folder / 'model.gguf')).eval()
    assert (ours(IDX) - theirs(IDX).logits).abs().max() < 1e-4
    ids = IDX[0, :9].tolist()
    written = list(ids)
    for _ in range(40):
        logits = ours(torch.tensor([written]))[0, -1]
        written.append(ASCII[logits[ASCII].argmax()])
    assert llama_cpp(folder / 'model.gguf', ids, 40) == BYTES.decode(written[9:])


def q4_k(weight):
    """Return a matrix in blocks of Q4_K by hand: 256 numbers as 8 groups of 32 with 4 bits each, a scale and
    a minimum per group in 6 bits, and two float16 factors."""
    blocks = weight.reshape(-1, 8, 32)
    low = np.minimum(blocks.min(2), 0)
    scales, minima = (blocks.max(2) - low) / 15, -low
    d, dmin = (each.max(1, keepdims=True) / 63 + 1e-12 for each in (scales, minima))
    d, dmin = d.astype(np.float16), dmin.astype(np.float16)
    sc, m = (np.clip(np.round(each / factor.astype(np.float32)), 0, 63).astype(np.uint8)
             for each, factor in ((scales, d), (minima, dmin)))
    step = (d.astype(np.float32) * sc)[..., None]
    quants = np.round((blocks + (dmin.astype(np.float32) * m)[..., None]) / np.where(step == 0, 1, step))
    quants = np.clip(quants, 0, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    packed = quants[:, :, 0] | quants[:, :, 1] << 4
    bits = np.concatenate([sc[:, :4] | (sc[:, 4:] >> 4) << 6, m[:, :4] | (m[:, 4:] >> 4) << 6,
                           (sc[:, 4:] & 15) | (m[:, 4:] & 15) << 4], axis=1)
    rows = np.concatenate([d.view(np.uint8), dmin.view(np.uint8), bits, packed.reshape(len(d), -1)], axis=1)
    return rows.reshape(weight.shape[0], -1)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize('kind', ['F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_K'])
@pytest.mark.parametrize('name', ['llama 3', 'gemma3'])
def test_quantised_files_hold_what_the_format_says(tmp_path, monkeypatch, kind, name):
    """Written by the package gguf (Q4_K by hand), read here, and by transformers with the numbers that the
    package reads from the file."""
    family, fields = MODELS[name]
    config = config_class(family)(**fields | dict(num_hidden_layers=2))
    theirs = randomise(AutoModelForCausalLM.from_config(config, attn_implementation='eager').float())
    theirs.save_pretrained(tmp_path)
    file_type, quantize, kept = gguf.GGMLQuantizationType[kind], gguf.quants.quantize, {}

    def quantised(data, _):
        if data.ndim < 2:
            return data
        data = q4_k(data) if kind == 'Q4_K' else quantize(data, file_type)
        return data

    add_tensor = gguf.GGUFWriter.add_tensor

    def add(self, key, data, raw_dtype=None):
        matrix = data.ndim > 1
        kept[key] = gguf.quants.dequantize(data, file_type) if matrix else data
        add_tensor(self, key, data, raw_dtype=file_type if matrix else raw_dtype)

    monkeypatch.setattr(gguf.quants, 'quantize', quantised)
    monkeypatch.setattr(gguf.GGUFWriter, 'add_tensor', add)
    original = load(str(tmp_path))
    gguf_files.write(tmp_path / 'model.gguf', *original, BYTES, 'x', torch.float32)
    config, weights = load(str(tmp_path / 'model.gguf'))
    assert config == original[0]
    # the numbers of the file, and near those that were quantised
    assert np.array_equal(weights['transformer.wte.weight'].numpy(), kept['token_embd.weight'])
    share = {'F16': 1e-3, 'BF16': 1e-2, 'Q8_0': 1e-2, 'Q4_0': 0.15, 'Q4_K': 0.1}[kind]
    for key, weight in original[1].items():
        assert (weights[key] - weight).norm() <= share * weight.norm(), key
    # the same logits in transformers
    theirs.load_state_dict(to_transformers(config, weights), strict=False)
    ours = GPT.from_state_dict(config, weights).eval()
    assert (ours(IDX) - theirs(IDX).logits).abs().max() < 1e-4


# ---- tokenizers

texts = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(
    "yo I'm WE'LL 1999 12 \n\n \t naïve 東京 🎤🏽 (ayy) </s> <s> a_b http://x.y".split(' ') + ['  ', '\n'])
    ).map(''.join))


@pytest.mark.parametrize('pre', ['gpt-2', 'smollm', 'llama-bpe', 'qwen2', 'tekken'])
def test_a_byte_level_tokenizer_survives_the_file(tmp_path, pre):
    library = Tokenizer(models.BPE())
    library.pre_tokenizer, library.decoder = gguf_tokenizer.pre_tokenizer(pre), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=['<|endoftext|>'],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    text = "I'm runnin'  on the night bus, WE'LL see 1999 12 123\n\n\tnaïve 1234 Yo"
    library.train_from_iterator([text] * 9, trainer)
    ours = ModelTokenizer(library, 'x', 0)
    path = write_tokenizer(tmp_path / 'model.gguf', ours)
    back = load_tokenizer(str(path))
    fields = gguf_tokenizer.fields_of(gguf_tokenizer.open_gguf(path), of_tokenizer=True)
    assert fields['tokenizer.ggml.pre'] == pre
    assert (back.eot, back.bos, back.vocab_size) == (ours.eot, ours.bos, ours.vocab_size)

    @settings(max_examples=100, deadline=None)
    @given(texts)
    def check(text):
        assert back.encode(text) == ours.encode(text) or pre == 'qwen2'  # which normalises, too

    check()


@pytest.mark.parametrize('has_prefix', [True, False])
def test_a_sentencepiece_tokenizer_survives_the_file(tmp_path, has_prefix):
    """Trained here by the library, with scores and byte fallback; each side reads what the other wrote."""
    library = Tokenizer(models.BPE(unk_token='<unk>', fuse_unk=True, byte_fallback=True))
    gguf_tokenizer._add_spaces(library, has_prefix)
    byte_tokens = [f'<0x{byte:02X}>' for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=['<unk>', '<s>', '</s>', *byte_tokens])
    library.train_from_iterator(["I'm runnin' on the night bus, yo 1999\n" * 3, 'the kettle sings at night'],
                                trainer)
    content = json.loads(library.to_str())
    content['added_tokens'] = [token for token in content['added_tokens']
                               if token['content'] not in byte_tokens]
    library = Tokenizer.from_str(json.dumps(content))
    library.post_processor = processors.TemplateProcessing(single='<s> $A', special_tokens=[('<s>', 1)])
    ours = ModelTokenizer(library, 'x', 2)
    back = load_tokenizer(str(write_tokenizer(tmp_path / 'model.gguf', ours)))
    assert (back.eot, back.bos, back.vocab_size) == (2, 1, ours.vocab_size)

    @settings(max_examples=150, deadline=None)
    @given(texts)
    def check(text):
        ids = ours.encode(text)
        assert back.encode(text) == ids and back.decode(ids) == ours.decode(ids)

    check()
    assert back.decode(back.encode('the night 東京')) == 'the night 東京'
    assert not back.marks & set(back.encode('<s> </s>'))


def write_tokenizer(path, tokenizer):
    writer = gguf.GGUFWriter(path, 'llama')
    gguf_tokenizer.write_tokenizer(writer, tokenizer, tokenizer.vocab_size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# ---- what is refused


@pytest.mark.parametrize('name, words', [
    ('qwen2, windows', 'qwen2 has no window=9'), ('gpt_neox, in turn', "gptneox has no mlp='gelu'"),
    ('opt', 'no opt models'), ('mistral', 'llama has no window=7'), ('phi3', 'phi3 has no window=11')])
def test_models_that_llama_cpp_has_not_are_refused(tmp_path, name, words):
    kind, fields = REFERENCES[name]
    AutoModelForCausalLM.from_config(config_class(kind)(**fields)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=words):
        gguf_files.write(tmp_path / 'model.gguf', *load(str(tmp_path)), BYTES, 'x', torch.float32)


@pytest.fixture
def small(tmp_path):
    kind, fields = REFERENCES['llama']
    model = AutoModelForCausalLM.from_config(config_class(kind)(**fields | dict(vocab_size=260)))
    model.save_pretrained(tmp_path)
    return load(str(tmp_path)), tmp_path / 'model.gguf'


def test_bad_files_get_one_line(small, monkeypatch):
    (config, weights), path = small
    gguf_files.write(path, config, weights, BYTES, 'x', torch.float32)
    whole = path.read_bytes()
    for n_bytes in (0, 3, 500, 20_000, len(whole) - 1000):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(UserError, match='damaged, half-written or no GGUF file'):
            load(str(path))
    path.write_bytes(whole.replace(b'blk.1.ffn_up.weight', b'blk.1.ffn_xx.weight'))
    with pytest.raises(UserError, match="weights lack 'blk.1.ffn_up.weight'"):
        load(str(path))
    path.write_bytes(whole.replace(b'llama', b'mamba'))
    with pytest.raises(UserError, match="general.architecture='mamba' is not supported, only"):
        load(str(path))
    with pytest.raises(UserError, match='there is no file'):
        load(str(path.with_name('other.gguf')))


def test_a_gguf_file_is_a_base_for_the_scripts(small):
    (config, weights), path = small
    gguf_files.write(path, config, weights, BYTES, 'x', torch.float32)
    out = run('sample.py', f'--init_from={path}', '--max_new_tokens=5', '--device=cpu', '--start=yo',
              '--num_samples=1').stdout
    assert '\nyo' in out
    path.write_bytes(path.read_bytes()[:5000])
    assert 'no GGUF file' in run('sample.py', f'--init_from={path}', '--device=cpu', ok=False).message


def test_smollm2_is_one_case_of_it():
    assert load_tokenizer('smollm2').meta() | dict(tokenizer='') == load_tokenizer(
        str(smollm2_file())).meta() | dict(tokenizer='')
