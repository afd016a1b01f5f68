"""What `make demo` runs, cut short: the shipped songs, SmolLM2's real weights, one update, one sample."""

import os
import re
import subprocess

import pytest
from conftest import ROOT, run


@pytest.mark.slow
def test_demo(songs, tmp_path):
    data, out = tmp_path / 'data', tmp_path / 'out'
    run('data/lyrics/prepare.py', '--input', songs, '--tokenizer=smollm2', '--out_dir', data,
        '--val_share=0.15')
    result = run('train.py', 'config/finetune_lyrics_demo.py', f'--dataset={data}', f'--out_dir={out}',
                 '--max_iters=1', '--warmup_iters=0', '--block_size=128', '--eval_iters=4', cwd=tmp_path)
    first, best = map(float, re.search(r'held-out loss ([\d.]+) -> ([\d.]+)', result.stdout).groups())
    assert 3 < first < 5 and best < first  # a pretrained model, which one update makes better
    prompt = (ROOT / 'demo.txt').read_text()
    result = run('sample.py', f'--out_dir={out}', f'--start=FILE:{ROOT / "demo.txt"}', '--num_samples=2',
                 '--max_new_tokens=8', cwd=tmp_path)
    samples = result.stdout.partition('\n')[2].split('\n---------------\n')
    assert len(samples) == 2
    assert all(sample.startswith(prompt) and len(sample) > len(prompt) + 8 for sample in samples)


def test_make_lists_its_targets():
    # without the variables of the `make test` that runs this
    env = {key: value for key, value in os.environ.items() if not key.startswith('MAKE')}
    text = subprocess.run(['make'], cwd=ROOT, capture_output=True, text=True, env=env).stdout
    targets = [line.split()[0] for line in text.splitlines()]
    assert targets == ['help', 'setup', 'demo', 'web', 'test', 'test-fast', 'lint', 'lock', 'clean']
