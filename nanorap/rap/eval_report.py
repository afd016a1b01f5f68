"""The tables and the page of eval.py: Markdown for a terminal or a README, HTML with plots and coloured rhymes.

A file of results is a dict: name, settings, per task its numbers, and texts, the samples. Numbers of a task are single, or
{group of texts: {measure: [mean] or [mean, low, high]}}.
"""

import base64
import html as escape
import io
import json
from pathlib import Path

import numpy as np

from nanorap.common import UserError
from nanorap.log import read_losses
from nanorap.rap.colour import STYLE as COLOURS
from nanorap.rap.colour import fragment
from nanorap.rap.novelty import novelty
from nanorap.rap.rhyme import measures

STYLE = COLOURS + """body{max-width:60em}table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;
border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}
small{color:#666}"""


def number(value):
    """0.1234 -> '0.123', 52.34 -> '52.3', 1234.5 -> '1,234'; 2.0 -> '2'"""
    if value == int(value) or abs(value) >= 1000:
        return f'{value:,.0f}'
    return f'{value:.1f}' if abs(value) >= 100 else f'{value:.2f}' if abs(value) >= 10 else f'{value:.3f}'


def cell(values):
    """[mean, low, high] -> '0.123 (0.100 to 0.150)'"""
    if values is None:
        return ''
    values = values if isinstance(values, list) else [values]
    return number(values[0]) + (f' ({number(values[1])} to {number(values[2])})' if len(values) == 3 else '')


def rows_of(results):
    """[(task, header, [(measure, cell, ...), ...]), ...]: a table a task."""
    for task in ('lyrics', 'rhyme', 'structure', 'novelty', 'lambada', 'hellaswag', 'wikitext'):
        numbers = results.get(task) or {}
        if not numbers:
            continue
        if not all(isinstance(value, dict) for value in numbers.values()):
            yield task, ('', results['name']), [(key, cell(value)) for key, value in numbers.items()]
        else:
            groups = [group for group, measures in numbers.items() if measures]
            keys = list(dict.fromkeys(key for group in groups for key in numbers[group]))
            yield task, ('', *groups), [(key, *(cell(numbers[group].get(key)) for group in groups)) for key in keys]


def markdown(header, rows):
    """A table whose columns stand below each other."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    line = [' | '.join(value.ljust(width) for value, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return '\n'.join(f'| {row} |' for row in [line[0], ' | '.join('-' * width for width in widths), *line[1:]])


def tables(results):
    return '\n\n'.join(f'{task}\n\n{markdown(header, rows)}' for task, header, rows in rows_of(results))


def read_results(path):
    """What --json wrote."""
    try:
        results = json.loads(Path(path).read_text(encoding='utf-8'))
        list(rows_of(results))
        return results | dict(column=Path(path).stem)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
        raise UserError(f"can't read {path} as numbers that eval.py --json=FILE wrote ({e!r})") from None


def comparison(files):
    """One table of several: a column for the songs (of the first file that has them), and one a file, by its file's name."""
    columns = [(f'{name} songs', {task: results[task][f'{name} songs'] for results in files[::-1] for task in results
                                  if isinstance(results[task], dict) and f'{name} songs' in results[task]})
               for name in ('training', 'held-out')]
    for results in files:
        found = {task: results[task] for task, _, _ in rows_of(results)}
        columns.append((results['column'], {task: numbers.get('samples') or numbers.get('text') or numbers
                                            for task, numbers in found.items()}))
    columns = [(name, tasks) for name, tasks in columns if tasks]
    keys = dict.fromkeys((task, key) for _, tasks in columns[::-1] for task, numbers in tasks.items() for key in numbers)
    return markdown(('', *(name for name, _ in columns)), [
        (f'{task}: {key}', *(cell(tasks.get(task, {}).get(key)) for _, tasks in columns)) for task, key in keys])


# ---- the page

def picture(draw):
    """draw(axes) as an <img>, the bytes inside."""
    from matplotlib.figure import Figure  # not pyplot: a file, no window

    figure = Figure(figsize=(7, 3.2), layout='constrained')
    axes = figure.subplots()
    draw(axes)
    axes.spines[['top', 'right']].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=130)
    return f'<img alt="plot" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def html(results, groups, log=None):
    """The whole page. groups: {'samples': [{'text', 'rhyme': measures, 'novelty': measures}, ...], 'training songs': …};
    log: a run's log.csv, if there is one."""
    parts = [f'<!doctype html><meta charset="utf-8"><title>{escape.escape(results["name"])}</title><style>{STYLE}</style>',
             f'<h1>{escape.escape(results["name"])}</h1><p><small>In brackets: the 95% in the middle of 1,000 bootstrap '
             'draws of the texts.</small>']
    for task, header, rows in rows_of(results):
        line = [''.join(f'<{tag}>{escape.escape(value)}</{tag}>' for value in row)
                for tag, row in [('th', header), *(('td', row) for row in rows)]]
        parts.append(f'<h2>{task}</h2><table>' + ''.join(f'<tr>{row}</tr>' for row in line) + '</table>')
        if task == 'rhyme':
            parts.append(histogram(groups, 'rhyme', 'density', 'rhyme density', 'texts'))
        if task == 'novelty':
            parts.append(histogram(groups, 'novelty', 'longest', 'longest copied run, words', 'texts'))
    if log and log.exists():
        curves = read_losses(log)

        def draw(axes):
            for key, name in (('loss', 'training'), ('val_loss', 'held-out')):
                if curves[key]:
                    axes.plot(*zip(*curves[key], strict=True), label=name, marker='o' if key == 'val_loss' else None)
            axes.set(xlabel='step', ylabel='loss')
            axes.legend(frameon=False)

        if any(curves.values()):
            parts.append('<h2>training</h2>' + picture(draw))
    ranked = sorted((one for one in results['texts'] if 'rhyme' in one),
                    key=lambda one: (one['rhyme']['end_rhyme_share'], one['rhyme']['density_excess']), reverse=True)
    chosen = [('the best', one) for one in ranked[:3]] + [('the worst', one) for one in ranked[3:][-3:]]
    for i, (name, one) in enumerate(chosen):
        if i == 0 or chosen[i - 1][0] != name:
            parts.append(f'<h2>{name}, by end rhymes</h2>')
        parts.append(f"<p><small>end rhymes {number(one['rhyme']['end_rhyme_share'])}, density "
                     f"{number(one['rhyme']['density'])}</small>{fragment(one['text'])}")
    return '\n'.join(parts) + '\n'


def histogram(groups, task, key, label, unit):
    values = {group: [one[task][key] for one in texts if task in one] for group, texts in groups.items()}
    values = {group: found for group, found in values.items() if found}
    if not values:
        return ''
    low, high = (f(map(f, values.values())) for f in (min, max))
    step = max(1, round((high - low) / 15)) if key == 'longest' else max(high - low, 1e-6) / 15  # whole words
    bins = [low - step / 2 + step * i for i in range(int((high - low) / step + 1.5) + 1)]

    def draw(axes):  # side by side
        axes.hist(list(values.values()), bins, label=[f'{group} ({len(found)})' for group, found in values.items()],
                  weights=[[1 / len(found)] * len(found) for found in values.values()])
        axes.set(xlabel=label, ylabel=f'share of {unit}')
        axes.legend(frameon=False)

    return picture(draw)


def interval(values, seed=0, draws=1000):
    """(mean, low, high): of the mean of values, with the 95% that lie in the middle of as many bootstrap draws."""
    values = np.array(values, float)
    means = values[np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))].mean(1)
    return [float(values.mean()), *(float(q) for q in np.quantile(means, (0.025, 0.975)))]


def summary(dicts):
    """{measure: (mean, low, high)} of [{measure: number}, ...], of one text {measure: (number,)}."""
    return {key: interval([each[key] for each in dicts]) if len(dicts) > 1 else [float(dicts[0][key])]
            for key in (dicts[0] if dicts else ())}


def quick_measures(songs, texts):
    """Measure a few samples for train.py's log.csv: the means over `texts` of the rhyme density's excess, the share of lines
    that end in a rhyme, the longest copied run in words, and the share of copied 4-grams.

    songs: the training songs, of novelty.index_songs().
    """
    measured = [measures(text, shuffles=5) | novelty(songs, text) for text in texts]
    return {key: float(np.mean([one[key] for one in measured]))
            for key in ('density_excess', 'end_rhyme_share', 'longest', 'copied_4')}
