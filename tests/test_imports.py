"""Who imports whom: only downwards, without a cycle, and no torch where none belongs."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT, TINY

SCRIPTS = ['train.py', 'sample.py', 'eval.py', 'export.py', 'serve.py', 'bench.py']
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / 'nanorap').rglob('*.py'))
DATA_SCRIPTS = sorted(path.relative_to(ROOT) for path in (ROOT / 'data').rglob('*.py'))
FILES = [Path(name) for name in [*SCRIPTS, 'model.py', 'configurator.py']] + MODULES + DATA_SCRIPTS

# a folder's modules may import those of these folders; the scripts may import all
BELOW = {
    'nanorap': {'nanorap'},
    'nanorap/rap': {'nanorap', 'nanorap/rap'},
    'nanorap/serve': {'nanorap', 'nanorap/rap', 'nanorap/serve'},
    'nanorap/bench': {'nanorap', 'nanorap/rap', 'nanorap/bench'},
}
# what runs without torch, whatever it imports; of dataset.py that is the half that writes token files
WITHOUT_TORCH = [
    *(path for path in MODULES if path.parent.name == 'rap' and path.name != 'rhyme_search.py'),
    *map(Path, ['nanorap/common.py', 'nanorap/options.py', 'nanorap/tokenizer.py', 'nanorap/dataset.py',
                'nanorap/bench/estimate.py']),
    *DATA_SCRIPTS,
]
# runs the script that the command line names, as `python SCRIPT` does
RUN_SCRIPT = """
import os, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def file_of(module, importer):
    """Return the project's file that `import module` means in the file `importer`, or None for a package."""
    path = Path(*module.split('.'))
    for folder in (Path(), importer.parent):  # the data scripts import their neighbours by name
        for candidate in (folder / path.with_suffix('.py'), folder / path / '__init__.py'):
            if (ROOT / candidate).exists():
                return candidate
    return None


@cache
def imports(path, at_top=False):
    """Return the names of the modules that a file imports; at_top: without imports inside functions."""
    tree = ast.parse((ROOT / path).read_text(encoding='utf-8'))
    nodes = tree.body if at_top else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            # `from nanorap import checkpoint` names a module, `from nanorap.log import Log` does not
            names |= {name if file_of(name, path) else node.module
                      for name in (f'{node.module}.{alias.name}' for alias in node.names)}
    return names


def files_imported(path, at_top=False):
    return {file for name in imports(path, at_top) if (file := file_of(name, path))}


@pytest.mark.parametrize('path', FILES, ids=str)
def test_imports_point_downwards(path):
    folder = path.parent.as_posix()
    for file in files_imported(path):
        assert str(file) not in SCRIPTS, "nothing imports a script"
        if folder in BELOW:
            assert file.name != 'model.py', "modules are handed a model"
            assert file.parent.as_posix() in BELOW[folder], f"{path} may not import {file}"
        elif path.name == 'model.py':
            assert file.as_posix() in ('nanorap/common.py', 'nanorap/loss.py', 'nanorap/positions.py',
                                       'nanorap/pretrained.py')


def test_there_is_no_cycle():
    TopologicalSorter({path: files_imported(path) - {path} for path in FILES}).prepare()


def test_train_imports_rap_only_for_its_measures():
    assert not [file for file in files_imported(Path('train.py'), at_top=True) if 'rap' in file.parent.parts]


def reaches_torch(path, seen):
    """Return the chain of files by which importing a file imports torch, or None."""
    if any(name.partition('.')[0] == 'torch' for name in imports(path, at_top=True)):
        return [path]
    for file in files_imported(path, at_top=True) - seen:
        if chain := reaches_torch(file, seen | {path}):
            return [path, *chain]
    return None


@pytest.mark.parametrize('path', WITHOUT_TORCH, ids=str)
def test_no_torch_where_none_belongs(path):
    chain = reaches_torch(path, set())
    assert not chain, f"imports torch by way of {' -> '.join(map(str, chain))}"


def test_there_are_no_reexports():
    """A folder's __init__.py says what the folder is, and nothing else."""
    for path in MODULES:
        if path.name == '__init__.py':
            body = ast.parse((ROOT / path).read_text(encoding='utf-8')).body
            assert len(body) <= 1 and all(isinstance(node, ast.Expr) for node in body), path


@pytest.mark.slow
def test_training_loads_nothing_of_rap(char_data, tmp_path):
    """A short run of train.py, in a process that lists its modules at its end."""
    code = "import atexit, sys\natexit.register(lambda: print('modules:', *sys.modules))\n" + RUN_SCRIPT
    command = [sys.executable, '-c', code, str(ROOT / 'train.py'), *TINY, f'--dataset={char_data}',
               f'--out_dir={tmp_path / "out"}', '--max_iters=1', '--eval_interval=1']
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    modules = result.stdout.rpartition('modules:')[2].split()
    assert 'nanorap.step' in modules and 'nanorap.log' in modules, result.stderr
    above = 'nanorap.rap', 'nanorap.serve', 'nanorap.bench'
    assert not [name for name in modules if name.startswith(above)]


@pytest.mark.slow
def test_data_scripts_run_without_torch(tmp_path):
    """Cleaning and tokenizing run where torch can't be imported."""
    code = "import sys\nsys.modules['torch'] = None\n" + RUN_SCRIPT
    for script, *flags in (
        ['data_generator/preprocess.py', f'--data_dir={ROOT}/data/lyrics/demo', f'--save_dir={tmp_path}'],
        ['prepare.py', f'--input={tmp_path}/data.json', f'--out_dir={tmp_path}'],
    ):
        command = [sys.executable, '-c', code, str(ROOT / 'data/lyrics' / script), *flags]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / 'train.bin').stat().st_size > 10_000
