"""What a run logs: the rows of log.csv and the picture of its losses."""

import pytest
from conftest import TINY, rows, run


@pytest.mark.slow
def test_a_run_logs_its_health_and_draws_its_losses(char_data, tmp_path):
    flags = [*TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--max_iters=6', '--eval_interval=3',
             '--log_interval=2', '--grad_clip=0.5', '--log_maxima=True', '--batch_size_start=4',
             '--batch_size_ramp_iters=4']
    run('train.py', *flags)
    log = [row for row in rows(tmp_path) if 'loss' in row]
    assert [row['batch'] for row in log] == [4, 8, 8] and [row['clip_share'] for row in log] == [1, 1, 1]
    for key in ('max_activation', 'max_attn_logit', 'param_norm', 'update_ratio_attn'):
        assert all(row[key] > 0 for row in log), key

    picture = tmp_path / 'loss.png'
    assert picture.read_bytes().startswith(b'\x89PNG')
    picture.unlink()
    assert str(picture) in run('train.py', '--plot=True', f'--out_dir={tmp_path}').stdout and picture.exists()
    failed = run('train.py', '--plot=True', f'--out_dir={tmp_path / "none"}', ok=False)
    assert 'name the --out_dir of a run' in failed.message
