"""
The configuration of every script: overrides by config files and flags, in the order given. Example usage:
$ python train.py config/finetune_lyrics.py --batch_size=32 --compile=False

This file is executed inside a script, e.g. train.py, with
>>> exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'configurator.py')).read())
It is not a module: it overrides the script's own globals, and leaves `config`, a dict of all options, and
`config_given`, the names of those that the user set. A script's options are the assignments above that line:
    batch_size = 12  # the type is that of the default
    top_k: int | None = 200  # an annotation says more: None is allowed, too
    out_dir: str  # without a value: train.py's option of that name, with its default, which stands there alone
The comment behind an option, and comment lines above it, are what --help prints.

A config file is Python code that is run with all your rights: read a stranger's before you use it. It sets options by
plain assignments, may compute them and see the values so far, and may have helpers whose names begin with _.
"""

import ast
import builtins
import contextlib
import difflib
import os
import sys
import traceback
import types
import typing


def _configure(scope, argv):
    class Assignments(dict):
        """A namespace that remembers what is assigned in it, in order."""

        def __init__(self, values):
            super().__init__(values)
            self.assigned = {}

        def __setitem__(self, key, value):
            self.assigned[key] = super().__setitem__(key, value)

    script = os.path.abspath(scope['__file__'])
    name, root = os.path.basename(script), os.path.dirname(script)

    def fail(message):
        raise SystemExit(f"{name}: {message}")

    def read_options(path):
        """A script's docstring, and {option: (annotation, default's source, comment, comment lines above)}."""
        with open(path, encoding='utf-8') as f:
            source = f.read()
        tree, lines, options, last = ast.parse(source), source.splitlines(), {}, 0
        for node in tree.body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and 'configurator.py' in ast.unparse(node):
                break
            if isinstance(node, ast.Assign | ast.AnnAssign):
                key = (node.target if isinstance(node, ast.AnnAssign) else node.targets[0]).id
                comment = lines[node.end_lineno - 1][node.end_col_offset :].partition('#')[2].strip()
                above = [line[2:] for line in lines[last : node.lineno - 1] if line[:3] not in ('', '# -')]
                annotation = getattr(node, 'annotation', None)
                options[key] = (annotation and ast.unparse(annotation), node.value and ast.unparse(node.value), comment, above)
            last = node.end_lineno
        return ast.get_docstring(tree), options

    # 1) the script's options, and train.py's, which lends its defaults to those without a value
    (about, options), (_, lender) = read_options(script), read_options(os.path.join(root, 'train.py'))
    lent = {}  # train.py's options, as far as this script could compute them, for a file to compute with
    for key, (_, default, _, _) in lender.items():
        with contextlib.suppress(NameError):
            lent[key] = eval(default, scope)
    kinds = {}  # the types that each option allows
    for key, (annotation, default, comment, above) in options.items():
        if default is None:
            annotation, default = lender[key][0] or annotation, lender[key][1]
            scope[key] = eval(default, scope)
            options[key] = (annotation, default, comment or lender[key][2], above)
        kind = eval(annotation, scope) if annotation else type(scope[key])
        kinds[key] = typing.get_args(kind) or (kind,)

    def kind_name(key):
        return ' or '.join('None' if kind is type(None) else kind.__name__ for kind in kinds[key])

    def override(key, value, where):
        if type(value) is int and float in kinds[key] and int not in kinds[key]:
            value = float(value)
        if type(value) not in kinds[key]:  # exactly: True is no int here
            fail(f"{where}: {key} expects {kind_name(key)}, but {value!r} is {type(value).__name__}")
        scope[key] = value
        given[key] = value

    def parsed(key, text):
        """A flag's value. A string option takes the text as it is: --start=123 is '123', --start=a=b is 'a=b'."""
        if str in kinds[key] and not (text == 'None' and type(None) in kinds[key]):
            return text
        try:
            return ast.literal_eval({'true': 'True', 'false': 'False'}.get(text, text))
        except Exception:  # literal_eval() has several
            return text  # a str, which override() will refuse

    def check_known(key, where, known):
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"'python {name} --help' lists them all"
            fail(f"{where}: there is no option '{key}'; {hint}")

    def run_file(path):
        path = path if os.path.exists(path) else os.path.join(root, path)  # from any working directory
        values = Assignments(lent | {key: scope[key] for key in options})
        try:
            with open(path, encoding='utf-8') as f:
                exec(builtins.compile(f.read(), path, 'exec'), values)  # builtins: train.py has an option 'compile'
        except OSError as e:
            fail(f"can't read the config file {path}: {e.strerror}")
        except Exception as e:
            line = next((t.lineno for t in reversed(traceback.extract_tb(e.__traceback__)) if t.filename == path), None)
            fail(f"{path}, line {line or getattr(e, 'lineno', '?')}: {type(e).__name__}: {getattr(e, 'msg', e)}")
        for key in values.assigned:
            if not key.startswith('_') and not callable(values[key]) and not isinstance(values[key], types.ModuleType):
                check_known(key, path, [*options, *lender])
                if key in options:  # one file may serve several scripts: train.py's options are no mistake in it
                    override(key, values[key], path)

    # 2) overrides, in the order given
    given = {}
    if '--help' in argv or '-h' in argv:
        print(about, "\n\nConfig files and options (--key=value), in any order; the last one wins:")
        for key, (_, _, comment, above) in options.items():
            print(*(f"\n{line}" for line in above), sep='', end='\n' if above else '')
            print(f"  --{key}={scope[key]!r}".ljust(40), f"{kind_name(key)}; {comment}".rstrip('; '))
        print("\nA config file (config/*.py) is Python code that is run with all your rights: read a stranger's first.")
        raise SystemExit(0)
    for arg in argv:
        key, equals, text = arg[2:].partition('=')
        if arg.endswith('.py') and not arg.startswith('-'):
            run_file(arg)
        elif not arg.startswith('--'):
            fail(f"'{arg}' is neither a config file (config/….py) nor an option (--key=value)")
        else:
            check_known(key, arg, options)
            if not equals and bool not in kinds[key]:
                fail(f"{arg} needs a value, as in --{key}={scope[key]}")
            override(key, parsed(key, text) if equals else True, arg)
    if given and os.environ.get('RANK', '0') == '0':  # of several processes, one prints
        shown = given | {key: '…' for key in given if key == 'password'}
        print("Overriding: " + ", ".join(f"{key} = {value!r}" for key, value in shown.items()), flush=True)
    return {key: scope[key] for key in options}, set(given)


config, config_given = _configure(globals(), sys.argv[1:])
