"""What a run survives: signals, kills at any moment, full disks, NaNs, many steps.

More kills than a test suite should try:
KILLS=500 python -m pytest tests/test_survival.py -k killed
"""

import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import TINY, equal, losses, rows, run, start
from safetensors.torch import load_file, save_file

from nanorap import checkpoint as ckpt
from nanorap.common import SUMS, UserError, check_sums, model_folder, sha256
from nanorap.dataset import write_dataset
from nanorap.tokenizer import CharTokenizer

KILLS = int(os.environ.get('KILLS', 0))
STEPS = 40 * (KILLS or 3)
FLAGS = [*TINY, '--dropout=0.1', '--lr_schedule=constant', '--learning_rate=1e-3']


@pytest.fixture(scope='module')
def uninterrupted(char_data, tmp_path_factory):
    """The run that nothing happens to."""
    out = tmp_path_factory.mktemp('uninterrupted')
    run('train.py', *FLAGS, f'--dataset={char_data}', f'--out_dir={out}', f'--max_iters={STEPS}',
        '--eval_interval=40')
    return out


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals(char_data, tmp_path, uninterrupted, number, code):
    """More of them, up to the process' very end, change nothing: the step is finished and saved, and the run
    goes on."""
    flags = [*FLAGS, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--eval_interval=40',
             '--always_save_checkpoint=False']
    process = start(sys.executable, 'train.py', *flags, '--max_iters=1000000')
    while 'step 5:' not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    while process.poll() is None:
        process.send_signal(number)
        time.sleep(0.003)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and 'Traceback' not in err, err
    step = max(losses(tmp_path))
    assert f'stopped by signal {number.value} after step {step}' in out and 5 <= step < 40, step
    assert sorted(path.name for path in tmp_path.iterdir()) == ['log.csv', f'step-{step:08d}']
    run('train.py', *flags, '--max_iters=40', '--init_from=resume')
    a, b = rows(uninterrupted), rows(tmp_path)
    losses_a, losses_b = ([row.get('loss', row.get('val_loss')) for row in log] for log in (a, b))
    assert losses_b == losses_a[: len(b)]


@pytest.mark.slow
def test_killed_runs(char_data, tmp_path, uninterrupted):
    """train.py killed at random moments, and started again each time: the end is that of the run that nobody
    killed."""
    kills, most_lost = KILLS or 3, 0
    flags = [*FLAGS, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--eval_interval=2',
             f'--max_iters={STEPS}']
    print('seed', seed := int(time.time()))
    rng = random.Random(seed)
    for kill in range(kills):
        is_first = not list(tmp_path.glob('step-*'))
        process = start(sys.executable, 'train.py', *flags, *([] if is_first else ['--init_from=resume']))
        for line in process.stdout:
            if line.startswith('step ') and ': loss' in line:
                break
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        process.communicate()
        if list(tmp_path.glob('*')):
            reached = max(losses(tmp_path), default=0)
            saved = ckpt.load_step(tmp_path)[3]['step'] if reached > 2 else 0
            most_lost = max(most_lost, reached - saved)
            assert saved >= reached - 2, (kill, reached, saved)
    print(f'{kills} kills, at most {most_lost} steps lost, at step {max(losses(tmp_path))}')
    run('train.py', *flags, '--init_from=resume')
    assert equal(uninterrupted / f'step-{STEPS:08d}', tmp_path / f'step-{STEPS:08d}')


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork here')
def test_killed_saves(tmp_path):
    """A process that does nothing but save, killed at random moments: what it said was saved is there, and
    whole."""
    weights, tokenizer = dict(w=torch.arange(100_000)), CharTokenizer('ab')
    print('seed', seed := int(time.time()))
    rng, step = random.Random(seed), 0
    for _ in range(KILLS or 60):
        reader, writer = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                while True:
                    step += 1
                    about = dict(config=dict(val_loss=1 / step, step=step, run='a'), state=dict(step=step))
                    ckpt.write_folder(tmp_path / 'best', dict(model=weights), about, tokenizer)
                    for _ in range(2):  # a step may come twice
                        ckpt.save_step(tmp_path, step, dict(model=weights, optimizer=weights), about,
                                       tokenizer)
                    os.write(writer, b'%9d' % step)
            finally:
                os._exit(1)
        os.read(reader, 9)  # the first is saved
        time.sleep(rng.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(writer)
        told = os.read(reader, 9_000_000)
        os.close(reader)
        step = ckpt.load_step(tmp_path)[3]['step']
        assert step >= int(told[-9:] or 1)
        check_sums(model_folder(tmp_path))
        assert ckpt.best(tmp_path, 'a')[1] in (step, step + 1)


@pytest.mark.slow
def test_a_full_disk(char_data, tmp_path):
    """Files can't grow beyond 150 kB: the optimizer's state doesn't fit, and nothing that was there is
    lost."""
    flags = [*FLAGS, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--eval_interval=5']
    run('train.py', *flags, '--max_iters=5')
    before = {path: path.read_bytes() for path in tmp_path.glob('step-*/*')}

    def limit(size):
        def set_limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        result = subprocess.run([sys.executable, 'train.py', *flags, '--max_iters=10', '--init_from=resume'],
                                text=True, capture_output=True, preexec_fn=set_limit)
        assert result.returncode == 1 and 'Traceback' not in result.stderr
        return result.stderr.splitlines()[-1]

    assert "can't save to" in limit(150_000) and "can't write" in limit(100)
    assert {path: path.read_bytes() for path in tmp_path.glob('step-*/*')} == before
    assert not list(tmp_path.glob('.*'))
    run('train.py', *flags, '--max_iters=10', '--init_from=resume')


def test_a_pickle_is_never_run(tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'it ran'),)

    folder = tmp_path / 'out' / 'step-00000001'
    folder.mkdir(parents=True)
    for name in ('model.safetensors', 'optimizer.safetensors', 'config.json', 'state.json', 'ckpt.pt',
                 'optimizer.pt'):
        (folder / name).write_bytes(pickle.dumps(Malicious()))
        torch.save(Malicious(), folder / f'{name}.pt')
    sums = ''.join(f'{sha256(file)}  {file.name}\n' for file in folder.iterdir())
    (folder / SUMS).write_text(sums)
    message = run('train.py', f'--out_dir={folder.parent}', '--init_from=resume', *TINY,
                  f'--dataset={a_dataset(tmp_path)}', ok=False).message
    with pytest.raises(UserError, match='no checkpoint to resume'):
        ckpt.load_step(folder.parent)
    assert 'no checkpoint to resume' in message and not (tmp_path / 'it ran').exists()
    pickle.loads((folder / 'ckpt.pt').read_bytes())
    assert (tmp_path / 'it ran').exists()  # it would have


def a_dataset(folder, text='ab' * 999):
    write_dataset(folder / 'data', CharTokenizer('abc'), [('train', text), ('val', 'ab' * 99)])
    return folder / 'data'


@pytest.mark.slow
def test_a_nan_is_left_out(tmp_path):
    """A token whose embedding is infinite spoils the batches that hold it: those steps are not taken, all
    others are."""
    data = a_dataset(tmp_path, 'ab' * 600 + 'c' + 'ba' * 600)
    flags = [*TINY, f'--dataset={data}', f'--out_dir={tmp_path / "out"}', '--tie_weights=False',
             '--eval_interval=5']
    run('train.py', *flags, '--max_iters=5')
    folder = max((tmp_path / 'out').glob('step-*'))
    weights = load_file(folder / 'model.safetensors')
    weights['transformer.wte.weight'][2] = float('inf')
    save_file(weights, folder / 'model.safetensors')
    lines = (folder / SUMS).read_text().splitlines()
    digest = sha256(folder / 'model.safetensors')
    lines = [f'{digest}  model.safetensors' if 'model' in line else line for line in lines]
    (folder / SUMS).write_text('\n'.join(lines) + '\n')
    result = run('train.py', *flags, '--max_iters=25', '--init_from=resume')
    log = rows(tmp_path / 'out')
    bad = [row for row in log if 'loss' in row and not np.isfinite(row['loss'])]
    assert len(bad) == result.stdout.count('not taken with rows') >= 2
    assert all(f'not taken with rows {int(row["row"])} to' in result.stdout for row in bad)
    good = [row for row in log if 'loss' in row and np.isfinite(row['loss'])]
    assert [row['step'] for row in good] == list(range(1, 26))  # max_iters=25 makes 25 updates
    # every row of the run was drawn, those of the steps that were not taken too
    assert sorted(row['row'] for row in good + bad) == [8 * i for i in range(len(good + bad))]
    weights = load_file(tmp_path / 'out/step-00000025/model.safetensors')
    del weights['transformer.wte.weight']
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path):
    """Rows from all over a file of 512 MB (with holes: nothing is on disk), most of whose pages are touched:
    a file that stays mapped would keep them."""
    data, n_tokens = a_dataset(tmp_path), 2**28
    os.truncate(data / 'train.bin', 2 * n_tokens)
    meta = json.loads((data / 'meta.json').read_text())
    meta['splits']['train'] |= dict(tokens=n_tokens)
    (data / 'meta.json').write_text(json.dumps(meta))
    run('train.py', '--device=cpu', f'--dataset={data}', f'--out_dir={tmp_path / "out"}', '--block_size=8',
        '--batch_size=64',
        '--gradient_accumulation_steps=1', '--n_layer=1', '--n_head=1', '--n_embd=8', '--max_iters=600',
        '--eval_interval=1000', '--eval_iters=8')
    memory = [row['memory'] for row in rows(tmp_path / 'out') if 'memory' in row]
    assert len(memory) == 600 and memory[-1] - memory[4] < 100e6, memory[:5] + memory[-1:]
