"""README.md against the repository: what it names exists, its options are options, and its marked blocks run as written."""

import ast
import re
import shlex

import pytest
from conftest import ROOT, run

TEXT = (ROOT / 'README.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'((?:<!-- runs -->\n)?)```sh\n(.*?)```', TEXT, re.S)
PROSE = re.sub(r'```.*?```', '', TEXT, flags=re.S)
SPANS = [' '.join(span.split()) for span in re.findall(r'`([^`]+)`', PROSE)]
# python or torchrun before a script
COMMAND = re.compile(r'(?:^|[\s/])(?:python|torchrun)\b.*?\.py\b')
FILES = [path for path in ROOT.rglob('*') if not any(part.startswith('.') for part in path.relative_to(ROOT).parts)]


def commands():
    """[(script, its arguments)] of all blocks and of the commands within lines, with $C and comments resolved."""
    found = []
    for text in [block for _, block in BLOCKS] + SPANS:
        variables = dict(re.findall(r'^(\w+)="(.*)"$', text, re.M))
        for line in text.splitlines():
            if COMMAND.search(line):
                for name, value in variables.items():
                    line = line.replace(f'${name}', value)
                for part in re.split(r'; | && ', line):
                    words = shlex.split(part, comments=True)
                    scripts = [i for i, word in enumerate(words) if re.fullmatch(r'[\w/]+\.py', word)
                               and not word.startswith('config/')]
                    if scripts:
                        found.append((words[scripts[0]], words[scripts[0] + 1:]))
    return found


def options(script):
    """The names of a script's options: assignments before it runs configurator.py, or argparse's."""
    source = (ROOT / script).read_text(encoding='utf-8')
    if 'configurator.py' not in source:
        return set(re.findall(r"add_argument\('--(\w+)'", source))
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Expr) and 'configurator.py' in ast.unparse(node):
            break
        if isinstance(node, ast.Assign | ast.AnnAssign):
            names.add(ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0]))
    return names


def test_commands_have_these_options():
    assert len(commands()) > 40
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
    known = set.union(*map(options, scripts)) | {'help', 'max-restarts', 'rdzv_id', 'standalone', 'shutdown_timeout',
                                                 'nproc_per_node', 'model'}
    for span in SPANS:
        for name in re.findall(r'(?:^|\s)--([a-zA-Z][\w-]*)', span):
            assert name in known, f"no script has --{name} (`{span}`)"


def test_links_and_files_exist():
    headings = {re.sub(r'[^\w -]', '', line.lstrip('# ').lower()).replace(' ', '-') for line in PROSE.splitlines()
                if line.startswith('#')}
    for target in re.findall(r'\]\(([^)\s]+)\)', TEXT):
        if target.startswith('#'):
            assert target[1:] in headings, target
        elif not target.startswith('http'):
            assert (ROOT / target).exists(), target
    names = {path.name for path in FILES}
    for span in SPANS:  # a path, or a name that stands for one; runs write csv, json and bin files
        if re.fullmatch(r'[\w./-]+\.(py|c|md|txt)', span):
            assert (ROOT / span).exists() or '/' not in span and span in names, span
        elif re.fullmatch(r'(nanorap|data|config|tests|assets)/[\w./-]*', span):
            assert (ROOT / span).exists(), span


def test_every_file_has_its_line():
    """The tree at the end names what there is, and what it names is there."""
    tree = re.search(r'## the files\n\n```\n(.*?)```', TEXT, re.S)[1]
    folder = ''
    for line in tree.splitlines():
        for entry in re.split(r',? +', line.strip().partition('   ')[0]):
            if line.startswith('  '):
                entry = folder + entry
            elif entry.endswith('/'):
                folder = entry
            assert list(ROOT.glob(entry.rstrip('/'))), entry
    rooms = {path.name for path in (ROOT / 'nanorap').glob('*.[pc]*') if path.is_file()} - {'__init__.py'}
    scripts = {path.name for path in ROOT.glob('*.py')}
    missing = {name for name in rooms | scripts if name not in tree}
    assert not missing, f"the files: a line on {missing} is missing"


# what makes a command of the README small; the last of two options wins
SHORT = ['--device=cpu', '--n_layer=1', '--n_head=2', '--n_embd=32', '--block_size=64', '--batch_size=2']
SMALL = {
    'data/lyrics/data_generator/preprocess.py': ['--data_dir', ROOT / 'data/lyrics/demo', '--save_dir', '.'],
    'data/lyrics/prepare.py': ['--input=data.json', '--tokenizer=char', '--out_dir=songs'],
    'train.py': [*SHORT, '--init_from=scratch', '--dataset=songs', '--out_dir=out-lyrics', '--gradient_accumulation_steps=2',
                 '--max_iters=2', '--eval_interval=2', '--eval_iters=2', '--freeze_embd=False'],
    'sample.py': ['--device=cpu', '--out_dir=out-lyrics', '--init_from=resume', '--num_samples=1', '--max_new_tokens=4'],
    'bench.py': [*SHORT, '--init_from=scratch', '--repeats=1', '--megabytes=1', '--decode_tokens=4', '--vocab_size=100'],
}
ON_PAPER = '--estimate=True'  # takes no time at any size


def test_marked_blocks_run(tmp_path):
    """One after the other in an empty folder, as a newcomer would, with small settings behind what is written."""
    blocks = [block for mark, block in BLOCKS if mark]
    assert len(blocks) >= 3
    for block in blocks:
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            assert words[0] == 'python', f"a block that is marked as one that runs holds more than python commands: {line}"
            script, arguments = words[1], words[2:]
            if ON_PAPER not in arguments:
                arguments += map(str, SMALL[script])
            arguments = [str(ROOT / a) if a.endswith('.py') else a.replace('FILE:', f'FILE:{ROOT}/') for a in arguments]
            run(script, *arguments, cwd=tmp_path, OMP_NUM_THREADS='1')


@pytest.mark.parametrize('picture', sorted({*re.findall(r'!\[[^]]*\]\((assets/\w+\.png)\)', TEXT)} - {'assets/serve.png'}))
def test_pictures_are_drawn_by_a_script(picture):
    """Beside each picture, but for the page's, lies what draws it."""
    assert any(picture.removeprefix('assets/') in path.read_text(encoding='utf-8') for path in (ROOT / 'assets').glob('*.py'))
