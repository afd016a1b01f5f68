"""Checks of options and of their combinations, which a script makes before it starts its work."""

from types import SimpleNamespace

from nanorap.common import UserError, run_folder


def check_least(script, config, **least):
    """Raise UserError for the first option in config, a dict, that is less than its value in `least`.

    An option that is None passes.
    """
    for key, minimum in least.items():
        if config[key] is not None and config[key] < minimum:
            raise UserError(f"{script}: {key}={config[key]} must be {minimum} or more")


def check_options(config, world_size):
    """Raise UserError for the first of train.py's options, a dict, that can't be.

    The model, the optimizer and the data check their own options.
    """
    o = SimpleNamespace(**config)
    if run_folder(o.out_dir) != o.out_dir:
        raise UserError(f"out_dir={o.out_dir} is a checkpoint within a run: give the run's own folder, "
                        f"--out_dir={run_folder(o.out_dir)}")
    check_least(
        'train.py', config, batch_size=1, block_size=1, gradient_accumulation_steps=1, eval_interval=1,
        eval_iters=1, log_interval=1, seed=0, patience=1, max_minutes=0, batch_size_start=1,
        batch_size_ramp_iters=0, warmup_iters=0, cooldown_iters=0, eval_samples=0, sample_interval=0)
    if o.seed >= 2**32:
        raise UserError(f"train.py: seed={o.seed} must be less than 2**32")
    if o.lr_schedule not in ('cosine', 'trapezoid', 'constant'):
        raise UserError(f"lr_schedule={o.lr_schedule!r}: choose one of cosine, trapezoid, constant")
    rows = o.batch_size * o.gradient_accumulation_steps
    if (o.batch_size_start or 0) > rows:
        raise UserError(f"batch_size_start={o.batch_size_start} must be at most batch_size * "
                        f"gradient_accumulation_steps, {rows}: it is where the batch begins to grow")
    if o.sample_interval % o.eval_interval:
        raise UserError(f"sample_interval={o.sample_interval} must be a multiple of "
                        f"eval_interval={o.eval_interval}")
    if (o.eval_samples or o.sample_interval) and o.parallel == 'fsdp' and world_size > 1:
        raise UserError("one process draws samples, and has no whole model with --parallel=fsdp: leave out "
                        "--eval_samples and --sample_interval, or use --parallel=ddp")
    if o.gradient_accumulation_steps % world_size:
        raise UserError(f"gradient_accumulation_steps={o.gradient_accumulation_steps} counts the "
                        f"micro-batches of all processes: make it a multiple of their number, {world_size}")
