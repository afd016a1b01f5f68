"""The results of bench.py: printed, kept in a JSON file, compared with an earlier one, and plotted."""

import platform
import statistics
import time
from json import dumps
from pathlib import Path

import numpy as np
import torch

from nanorap.common import UNREADABLE, UserError, load_json, reason
from nanorap.quantize import memory_bandwidth

LESS_IS_BETTER = {'s', 'ms', 'GB', 'us/token'}


class Figures:
    """Figures by name, one value per repeat. `about`, a dict, says what was measured: the machine, the
    options."""

    def __init__(self, about, enabled=True):
        self.about = about
        self.enabled = enabled  # whether this process prints
        self.figures = {}
        self.more = {}  # for the JSON file

    def add(self, name, unit, values, *more):
        """Keep a figure, and print its median and spread, followed by `more`."""
        self.figures[name] = dict(unit=unit, values=[float(value) for value in values])
        number_format = ',.1f' if unit == 'tokens/s' else ',.4g'
        median, low, high = (format(f(values), number_format) for f in (statistics.median, min, max))
        spread = f" ({low} to {high})" if len(values) > 1 else ""
        if self.enabled:
            print(', '.join([f"{name:<40}{median:>9} {unit}{spread}", *more]), flush=True)

    def write(self, path):
        content = self.about | dict(figures=self.figures) | self.more
        try:
            Path(path).write_text(dumps(content, indent=1) + '\n', encoding='utf-8')
        except OSError as e:
            raise UserError(f"can't write {path} ({e.strerror}): choose another --json") from None

    def compare(self, path):
        """Print these figures as ratios to those in a file that write() left.

        There is a verdict where both have three repeats or more and their spreads don't overlap.
        """
        before = read_figures(path)
        old, new = (about | about.get('options', {}) | dict(options=None) for about in (before, self.about))
        keys = dict.fromkeys([*self.about, *self.about['options'], *before.get('options', {})])
        differs = [f"{key} {old.get(key)!r} -> {new.get(key)!r}"
                   for key in keys if old.get(key) != new.get(key)]
        settings = f", which was measured with other settings: {', '.join(differs)}" if differs else ""
        print(f"\nagainst {path}{settings}")
        shared = [name for name in self.figures if name in before['figures']]
        if not shared:
            print("no figure in common: give the file of a run with the same --mode and sizes")
        for name in shared:
            unit, new = self.figures[name]['unit'], self.figures[name]['values']
            old = before['figures'][name]['values']
            if statistics.median(old) == 0:
                continue
            ratio = statistics.median(new) / statistics.median(old)
            if min(len(new), len(old)) < 3:
                verdict = "fewer than 3 repeats: no verdict"
            elif min(new) <= max(old) and min(old) <= max(new):
                verdict = "the spreads overlap: no verdict"
            else:
                verdict = "better" if (ratio < 1) == (unit in LESS_IS_BETTER) else "worse"
            print(f"{name:<40}{ratio:>9.3f}x  {verdict}")


def read_figures(path):
    """Return the content of a file that Figures.write() left."""
    if not Path(path).is_file():
        raise UserError(f"{path} is no file: --compare takes what --json=FILE wrote")
    try:
        content = load_json(path)
        for figure in content['figures'].values():
            max(map(float, figure['values']))
    except UNREADABLE as e:
        raise UserError(f"{path} is not what bench.py --json=FILE writes, which --compare takes: "
                        f"{reason(e)}") from None
    return content


def processor(runtime):
    """Return the name of the GPU or CPU."""
    if runtime.device.type == 'cuda':
        return torch.cuda.get_device_name(runtime.device)
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        return next(line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def bandwidth(runtime):
    """Measure the device's memory bandwidth in bytes/s."""
    if runtime.device.type == 'cpu':
        return memory_bandwidth()
    data, seconds = torch.ones(1 << 28, device=runtime.device), []
    for _ in range(5):
        runtime.synchronize()
        t0 = time.perf_counter()
        data.sum()
        runtime.synchronize()
        seconds.append(time.perf_counter() - t0)
    return data.nbytes / min(seconds)


def exponent(sizes, costs):
    """Fit cost ∝ size^k (log-log least squares) and return k."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def plot_scaling(content, path):
    """Plot cost against width, depth and context; content: what --mode=scaling wrote into its JSON file."""
    from matplotlib.figure import Figure  # not pyplot: a file, no window
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(11, 3.6), layout='constrained')
    plots = figure.subplots(1, len(content['scaling']))
    for axes, (axis, data) in zip(plots, content['scaling'].items(), strict=True):
        sizes = np.array(data['sizes'], float)
        costs = np.array(data['us_per_token'])  # (sizes, repeats)
        median = np.median(costs, axis=1)
        spread = np.stack([median - costs.min(axis=1), costs.max(axis=1) - median])
        axes.errorbar(sizes, median, spread, fmt='o', capsize=3, label='measured: median, lowest, highest')
        centre_size, centre_cost = (np.exp(np.log(values).mean()) for values in (sizes, median))
        for k, style, line in ((data['exponent'], '-', 'fitted'), (data['expected'], '--', "the FLOPs'")):
            label = f'{line}: exponent {k:.2f}'
            axes.plot(sizes, centre_cost * (sizes / centre_size) ** k, style, label=label)
        axes.set(xscale='log', yscale='log', xlabel=f'{axis} ({data["option"]})', ylabel='µs per token')
        axes.set_xticks(sizes, [f'{size:.0f}' for size in sizes], minor=False)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter('{x:,.0f}')
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3, which='both')
    title = f"a training step on {content['machine']}, {content['threads']} threads, {content['dtype']}"
    figure.suptitle(title, fontsize=10)
    try:
        figure.savefig(path, dpi=120)
    except OSError as e:
        raise UserError(f"can't write {path} ({e.strerror}): make room there, or choose another "
                        "--json") from None
    return path
