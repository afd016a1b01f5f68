"""
The configuration of every script: overrides by config files and flags, in the order given. Example usage:
$ python train.py config/finetune_lyrics.py --batch_size=32 --compile=False

This file is executed inside a script, train.py for example, with
>>> exec(Path(__file__).with_name('configurator.py').read_text(encoding='utf-8'))
It is not a module: it overrides the script's own globals, and leaves `config`, a dict of all options, and
`config_given`, the names of those that the user set. A script's options are the assignments above that line:
    batch_size = 12  # the type is that of the default
    top_k: int | None = 200  # an annotation allows more types, here None
    out_dir: str  # no value: inherits train.py's option and default
--help prints the comment behind an option and the comment lines above it.

A config file is Python code that runs with all your rights: read a stranger's before you use it. It sets
options by plain assignments, can compute them and read the values so far, and can have helpers whose names
begin with _.
"""

import ast
import builtins
import contextlib
import difflib
import math
import os
import sys
import traceback
import types
import typing

# The functions below live in the script's globals, where an option may hide a builtin (`compile` of train.py,
# `format` of export.py). Their own names begin with _, so that they can't collide with an option.


class _Option(typing.NamedTuple):
    """An option as a script's source states it."""

    annotation: str | None
    default: str | None  # the expression; None: train.py's
    comment: str  # behind it, on the same line
    above: list[str]  # the comment lines above it


class _Assignments(dict):
    """A namespace that remembers which names were assigned in it, in order."""

    def __init__(self, values):
        super().__init__(values)
        self.assigned = {}

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        self.assigned[key] = True


def _fail(message):
    raise SystemExit(f"{os.path.basename(__file__)}: {message}")


def _read_options(path):
    """Return a script's docstring, and {name: _Option} of the assignments above the exec() of this file."""
    with open(path, encoding='utf-8') as f:
        source = f.read()
    tree, lines = ast.parse(source), source.splitlines()
    options, last_line = {}, 0

    def is_rule_or_blank(line):
        return line == '' or line.startswith('# -')

    for node in tree.body:
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        if is_call and 'configurator.py' in ast.unparse(node):
            break
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            annotation = getattr(node, 'annotation', None)
            options[target.id] = _Option(
                annotation=annotation and ast.unparse(annotation),
                default=node.value and ast.unparse(node.value),
                comment=lines[node.end_lineno - 1][node.end_col_offset :].partition('#')[2].strip(),
                above=[line[2:] for line in lines[last_line : node.lineno - 1] if not is_rule_or_blank(line)])
        last_line = node.end_lineno
    return ast.get_docstring(tree), options


def _allowed_types(option, value):
    """Return the types that an option may have, a tuple, by its annotation or else by its default `value`."""
    kind = eval(option.annotation, globals()) if option.annotation else type(value)
    return typing.get_args(kind) or (kind,)


def _type_names(allowed):
    return ' or '.join('None' if kind is type(None) else kind.__name__ for kind in allowed)


def _parse_flag(text, allowed):
    """Return a flag's value. A string option takes the text as it is: --start=123 gives '123'."""
    is_none = text == 'None' and type(None) in allowed
    if str in allowed and not is_none:
        return text
    with contextlib.suppress(Exception):  # literal_eval() raises several
        return ast.literal_eval({'true': 'True', 'false': 'False'}.get(text, text))
    with contextlib.suppress(ValueError):
        return float(text)  # inf or nan, which _check_type() refuses by name
    return text  # a str, which it refuses


def _check_type(key, value, allowed, where):
    """Return the value; exit if its type is not allowed, or if it is infinite or no number.

    Where only one of the two is allowed, an int becomes a float, and a float without a fraction (1e3) an int.
    """
    if type(value) is int and float in allowed and int not in allowed:
        value = float(value) if abs(value) < 1e308 else math.inf
    elif type(value) is float and int in allowed and float not in allowed and value.is_integer():
        value = int(value)
    if type(value) not in allowed:  # exactly: True is no int here
        _fail(f"{where}: {key} expects {_type_names(allowed)}, but {value!r} is {type(value).__name__}")
    if type(value) is float and not math.isfinite(value):
        _fail(f"{where}: {key} must be a finite number")
    return value


def _check_known(key, known, where):
    if key not in known:
        nearest = difflib.get_close_matches(key, known, n=1)
        script = os.path.basename(__file__)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"'python {script} --help' lists them all"
        _fail(f"{where}: there is no option '{key}'; {hint}")


def _run_config_file(path, values):
    """Run a config file, which sees `values`; return {name: value} of its assignments, helpers left out."""
    namespace = _Assignments(values)
    try:
        with open(path, encoding='utf-8-sig') as f:
            exec(builtins.compile(f.read(), path, 'exec'), namespace)
    except OSError as e:
        _fail(f"can't read the config file {path}: {e.strerror}")
    except UnicodeDecodeError:
        _fail(f"can't read the config file {path}: it is not text in UTF-8")
    except Exception as e:
        frames = reversed(traceback.extract_tb(e.__traceback__))
        line = next((frame.lineno for frame in frames if frame.filename == path), None)
        line = line or getattr(e, 'lineno', '?')  # a SyntaxError has no frame in the file
        _fail(f"{path}, line {line}: {type(e).__name__}: {getattr(e, 'msg', e)}")

    def is_helper(key):
        return key.startswith('_') or callable(namespace[key]) or isinstance(namespace[key], types.ModuleType)

    return {key: namespace[key] for key in namespace.assigned if not is_helper(key)}


def _print_help(about, options, allowed, values):
    print(about, "\n\nConfig files and options (--key=value), in any order; the last one wins:")
    for key, option in options.items():
        if option.above:
            print(*(f"\n{line}" for line in option.above), sep='')
        types_and_comment = f"{_type_names(allowed[key])}; {option.comment}".rstrip('; ')
        print(f"  --{key}={values[key]!r}".ljust(40), types_and_comment)
    print("\nA config file (config/*.py) is Python code that is run with all your rights: "
          "read a stranger's first.")


def _configure(scope, argv):
    """Override the options in `scope` by argv; return {option: value} and the names that argv has set."""
    with contextlib.suppress(AttributeError):  # of a notebook, which prints every letter
        sys.stdout.reconfigure(errors='replace')  # for a console that lacks a letter of what is printed
    script = os.path.abspath(scope['__file__'])
    root = os.path.dirname(script)

    # 1) the script's options, and train.py's, whose defaults hold for those without a value
    about, options = _read_options(script)
    _, train_options = _read_options(os.path.join(root, 'train.py'))
    train_values = {}  # as far as this script can compute them; config files may read them
    for key, option in train_options.items():
        with contextlib.suppress(NameError):  # GPTConfig, which not every script imports
            train_values[key] = eval(option.default, scope)
    for key, option in options.items():
        if option.default is None:
            inherited = train_options[key]
            options[key] = option._replace(
                annotation=inherited.annotation or option.annotation, default=inherited.default,
                comment=option.comment or inherited.comment)
            scope[key] = eval(inherited.default, scope)
    allowed = {key: _allowed_types(option, scope[key]) for key, option in options.items()}

    if '--help' in argv or '-h' in argv:
        _print_help(about, options, allowed, scope)
        raise SystemExit(0)

    # 2) overrides, in the order given
    given = {}

    def override(key, value, where):
        scope[key] = given[key] = _check_type(key, value, allowed[key], where)

    for arg in argv:
        key, equals, text = arg[2:].partition('=')
        if arg.endswith('.py') and not arg.startswith('-'):
            path = arg if os.path.exists(arg) else os.path.join(root, arg)  # from any working directory
            assigned = _run_config_file(path, train_values | {key: scope[key] for key in options})
            for key, value in assigned.items():
                _check_known(key, [*options, *train_options], path)
                if key in options:  # a file for several scripts may set options that this script lacks
                    override(key, value, path)
        elif not arg.startswith('--'):
            _fail(f"'{arg}' is neither a config file (config/….py) nor an option (--key=value)")
        else:
            _check_known(key, options, arg)
            if not equals and bool not in allowed[key]:
                _fail(f"{arg} needs a value, as in --{key}={scope[key]}")
            override(key, _parse_flag(text, allowed[key]) if equals else True, arg)
    if given and os.environ.get('RANK', '0') == '0':  # of several processes, one prints
        shown = given | {key: '…' for key in given if key == 'password'}
        print("Overriding: " + ", ".join(f"{key} = {value!r}" for key, value in shown.items()), flush=True)
    return {key: scope[key] for key in options}, set(given)


config, config_given = _configure(globals(), sys.argv[1:])
