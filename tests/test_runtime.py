"""How a process runs: torch.compile or not, and how processes find each other."""

import sys
import time

import pytest
from conftest import TINY, losses, run, start
from torch.distributed import TCPStore


@pytest.mark.slow
def test_compile_falls_back(char_data, tmp_path):
    """No compiler: one warning, and the same training. PATH hides the machine's own."""
    flags = [*TINY, f'--dataset={char_data}', '--max_iters=2']
    result = run('train.py', *flags, '--compile=True', f'--out_dir={tmp_path / "a"}', CXX='/no/compiler',
                 PATH='/nowhere', TORCHINDUCTOR_CACHE_DIR=str(tmp_path / 'cache'))
    assert result.stderr.count('torch.compile failed here') == 1
    run('train.py', *flags, f'--out_dir={tmp_path / "b"}')
    assert losses(tmp_path / 'a') == losses(tmp_path / 'b')


@pytest.mark.slow
def test_a_restart_ignores_the_address_of_the_previous_start():
    """torchrun's store lives through its restarts. Here each start's second process is there first: it must
    wait for the new first one, not for the address that the old one left."""
    store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    code = ("from nanorap.runtime import setup; print('ready', flush=True); rt = setup('cpu'); "
            "print(rt.sum(1)); rt.close()")
    env = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(store.port), WORLD_SIZE='2',
               TORCHELASTIC_USE_AGENT_STORE='True')
    for _ in range(2):
        second = start(sys.executable, '-c', code, RANK='1', LOCAL_RANK='1', **env)
        assert second.stdout.readline() == 'ready\n'
        time.sleep(1)
        first = start(sys.executable, '-c', code, RANK='0', LOCAL_RANK='0', **env)
        for process in (first, second):
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0 and out.endswith('[2.0]\n'), err
