"""What the tests share: running a script as a user does, a tiny prepared data folder, a tiny trained
model."""

import csv
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
import script
import torch
from hypothesis import settings
from safetensors.torch import load_file
from torch.distributed import TCPStore

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ |= dict(HF_HUB_OFFLINE='1', WANDB_MODE='offline', TOKENIZERS_PARALLELISM='true')

# the same examples in every run, so that a failure is the change's own; HYPOTHESIS_PROFILE=default draws new
# ones
settings.register_profile('same', derandomize=True)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'same'))

# a run that takes seconds on a CPU, by the flags of a user; TINY from scratch
SHORT = ['--device=cpu', '--block_size=64', '--batch_size=4', '--gradient_accumulation_steps=2',
         '--learning_rate=1e-2', '--warmup_iters=2', '--eval_iters=16']
TINY = [*SHORT, '--n_layer=2', '--n_head=2', '--n_embd=32']
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
ONE_THREAD = dict(OMP_NUM_THREADS='1')


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI a test that is skipped fails: a machine that lacks what the test needs must not look like a
    pass."""
    report = yield
    if not hasattr(report, 'wasxfail'):
        fail_if_skipped_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """The same for a whole file that is skipped."""
    report = yield
    fail_if_skipped_in_ci(report)
    return report


def fail_if_skipped_in_ci(report):
    if report.skipped and 'CI' in os.environ:
        report.outcome = 'failed'
        report.longrepr = f"skipped, which CI counts as a failure: {report.longrepr}"


def run(*args, cwd=ROOT, ok=True, **env):
    """Run a Python script of the repository; returns the CompletedProcess. ok=False: it must fail, with one
    clear line."""
    path, args, env = str(ROOT / args[0]), [str(arg) for arg in args[1:]], os.environ | env
    # those that import torch; but what a process allocates is measured from its very start
    if Path(path).parent == ROOT and 'MALLOC_MMAP_THRESHOLD_' not in env:
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, 'out'), Path(folder, 'err')
            code = script.call(path, args, cwd, env, *files, timeout=300)
            result = subprocess.CompletedProcess([path, *args], code, *(file.read_text() for file in files))
    else:
        command = [sys.executable, path, *args]
        result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=env, timeout=300)
    assert 'Traceback' not in result.stderr, result.stderr
    if ok:
        assert result.returncode == 0, result.stderr
    else:
        assert result.returncode not in (0, 2), result.stdout
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        lines = [line for line in lines if 'warning' not in line.lower()]
        assert len(lines) == 1, result.stderr
        result.message = lines[0]
    return result


def torchrun(n, *args, ok=True):
    """Run a script as torchrun does, in n processes with one store; return the CompletedProcess."""
    path, args, env = str(ROOT / args[0]), [str(arg) for arg in args[1:]], os.environ | ONE_THREAD
    if 'MALLOC_MMAP_THRESHOLD_' in env:  # it counts from the start of a process, and a fork has had its start
        command = [*TORCHRUN, f'--nproc_per_node={n}', path, *args]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=300)
    else:
        store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
        env |= dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(store.port), WORLD_SIZE=str(n),
                    TORCHELASTIC_USE_AGENT_STORE='True')
        with tempfile.TemporaryDirectory() as folder:
            envs = [env | dict(RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(n)]
            files = [(Path(folder, f'out{rank}'), Path(folder, f'err{rank}')) for rank in range(n)]
            code = script.call_ranks(path, args, ROOT, envs, files, timeout=300)
            out, err = (''.join(file.read_text() for file in column) for column in zip(*files, strict=True))
        result = subprocess.CompletedProcess([path, *args], code, out, err)
    assert (result.returncode == 0) == ok, result.stderr
    return result


def start(*command, **env):
    """A process in the background, to be killed; its output is a pipe."""
    return subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=os.environ | env)


# random models, and what they say
def randomise(model):
    """Every parameter random: a fresh model's zero biases and unit norms would hide a mistake in them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    return model.eval()


def randomise_matrices(model):
    """Random matrices, large ones: a fresh model would say the same token again and again."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(std=0.5)
    return model.eval()


def generate_ids(model, prompts, n=1, max_new_tokens=10, vocab_size=64, eot=-1, seed=0, on_token=None,
                 **options):
    """The generated ids of each sample. prompts: a list of ids, or several such lists."""
    from nanorap.cache import KVCache
    from nanorap.generate import generate

    prompts = prompts if isinstance(prompts[0], list) else [prompts]
    samples = [[] for _ in range(n * len(prompts))]

    def add(sample, token, logprob):
        samples[sample].append(token)
        return on_token and on_token(sample, token, logprob)

    generate(model, partial(KVCache, model.config), prompts, add, num_samples=n,
             max_new_tokens=max_new_tokens, vocab_size=vocab_size, eot=eot, seed=seed, **options)
    return samples


# what a run leaves
def rows(out_dir):
    """log.csv, a dict of numbers a row."""
    with open(out_dir / 'log.csv', encoding='utf-8', newline='') as f:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(f)]


def losses(out_dir):
    return {int(row['step']): row['loss'] for row in rows(out_dir) if 'loss' in row}


def weights(folder):
    return load_file(folder / 'model.safetensors')


def equal(folder_a, folder_b):
    """Whether two checkpoints have the same weights and the same optimizer state, to the bit."""
    for file in ('model.safetensors', 'optimizer.safetensors'):
        a, b = load_file(folder_a / file), load_file(folder_b / file)
        if a.keys() != b.keys() or not all(a[key].equal(b[key]) for key in a):
            return False
    return True


@pytest.fixture(scope='session')
def songs(tmp_path_factory):
    """The shipped songs as data.json."""
    folder = tmp_path_factory.mktemp('songs')
    run('data/lyrics/data_generator/preprocess.py', '--data_dir', ROOT / 'data/lyrics/demo', '--save_dir',
        folder)
    return folder / 'data.json'


@pytest.fixture(scope='session')
def char_data(songs, tmp_path_factory):
    """The shipped songs in characters."""
    folder = tmp_path_factory.mktemp('char_data')
    run('data/lyrics/prepare.py', '--input', songs, '--tokenizer=char', '--out_dir', folder,
        '--val_share=0.15')
    return folder


@pytest.fixture(scope='session')
def trained(char_data, tmp_path_factory):
    """The out_dir of a tiny run on the songs' characters, 40 steps, and what it printed."""
    out = tmp_path_factory.mktemp('run') / 'out'
    result = run('train.py', *TINY, f'--dataset={char_data}', f'--out_dir={out}', '--batches=documents',
                 '--max_iters=40', '--lr_decay_iters=40', '--eval_interval=20')
    return out, result


@pytest.fixture(scope='session')
def port(trained, songs, char_data, tmp_path_factory):
    """The port of serve.py, with two tiny models and the songs (see server.py)."""
    pytest.importorskip('fastapi', reason="serve.py needs pip install -r requirements-web.txt")
    from server import serving_two_models

    with serving_two_models(trained, songs, char_data, tmp_path_factory.mktemp('models')) as port:
        yield port
