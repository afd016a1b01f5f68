"""Scripts where the default encoding is not UTF-8, or the terminal lacks letters of what is printed."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, TINY

PLAIN_ASCII = dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')  # as minimal containers have it
WINDOWS = dict(PYTHONIOENCODING='cp1252')  # a console of western Europe
SCRIPTS = ['train.py', 'sample.py', 'eval.py', 'export.py', 'serve.py', 'bench.py',
           *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob('data/*/prepare.py')),
           'data/lyrics/data_generator/crawl.py', 'data/lyrics/data_generator/preprocess.py']

pytestmark = pytest.mark.slow  # a new interpreter each: the encoding is chosen when it starts


def run_in(env, *args, stdin=b''):
    """Run a script with these variables; return what it printed, bytes."""
    command = [sys.executable, '-X', 'warn_default_encoding', *map(str, args)]
    result = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, input=stdin,
                            timeout=300)
    errors = result.stderr.decode(errors='replace')
    assert result.returncode == 0 and 'Traceback' not in errors, errors
    # of our own files none is opened without an encoding
    warnings = [line for line in errors.splitlines() if 'EncodingWarning' in line]
    assert not [line for line in warnings if line.startswith(str(ROOT)) and 'site-packages' not in line]
    return result.stdout


@pytest.mark.parametrize('script', SCRIPTS)
def test_help(script):
    if script == 'serve.py':
        pytest.importorskip('fastapi', reason="serve.py needs pip install -r requirements-web.txt")
    assert len(run_in(PLAIN_ASCII, script, '--help')) > 300


def test_songs_to_samples(tmp_path):
    """Letters beyond ASCII go from the songs into the tokens, and from a prompt into the samples."""
    songs = [dict(text=f'Kettlé № {i} 世\n' * 9, artist_name='Zoë') for i in range(9)]
    lines = [json.dumps(song, ensure_ascii=False) for song in songs]
    (tmp_path / 'songs.jsonl').write_text('\n'.join(lines), encoding='utf-8')
    run_in(PLAIN_ASCII, 'data/lyrics/prepare.py', '--input', tmp_path / 'songs.jsonl', '--tokenizer=char',
           '--out_dir', tmp_path, '--header=artist')
    meta = json.loads((tmp_path / 'meta.json').read_text(encoding='utf-8'))
    assert set('é№世ë') < set(meta['chars'])
    (tmp_path / 'config.py').write_text("wandb_project = 'é'\n", encoding='utf-8')
    out = tmp_path / 'out'
    run_in(PLAIN_ASCII, 'train.py', *TINY, tmp_path / 'config.py', f'--dataset={tmp_path}',
           f'--out_dir={out}', '--batches=documents', '--max_iters=2', '--eval_interval=1',
           '--eval_samples=1', '--sample_interval=1')
    output = tmp_path / 'o.jsonl'
    flags = [f'--out_dir={out}', '--device=cpu', '--num_samples=2', '--max_new_tokens=5',
             f'--output={output}']
    for env in (PLAIN_ASCII, WINDOWS, {}):
        printed = run_in(env, 'sample.py', *flags, '--start=Kettlé 世', '--stop=№|é', '--artist=Zoë')
        samples = [json.loads(line) for line in output.read_text(encoding='utf-8').splitlines()]
        assert [sample['prompt'] for sample in samples] == ['[Artist: Zoë]\nKettlé 世'] * 2
        assert printed.count(b'Kettl') >= 2 and (env == {} or '世'.encode() not in printed)
    run_in(PLAIN_ASCII, 'eval.py', f'--text={output}', f'--json={tmp_path}/n.json')
    numbers = json.loads((tmp_path / 'n.json').read_text(encoding='utf-8'))
    assert [text['text'] for text in numbers['texts']] == [sample['text'] for sample in samples]
    run_in(PLAIN_ASCII, 'export.py', f'--out_dir={out}')


@pytest.mark.parametrize('env', [PLAIN_ASCII, WINDOWS])
def test_a_line_typed_in_any_encoding(env):
    """UTF-8, whatever Python takes the terminal for."""
    printed = run_in(env, 'sample.py', '--interactive', '--bars=1', '--device=cpu', '--init_from=smollm2',
                     stdin='Kettlé \x81 世\n\n'.encode())
    assert printed.count(b'> ') == 2
