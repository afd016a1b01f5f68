"""Options of train.py that can't be."""

import pytest
from conftest import TINY, run


@pytest.mark.parametrize('flag, words', [
    ('--lr_schedule=linear', 'choose one of cosine'),
    ('--batch_size_start=9', 'at most'),
    ('--max_iters=inf', 'expects int'), ('--weight_decay=nan', 'finite'),
])
def test_no_schedule_is_guessed(char_data, tmp_path, flag, words):
    flags = [*TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', flag]
    assert words in run('train.py', *flags, ok=False).message


@pytest.mark.slow
def test_a_run_does_not_go_into_a_checkpoint_of_another(trained, char_data):
    best = trained[0] / 'best'
    before = sorted(best.iterdir())
    flags = [*TINY, f'--dataset={char_data}', f'--out_dir={best}', '--max_iters=1']
    for more in ([], ['--init_from=resume']):
        assert f'--out_dir={trained[0]}' in run('train.py', *flags, *more, ok=False).message
    assert sorted(best.iterdir()) == before
    assert str(trained[0] / 'loss.png') in run('train.py', f'--out_dir={best}', '--plot=True').stdout
