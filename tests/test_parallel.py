"""Several processes over gloo against one: the same losses, and checkpoints that are the same files."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
import torch
from conftest import ONE_THREAD, TINY, TORCHRUN, equal, losses, rows, run, start, torchrun, weights
from safetensors.torch import load_file


@pytest.mark.slow
@pytest.mark.parametrize(('parallel', 'batches'),
                         [('ddp', 'documents'), ('ddp', 'stream'), ('fsdp', 'documents')])
def test_two_processes_equal_one(char_data, tmp_path, parallel, batches):
    """5 windows per evaluation in batches of 2: the second process has none left for the last."""
    flags = [*TINY, f'--dataset={char_data}', f'--batches={batches}', '--eval_interval=5', '--max_iters=20',
             '--dropout=0.1', '--eval_iters=5', '--batch_size=2', '--gradient_accumulation_steps=4',
             '--learning_rate=3e-3']
    run('train.py', *flags, f'--out_dir={tmp_path / "one"}', **ONE_THREAD)
    result = torchrun(2, 'train.py', *flags, f'--out_dir={tmp_path / "two"}', f'--parallel={parallel}')
    assert result.stdout.count('step 20: train loss') == 1  # one process prints
    one, two = rows(tmp_path / 'one'), rows(tmp_path / 'two')
    assert len(one) == len(two) == 25
    for a, b in zip(one, two, strict=True):
        for key in ('loss', 'val_loss', 'lr', 'tokens', 'row'):
            assert a.get(key) == pytest.approx(b.get(key), abs=1e-4), (a['step'], key)
        assert a.get('grad_norm', 0) == pytest.approx(b.get('grad_norm', 0), rel=1e-3), a['step']
    for file in ('model', 'optimizer'):  # the same names and shapes, whole on both sides
        a, b = (load_file(tmp_path / run / f'step-00000020/{file}.safetensors') for run in ('one', 'two'))
        assert {k: (v.shape, v.dtype) for k, v in a.items()} == {k: (v.shape, v.dtype) for k, v in b.items()}
        assert all(torch.allclose(a[k], b[k], atol=1e-3) for k in a)


@pytest.mark.slow
def test_resume_with_another_number_of_processes(char_data, tmp_path):
    """2 processes with FSDP, then 1, then 2 with DDP: the losses and the data's order of one process all the
    way. With Muon, whose momentum is sharded too."""
    flags = [*TINY, f'--dataset={char_data}', '--eval_interval=3', '--dropout=0.1', '--lr_schedule=constant',
             '--optimizer=muon']
    run('train.py', *flags, '--max_iters=9', f'--out_dir={tmp_path / "one"}', **ONE_THREAD)
    flags.append(f'--out_dir={tmp_path / "many"}')
    torchrun(2, 'train.py', *flags, '--max_iters=3', '--parallel=fsdp')
    run('train.py', *flags, '--max_iters=6', '--init_from=resume', **ONE_THREAD)
    torchrun(2, 'train.py', *flags, '--max_iters=9', '--init_from=resume', '--parallel=fsdp')
    shutil.copytree(tmp_path / 'many', tmp_path / 'ddp')
    torchrun(2, 'train.py', *flags, f'--out_dir={tmp_path / "ddp"}', '--max_iters=12', '--init_from=resume')
    one, many = rows(tmp_path / 'one'), rows(tmp_path / 'many')
    assert [row['step'] for row in one] == [row['step'] for row in many]
    for a, b in zip(one, many, strict=True):
        for key in ('row', 'tokens', 'loss', 'val_loss'):
            assert a.get(key) == pytest.approx(b.get(key), abs=1e-4), (a['step'], key)
    assert sorted(losses(tmp_path / 'ddp')) == list(range(1, 13))


@pytest.mark.slow
def test_fsdp_takes_less_memory(char_data, tmp_path, monkeypatch):
    """At 19M parameters, 0.08 GB, what a process is spared of weights, gradients and AdamW's state. (Without
    the variable, glibc keeps what was freed.)"""
    flags = ['--device=cpu', f'--dataset={char_data}', '--block_size=16', '--batch_size=1',
             '--gradient_accumulation_steps=2',
             '--n_layer=6', '--n_head=4', '--n_embd=512', '--max_iters=2', '--eval_iters=2',
             '--eval_interval=1000']
    monkeypatch.setenv('MALLOC_MMAP_THRESHOLD_', '100000')
    memory = {}
    for parallel in ('ddp', 'fsdp'):
        torchrun(2, 'train.py', *flags, f'--parallel={parallel}', f'--out_dir={tmp_path / parallel}')
        memory[parallel] = [row['memory'] for row in rows(tmp_path / parallel) if 'memory' in row][-1]
    whole = sum(tensor.nbytes for tensor in weights(tmp_path / 'ddp/best').values())
    # half of four times the weights: them, their gradients, AdamW's two averages
    assert memory['ddp'] - memory['fsdp'] > 1.5 * whole, (memory, whole)


def test_wrong_options_get_one_line(char_data, tmp_path):
    flags = [*TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--max_iters=1']
    assert 'choose ddp or fsdp' in run('train.py', *flags, '--parallel=tp', ok=False).message
    result = torchrun(2, 'train.py', *flags, '--gradient_accumulation_steps=3', ok=False)
    assert 'multiple of their number, 2' in result.stderr
    result = torchrun(2, 'train.py', *flags, '--parallel=fsdp', '--dtype=float16', ok=False)
    assert 'use --dtype=bfloat16' in result.stderr


def workers(torchrun_process):
    return [int(pid) for pid in subprocess.check_output(['pgrep', '-P', str(torchrun_process.pid)]).split()]


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)


@pytest.mark.slow
def test_a_killed_worker_comes_back(char_data, tmp_path):
    """torchrun --max-restarts: the run goes on from its last checkpoint, and ends as if nothing had been. An
    older run's checkpoints in the same folder are not taken for its own."""
    flags = [*TINY, f'--dataset={char_data}', '--eval_interval=5', '--max_iters=30', '--dropout=0.1',
             '--lr_decay_iters=30']
    torchrun(2, 'train.py', *flags, f'--out_dir={tmp_path / "a"}')
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    for folder in (tmp_path / 'b').glob('step-*'):
        folder.rename(tmp_path / 'b' / f'step-0009{folder.name[-4:]}')
    process = start(*TORCHRUN, '--nproc_per_node=2', '--max-restarts=3', 'train.py', *flags,
                    f'--out_dir={tmp_path / "b"}', **ONE_THREAD)
    wait_for(tmp_path / 'b/step-00000005', process)
    os.kill(workers(process)[-1], signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    # two starts, one of them from the beginning
    assert out.count('parameters on cpu') == 2 and out.count('step 0: val loss') == 1
    assert sorted(losses(tmp_path / 'b')) == list(range(1, 31))
    assert losses(tmp_path / 'a') == losses(tmp_path / 'b')
    assert equal(tmp_path / 'a/step-00000030', tmp_path / 'b/step-00000030')


@pytest.mark.slow
def test_a_restart_is_recognised_by_rdzv_id(char_data, tmp_path):
    """With several nodes torchrun's count of restarts differs between them, so --rdzv_id decides, and no name
    is none."""
    flags = [*TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--eval_interval=2']
    torchrun_says = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', TORCHELASTIC_RESTART_COUNT='0')
    for run_id, steps, first in (('bars', 2, 1), ('bars', 4, 3), ('verse', 2, 1), ('none', 4, 1),
                                 ('none', 4, 1)):
        result = run('train.py', *flags, f'--max_iters={steps}', **torchrun_says, TORCHELASTIC_RUN_ID=run_id)
        assert f'step {first}: loss' in result.stdout, run_id
        assert f'step {first - 1}: loss' not in result.stdout, run_id


@pytest.mark.slow
@pytest.mark.parametrize('to', ['torchrun', 'one worker'])
def test_all_stop_at_the_same_step(char_data, tmp_path, to):
    """torchrun passes a signal on to all; a cluster's scheduler may send it to one. FSDP would hang if they
    disagreed."""
    process = start(*TORCHRUN, '--nproc_per_node=2', 'train.py', *TINY, f'--dataset={char_data}',
                    f'--out_dir={tmp_path}',
                    '--max_iters=1000000', '--eval_interval=50', '--always_save_checkpoint=False',
                    '--parallel=fsdp', **ONE_THREAD)
    wait_for(tmp_path / 'step-00000050', process)
    os.kill(process.pid if to == 'torchrun' else workers(process)[-1], signal.SIGTERM)
    out, _ = process.communicate(timeout=200)
    assert process.returncode != 0
    step = json.loads((max(tmp_path.glob('step-*')) / 'state.json').read_text())['step']
    assert f'stopped by signal 15 after step {step}' in out and max(losses(tmp_path)) == step
