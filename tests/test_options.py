"""Options of train.py that can't be."""

import pytest
from conftest import TINY, run


@pytest.mark.parametrize('flag, words', [
    ('--lr_schedule=linear', 'choose one of cosine'),
    ('--batch_size_start=9', 'at most'),
])
def test_no_schedule_is_guessed(char_data, tmp_path, flag, words):
    flags = [*TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', flag]
    assert words in run('train.py', *flags, ok=False).message
