"""The tables and the report of eval.py: Markdown for a terminal or a README, HTML with plots and coloured
rhymes.

Results are a dict: the model's name, the settings, numbers per task, and texts, the samples. The numbers of a
task are {measure: number}, or {group of texts: {measure: [mean] or [mean, low, high]}}.
"""

import base64
import html as escape
import io
from pathlib import Path

import numpy as np

from nanorap.common import UNREADABLE, UserError, load_json, reason
from nanorap.log import read_losses
from nanorap.rap.colour import STYLE as COLOUR_STYLE
from nanorap.rap.colour import fragment
from nanorap.rap.novelty import novelty
from nanorap.rap.rhyme import measures

STYLE = COLOUR_STYLE + """body{max-width:60em}table{border-collapse:collapse;margin:1em 0}
td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}small{color:#666}"""
# in the order of the tables
TASKS = 'lyrics', 'rhyme', 'structure', 'novelty', 'lambada', 'hellaswag', 'wikitext'


def number(value):
    """Return a number with four digits or so: '0.123', '52.34', '523.4', '1,234'; 2.0 becomes '2'."""
    if value == int(value) or abs(value) >= 1000:
        return f'{value:,.0f}'
    decimals = 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f'{value:.{decimals}f}'


def cell(values):
    """Return the text of a table's cell: [mean, low, high] -> '0.123 (0.100 to 0.150)'."""
    if values is None:
        return ''
    if not isinstance(values, list):
        return number(values)
    mean, *interval = map(number, values)
    return f'{mean} ({interval[0]} to {interval[1]})' if interval else mean


def tables_of(results):
    """Yield (task, header, rows) of each task, rows of (measure, cell, ...)."""
    for task in TASKS:
        numbers = results.get(task) or {}
        if not numbers:
            continue
        if not all(isinstance(value, dict) for value in numbers.values()):
            yield task, ('', results['name']), [(key, cell(value)) for key, value in numbers.items()]
            continue
        groups = [group for group, measures in numbers.items() if measures]
        keys = dict.fromkeys(key for group in groups for key in numbers[group])
        rows = [(key, *(cell(numbers[group].get(key)) for group in groups)) for key in keys]
        yield task, ('', *groups), rows


def markdown(header, rows):
    """Return a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ['-' * width for width in widths]
    lines = []
    for row in [header, rule, *rows]:
        cells = [value.ljust(width) for value, width in zip(row, widths, strict=True)]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def tables(results):
    """Return all tables of the results as Markdown, each below its task's name."""
    return '\n\n'.join(f'{task}\n\n{markdown(header, rows)}' for task, header, rows in tables_of(results))


def read_results(path):
    """Return the results in a file that eval.py --json wrote, with `column`, the file's name."""
    try:
        results = load_json(path)
        list(tables_of(results))
        return results | dict(column=Path(path).stem)
    except UNREADABLE as e:
        raise UserError(f"can't read {path} as numbers that eval.py --json=FILE wrote: {reason(e)}") from None


def comparison(files):
    """Return one table of several results: columns of the songs, from the first file that has them, and one
    per file."""
    columns = []  # (name, {task: {measure: values}})
    for group in ('training songs', 'held-out songs'):
        tasks = {}
        for results in files:
            for task, numbers in results.items():
                if isinstance(numbers, dict) and group in numbers:
                    tasks.setdefault(task, numbers[group])
        columns.append((group, tasks))
    for results in files:
        tasks = {}
        for task, _, _ in tables_of(results):
            numbers = results[task]
            tasks[task] = numbers.get('samples') or numbers.get('text') or numbers
        columns.append((results['column'], tasks))

    columns = [(name, tasks) for name, tasks in columns if tasks]
    keys = dict.fromkeys((task, key) for _, tasks in columns[::-1] for task, numbers in tasks.items()
                         for key in numbers)
    header = ('', *(name for name, _ in columns))
    rows = []
    for task, key in keys:
        cells = [cell(tasks.get(task, {}).get(key)) for _, tasks in columns]
        rows.append((f'{task}: {key}', *cells))
    return markdown(header, rows)


# ---- the report

def picture(plot):
    """Return what plot(axes) draws as an <img> that holds its bytes."""
    from matplotlib.figure import Figure  # not pyplot: a file, no window

    figure = Figure(figsize=(7, 3.2), layout='constrained')
    axes = figure.subplots()
    plot(axes)
    axes.spines[['top', 'right']].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=130)
    return f'<img alt="plot" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def html(results, groups, log=None):
    """Return the report, a whole page.

    groups: {'samples': [{'text', 'rhyme': measures, 'novelty': measures}, ...], 'training songs': …}. log:
    the path of the run's log.csv, if there is one.
    """
    title = escape.escape(results['name'])
    parts = [f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>',
             f'<h1>{title}</h1><p><small>In brackets: 95% bootstrap confidence intervals, of 1,000 draws of '
             'the texts.</small>']
    for task, header, rows in tables_of(results):
        parts.append(html_table(task, header, rows))
        if task == 'rhyme':
            parts.append(histogram(groups, 'rhyme', 'density', 'rhyme density', 'texts'))
        if task == 'novelty':
            parts.append(histogram(groups, 'novelty', 'longest', 'longest copied run, words', 'texts'))
    if log and log.exists():
        parts += loss_curves(read_losses(log))
    return '\n'.join([*parts, *best_and_worst(results['texts'])]) + '\n'


def html_table(task, header, rows):
    def line(tag, row):
        return '<tr>' + ''.join(f'<{tag}>{escape.escape(value)}</{tag}>' for value in row) + '</tr>'

    lines = [line('th', header), *(line('td', row) for row in rows)]
    return f'<h2>{task}</h2><table>{"".join(lines)}</table>'


def loss_curves(curves):
    """Return the plot of training and held-out loss as parts of the page; curves: of log.read_losses()."""
    def plot(axes):
        for key, name, marker in (('loss', 'training', None), ('val_loss', 'held-out', 'o')):
            if curves[key]:
                axes.plot(*zip(*curves[key], strict=True), label=name, marker=marker)
        axes.set(xlabel='step', ylabel='loss')
        axes.legend(frameon=False)

    return ['<h2>training</h2>' + picture(plot)] if any(curves.values()) else []


def best_and_worst(texts):
    """Return the three texts with the most end rhymes and the three with the fewest as parts of the page."""
    def rhymes_most(text):
        return text['rhyme']['end_rhyme_share'], text['rhyme']['density_excess']

    ranked = sorted((text for text in texts if 'rhyme' in text), key=rhymes_most, reverse=True)
    parts = []
    for name, chosen in (('the best', ranked[:3]), ('the worst', ranked[3:][-3:])):
        if chosen:
            parts.append(f'<h2>{name}, by end rhymes</h2>')
        for text in chosen:
            share, density = number(text['rhyme']['end_rhyme_share']), number(text['rhyme']['density'])
            parts.append(f"<p><small>end rhymes {share}, density {density}</small>{fragment(text['text'])}")
    return parts


def histogram(groups, task, key, label, unit):
    """Return a plot of a measure's distribution in each group of texts, or '' if it was not measured."""
    values = {group: [text[task][key] for text in texts if task in text] for group, texts in groups.items()}
    values = {group: group_values for group, group_values in values.items() if group_values}
    if not values:
        return ''
    low, high = min(map(min, values.values())), max(map(max, values.values()))
    # about 15 bins; whole numbers for words
    step = max(1, round((high - low) / 15)) if key == 'longest' else max(high - low, 1e-6) / 15
    bins = [low - step / 2 + step * i for i in range(int((high - low) / step + 1.5) + 1)]

    def plot(axes):  # the groups' bars stand beside each other
        labels = [f'{group} ({len(group_values)})' for group, group_values in values.items()]
        weights = [[1 / len(group_values)] * len(group_values) for group_values in values.values()]
        axes.hist(list(values.values()), bins, label=labels, weights=weights)
        axes.set(xlabel=label, ylabel=f'share of {unit}')
        axes.legend(frameon=False)

    return picture(plot)


# ---- statistics

def interval(values, seed=0, resamples=1000):
    """Return the mean and its 95% bootstrap confidence interval, [mean, low, high]."""
    values = np.array(values, float)
    means = values[np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))].mean(1)
    return [float(values.mean()), *(float(q) for q in np.quantile(means, (0.025, 0.975)))]


def summary(dicts):
    """Return {measure: [mean, low, high]} of [{measure: number}, ...].

    Of a single text it is {measure: [number]}.
    """
    if not dicts:
        return {}
    if len(dicts) == 1:
        return {key: [float(value)] for key, value in dicts[0].items()}
    return {key: interval([numbers[key] for numbers in dicts]) for key in dicts[0]}


def quick_measures(songs, texts):
    """Measure a few samples for train.py's log.csv; return the means over `texts`.

    They are the rhyme density's excess, the share of lines that end in a rhyme, the longest copied run in
    words, and the share of copied 4-grams. songs: the training songs, of novelty.index_songs().
    """
    measured = [measures(text, shuffles=5) | novelty(songs, text) for text in texts]
    keys = 'density_excess', 'end_rhyme_share', 'longest', 'copied_4'
    return {key: float(np.mean([numbers[key] for numbers in measured])) for key in keys}
