"""configurator.py as a user meets it: a small script of options is run with files and flags."""

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

TRAIN = '''"""Train it."""
from pathlib import Path
# -----------------------------------------------------------------------------
# files
out_dir = 'out'  # where it goes
start = ''
# numbers
batch_size = 12  # rows
learning_rate = 6e-4
top_k: int | None = 200  # None: all
cap: float | None = None
output: str | None = None
compile: bool | None = None
decay = True
artists = ['a']
# -----------------------------------------------------------------------------
exec(Path(__file__).with_name('configurator.py').read_text(encoding='utf-8'))
print(repr(config))
'''
OTHER = '''"""Use it."""
from pathlib import Path
steps = 3  # how many
batch_size: int
out_dir: str  # where it lies
exec(Path(__file__).with_name('configurator.py').read_text(encoding='utf-8'))
print(repr(config))
'''


@pytest.fixture
def script(tmp_path):
    shutil.copy(ROOT / 'configurator.py', tmp_path)
    (tmp_path / 'train.py').write_text(TRAIN)
    (tmp_path / 'other.py').write_text(OTHER)

    def run(*args, name='train.py', files=None):
        """The options after a run, a dict; for a failed run, its only line of error."""
        for file, text in (files or {}).items():
            (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        command = [sys.executable, str(tmp_path / name), *args]
        result = subprocess.run(command, cwd='/', capture_output=True, encoding='utf-8')
        if result.returncode:
            message = result.stderr.strip()
            assert result.returncode == 1
            assert len(message.splitlines()) == 1, message
            return message
        return result.stdout if '--help' in args else eval(result.stdout.splitlines()[-1])

    return run


@pytest.mark.slow
@pytest.mark.parametrize('flag, key, value', [
    ('--start=a=b', 'start', 'a=b'), ('--start=123', 'start', '123'), ('--start=None', 'start', 'None'),
    ('--start=', 'start', ''),
    ('--learning_rate=1', 'learning_rate', 1.0), ('--learning_rate=-1e-3', 'learning_rate', -1e-3),
    ('--batch_size=-3', 'batch_size', -3), ('--top_k=None', 'top_k', None), ('--top_k=5', 'top_k', 5),
    ('--cap=30', 'cap', 30.0), ('--output=None', 'output', None), ('--output=7', 'output', '7'),
    ('--decay=False', 'decay', False), ('--decay=false', 'decay', False), ('--decay', 'decay', True),
    ('--compile', 'compile', True),
    ('--batch_size=1e3', 'batch_size', 1000), ('--batch_size=-2.0', 'batch_size', -2),
    ('--top_k=1.5e1', 'top_k', 15), ('--cap=1e3', 'cap', 1000.0), ('--start=1e3', 'start', '1e3'),
    ('--start=inf', 'start', 'inf'),
    ("--artists=['x', 'y=z']", 'artists', ['x', 'y=z']), ('--artists=[]', 'artists', []),
])
def test_flag_sets_its_option_alone(script, flag, key, value):
    config = script(flag)
    assert config[key] == value and type(config[key]) is type(value)
    assert config == script() | {key: value}  # no other option has changed


@pytest.mark.parametrize('flag, words', [
    ('--batch_size=1.5', ['batch_size expects int', '1.5', 'float']),
    ('--batch_size=True', ['expects int', 'bool']),
    ('--batch_size=x', ['expects int', 'str']), ('--batch_size=None', ['expects int']),
    ('--batch_size=', ['expects int']),
    ('--top_k=1.5', ['expects int or None']), ('--learning_rate=fast', ['expects float', "'fast'"]),
    ('--decay=1', ['expects bool']), ('--decay=1e0', ['expects bool']),
    ('--batch_size=15e-1', ['expects int']), ('--cap=nan', ['cap must be a finite number']),
    ('--learning_rate=inf', ['learning_rate must be a finite number']),
    ('--learning_rate=-Infinity', ['finite']), ('--learning_rate=1e999', ['finite']),
    ('--learning_rate=1' + '0' * 400, ['finite']), ('--learning_rate=-1' + '0' * 5000, ['finite']),
    ('--batch_size=inf', ['expects int']), ('--batch_size=nan', ['expects int']),
    ('--top_k=1e999', ['expects int or None']), ('--artists=a', ['expects list']),
    ('--batchsize=3', ["no option 'batchsize'", "did you mean 'batch_size'"]),
    ('--batch_size', ['--batch_size=12']),
    ('--zzz=3', ["no option 'zzz'", '--help']),
    ('--batch_size={[]:1}', ['expects int']), ('batch_size=3', ['neither']), ('-b', ['neither']),
    ('nowhere.py', ['nowhere.py', 'No such file']), ('--=3', ["no option ''"]),
])
def test_bad_flag_exits_with_one_line(script, flag, words):
    message = script(flag)
    assert message.startswith('train.py: ') and all(word in message for word in words), message


def test_the_last_file_or_flag_wins(script):
    files = {'a.py': 'batch_size = 3\nlearning_rate = 1\n',
             'b.py': 'batch_size = batch_size * 2\n_helper = 7\nimport math\n'}
    # found beside the script, though the working directory is another
    assert script('a.py', 'b.py', files=files)['batch_size'] == 6
    assert script('b.py', 'a.py', files=files)['batch_size'] == 3
    assert script('--batch_size=5', 'a.py', files=files)['batch_size'] == 3
    config = script('a.py', '--batch_size=5', files=files)
    assert config['batch_size'] == 5
    assert config['learning_rate'] == 1.0 and type(config['learning_rate']) is float


@pytest.mark.parametrize('text, words', [
    ('bach_size = 3', ["no option 'bach_size'", "did you mean 'batch_size'", 'a.py']),
    ("batch_size = '3'", ['batch_size expects int', 'a.py']),
    ('batch_size = 3\nbatch_size = (', ['a.py, line 2', 'SyntaxError']),
    ('batch_size = 3\n\nbatch_size = 1 / 0', ['a.py, line 3', 'ZeroDivisionError']),
    ("learning_rate = float('nan')", ['learning_rate must be a finite number', 'a.py']),
    ('cap = 1e999', ['cap must be a finite number']),
    ("start = 'é'".encode('latin-1'), ['a.py', 'not text in UTF-8']),
    ('batch_size = 3'.encode('utf-16'), ['a.py', 'not text in UTF-8']),
])
def test_bad_config_file_exits_with_one_line(script, text, words):
    message = script('a.py', files={'a.py': text})
    assert all(word in message for word in words), message


def test_config_files_of_other_systems(script):
    text = b"\xef\xbb\xbfbatch_size = 1e2\r\n# caf\xc3\xa9\r\nstart = 'caf\xc3\xa9'\r\n"
    config = script('a.py', files={'a.py': text})
    assert (config['batch_size'], config['start']) == (100, 'café') and type(config['batch_size']) is int


def test_config_file_for_several_scripts(script):
    files = {'a.py': 'batch_size = 3\nlearning_rate = 1e-3\n'}
    assert script('a.py', name='other.py', files=files) == dict(steps=3, batch_size=3, out_dir='out')
    assert script(name='other.py')['batch_size'] == 12  # train.py's default
    assert 'no option' in script('--learning_rate=1e-3', name='other.py')
    assert 'no option' in script('c.py', name='other.py', files={'c.py': 'larning_rate = 1e-3'})


def test_config_file_may_compute(script):
    """A config file may use helpers, comprehensions and, in any script, train.py's options.

    Reading an option does not set it.
    """
    text = """import math
_parts = [3, 4]
def helper(x):
    total = x * 2
    return total
batch_size = sum(part for part in _parts) + helper(0)
learning_rate = learning_rate / 10
for _i in range(2):
    batch_size = batch_size + 1
"""
    config = script('c.py', files={'c.py': text})
    assert config['batch_size'] == 9 and config['learning_rate'] == 6e-4 / 10
    assert script('c.py', name='other.py', files={'c.py': text}) == dict(steps=3, batch_size=9, out_dir='out')


def test_help_shows_defaults_types_and_comments(script):
    text = script('--help')
    for words in ('Train it.', 'files\n', "--out_dir='out'", 'where it goes', 'numbers\n', '--batch_size=12',
                  'int; rows', '--top_k=200', 'int or None; None: all', 'Python code'):
        assert words in text
    assert 'where it lies' in script('--help', name='other.py')
