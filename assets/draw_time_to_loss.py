"""
Draw assets/time_to_loss.png from time_to_loss.csv: the validation loss that each process printed, against the
seconds since its start. A row whose step is 'end' has the time of the whole process, and the loss of its
checkpoint on the whole validation split.

$ python assets/draw_time_to_loss.py
"""

import csv
from pathlib import Path

from matplotlib.figure import Figure

here = Path(__file__).resolve().parent
with open(here / 'time_to_loss.csv', encoding='utf-8', newline='') as f:
    rows = list(csv.DictReader(f))
figure = Figure(figsize=(8, 4), layout='constrained')
axes = figure.subplots()
for run, color in (('nanoGPT', 'tab:gray'), ('train_shakespeare_char_cpu.py', 'tab:red')):
    own_rows = [row for row in rows if row['run'] == run]
    points = [(float(row['seconds']), float(row['val_loss'])) for row in own_rows if row['step'] != 'end']
    axes.plot(*zip(*points, strict=True), 'o-', markersize=4, color=color, label=run)
    end = next(row for row in own_rows if row['step'] == 'end')
    seconds, loss = float(end['seconds']), float(end['val_loss'])
    axes.axvline(seconds, color=color, linestyle=':', linewidth=1)
    axes.annotate(f'{seconds:.1f} s\n{loss:.4f}', (seconds, loss), (5, 12), textcoords='offset points',
                  color=color)
axes.set(xlabel='seconds since the process was started', ylabel='validation loss', ylim=(1.7, 3))
axes.margins(x=0.1)
axes.grid(alpha=0.3)
axes.legend(loc='upper right')
figure.savefig(here / 'time_to_loss.png', dpi=120)
