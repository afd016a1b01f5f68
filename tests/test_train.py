"""train.py as a user runs it: from scratch, fine-tuned, and with every mistake."""

import json
import shutil

import pytest
import torch
from conftest import ROOT, SHORT, TINY, losses, rows, run

from nanorap.dataset import write_dataset
from nanorap.tokenizer import load_tokenizer


def test_what_a_run_prints_and_leaves(trained):
    out, result = trained
    for words in ('step 0: val loss', 'held-out loss', 'seconds: loading'):
        assert words in result.stdout
    files = sorted(path.name for path in out.iterdir())
    assert files == ['best', 'log.csv', 'loss.png', 'step-00000020', 'step-00000040']
    assert sorted(losses(out)) == list(range(1, 41))  # max_iters=40 makes 40 updates
    val = {int(row['step']): row['val_loss'] for row in rows(out) if 'val_loss' in row}
    assert sorted(val) == [0, 20, 40] and val[40] < val[20] < val[0] - 1
    first, best = result.stdout.rpartition('held-out loss ')[2].split(';')[0].split(' -> ')
    assert (float(first), float(best)) == pytest.approx((val[0], val[40]), abs=1e-4)


def test_best_describes_itself(trained):
    out, _ = trained
    config = json.loads((out / 'best' / 'config.json').read_text())
    val = {int(row['step']): row['val_loss'] for row in rows(out) if 'val_loss' in row}
    assert config['step'] == 40 and config['val_loss'] == pytest.approx(val[40], abs=1e-4)
    assert config['model']['n_embd'] == 32 and config['tokenizer']['tokenizer'] == 'char'


def test_columns_of_log_csv(trained):
    out, _ = trained
    assert set(rows(out)[-2]) == {
        'step', 'row', 'tokens', 'seconds', 'loss', 'lr', 'batch', 'grad_norm', 'clipped', 'clip_share',
        'param_norm',
        'update_norm', 'update_ratio_embd', 'update_ratio_attn', 'update_ratio_mlp', 'update_ratio_norm',
        'tokens_per_s', 'mfu', 'memory'}


@pytest.mark.slow
def test_eval_only_is_the_mean_over_the_split(trained, char_data):
    """By hand: the mean over all tokens of the split, in windows of one song each."""
    from model import GPT
    from nanorap.dataset import Batches

    out, _ = trained
    result = run('train.py', *TINY, f'--dataset={char_data}', f'--out_dir={out}', '--init_from=resume',
                 '--eval_only', '--batches=documents', '--eval_iters=None')
    model, data = GPT.from_pretrained(str(out)).eval(), Batches(char_data, 'val', 64, 'documents')
    total = 0.0
    with torch.no_grad():
        for i in range(data.n_windows):
            x, y = map(torch.from_numpy, data.read([data.window(i)]))
            total += model(x, y).item() * y.numel()
    assert float(result.stdout.split('val loss ')[1]) == pytest.approx(total / data.n_tokens, abs=1e-4)
    assert 'step 40: train loss' in result.stdout
    assert sorted(losses(out)) == list(range(1, 41))  # it trained no further


@pytest.mark.slow
def test_fine_tuning_a_folder(songs, tmp_path):
    """A transformers GPT-2 without tokenizer files, cropped, on GPT-2 tokens; then that run as the start of
    another."""
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16)).save_pretrained(tmp_path / 'model')
    run('data/lyrics/prepare.py', '--input', songs, '--out_dir', tmp_path / 'data')
    flags = ['--device=cpu', f'--dataset={tmp_path / "data"}', '--batches=documents', '--block_size=64',
             '--batch_size=2',
             '--gradient_accumulation_steps=2', '--max_iters=4', '--eval_iters=2', '--learning_rate=1e-2',
             '--warmup_iters=0']
    run('train.py', *flags, f'--init_from={tmp_path / "model"}', f'--out_dir={tmp_path / "out"}')
    config = json.loads((tmp_path / 'out/best/config.json').read_text())
    assert config['model']['block_size'] == 64 and config['model']['bias']
    assert config['tokenizer']['tokenizer'] == 'gpt2'
    result = run('train.py', *flags, f'--init_from={tmp_path / "out"}', f'--out_dir={tmp_path / "out2"}')
    first_loss = float(result.stdout.split('step 0: val loss ')[1].split()[0])
    assert first_loss == pytest.approx(config['val_loss'], abs=1e-4)
    message = run('train.py', *flags, '--init_from=gpt2', f'--out_dir={tmp_path / "out3"}', ok=False).message
    assert all(word in message for word in ('network', 'transformers format',
                                            'smollm2'))  # no weights at hand: the ways out


def test_every_switch_trains(char_data, tmp_path):
    result = run('train.py', *TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--max_iters=2',
                 '--pos=rotary',
                 '--norm=rmsnorm', '--mlp=swiglu', '--n_kv_head=1', '--qk_norm', '--tie_weights=False',
                 '--logit_softcap=15', '--n_hidden=48', '--warmup_iters=0',
                 '--dtype=bfloat16', '--always_save_checkpoint=False', '--lr_schedule=constant',
                 '--grad_clip=0.0')
    config = json.loads((tmp_path / 'best/config.json').read_text())['model']
    assert config['pos'] == 'rotary' and config['n_kv_head'] == 1
    assert config['logit_softcap'] == 15.0 and config['n_hidden'] == 48
    assert 'bfloat16' in result.stdout and {row['lr'] for row in rows(tmp_path) if 'lr' in row} == {1e-2}


@pytest.mark.slow
def test_a_resume_may_change_the_dtype(char_data, tmp_path):
    """float16 brings a gradient scaler, of which the float32 run left no state."""
    flags = [*TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--eval_interval=2']
    run('train.py', *flags, '--max_iters=2')
    run('train.py', *flags, '--max_iters=4', '--init_from=resume', '--dtype=float16')
    assert json.loads((tmp_path / 'step-00000004/state.json').read_text())['scaler']['scale'] > 0
    run('train.py', *flags, '--max_iters=6', '--init_from=resume', '--dtype=float16')
    assert sorted(losses(tmp_path)) == list(range(1, 7))


@pytest.mark.slow
def test_best_is_the_lowest(char_data, tmp_path):
    """A learning rate that breaks a good model: best/ stays, and a NaN is never saved."""
    flags = [*TINY, f'--dataset={char_data}', f'--out_dir={tmp_path}', '--eval_interval=5',
             '--lr_schedule=constant']
    run('train.py', *flags, '--max_iters=15')
    val = {int(row['step']): row['val_loss'] for row in rows(tmp_path) if 'val_loss' in row}
    run('train.py', *flags, '--max_iters=30', '--init_from=resume', '--learning_rate=1.0',
        '--always_save_checkpoint=False')
    later = {int(row['step']): row['val_loss'] for row in rows(tmp_path) if 'val_loss' in row}
    assert later[20] > val[15]
    assert json.loads((tmp_path / 'best/config.json').read_text())['step'] == min(val, key=val.get)
    # the end of the run is saved, but no other step with a worse loss
    assert (tmp_path / 'step-00000030').exists() and not (tmp_path / 'step-00000025').exists()
    before = sorted(path.name for path in tmp_path.iterdir())
    result = run('train.py', *flags, '--max_iters=40', '--init_from=resume', '--learning_rate=1e30',
                 '--grad_clip=0.0', '--log_interval=100', ok=False)
    assert '5 steps in a row' in result.message
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.slow
def test_wandb_offline(char_data, tmp_path):
    flags = [*TINY, f'--dataset={char_data}', f'--out_dir={tmp_path / "out"}', '--max_iters=2', '--wandb_log']
    run('train.py', *flags, cwd=tmp_path)
    assert list((tmp_path / 'wandb').glob('offline-run-*/run-*.wandb'))


@pytest.mark.parametrize('config', sorted(path.name for path in (ROOT / 'config').glob('*.py')))
def test_configs_are_accepted(config, tmp_path):
    message = run('train.py', f'config/{config}', '--dataset=nowhere', '--device=cpu', cwd=tmp_path,
                  ok=False).message
    assert 'no prepared data' in message


@pytest.mark.slow
def test_wrong_options_get_one_line(char_data, trained, tmp_path):
    def message(*args):
        flags = [*TINY, f'--dataset={char_data}', f'--out_dir={tmp_path / "out"}', '--max_iters=1']
        return run('train.py', *flags, *args, ok=False).message

    assert "did you mean 'batch_size'" in message('--batchsize=3')
    no_data = message('--dataset=openwebtext')
    assert 'run python' in no_data and 'prepare.py' in no_data
    assert 'less than a block' in message('--block_size=100000')
    assert 'no checkpoint to resume' in message('--init_from=resume')
    assert 'choose auto' in message('--device=tpu') and 'finds none' in message('--device=cuda')
    assert 'choose auto' in message('--dtype=fp8') and 'choose one of' in message('--pos=spiral')
    assert 'documents or stream' in message('--batches=rows')
    (tmp_path / 'file').write_text('')
    assert "can't write" in message(f'--out_dir={tmp_path / "file" / "out"}')
    for flag in ('eval_iters', 'eval_interval', 'log_interval', 'block_size', 'batch_size',
                 'gradient_accumulation_steps', 'n_head'):
        assert f'{flag}=0 must be 1 or more' in message(f'--{flag}=0')
    assert '[0, 1)' in message('--beta2=1.0') and 'must be 0 or more' in message('--seed=-1')
    assert 'not finite' in message('--learning_rate=1e30', '--grad_clip=0.0', '--max_iters=9',
                                   '--weight_decay=1e30')
    out, _ = trained
    shutil.copytree(out, tmp_path / 'half')
    for path in (tmp_path / 'half').glob('step-*/model.safetensors'):
        path.write_bytes(path.read_bytes()[:999])
    assert 'brings a model with 2' in message('--init_from=resume', f'--out_dir={out}', '--n_layer=3')
    assert 'give --block_size=64' in message('--init_from=resume', f'--out_dir={out}', '--block_size=32')
    assert 'no whole step-* folder' in message('--init_from=resume', f'--out_dir={tmp_path / "half"}')


@pytest.mark.slow
def test_data_of_another_tokenizer_is_refused(trained, tmp_path):
    out, _ = trained
    write_dataset(tmp_path, load_tokenizer('gpt2'), [('train', 'yo ' * 999), ('val', 'yo ' * 999)])
    for init_from in ('resume', str(out)):
        flags = [*SHORT, f'--dataset={tmp_path}', f'--init_from={init_from}', f'--out_dir={out}']
        message = run('train.py', *flags, ok=False).message
        assert 'tokenizer' in message and str(tmp_path) in message
    meta = json.loads((tmp_path / 'meta.json').read_text())
    (tmp_path / 'meta.json').write_text(json.dumps(meta | dict(vocab_size=300)))
    message = run('train.py', *TINY, f'--dataset={tmp_path}', f'--out_dir={tmp_path / "out"}',
                  ok=False).message
    assert 'beyond the vocabulary of 300' in message
