"""Checkpoints on disk: what is written comes back, a folder is whole or not there, damage is noticed."""

import json
import shutil

import pytest
import torch

from model import GPT, GPTConfig
from nanorap import checkpoint as ckpt
from nanorap.common import UserError, model_folder
from nanorap.optim import make_optimizer
from nanorap.tokenizer import CharTokenizer

TOKENIZER = CharTokenizer('abc')


def a_run(out_dir, steps=(10,)):
    """A tiny model trained by a few updates, saved at each of `steps`."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, vocab_size=11))
    optimizer = make_optimizer('adamw', model, 1e-2, (0.9, 0.95), 0.1)
    for step in steps:
        idx = torch.randint(11, (2, 8))
        model(idx, idx).backward()
        optimizer.step()
        tensors = dict(model=model.state_dict(), optimizer=ckpt.optimizer_tensors(model, optimizer))
        documents = dict(config=dict(model=model.config_dict()), state=dict(step=step))
        ckpt.save_step(out_dir, step, tensors, documents, TOKENIZER)
    return model, optimizer


def test_a_loaded_run_continues_as_the_saved_one(tmp_path):
    model, optimizer = a_run(tmp_path)
    weights, tensors, config, state = ckpt.load_step(tmp_path)
    assert state['step'] == 10
    assert config['model'] == model.config_dict()
    again = GPT.from_state_dict(config['model'], weights)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    other = make_optimizer('adamw', again, 1e-2, (0.9, 0.95), 0.1)
    ckpt.load_optimizer(again, other, tensors)
    for m in (model, again):  # the same next update, to the bit
        m.zero_grad()
        m(torch.ones(1, 8, dtype=torch.long), torch.ones(1, 8, dtype=torch.long)).backward()
    optimizer.step()
    other.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


def test_the_last_two_step_folders_are_kept(tmp_path):
    a_run(tmp_path, steps=(10, 20, 30))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['step-00000020', 'step-00000030']
    assert ckpt.load_step(tmp_path)[3]['step'] == 30
    a_run(tmp_path, steps=(5,))  # a new run in the folder of an old one: what it saves counts
    assert ckpt.load_step(tmp_path)[3]['step'] == 5


@pytest.mark.parametrize('file', [
    'model.safetensors', 'optimizer.safetensors', 'config.json', 'state.json', 'SHA256SUMS',
])
@pytest.mark.parametrize('damage', ['flip', 'truncate', 'empty', 'remove'])
def test_a_damaged_folder_is_skipped(tmp_path, file, damage, capsys):
    a_run(tmp_path, steps=(10, 20))
    path = tmp_path / 'step-00000020' / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == 'remove':
        path.unlink()
    else:
        path.write_bytes(dict(flip=content, truncate=content[:-40], empty=b'')[damage])
    assert ckpt.load_step(tmp_path)[3]['step'] == 10
    warning = capsys.readouterr().err
    assert 'skipping' in warning and 'step-00000020' in warning
    shutil.rmtree(tmp_path / 'step-00000010')
    with pytest.raises(UserError, match='no checkpoint to resume'):
        ckpt.load_step(tmp_path)


def test_a_half_written_folder_is_no_checkpoint(tmp_path, monkeypatch):
    """Killed in the middle of a save, the run has its earlier checkpoint, and the next save clears up."""
    a_run(tmp_path, steps=(10,))

    class Killed(BaseException):
        pass

    def kill(path):
        raise Killed

    monkeypatch.setattr('nanorap.common.sync_to_disk', kill)
    with pytest.raises(Killed):
        a_run(tmp_path, steps=(20,))
    monkeypatch.undo()
    assert ckpt.load_step(tmp_path)[3]['step'] == 10
    a_run(tmp_path, steps=(20,))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['step-00000010', 'step-00000020']


def test_best_is_replaced_whole(tmp_path):
    for step in (1, 2):
        weights = dict(w=torch.full((2,), float(step)))
        ckpt.write_folder(tmp_path / 'best', dict(model=weights), dict(config=dict(step=step)), TOKENIZER)
        assert json.loads((tmp_path / 'best' / 'config.json').read_text())['step'] == step
    assert [path.name for path in tmp_path.iterdir()] == ['best']


def test_killed_between_the_two_renames_of_best(tmp_path):
    """Readers find the old best/, and the next save removes it."""
    for step in (1, 2, 3):
        about = dict(config=dict(step=step, val_loss=1 / step, run='a'))
        if step == 3:
            (tmp_path / 'best').rename(tmp_path / '.best.old')
            assert ckpt.best(tmp_path, 'a') == (1 / 2, 2)
            assert model_folder(tmp_path) == tmp_path / '.best.old'
        ckpt.write_folder(tmp_path / 'best', {}, about, TOKENIZER)
    assert ckpt.best(tmp_path, 'a') == (1 / 3, 3)
    assert ckpt.best(tmp_path, 'b') == (None, None)
    assert [path.name for path in tmp_path.iterdir()] == ['best']


def test_killed_between_the_two_renames_of_a_step(tmp_path):
    """A run that a signal stopped saves its last step a second time, and is killed: the first one counts."""
    a_run(tmp_path, steps=(10, 20))
    (tmp_path / 'step-00000020').rename(tmp_path / '.step-00000020.old')
    assert ckpt.load_step(tmp_path)[3]['step'] == 20
    a_run(tmp_path, steps=(20, 30))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['step-00000020', 'step-00000030']


def test_a_users_copy_is_left_alone(tmp_path):
    a_run(tmp_path, steps=(10,))
    shutil.copytree(tmp_path / 'step-00000010', tmp_path / 'step-00000010-keep')
    a_run(tmp_path, steps=(20, 30))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ['step-00000010-keep', 'step-00000020', 'step-00000030']


def test_was_run_knows_the_run_by_its_id(tmp_path):
    assert not ckpt.was_run(tmp_path, 'a')
    ckpt.save_step(tmp_path, 1, {}, dict(state=dict(run_id='a')), TOKENIZER)
    assert ckpt.was_run(tmp_path, 'a')
    assert not ckpt.was_run(tmp_path, 'b')


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match="can't save"):
        ckpt.write_folder(tmp_path / 'file' / 'best', {}, {}, TOKENIZER)
