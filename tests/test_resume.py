"""A run that ends and goes on is the run that never ended, to the bit; and what ends a run early."""

import json
import shutil

import pytest
from conftest import TINY, equal, losses, rows, run

from nanorap.dataset import read_meta, write_dataset
from nanorap.tokenizer import CharTokenizer


def state(folder):
    return json.loads((folder / 'state.json').read_text())


@pytest.fixture(scope='module')
def small_data(tmp_path_factory):
    """13 documents, 13 windows: with 8 rows a step, epochs end within steps."""
    folder = tmp_path_factory.mktemp('small')
    songs = [('train', f'bars of {i}\n' * 4) for i in range(13)] + [('val', 'bars of 1234567890\n' * 9)]
    write_dataset(folder, CharTokenizer('bars of\n1234567890'), songs)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('flags', [
    ['--batches=documents', '--dropout=0.1'],
    ['--batches=stream', '--dropout=0.1', '--dtype=bfloat16', '--lr_decay_iters=8', '--min_lr=1e-4'],
    ['--batches=documents', '--eval_iters=None', '--lr_schedule=constant', '--dropout=0.1', 'small'],
    ['--optimizer=muon', '--batch_size_start=4', '--batch_size_ramp_iters=6', '--recompute=True'],
    ['--batches=stream', '--eval_iters=None', '--dtype=float16', 'small'],
], ids=' '.join)
def test_resume_is_exact(char_data, small_data, tmp_path, flags):
    """8 steps at once, and the same from step 4 on: weights and optimizer to the bit, and one log without
    gaps."""
    data = small_data if 'small' in flags else char_data
    flags = [*TINY, f'--dataset={data}', '--eval_interval=4', '--max_iters=8',
             *(f for f in flags if f != 'small')]
    a, b = tmp_path / 'a', tmp_path / 'b'
    run('train.py', *flags, f'--out_dir={a}')
    if data == small_data:
        n_documents = read_meta(data)['splits']['train']['documents']
        assert state(a / 'step-00000004')['row'] > n_documents  # an epoch is over
    shutil.copytree(a, b)
    shutil.rmtree(b / 'step-00000008')
    result = run('train.py', *flags, f'--out_dir={b}', '--init_from=resume')
    assert 'warning' not in result.stderr and 'step 5' in result.stdout and 'step 4' not in result.stdout
    assert equal(a / 'step-00000008', b / 'step-00000008')
    for key in ('step', 'row', 'tokens', 'loss', 'val_loss', 'lr'):
        assert [row.get(key) for row in rows(a)] == [row.get(key) for row in rows(b)], key
    state_a, state_b = state(a / 'step-00000008'), state(b / 'step-00000008')
    assert state_a == state_b | dict(settings=state_a['settings'])


@pytest.mark.slow
def test_changed_settings_are_named(trained, char_data, tmp_path):
    out, _ = trained
    shutil.copytree(out, tmp_path / 'out')
    write_dataset(tmp_path, CharTokenizer(read_meta(char_data)['chars']),
                  [('train', 'ab' * 99), ('val', 'ab' * 99)])
    flags = [*TINY, '--init_from=resume', f'--out_dir={tmp_path / "out"}', '--batches=documents',
             '--lr_decay_iters=40', '--eval_interval=20', '--max_iters=42']
    warning = run('train.py', *flags, f'--dataset={tmp_path}', '--beta2=0.99', '--batch_size=2',
                  '--log_interval=2').stderr
    assert 'resuming with other settings' in warning and warning.count('\n') == 1
    for change in ('beta2 was 0.95 and is 0.99', 'batch_size was 4 and is 2', 'max_iters was 40 and is 42',
                   'dataset was ', 'train.bin was ', 'val.bin was '):
        assert change in warning, change
    assert warning.count(' was ') == 6
    result = run('train.py', *flags, f'--dataset={char_data}', '--optimizer=muon', ok=False)
    assert 'uses adamw: leave the option out' in result.message


@pytest.mark.slow
def test_patience(trained, char_data, tmp_path):
    """A learning rate that makes it worse: the run ends after two evaluations without a new best, which
    stays."""
    shutil.copytree(trained[0], tmp_path / 'out')
    best = (tmp_path / 'out/best/config.json').read_text()
    result = run('train.py', *TINY, f'--dataset={char_data}', f'--out_dir={tmp_path / "out"}',
                 '--init_from=resume', '--batches=documents', '--eval_interval=5', '--max_iters=1000',
                 '--lr_schedule=constant', '--learning_rate=1.0',
                 '--patience=2', '--always_save_checkpoint=False')
    assert max(losses(tmp_path / 'out')) == 50 and 'held-out loss' in result.stdout
    assert (tmp_path / 'out/step-00000050').exists() and not (tmp_path / 'out/step-00000045').exists()
    assert (tmp_path / 'out/best/config.json').read_text() == best


@pytest.mark.slow
def test_best_is_replaced_by_a_lower_loss_only(trained, char_data, tmp_path):
    """best/ from a step behind the checkpoint that the run goes on from is replaced by a lower loss only."""
    shutil.copytree(trained[0], tmp_path / 'out')
    path = tmp_path / 'out/best/config.json'
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | dict(val_loss=0.5)))
    shutil.copytree(tmp_path / 'out', tmp_path / 'another')
    run('train.py', *TINY, f'--dataset={char_data}', f'--out_dir={tmp_path / "out"}', '--init_from=resume',
        '--batches=documents', '--eval_interval=5', '--max_iters=45')
    assert json.loads(path.read_text())['val_loss'] == 0.5
    # that of another run, which this one has not come to replace before it was stopped, says nothing
    path = tmp_path / 'another/best/config.json'
    path.write_text(json.dumps(config | dict(val_loss=0.5, run='another')))
    run('train.py', *TINY, f'--dataset={char_data}', f'--out_dir={tmp_path / "another"}',
        '--init_from=resume', '--batches=documents', '--eval_interval=5', '--max_iters=45')
    assert json.loads(path.read_text())['step'] == 45


@pytest.mark.slow
def test_a_new_run_removes_the_checkpoints_of_an_old_one(trained, char_data, tmp_path):
    shutil.copytree(trained[0], tmp_path / 'out')
    result = run('train.py', *TINY, f'--dataset={char_data}', f'--out_dir={tmp_path / "out"}',
                 '--max_iters=1')
    assert 'holds the checkpoints of another run' in result.stderr
    files = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert files == ['best', 'log.csv', 'loss.png', 'step-00000001']
    assert json.loads((tmp_path / 'out/best/config.json').read_text())['step'] == 1


def test_a_damaged_best_is_not_used(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / 'out')
    path = tmp_path / 'out/best/model.safetensors'
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    message = run('sample.py', f'--out_dir={tmp_path / "out"}', ok=False).message
    assert 'is damaged (model.safetensors has changed' in message


@pytest.mark.slow
def test_a_time_budget(char_data, tmp_path):
    flags = [*TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--max_iters=1000000',
             '--eval_interval=1000000']
    result = run('train.py', *flags, '--max_minutes=0.05')
    step = max(losses(tmp_path))
    assert f'step {step}: train loss' in result.stdout and (tmp_path / f'step-{step:08d}').exists()
    assert json.loads((tmp_path / 'best/config.json').read_text())['step'] == step
    run('train.py', *flags, '--max_minutes=0', '--init_from=resume')  # one step more, whatever the clock says
    assert max(losses(tmp_path)) == step + 1
