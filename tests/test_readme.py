"""README.md and docs/ agree with the repository.

What they name exists, the options are options of the scripts, and the blocks that are marked run as written.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT, run

from nanorap.log import FIELDS

MOST_LINES = 260  # of README.md, which is to be read in one sitting
README = ROOT / 'README.md'
PAGES = {path: path.read_text(encoding='utf-8') for path in [README, *sorted((ROOT / 'docs').glob('*.md'))]}

# (whether the block is marked as one that runs, its language, its text)
BLOCK = re.compile(r'((?:<!-- runs -->\n)?)```(\w*)\n(.*?)```', re.S)
BLOCKS = [
    (bool(mark), language, text)
    for page in PAGES.values()
    for mark, language, text in BLOCK.findall(page)
]
PROSE = {path: re.sub(r'```.*?```', '', page, flags=re.S) for path, page in PAGES.items()}
# inline code, a line break within it taken for a space
SPANS = [' '.join(span.split()) for prose in PROSE.values() for span in re.findall(r'`([^`]+)`', prose)]
SHELL = [text for _, language, text in BLOCKS if language == 'sh'] + SPANS
# python or torchrun before a script
COMMAND = re.compile(r'(?:^|[\s/])(?:python|torchrun)\b.*?\.py\b')
FILES = [
    path for path in ROOT.rglob('*')
    if not any(part.startswith('.') for part in path.relative_to(ROOT).parts)  # .git, .venv
]
TORCHRUN = {'max-restarts', 'rdzv_id', 'standalone', 'shutdown_timeout', 'nproc_per_node'}


def commands():
    """Returns [(script, its arguments)] of shell blocks and inline code, $C and comments resolved."""
    parsed = []
    for text in SHELL:
        variables = dict(re.findall(r'^(\w+)="(.*)"$', text, re.M))
        for line in text.splitlines():
            if not COMMAND.search(line):
                continue
            for name, value in variables.items():
                line = line.replace(f'${name}', value)
            for part in re.split(r'; | && ', line):
                words = shlex.split(part, comments=True)
                scripts = [i for i, word in enumerate(words)
                           if re.fullmatch(r'[\w/]+\.py', word) and not word.startswith('config/')]
                if scripts:
                    parsed.append((words[scripts[0]], words[scripts[0] + 1:]))
    return parsed


def options(script):
    """Returns the names of a script's options: assignments before it runs configurator.py, or argparse's."""
    source = (ROOT / script).read_text(encoding='utf-8')
    if 'configurator.py' not in source:
        return set(re.findall(r"\badd(?:_argument)?\(\s*'--(\w+)'", source))
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Expr) and 'configurator.py' in ast.unparse(node):
            break
        if isinstance(node, ast.Assign | ast.AnnAssign):
            names.add(ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0]))
    return names


def test_readme_is_short():
    n_lines = len(PAGES[README].splitlines())
    assert n_lines <= MOST_LINES, f"README.md has {n_lines} lines: move what a newcomer doesn't need to docs/"


def test_commands_have_these_options():
    assert len(commands()) > 70
    for script, arguments in commands():
        assert (ROOT / script).exists(), script
        if script.startswith('tests/'):
            continue
        names = options(script) | {'help'}
        for argument in arguments:
            if argument.startswith('--'):
                assert argument[2:].partition('=')[0] in names, f"{script} has no option {argument}"
            elif argument.startswith('config/') and argument.endswith('.py'):
                assert (ROOT / argument).exists(), argument


def test_options_in_sentences():
    """An option that a sentence names is one of some script, or of torchrun and its like."""
    scripts = [path.relative_to(ROOT) for path in [*ROOT.glob('*.py'), *(ROOT / 'data').rglob('*.py')]]
    others = {'help', 'key', 'model', 'no-deps', 'python', 'quiet'}  # --key=value; of lm_eval, pip and uv
    known = set.union(*map(options, scripts)) | TORCHRUN | others
    for span in SPANS:
        for name in re.findall(r'(?:^|\s)--([a-zA-Z][\w-]*)', span):
            assert name in known, f"no script has --{name} (`{span}`)"


def test_make_targets_exist():
    """What `make` is given, inline and at the start of a block's line, is a target of the Makefile."""
    targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.M))
    named = {target for text in SHELL for target in re.findall(r'^make ([\w-]+)', text, re.M)}
    assert {'demo', 'web'} <= named <= targets, f"the Makefile has no target {named - targets}"


def anchors(page):
    """Returns the anchors that GitHub gives to a page's headings."""
    return {re.sub(r'[^\w -]', '', line.lstrip('# ').lower()).replace(' ', '-')
            for line in PROSE[page].splitlines() if line.startswith('#')}


def test_links_resolve():
    """Links resolve, with anchors; the README links every page of docs/."""
    linked = set()
    for page, text in PAGES.items():
        for target in re.findall(r'\]\(([^)\s]+)\)', text):
            if target.startswith('http'):
                continue
            name, _, anchor = target.partition('#')
            path = (page.parent / name).resolve() if name else page
            assert path.exists(), f"{page.name}: {target}"
            assert not anchor or path in PAGES and anchor in anchors(path), f"{page.name}: {target}"
            if page == README:
                linked.add(path)
    assert set(PAGES) - {README} <= linked, f"README.md has no link to {set(PAGES) - {README} - linked}"


def test_named_files_exist():
    names = {path.name for path in FILES}
    for span in SPANS:  # a path, or a name that stands for one; runs write csv, json and bin files
        if re.fullmatch(r'[\w./-]+\.(py|c|md|txt)', span):
            assert (ROOT / span).exists() or '/' not in span and span in names, span
        elif re.fullmatch(r'(nanorap|data|config|tests|assets|docs)/[\w./-]*', span):
            assert (ROOT / span).exists(), span


def test_every_file_has_its_line():
    """The tree of the README names what there is, and what it names is there."""
    tree = re.search(r'## The files\n.*?```\n(.*?)```', PAGES[README], re.S)[1]
    folder, named = '', set()
    for line in tree.splitlines():
        for entry in re.split(r',? +', line.strip().partition('   ')[0]):
            if line.startswith('  '):
                entry = folder + entry
            elif entry.endswith('/'):
                folder = entry
            assert list(ROOT.glob(entry.rstrip('/'))), entry
            named.add(entry)
    modules = [
        path for path in (ROOT / 'nanorap').rglob('*.[pc]*')
        if path.suffix in ('.py', '.c') and path.name != '__init__.py']
    missing = {str(path.relative_to(ROOT)) for path in [*ROOT.glob('*.py'), *modules]} - named
    assert not missing, f"the files: a line on {missing} is missing"


def test_log_columns_are_explained():
    """docs/experiments.md has one row for each column of log.csv, in its order."""
    page = PAGES[ROOT / 'docs' / 'experiments.md']
    section = page.split('## The columns of log.csv\n')[1].split('\n## ')[0]
    assert re.findall(r'^\| `(\w+)` \|', section, re.M) == list(FIELDS)


# what makes a command small; the last of two options wins
SHORT = ['--device=cpu', '--n_layer=1', '--n_head=2', '--n_embd=32', '--block_size=128', '--batch_size=2']
SMALL = {
    'data/lyrics/data_generator/preprocess.py': ['--save_dir', '.'],
    'data/lyrics/prepare.py': ['--tokenizer=char'],
    'train.py': [
        *SHORT, '--init_from=scratch', '--dataset=songs', '--out_dir=out-lyrics',
        '--gradient_accumulation_steps=2', '--max_iters=2', '--eval_interval=2',
        '--eval_iters=2', '--freeze_embd=False'],
    'sample.py': [
        '--device=cpu', '--out_dir=out-lyrics', '--init_from=resume',
        '--num_samples=1', '--max_new_tokens=4'],
    'bench.py': [
        *SHORT, '--init_from=scratch', '--repeats=1', '--megabytes=1',
        '--decode_tokens=4', '--vocab_size=100'],
}
# where a command doesn't say it, what it reads and writes is in the test's folder
DEFAULTS = {'data/lyrics/prepare.py': {'--input': 'data.json', '--out_dir': 'songs'}}
ON_PAPER = '--mode=estimate'  # takes no time at any size


def run_line(line, folder):
    """Runs a command in the folder, with small settings behind what is written."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    assert words[0] == 'python', f"a marked block holds more than python commands: {line}"
    script, arguments = words[1], words[2:]
    given = {argument.partition('=')[0] for argument in arguments}
    if ON_PAPER not in arguments:
        arguments += map(str, SMALL[script])
    arguments += [f'{key}={value}' for key, value in DEFAULTS.get(script, {}).items() if key not in given]
    arguments = [str(ROOT / argument) if argument.endswith('.py') else argument for argument in arguments]
    run(script, *arguments, cwd=folder, OMP_NUM_THREADS='1')


@pytest.mark.slow
def test_marked_blocks_run(songs, tmp_path):
    """They run one after the other in a folder with text files, as a newcomer would run them."""
    for song in json.loads(songs.read_text(encoding='utf-8')):
        path = tmp_path / 'texts' / song['artist_name'] / f"{song['song_name']}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(song['text'], encoding='utf-8')
    marked = [(language, text) for is_marked, language, text in BLOCKS if is_marked]
    marked = list(dict.fromkeys(marked))  # each once
    assert len(marked) >= 7
    for language, text in marked:
        if language == 'sh':
            for line in text.replace('\\\n', ' ').splitlines():
                run_line(line, tmp_path)
        else:
            assert language == 'python', f"a block in {language} can't run"
            env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
            result = subprocess.run([sys.executable, '-c', text], cwd=tmp_path, env=env,
                                    stderr=subprocess.PIPE, text=True, timeout=300)
            assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob('json/*/*.json'))) == len(list(tmp_path.glob('texts/*/*.txt')))


PICTURE = re.compile(r'!\[[^]]*\]\((?:\.\./)?(assets/\w+\.png)\)')
PICTURES = {target for page in PAGES.values() for target in PICTURE.findall(page)}


@pytest.mark.parametrize('picture', sorted(PICTURES - {'assets/serve.png'}))
def test_pictures_are_drawn_by_a_script(picture):
    """Beside each picture, but for the page's, lies what draws it."""
    scripts = [path.read_text(encoding='utf-8') for path in (ROOT / 'assets').glob('*.py')]
    assert any(picture.removeprefix('assets/') in script for script in scripts)
