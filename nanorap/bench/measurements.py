"""What a run of bench.py measured: a line a figure, a JSON file, two such files side by side, the plot of a scaling."""

import platform
import statistics
import time
from json import dumps
from pathlib import Path

import numpy as np
import torch

from nanorap.common import UserError, read_json
from nanorap.quantize import memory_bandwidth

LESS_IS_BETTER = {'s', 'ms', 'GB', 'us/token'}


class Figures:
    """Figures by name, each with a value a repeat. `about` says of what: the machine, the options."""

    def __init__(self, about, enabled=True):
        self.about, self.enabled, self.figures, self.more = about, enabled, {}, {}

    def add(self, name, unit, values, *more):
        """Keep a figure, and print its median and spread; `more`: what else belongs on its line."""
        self.figures[name] = dict(unit=unit, values=[float(value) for value in values])
        form = ',.1f' if unit == 'tokens/s' else ',.4g'
        middle, low, high = (format(f(values), form) for f in (statistics.median, min, max))
        spread = f" ({low} to {high})" if len(values) > 1 else ""
        if self.enabled:
            print(', '.join([f"{name:<40}{middle:>9} {unit}{spread}", *more]), flush=True)

    def write(self, path):
        content = self.about | dict(figures=self.figures) | self.more
        try:
            Path(path).write_text(dumps(content, indent=1) + '\n', encoding='utf-8')
        except OSError as e:
            raise UserError(f"can't write {path} ({e.strerror}): choose another --json") from None

    def compare(self, path):
        """Print our figures as a ratio to those in a file that write() left, with a verdict where the spreads are apart."""
        before = read_figures(path)
        old, new = (about | about.get('options', {}) | dict(options=None) for about in (before, self.about))
        keys = [*self.about, *self.about['options'], *before.get('options', {})]
        differs = [f"{key} {old.get(key)!r} -> {new.get(key)!r}" for key in dict.fromkeys(keys) if old.get(key) != new.get(key)]
        print(f"\nagainst {path}" + (f", which was measured with other settings: {', '.join(differs)}" if differs else ""))
        shared = [name for name in self.figures if name in before['figures']]
        if not shared:
            print("no figure in common: give the file of a run with the same --mode and sizes")
        for name in shared:
            unit, new, old = self.figures[name]['unit'], self.figures[name]['values'], before['figures'][name]['values']
            if (middle := statistics.median(old)) == 0:
                continue
            ratio, better = statistics.median(new) / middle, unit in LESS_IS_BETTER
            if min(len(new), len(old)) < 3:
                verdict = "fewer than 3 repeats: no verdict"
            elif min(new) <= max(old) and min(old) <= max(new):
                verdict = "the spreads overlap: no verdict"
            else:
                verdict = "better" if (ratio < 1) == better else "worse"
            print(f"{name:<40}{ratio:>9.3f}x  {verdict}")


def read_figures(path):
    """The content of a file that Figures.write() left."""
    if not Path(path).is_file():
        raise UserError(f"{path} is no file: --compare takes what --json=FILE wrote")
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get('figures'), dict):
        raise UserError(f"{path} is not what bench.py --json=FILE writes: --compare takes such a file")
    return content


def processor(runtime):
    """The name of the GPU or CPU."""
    if runtime.device.type == 'cuda':
        return torch.cuda.get_device_name(runtime.device)
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def bandwidth(runtime):
    """Bytes/s that the device reads from its memory, measured."""
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
    """The k with which costs grow about as sizes^k: the slope of a line through their logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def plot_scaling(content, path):
    """Draw what --mode=scaling measured (a dict, as its JSON file has it): cost against width, depth and context."""
    from matplotlib.figure import Figure  # not pyplot: a file, no window
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(11, 3.6), layout='constrained')
    plots = figure.subplots(1, len(content['scaling']))
    for axes, (axis, data) in zip(plots, content['scaling'].items(), strict=True):
        sizes, middle = np.array(data['sizes'], float), np.array([statistics.median(t) for t in data['us_per_token']])
        spread = np.array([[m - min(t), max(t) - m] for m, t in zip(middle, data['us_per_token'], strict=True)]).T
        axes.errorbar(sizes, middle, spread, fmt='o', capsize=3, label='measured: median, lowest, highest')
        mean = np.exp(np.log(sizes).mean()), np.exp(np.log(middle).mean())
        for k, style, label in ((data['exponent'], '-', 'fitted'), (data['expected'], '--', 'that of the FLOPs')):
            axes.plot(sizes, mean[1] * (sizes / mean[0]) ** k, style, label=f'{label}: exponent {k:.2f}')
        axes.set(xscale='log', yscale='log', xlabel=f'{axis} ({data["option"]})', ylabel='µs a token')
        axes.set_xticks(sizes, [f'{size:.0f}' for size in sizes], minor=False)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter('{x:,.0f}')
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3, which='both')
    figure.suptitle(f"a training step on {content['machine']}, {content['threads']} threads, {content['dtype']}", fontsize=10)
    try:
        figure.savefig(path, dpi=120)
    except OSError as e:
        raise UserError(f"can't write {path} ({e.strerror}): make room there, or choose another --json") from None
    return path
