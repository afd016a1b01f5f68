"""Draw assets/time_to_loss.png from time_to_loss.csv: the validation loss as each process printed it, against the seconds
since it was started. The rows with step 'end' are the whole processes, with the loss of the checkpoint over the whole split."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

here = Path(__file__).resolve().parent
with open(here / 'time_to_loss.csv', newline='') as f:
    rows = list(csv.DictReader(f))
figure = Figure(figsize=(8, 4), layout='constrained')
axes = figure.subplots()
for run, color in (('nanoGPT', 'tab:gray'), ('train_shakespeare_char_cpu.py', 'tab:red')):
    points = [(float(row['seconds']), float(row['val_loss'])) for row in rows if row['run'] == run and row['step'] != 'end']
    axes.plot(*zip(*points, strict=True), 'o-', markersize=4, color=color, label=run)
    end = next(row for row in rows if row['run'] == run and row['step'] == 'end')
    seconds, loss = float(end['seconds']), float(end['val_loss'])
    axes.axvline(seconds, color=color, linestyle=':', linewidth=1)
    axes.annotate(f'{seconds:.1f} s\n{loss:.4f}', (seconds, loss), (5, 12), textcoords='offset points', color=color)
axes.set(xlabel='seconds since the process was started', ylabel='validation loss', ylim=(1.7, 3))
axes.margins(x=0.1)
axes.grid(alpha=0.3)
axes.legend(loc='upper right')
figure.savefig(here / 'time_to_loss.png', dpi=120)
