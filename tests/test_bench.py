"""bench.py: its figures add up; what it says on paper, against counts by hand, measured peaks and published
runs."""

import json

import pytest
import torch
from conftest import ONE_THREAD, generate_ids, randomise_matrices, run, torchrun

from model import GPT, GPTConfig
from nanorap.bench import estimate
from nanorap.bench.baselines import other_programs
from nanorap.bench.measurements import Figures, exponent
from nanorap.common import UserError

TINY = ['--device=cpu', '--n_layer=2', '--n_head=2', '--n_embd=32', '--block_size=64', '--batch_size=2',
        '--vocab_size=200']


def figures(path):
    return {name: figure['values'] for name, figure in json.loads(path.read_text())['figures'].items()}


@pytest.mark.slow
def test_training_step_by_parts(tmp_path):
    """The parts of a step add up to it, the profile is a trace, and the run is compared with an earlier
    one."""
    before = Figures(dict(mode='train', options={}), enabled=False)
    before.add('training', 'tokens/s', [1.0, 1.1, 1.2])
    before.write(tmp_path / 'before.json')
    result = run('bench.py', *TINY, '--repeats=3', '--micro_batches=2', '--profile=True', '--json=now.json',
                 '--compare=before.json', cwd=tmp_path, **ONE_THREAD)
    now = figures(tmp_path / 'now.json')
    for i, rate in enumerate(now['training']):
        parts = sum(now[part][i] for part in ('data', 'forward', 'backward', 'optimizer'))
        assert parts == pytest.approx(2 * 2 * 64 / rate)
    trace = json.loads((tmp_path / 'out-bench/trace.json').read_text())
    assert any('aten::' in event['name'] for event in trace['traceEvents'])
    assert result.stdout.count(' calls\n') == 10
    assert "x  better" in result.stdout and "batch_size None -> 2" in result.stdout


@pytest.mark.slow
def test_other_modes(tmp_path):
    """Sampling is told by format and batch size, beside others where the architecture allows it; data;
    scaling with a plot."""
    result = run('bench.py', *TINY, '--mode=sample', '--repeats=1', '--decode_tokens=4', '--pos=alibi',
                 '--json=sample.json', cwd=tmp_path, **ONE_THREAD)
    names = figures(tmp_path / 'sample.json')
    expected = {f'decoding, {name}, batch {n}' for name in ('float32', 'int8') for n in (1, 2, 4, 8, 16)}
    assert expected <= {*names}
    assert "has no pos='alibi'" in result.stdout
    run('bench.py', *TINY, '--mode=data', '--repeats=1', '--megabytes=1', '--json=data.json', cwd=tmp_path,
        **ONE_THREAD)
    data = figures(tmp_path / 'data.json')
    assert {'tiktoken.encode_ordinary_batch', 'drawing 2 x 64, documents'} <= {*data}
    assert data['peak memory of prepare.py'][0] < 0.25  # not that of the process which measures
    run('bench.py', *TINY, '--mode=scaling', '--repeats=1', '--json=scaling.json', cwd=tmp_path, **ONE_THREAD)
    scaling = json.loads((tmp_path / 'scaling.json').read_text())['scaling']
    assert scaling['context']['sizes'] == [8, 16, 32, 64] and 0 < scaling['context']['expected'] < 1
    assert (tmp_path / 'scaling.png').read_bytes().startswith(b'\x89PNG')


def test_mistakes(tmp_path):
    def message(*flags):
        return run('bench.py', *flags, ok=False).message

    (tmp_path / 'a.json').write_text('[]')
    assert 'what bench.py --json=FILE writes' in message(f'--compare={tmp_path / "a.json"}')
    assert 'choose one of A100-40GB' in message('--mode=estimate', '--gpu=A100')


def test_verdicts(tmp_path, capsys):
    """None where the spreads overlap or repeats are few; fewer seconds are better, fewer tokens/s are
    worse."""
    cases = [('overlap', 'tokens/s', [10, 11, 12], [11.5, 13, 14], 'no verdict'),
             ('few', 's', [1, 1], [9, 9], 'no verdict'),
             ('faster', 'tokens/s', [10, 11, 12], [20, 22, 24], '2.000x  better'),
             ('slower', 'tokens/s', [20, 22, 24], [10, 11, 12], '0.500x  worse'),
             ('shorter', 's', [2, 4, 6], [1, 1, 1], '0.250x  better')]
    old, new = (Figures(dict(mode='train', options={}), enabled=False) for _ in range(2))
    for name, unit, a, b, _ in cases:
        old.add(name, unit, a)
        new.add(name, unit, b)
    old.write(tmp_path / 'old.json')
    new.compare(tmp_path / 'old.json')
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert all(verdict in lines[name] for name, *_, verdict in cases), lines
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)


@pytest.mark.parametrize('bias', [True, False])
def test_peers_write_the_same(tmp_path, bias, capsys):
    """The programs that are timed do the work that we do: the same tokens, by the same weights."""
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=32, vocab_size=64, bias=bias)
    model = randomise_matrices(GPT(config))
    prompt = [3, 1, 4, 1, 5]
    ours = generate_ids(model, prompt, max_new_tokens=8, temperature=0)[0]
    calls = other_programs(model, tmp_path, [prompt] * 2, 8, 'cpu', dict(float32=torch.float32))
    assert calls['transformers float32']().tolist() == [prompt + ours] * 2
    if 'CTranslate2 float32' in calls:
        results = calls['CTranslate2 float32']()
        assert [[int(token) for token in result.sequences[0]] for result in results] == [ours] * 2
    else:
        assert 'CTranslate2 is left out' in capsys.readouterr().err


# ---- on paper

@pytest.mark.parametrize('options', [
    dict(), dict(mlp='swiglu'), dict(mlp='relu2', n_hidden=128), dict(pos='rotary'), dict(qk_norm=True),
    dict(n_kv_head=2), dict(norm='rmsnorm')])
@pytest.mark.parametrize('half', [False, True])
def test_activations(options, half):
    """Against what autograd really keeps for a block's backward."""
    B, T = 2, 48
    c = GPTConfig(**dict(n_layer=1, n_head=4, n_embd=64, block_size=T, vocab_size=100, bias=False) | options)
    model, kept = GPT(c), {}
    block = model.transformer.h[0]
    mine = {p.untyped_storage().data_ptr() for p in block.parameters()}
    shapes = {shape for p in block.parameters() if p.dim() > 1 for shape in (p.shape, p.mT.shape)}

    def keep(t):
        # neither weights nor their copies in half precision
        if t.untyped_storage().data_ptr() not in mine and t.shape not in shapes:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    x, rope = torch.randn(B, T, 64,
                          requires_grad=True), model.rope(torch.arange(T)) if c.pos == 'rotary' else None
    mine |= {t.untyped_storage().data_ptr() for t in rope or ()}  # all blocks share them
    autocast = torch.autocast('cpu', torch.bfloat16, enabled=half)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), autocast:
        block(x, rope, None, None)
    counted = estimate.block_activations(c, estimate.Job(B, T, half=half, on_cpu=True)) * B * T
    assert counted == pytest.approx(sum(t.untyped_storage().nbytes() for t in kept.values()), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(('launch', 'options'), [
    # weights, gradients and the optimizer's averages are most of it, then activations, then what recomputing
    # leaves of them
    ('ddp', ['--n_layer=12', '--n_embd=512', '--n_head=4', '--block_size=16', '--batch_size=4']),
    ('fsdp', ['--n_layer=12', '--n_embd=512', '--n_head=4', '--block_size=16', '--batch_size=4']),
    (None, ['--n_layer=6', '--n_embd=128', '--n_head=4', '--block_size=64', '--batch_size=72']),
    (None, ['--n_layer=6', '--n_embd=128', '--n_head=4', '--block_size=64', '--batch_size=192',
            '--recompute=True']),
])
def test_memory_on_paper(tmp_path, monkeypatch, launch, options):
    """Within 15% of the measured peak, of train.py's step in real processes. (Without the variable, glibc
    keeps what was freed.)"""
    monkeypatch.setenv('MALLOC_MMAP_THRESHOLD_', '100000')
    flags = ['--device=cpu', '--vocab_size=300', '--repeats=1', *options, f'--json={tmp_path / "bench.json"}']
    if launch:
        torchrun(2, 'bench.py', *flags, f'--parallel={launch}')
    else:
        run('bench.py', *flags, **ONE_THREAD)
    on_paper = json.loads((tmp_path / 'bench.json').read_text())['memory_on_paper']
    (measured,) = figures(tmp_path / 'bench.json')['peak memory of model and step']
    assert on_paper == pytest.approx(measured, rel=0.15) and on_paper > 0.18


def gpt2():
    with torch.device('meta'):
        return GPT(GPTConfig(n_layer=12, n_head=12, n_embd=768, block_size=1024, vocab_size=50304,
                             bias=False))


def days(machine, world, tokens, batch_size=12):
    """To train GPT-2 124M on so many tokens."""
    model, step = gpt2(), 480 * 1024
    job = estimate.Job(batch_size, 1024, world, micro_batches=480 // (batch_size * world))
    work, _, late = estimate.step_time(model.flops_per_token(1024), estimate.size(model), job, machine)
    return (work + late) * tokens / step / 86400


def test_time_on_paper():
    """Published runs of GPT-2 124M. nanoGPT: 300B tokens in about 4 days on 8 A100-40GB
    (https://github.com/karpathy/nanoGPT), which implies an MFU of 0.29. llm.c: 10B tokens in about 90 minutes
    on 8 A100-80GB, with kernels of its own (https://github.com/karpathy/llm.c/discussions/481): 0.63."""
    assert days(estimate.Machine('A100-40GB', 8, None, 0.293), 8, 300e9) == pytest.approx(4.06, abs=0.02)
    n_tokens = 480 * 1024 * 600_000
    assert days(estimate.Machine('A100-40GB', 8, None, 0.3), 8, n_tokens) == pytest.approx(4, rel=0.1)
    assert days(estimate.Machine('A100-80GB', 8, None, 0.63), 8, 10e9) * 24 == pytest.approx(1.5, rel=0.05)


def test_on_paper_by_hand():
    """Parameters, operations, exchanged bytes and the largest batch of GPT-2 124M without biases."""
    model = gpt2()
    C, block = 768, 12 * 768**2 + 2 * 768
    n = estimate.size(model)
    assert (n.block, n.total) == (block, 12 * block + (50304 + 1024) * C + C)
    assert model.flops_per_token(1024) == 6 * (n.total - 1024 * C) + 12 * 12 * C * 1024
    ddp = estimate.Job(12, 1024, 8, 'ddp', micro_batches=5)
    assert estimate.exchange(n, ddp) == pytest.approx(2 * 7 / 8 * 4 * n.total)
    # FSDP: twice the weights in bfloat16 and the gradients in fp32, in each micro-batch
    fsdp = ddp._replace(parallel='fsdp')
    assert estimate.exchange(n, fsdp) == pytest.approx(5 * 7 / 8 * (2 + 2 + 4) * n.total)
    parts = estimate.memory(model.config, n, ddp)
    assert [parts[key] for key in ('weights', 'gradients', 'optimizer',
                                   'buckets')] == [k * n.total for k in (4, 4, 8, 4)]
    fsdp = estimate.memory(model.config, n, ddp._replace(parallel='fsdp'))
    assert [fsdp[key] for key in ('weights', 'gradients', 'optimizer',
                                  'buckets')] == [k * n.total / 8 for k in (4, 4, 8, 0)]
    most = estimate.largest_batch(model.config, n, ddp, 38e9)
    peaks = [estimate.memory(model.config, n, ddp._replace(batch_size=b))['peak'] for b in (most, most + 1)]
    assert peaks[0] <= 38e9 < peaks[1] and estimate.largest_batch(model.config, n, ddp, 1e9) == 0
    # four nodes: 8 network cards of 25 GB/s are slower than NVLink's 300 GB/s
    machine = estimate.Machine('A100-40GB', 8, None, 0.3)
    sent = [estimate.step_time(1e9, n, ddp._replace(world_size=world), machine)[1] for world in (8, 32)]
    assert sent == pytest.approx([2 * 7 / 8 * 4 * n.total / 300e9, 2 * 31 / 32 * 4 * n.total / 200e9])
    with pytest.raises(UserError, match='--network'):
        estimate.step_time(1e9, n, ddp._replace(world_size=32), machine._replace(gpu='L4'))


def test_report_and_table():
    """What --mode=estimate prints (the README's tests run it as a script)."""
    machine, job = estimate.Machine('A100-40GB', 8, None, 0.3), estimate.Job(12, 1024)
    text = '\n'.join(estimate.report(dict(scratch=gpt2()), job, machine, [8], 480, 600_000))
    for words in ('124.37M', '0.8548 GFLOPs', '491,520 tokens', '3.90 days', 'MFU of 30%',
                  '0.87 GB per GPU and step'):
        assert words in text
    assert 'does not fit' not in text
    too_large = estimate.report(dict(a=gpt2()), job._replace(batch_size=240), machine, [1], 480, 1)
    assert 'does not fit' in list(too_large)[-1]
    with pytest.raises(UserError, match='no multiple'):
        list(estimate.report(dict(scratch=gpt2()), job, machine, [3], 480, 1))
    lines = list(estimate.table(dict(small=gpt2(), same=gpt2()), job, machine, [1, 32], 480, 600_000))
    assert len(lines) == 2 + 2 * 3 and len({line.count('|') for line in lines}) == 1
    assert lines[2].startswith('| small | 124M | 1 |') and lines[2].endswith('| 31.2 |')
