"""
Draw assets/schedules.png: the learning rates and batch sizes that train.py can follow, computed by the
functions that it calls.

$ python assets/draw_schedules.py
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent))

from nanorap.optim import get_lr, n_micro_batches  # noqa: E402

steps = range(1000)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout='constrained')
for schedule in ('cosine', 'trapezoid', 'constant'):
    rates = [get_lr(it, 1.0, 0.1, 100, 1000, schedule, cooldown_iters=300) for it in steps]
    left.plot(steps, rates, label=schedule)
left.set(title='--lr_schedule', xlabel='step', ylabel='learning rate / its highest', ylim=(0, 1.05))
left.legend()
right.plot(steps, [12 * n_micro_batches(it, 4, 40, 600) for it in steps], color='tab:green')
right.set(title='--batch_size_start=48', xlabel='step', ylabel='rows per step', ylim=(0, None))
for axes in (left, right):
    axes.grid(alpha=0.3)
figure.savefig(here / 'schedules.png', dpi=120)
