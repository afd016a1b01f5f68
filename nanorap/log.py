"""The log of a run: log.csv, lines or a progress bar in the terminal, and wandb if asked for."""

import csv
import os
import sys
from pathlib import Path

from tqdm import tqdm

from nanorap.common import UserError, reason, replaced_file, run_folder

FIELDS = (  # the columns of log.csv
    'step', 'row', 'tokens', 'seconds', 'loss', 'val_loss', 'lr', 'batch', 'grad_norm', 'clipped',
    'clip_share', 'param_norm', 'update_norm', 'update_ratio_embd', 'update_ratio_attn', 'update_ratio_mlp',
    'update_ratio_norm', 'max_activation', 'max_attn_logit', 'tokens_per_s', 'mfu', 'memory',
    'density_excess', 'end_rhyme_share', 'longest', 'copied_4',
)


class Log:
    """A run's log. Each write_row() appends to log.csv, and moves a progress bar on a terminal or prints a
    line.

    On a resume from `step`, rows after it are dropped, since those steps come again. If `enabled` is False,
    as on all ranks but one, every method does nothing.
    """

    def __init__(self, out_dir, step, max_iters, enabled=True, wandb=None):
        self.enabled, self.wandb, self.bar = enabled, None, None
        if not enabled:
            return
        path = Path(out_dir) / 'log.csv'
        old_rows = []
        try:
            if step and path.exists():
                old_rows = [row for row in read_log(path) if int(row['step']) <= step]
            with replaced_file(path, encoding='utf-8', newline='') as file:
                self._writer(file).writeheader()
                self._writer(file).writerows(old_rows)
            # line by line: a row reaches the file when it is written
            self.file = open(path, 'a', encoding='utf-8', newline='', buffering=1)
            self.csv = self._writer(self.file)
        except OSError as e:
            raise UserError(f"can't write to {out_dir} ({e.strerror}): choose another --out_dir") from e
        if wandb is not None:
            self.wandb = start_wandb(**wandb)
        if sys.stderr.isatty():
            self.bar = tqdm(total=max_iters, initial=step, unit='step', dynamic_ncols=True)

    @staticmethod
    def _writer(file):
        return csv.DictWriter(file, FIELDS, extrasaction='ignore')

    def write_row(self, step, **values):
        """Log the values of a step, whose names are in FIELDS; None is left out."""
        if not self.enabled:
            return
        values = {key: value for key, value in dict(step=step, **values).items() if value is not None}
        row = {key: f'{value:.6g}' if isinstance(value, float) else value for key, value in values.items()}
        try:
            self.csv.writerow(row)
        except OSError as e:
            raise UserError(f"can't write to log.csv ({e.strerror}): checkpoints beside it are unchanged; "
                            "make room there, and go on with --init_from=resume") from e
        if self.wandb:
            self.wandb.log(values, step=step)
        if 'tokens_per_s' in values:
            line = f"loss {values['loss']:.4f}, lr {values['lr']:.2e}, {values['tokens_per_s']:,.0f} tokens/s"
            line += f", mfu {values['mfu']:.1%}" if 'mfu' in values else ""
            if self.bar is not None:
                self.bar.set_postfix_str(line)
                self.bar.update(step - self.bar.n)
            else:
                print(f"step {step}: {line}", flush=True)

    def print(self, text):
        """Print a line of text, above the progress bar if there is one."""
        if self.enabled:
            tqdm.write(text)
            sys.stdout.flush()

    def close(self):
        if self.enabled:
            self.file.close()
            if self.bar is not None:
                self.bar.close()
            if self.wandb:
                self.wandb.finish()


def start_wandb(project, name, config):
    """Start and return a wandb run. WANDB_MODE=offline keeps it on disk; `wandb sync` sends it later."""
    try:
        import wandb
    except ImportError:
        raise UserError("--wandb_log needs the package: pip install wandb") from None
    can_log_in = sys.stdin.isatty() or 'WANDB_API_KEY' in os.environ or (Path.home() / '.netrc').exists()
    if not can_log_in and os.environ.get('WANDB_MODE') not in ('offline', 'disabled'):
        raise UserError("wandb would ask for a login, but there is no terminal: run `wandb login` first, or "
                        "set WANDB_MODE=offline to keep the log on disk")
    return wandb.init(project=project, name=name, config=config)


def read_log(path):
    """Return the rows of a log.csv, dicts of text. A last line that a killed run has cut is left out."""
    with open(path, encoding='utf-8-sig', newline='', errors='replace') as f:
        lines = f.readlines()
    if lines and not lines[-1].endswith('\n'):
        lines.pop()
    return [row for row in csv.DictReader(lines) if (row.get('step') or '').isdigit()]


def read_losses(path):
    """Return {'loss': [(step, value), …], 'val_loss': […]} of a run's log.csv."""
    try:
        rows = read_log(path)
        return {key: [(int(row['step']), float(row[key])) for row in rows if row.get(key)]
                for key in ('loss', 'val_loss')}
    except (OSError, ValueError) as e:
        why = reason(e) if isinstance(e, OSError) else "damaged: a value in it is no number"
        raise UserError(f"can't plot {path} ({why}): name the --out_dir of a run") from None


def plot_losses(out_dir):
    """Draw out_dir/loss.png from its log.csv, training and validation loss, and return its path."""
    out_dir = run_folder(out_dir)  # tab completion may have given its best/
    path = Path(out_dir) / 'log.csv'
    curves = read_losses(path)
    from matplotlib.figure import Figure  # not pyplot: a file, no window

    figure = Figure(figsize=(8, 4.5), layout='constrained')
    axes = figure.subplots()
    if curves['loss']:
        steps, losses = zip(*curves['loss'], strict=True)
        axes.plot(steps, losses, color='tab:blue', linewidth=0.7, alpha=0.4)
        # a running mean, since a step's loss is that of few rows; its width is chosen by hand
        width = max(1, len(losses) // 50)
        windows = [losses[max(0, i - width) : i] for i in range(1, len(losses) + 1)]
        smooth = [sum(window) / len(window) for window in windows]
        axes.plot(steps, smooth, color='tab:blue', label=f'training, mean of {width} rows of the log')
    if curves['val_loss']:
        steps, losses = zip(*curves['val_loss'], strict=True)
        lowest, best_step = min(zip(losses, steps, strict=True))
        axes.plot(steps, losses, 'o-', color='tab:orange', markersize=4,
                  label=f'validation, lowest {lowest:.4f} at {best_step}')
    axes.set(xlabel='step', ylabel='loss, nats per token', title=Path(out_dir).resolve().name)
    axes.legend()
    axes.grid(alpha=0.3)
    picture = path.with_name('loss.png')
    try:
        figure.savefig(picture, dpi=120)
    except OSError as e:
        raise UserError(f"can't write {picture} ({e.strerror}): make room there; --plot=True draws it "
                        "again") from None
    return picture
