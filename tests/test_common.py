"""What files and names are taken for: texts in UTF-8, permissions, a run's folder, header lines."""

import codecs
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanorap import checkpoint as ckpt
from nanorap import pretrained
from nanorap.common import (
    UNREADABLE,
    UserError,
    check_writable,
    header_line,
    load_json,
    model_name,
    plain_text,
    read_json,
    read_plain_text,
    reason,
    replaced_folder,
    run_folder,
)
from nanorap.dataset import Batches, find_dataset, read_meta, write_dataset
from nanorap.tokenizer import CharTokenizer, load_tokenizer

TOKENIZER = CharTokenizer('abc')


def a_run(out):
    """A run's folder whose checkpoints hold no usable weights."""
    about = dict(config=dict(model={}, tokenizer=TOKENIZER.meta(), run='a', val_loss=1.0, step=3))
    tensors = dict(model=dict(w=torch.ones(2)))
    ckpt.write_folder(out / 'best', tensors, about, TOKENIZER)
    ckpt.save_step(out, 3, tensors | dict(optimizer={}), about | dict(state=dict(run_id='a')), TOKENIZER)


@pytest.mark.parametrize(('content', 'text'), [
    (b'\xef\xbb\xbfyo\r\nno\rgo\n', 'yo\nno\ngo\n'), (b'a\r\r\nb', 'a\n\nb'), (b'', ''),
    (b'\xef\xbb\xbf', ''),
    ('a\n\ufeffé'.encode(), 'a\né'),  # two files that were joined
])
def test_plain_text(tmp_path, content, text):
    (tmp_path / 'a.txt').write_bytes(content)
    assert read_plain_text(tmp_path / 'a.txt') == text
    assert plain_text(content.decode()) == text


@pytest.mark.parametrize(('content', 'words'), [
    (b'\xff\xfea\0', 'not text in UTF-8'), (b'caf\xe9', 'not text in UTF-8'), (b'', 'line 1, column 1'),
    (b'{"a": 1,\n "b"}', 'line 2, column 5'), (b'[' * 100_000, 'another form'), (b'5', 'no JSON object'),
    (b'[1' + b'0' * 5000 + b']', 'another form'),
])
def test_what_is_wrong_with_a_json_file_is_said_in_words(tmp_path, content, words):
    (tmp_path / 'a.json').write_bytes(content)
    with pytest.raises(UserError, match=words) as e:
        read_json(tmp_path / 'a.json')
    assert len(str(e.value).splitlines()) == 1


def test_a_missing_json_file_is_said_in_words(tmp_path):
    for path in (tmp_path / 'a.json', tmp_path):
        with pytest.raises(UserError, match=r"can't read .*: (No such file|Is a directory)"):
            read_json(path)


@pytest.mark.parametrize('wrong', [
    lambda: {}['text'], lambda: list()[0], lambda: 5 + '', lambda: None.strip(), lambda: int('x'),
    lambda: b'\xff'.decode(), lambda: '\ud800'.encode(), lambda: load_json('/nowhere'),
    lambda: json.loads('{'),
])
def test_reasons_are_not_in_pythons_words(wrong):
    with pytest.raises(UNREADABLE) as e:
        wrong()
    assert not any(word in reason(e.value) for word in ('Error', 'codec', 'object', 'char ', 'operand', '('))


def test_a_byte_order_mark_before_json(tmp_path):
    (tmp_path / 'a.json').write_text('{"a": "é"}', encoding='utf-8-sig')
    assert read_json(tmp_path / 'a.json') == dict(a='é')


@given(st.text())
def test_a_header_is_one_line_with_one_pair_of_brackets(name):
    line = header_line('artist', name)
    if line:
        assert line.startswith('[Artist: ') and line.endswith(']\n') and len(line.splitlines()) == 1
        assert line.count('[') == line.count(']') == 1
    else:
        assert not name.replace('\ufeff', '').strip()


@pytest.mark.parametrize(('name', 'line'), [
    ('MC Fern', '[Artist: MC Fern]\n'), ('x]\n[Verse 1', '[Artist: x) (Verse 1]\n'),
    (']', '[Artist: )]\n'), (' \n', ''), ('a\u2028b\x85c', '[Artist: a b c]\n'),
])
def test_header_lines_of_odd_names(name, line):
    assert header_line('artist', name) == line


# ---- permissions

@contextmanager
def another_user():
    """For root, who may read everything: act as nobody."""
    is_root = os.geteuid() == 0
    codecs.lookup('utf-8-sig')  # loaded at its first use, which nobody may not do
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def shared():
    """A folder that other users can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob('*'):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def data_in(folder):
    write_dataset(folder / 'data', TOKENIZER, [('train', 'ab' * 9), ('val', 'ab' * 9)])
    return folder / 'data'


needs_users = pytest.mark.skipif(not hasattr(os, 'geteuid'), reason="Windows has other permissions")


@needs_users
@pytest.mark.parametrize('forbidden', [
    '', 'best', 'best/model.safetensors', 'best/config.json', 'best/SHA256SUMS',
])
@pytest.mark.parametrize('use', [
    lambda out: model_name(str(out), 'resume'), lambda out: pretrained.load(str(out)),
    lambda out: load_tokenizer(str(out)), lambda out: ckpt.best(out, 'a'),
], ids=['name', 'weights', 'tokenizer', 'best'])
def test_what_this_user_may_not_read_is_not_damaged(shared, use, forbidden):
    a_run(shared / 'out')
    (shared / 'out' / forbidden).chmod(0)
    with another_user(), pytest.raises(UserError, match='no permission to read .*ask its owner'):
        use(shared / 'out')


@needs_users
@pytest.mark.parametrize('forbidden', ['', 'step-00000003', 'step-00000003/state.json'])
def test_a_resume_without_permission_does_not_begin_anew(shared, forbidden):
    a_run(shared / 'out')
    (shared / 'out' / forbidden).chmod(0)
    for use in (ckpt.load_step, lambda out: ckpt.was_run(out, 'a')):
        with another_user(), pytest.raises(UserError, match='no permission to read'):
            use(shared / 'out')


@needs_users
@pytest.mark.parametrize('forbidden', ['', 'train.bin', 'meta.json'])
def test_data_that_this_user_may_not_read(shared, forbidden):
    folder = data_in(shared)
    (folder / forbidden).chmod(0)
    for use in (read_meta, lambda data: Batches(find_dataset(data), 'train', 4)):
        with another_user(), pytest.raises(UserError, match='no permission to read'):
            use(folder)


@needs_users
def test_a_file_that_does_not_matter_may_be_unreadable(shared):
    folder = data_in(shared)
    (folder / 'notes.txt').touch(mode=0)
    with another_user():
        assert read_meta(folder)['tokenizer'] == 'char'


@needs_users
@pytest.mark.parametrize('umask', [0o022, 0o077, 0o002])
def test_checkpoints_have_the_umasks_mode(tmp_path, umask):
    before = os.umask(umask)
    try:
        a_run(tmp_path / 'out')
        with replaced_folder(tmp_path / 'new') as folder:
            (folder / 'a').touch(mode=0o600)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert len(files) > 8
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


# ---- where things are

def test_a_file_can_be_written(tmp_path):
    for path in (tmp_path / 'new', '/dev/null'):
        check_writable(path)
    assert not (tmp_path / 'new').exists()
    (tmp_path / 'old').write_text('text')
    check_writable(tmp_path / 'old')
    assert (tmp_path / 'old').read_text() == 'text'
    check_writable(tmp_path / 'folder' / 'new', makes_folder=True)
    os.mkfifo(tmp_path / 'pipe')
    check_writable(tmp_path / 'pipe')  # doesn't wait for a reader


def test_a_file_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    for path in (tmp_path, tmp_path / 'nowhere' / 'new', tmp_path / 'file' / 'new', tmp_path / ('x' * 999)):
        with pytest.raises(UserError, match="can't write .*choose another place"):
            check_writable(path)


def test_out_dir_may_be_a_checkpoint_within_it(tmp_path, monkeypatch):
    """As tab completion gives it: best/ stands for the run, a step folder for itself."""
    a_run(tmp_path / 'out')
    monkeypatch.chdir(tmp_path)
    for given_name, run, model in [
        ('out', 'out', 'out'), ('out/best', 'out', 'out'), ('out/best/', 'out', 'out'),
        ('out/step-00000003', 'out', 'out/step-00000003'),
    ]:
        assert (run_folder(given_name), model_name(given_name, 'resume')) == (run, model)
        assert load_tokenizer(model).chars == 'abc'
    monkeypatch.chdir(tmp_path / 'out')
    assert model_name('best', 'resume') == '.'
    monkeypatch.chdir(tmp_path / 'out' / 'best')
    assert model_name('.', 'resume') == run_folder('.') == '..'
    shutil.copytree(tmp_path / 'out' / 'best', tmp_path / 'mine')
    assert model_name(str(tmp_path / 'mine'), 'resume') == run_folder(str(tmp_path / 'mine'))
    for no_run in (tmp_path, tmp_path / 'nowhere'):
        with pytest.raises(UserError, match='train one first'):
            model_name(str(no_run), 'resume')
    (tmp_path / 'best').mkdir()  # a run may have any name
    a_run(tmp_path / 'best')
    assert run_folder(str(tmp_path / 'best')) == model_name(str(tmp_path / 'best'), 'resume')
