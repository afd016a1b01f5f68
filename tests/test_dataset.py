"""Token files and the batches read from them: properties that hold for any documents, and what is refused."""

import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run, start
from hypothesis import given, settings
from hypothesis import strategies as st

from nanorap import dataset
from nanorap.common import UserError
from nanorap.dataset import (
    Batches,
    _read_hub,
    is_blank,
    is_held_out,
    read_documents,
    read_meta,
    read_split,
    split_documents,
    write_dataset,
)
from nanorap.tokenizer import CharTokenizer, load_tokenizer, tokenizer_from_meta

ALPHABET = 'abcdefghij'
TOKENIZER = CharTokenizer(ALPHABET)
documents = st.lists(st.text(ALPHABET, max_size=40), min_size=1, max_size=12)
SETTINGS = settings(max_examples=80, deadline=None)


def write(folder, train, val=('a',)):
    documents = [('train', text) for text in train] + [('val', text) for text in val]
    return write_dataset(folder, TOKENIZER, documents)


@pytest.fixture(autouse=True, scope='module')
def small_chunks():
    """So that a few documents are several chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, 'CHUNK', 30)
        yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('data')


@SETTINGS
@given(documents)
def test_the_files_hold_the_documents(folder, train):
    meta = write(folder, train)
    assert json.loads((folder / 'meta.json').read_text()) == meta == read_meta(folder)
    tokens = np.fromfile(folder / 'train.bin', dtype='<u2').tolist()
    assert tokens == [i for text in train for i in [*TOKENIZER.encode(text), TOKENIZER.eot]]
    assert meta['splits']['train'] == meta['splits']['train'] | dict(tokens=len(tokens), documents=len(train))
    # no temporary file stays
    assert sorted(path.name for path in folder.iterdir()) == ['meta.json', 'train.bin', 'val.bin']


@SETTINGS
@given(documents, st.integers(1, 50))
def test_document_rows(folder, train, block_size):
    """Each row is one window of one document; every token is a target once."""
    write(folder, train)
    data, eot = Batches(folder, 'train', block_size, 'documents', seed=1), TOKENIZER.eot
    rows, starts = [], 0
    for k in range(data.rows_per_epoch):
        x, y = data.read([data.row_window(k)])
        assert (y != -1).all() and 1 <= y.shape[1] <= block_size
        assert (x[0, 1:] == y[0, :-1]).all()
        assert not (y[0, :-1] == eot).any()  # one document, which can end at the row's end only
        starts += x[0, 0] == eot
        rows.append((data.row_window(k)[0], y[0].tolist()))
    assert starts == len(train)  # rows that begin where a document begins
    tokens = np.fromfile(folder / 'train.bin', '<u2').tolist()
    assert [token for _, row in sorted(rows) for token in row] == tokens


@SETTINGS
@given(documents, st.integers(1, 50))
def test_windows_cover_a_split_once(folder, train, block_size):
    write(folder, train)
    tokens = np.fromfile(folder / 'train.bin', '<u2').tolist()
    for mode in ['documents'] + ['stream'] * (len(tokens) > block_size):
        data = Batches(folder, 'train', block_size, mode)
        windows = [data.window(i) for i in range(data.n_windows)]
        assert [t for start, end in windows for t in range(start, end)] == list(range(len(tokens)))


@SETTINGS
@given(st.integers(1, 9), st.integers(50, 200), st.integers(0, 5))
def test_stream_epochs_repeat_nothing(folder, block_size, n, seed):
    write(folder, [ALPHABET * (n // 10)])
    data = Batches(folder, 'train', block_size, 'stream', seed)
    epochs = [data.row_windows(epoch * data.rows_per_epoch, data.rows_per_epoch) for epoch in range(3)]
    for rows in epochs:
        targets = [t for start, end in rows for t in range(start, end)]
        assert len(set(targets)) == len(targets) and set(targets) <= set(range(data.n_tokens))
        assert all(end - start == block_size for start, end in rows)
        assert len(targets) > data.n_tokens - 2 * block_size  # little is left out of an epoch
    again = Batches(folder, 'train', block_size, 'stream', seed)
    k = data.rows_per_epoch * 2 + 1
    for i in (k, 1):  # a pure function, in any order of calls
        assert again.row_window(i) == data.row_window(i)


def test_orders_differ(folder):
    write(folder, [ALPHABET] * 50)
    def order(seed, epoch):
        data = Batches(folder, 'train', 20, 'documents', seed)
        return data.row_windows(epoch * 50, 50)

    assert sorted(order(0, 0)) == sorted(order(0, 1)) == sorted(order(1, 0))
    assert order(0, 0) != order(0, 1) and order(0, 0) != order(1, 0)


@pytest.mark.parametrize('mode', ['documents', 'stream'])
def test_a_step_is_the_same_for_any_ranks(folder, mode):
    write(folder, ['abc', 'abcdefghij' * 3, 'a', '', 'ffff' * 4])
    data = Batches(folder, 'train', 8, mode, seed=3)
    whole = {batch.first_row: batch for batch in data.step(5, 2, 4)}
    assert sum(batch.weight for batch in whole.values()) == pytest.approx(1)
    for world_size in (2, 4):
        for rank in range(world_size):
            parts = list(data.step(5, 2, 4, rank, world_size))
            assert [batch.is_last for batch in parts] == [False] * (4 // world_size - 1) + [True]
            for batch in parts:
                same = whole[batch.first_row]
                assert batch.weight == pytest.approx(same.weight * world_size)
                assert (batch.x == same.x).all() and (batch.y == same.y).all()
    for batch in whole.values():  # a token weighs the same wherever it stands
        assert batch.weight == pytest.approx((batch.y != -1).sum() / data.n_targets(5, 8))


def test_padding(folder):
    write(folder, ['abc', 'abcdef'])
    x, y = Batches(folder, 'train', 16, 'documents').read([(0, 4), (4, 11)])
    eot = TOKENIZER.eot
    assert x.tolist() == [[eot, 0, 1, 2, eot, eot, eot], [eot, 0, 1, 2, 3, 4, 5]]
    assert y.tolist() == [[0, 1, 2, eot, -1, -1, -1], [0, 1, 2, 3, 4, 5, eot]]


def test_held_out_never_moves():
    keys = [f'song {i}' for i in range(5000)]
    held_out = [key for key in keys if is_held_out(key, 0.1)]
    assert 400 < len(held_out) < 600
    assert all(is_held_out(key, 0.2) for key in held_out)  # a larger share takes more, and the same
    for key in keys[:500]:  # by the hash's first hex digit
        assert is_held_out(key, 1 / 16) == hashlib.sha256(key.encode()).hexdigest().startswith('0')


# ---- which songs there are, and on which side

def by_share(keys, share):
    return [('val' if is_held_out(key, share) else 'train', key) for key in keys]


@SETTINGS
@given(st.lists(st.text('abc', min_size=1, max_size=3), max_size=12), st.floats(0.001, 0.999))
def test_few_songs_are_held_out_too(keys, share):
    """Of two songs or more each side has one: those that a larger, or smaller, share would take first."""
    split = list(split_documents(((key, key) for key in keys), share))
    assert [text for _, text in split] == keys  # in their order
    sides = {name: {text for side, text in split if side == name} for name in ('train', 'val')}
    assert not sides['train'] & sides['val']  # versions of a song stay together
    wanted = by_share(keys, share)
    if len(set(keys)) < 2 or {'train', 'val'} == {side for side, _ in wanted}:
        assert split == wanted
    else:
        alone = sides['val'] if wanted[0][0] == 'train' else sides['train']
        assert len(alone) == 1
        assert any(split == by_share(keys, i / 999) for i in range(1, 999))


def test_songs_are_passed_on_as_they_come():
    """Once both sides have a song nothing waits, though the input has no end."""
    songs = ((f'song {i}', f'{i}') for i in range(10**9))
    split = split_documents(songs, 0.1)
    assert [next(split)[1] for _ in range(100)] == [f'{i}' for i in range(100)]


@pytest.mark.parametrize('share', [0, 1, -0.1, 1.5, float('nan'), float('inf')])
def test_a_share_lies_between_0_and_1(share):
    with pytest.raises(UserError, match='between 0 and 1'):
        list(split_documents([('a', 'a')], share))


BLANK = ['', ' ', '\n\n', '\t\r\n', '\u3000\u00a0', '\u200b', '\ufeff\n', '\x00\x1b']


@pytest.mark.parametrize('text', BLANK)
def test_blank_texts_are_left_out(text, capsys):
    assert is_blank(text)
    songs = [('a', 'yo'), ('b', text), ('c', 'yeah'), ('d', text)]
    assert [kept for _, kept in split_documents(songs, 0.5)] == ['yo', 'yeah']
    assert 'left out: 2 blank' in capsys.readouterr().out
    list(split_documents(songs[::2], 0.5))
    assert not capsys.readouterr().out


def test_letters_and_signs_are_not_blank():
    assert not any(map(is_blank, ['a', '\n.', '🎤', '…', '世', '[Hook]', '\u200b1', '\ue000x']))


@pytest.mark.parametrize(('start', 'end'), [('', '\n'), ('\ufeff', '\r\n'), ('', '\r')])
@pytest.mark.parametrize(('before', 'between', 'after'), [('[\n', ',\n', '\n]'), ('', '\n\n', '')])
def test_files_of_other_systems(tmp_path, start, end, before, between, after):
    """Byte order marks and other line ends, around entries and in their texts, change nothing."""
    texts = ['a\r\nb\rc\n', '\ufeffé\u2028x', 'd']
    entries = between.join(json.dumps(dict(text=text), ensure_ascii=i % 2) for i, text in enumerate(texts))
    content = start + before + entries + after
    (tmp_path / 'a.jsonl').write_bytes(content.replace('\n', end).encode())
    read = [entry['text'] for entry in read_documents(tmp_path / 'a.jsonl')]
    assert read == ['a\nb\nc\n', 'é\u2028x', 'd']


@pytest.mark.parametrize(('line', 'words'), [
    ('{"text": null}', "'text' is null, not a text"), ('{"text": 5}', "'text' is 5, not a text"),
    ('{"text": ["a"]}', r"""'text' is \["a"\], not a text"""), ('{"text": true}', "'text' is true"),
    ('{"lyrics": "a"}', "it has no 'text'"), ('null', 'it is null, not an object'),
    ('"a"', 'it is "a", not an'), ('[1, 2]', r'it is \[1, 2\], not an'),
    ('{"text": "a"', 'not JSON from column 13'), ('yo', 'from column 1'),
    ('{"text": "a"} {', 'not JSON from column 15'), ("{'text': 'a'}", 'column 2'),
    ('[' * 100_000, 'not JSON'), ('[1' + '0' * 5000 + ']', 'not JSON'),
])
def test_a_bad_line_is_named_in_words(tmp_path, line, words):
    path = tmp_path / 'a.jsonl'
    path.write_text('{"text": "ok"}\n' + line + '\n')
    with pytest.raises(UserError, match=f'a.jsonl, line 2: not an entry .*{words}') as e:
        list(read_documents(path))
    assert not re.search(r'Error|operand|Expecting|\(char', str(e.value))


@pytest.mark.parametrize('content', [b'\xff\xfe{\0', '{"text": "é"}'.encode('latin-1')])
def test_another_encoding_is_named(tmp_path, content):
    (tmp_path / 'a.jsonl').write_bytes(content)
    with pytest.raises(UserError, match="can't read .*a.jsonl: it is not text in UTF-8"):
        list(read_documents(tmp_path / 'a.jsonl'))


def test_songs_of_odd_files_through_prepare(tmp_path):
    """Ten songs of which none falls to the validation tenth, and three blank ones."""
    names = [name for name in (f'song {i}' for i in range(99)) if not is_held_out(name, 0.1)][:10]
    songs = [dict(text=f'\ufeff{name}\r\nyo', group=name, artist_name='A] [b') for name in names]
    songs += [dict(text=' \r\n', artist_name='c', group=str(i)) for i in range(3)]
    (tmp_path / 'songs.jsonl').write_text('\n'.join(map(json.dumps, songs)), encoding='utf-8-sig')
    result = run('data/lyrics/prepare.py', '--input', tmp_path / 'songs.jsonl', '--tokenizer=char',
                 '--out_dir', tmp_path, '--header=artist')
    assert 'left out: 3 blank text(s)' in result.stdout
    meta = read_meta(tmp_path)
    assert [meta['splits'][split]['documents'] for split in ('train', 'val')] == [9, 1]
    assert not set(meta['chars']) & set('\ufeff\rc')
    tokenizer = tokenizer_from_meta(meta, tmp_path)
    texts = [tokenizer.decode(ids) for split in ('train', 'val') for ids in read_split(tmp_path, split)]
    assert sorted(texts) == sorted(f'[Artist: A) (b]\n{name}\nyo' for name in names)
    (tmp_path / 'songs.jsonl').write_text('{"text": "yo"}\n{"text": "yo"}\n{"text": " "}\n')
    message = run('data/lyrics/prepare.py', '--input', tmp_path / 'songs.jsonl', '--tokenizer=char',
                  '--out_dir', tmp_path / 'one', ok=False).message
    assert 'no document fell to the val split; prepare at least two different ones' in message


@pytest.mark.parametrize(('content', 'words'), [
    ('[]', 'another form'), ('{"tokenizer": "char"}', "no 'splits'"), ('{', 'not JSON from line 1, column 2'),
    ('{"splits": {}, "tokenizer": "char", "vocab_size": "x", "eot": 1}', '\'vocab_size\' is "x"'),
    ('{"splits": {}, "tokenizer": null, "vocab_size": 1, "eot": 1}', "'tokenizer' is null"),
    ('{"splits": {"train": 5}, "dtype": "uint16"}', 'another form'), ('é', 'not JSON'),
])
def test_a_damaged_meta_is_named_in_words(tmp_path, content, words):
    write(tmp_path, ['abc'])
    (tmp_path / 'meta.json').write_text(content, encoding='utf-8-sig')
    with pytest.raises(UserError, match=f'meta.json is damaged .*{words}.*prepare.py') as e:
        read_meta(tmp_path)
    assert not re.search(r'Error|operand|Expecting', str(e.value))


def test_uint32_for_a_large_vocabulary(tmp_path):
    class Large(CharTokenizer):
        def __init__(self):
            super().__init__(ALPHABET)
            self.eot, self.vocab_size = 70_000, 70_001

    assert write_dataset(tmp_path, Large(), [('train', 'ab'), ('val', 'a')])['dtype'] == 'uint32'
    assert np.fromfile(tmp_path / 'train.bin', '<u4').tolist() == [0, 1, 70_000]
    assert Batches(tmp_path, 'train', 8, 'documents').read([(0, 3)])[1].tolist() == [[0, 1, 70_000]]


def test_a_failed_run_leaves_the_old_files(tmp_path):
    write(tmp_path, ['abc'])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for bad in (['abc', 'xyz'], []):  # a character that the vocabulary lacks; no training documents at all
        with pytest.raises(UserError):
            write(tmp_path, bad)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_bad_folders_and_options_are_refused(tmp_path):
    with pytest.raises(UserError, match='meta.json is missing.*prepare'):
        Batches(tmp_path, 'train', 8)
    write(tmp_path, ['abcdef'])
    for mode, block_size, words in [('stream', 7, 'less than a block'), ('rows', 4, 'documents or stream')]:
        with pytest.raises(UserError, match=words):
            Batches(tmp_path, 'train', block_size, mode)
    np.array([0, 1, 9999, 1, 0, 1, 10], '<u2').tofile(tmp_path / 'train.bin')
    with pytest.raises(UserError, match='9999, beyond the vocabulary of 11'):
        Batches(tmp_path, 'train', 4).read([(0, 4)])
    (tmp_path / 'train.bin').write_bytes(b'12345')
    with pytest.raises(UserError, match='5 bytes, not the 7 tokens'):
        read_meta(tmp_path)
    (tmp_path / 'meta.json').write_text('{"tok')
    with pytest.raises(UserError, match='damaged'):
        read_meta(tmp_path)


@pytest.mark.slow
def test_prepare_lyrics(songs, tmp_path):
    for name in ('gpt2', 'smollm2', 'char'):
        flags = ['--input', songs, f'--tokenizer={name}', '--out_dir', tmp_path / name]
        run('data/lyrics/prepare.py', *flags, cwd=tmp_path)
    texts = [song['text'] for song in json.loads(songs.read_text())]
    tokenizer = load_tokenizer('gpt2')
    wanted = sorted([*tokenizer.encode(text), tokenizer.eot] for text in texts)
    written = []
    for split in ('train', 'val'):
        tokens = np.fromfile(tmp_path / 'gpt2' / f'{split}.bin', '<u2')
        ends = np.flatnonzero(tokens == tokenizer.eot) + 1
        written += [part.tolist() for part in np.split(tokens, ends)[:-1]]
    assert sorted(written) == wanted
    first = (tmp_path / 'gpt2' / 'train.bin').read_bytes()
    run('data/lyrics/prepare.py', '--input', songs, '--out_dir', tmp_path / 'gpt2')
    assert (tmp_path / 'gpt2' / 'train.bin').read_bytes() == first  # the same input, the same bytes


@pytest.mark.slow
def test_another_tokenizer_in_the_same_folder(songs, tmp_path):
    """The first one's tokenizer.json would be taken for the second one's."""
    for name in ('smollm2', 'gpt2'):
        run('data/lyrics/prepare.py', '--input', songs, f'--tokenizer={name}', '--out_dir', tmp_path)
        meta = read_meta(tmp_path)
        tokenizer = tokenizer_from_meta(meta, tmp_path)
        text = tokenizer.decode(np.fromfile(tmp_path / 'val.bin', '<u2')[:99].tolist())
        assert tokenizer.vocab_size == meta['vocab_size']
        assert any(text in song['text'] for song in json.loads(songs.read_text()))
    load_tokenizer('smollm2').save(tmp_path)
    with pytest.raises(UserError, match='is not the tokenizer that wrote'):
        tokenizer_from_meta(meta, tmp_path)


@pytest.mark.slow
def test_headers_and_jsonl(tmp_path):
    """Artist and title stand before each song, and meta.json says so; special tokens' names are text."""
    lyrics = [f'bar {i} <|endoftext|> [Artist: no]' for i in range(30)]
    songs = [dict(lyrics=text, artist_name=f'MC\n {i % 3}', song_name='Kettle')
             for i, text in enumerate(lyrics)]
    (tmp_path / 'songs.jsonl').write_text(''.join(json.dumps(song) + '\n' for song in songs))
    flags = ['--input', tmp_path / 'songs.jsonl', '--column=lyrics', '--out_dir', tmp_path, '--val_share=0.3']
    run('data/lyrics/prepare.py', *flags, '--header=title,artist')
    meta, tokenizer, texts = read_meta(tmp_path), load_tokenizer('gpt2'), []
    for split in ('train', 'val'):
        tokens = np.fromfile(tmp_path / f'{split}.bin', '<u2')
        documents = np.split(tokens, np.flatnonzero(tokens == tokenizer.eot) + 1)[:-1]
        texts += [tokenizer.decode(document[:-1].tolist()) for document in documents]
        assert len(documents) == meta['splits'][split]['documents']
    wanted = [f"[Title: Kettle]\n[Artist: MC {i % 3}]\n{text}" for i, text in enumerate(lyrics)]
    assert sorted(texts) == sorted(wanted)
    assert meta['header'] == ['title', 'artist']
    (tmp_path / 'songs.jsonl').write_text(json.dumps(dict(lyrics='x')))
    assert "no 'artist_name'" in run('data/lyrics/prepare.py', *flags, '--header=artist', ok=False).message
    failed = run('data/lyrics/prepare.py', '--input', tmp_path / 'songs.jsonl', ok=False)
    assert 'not an entry' in failed.message


def test_the_hubs_reader(tmp_path):
    """The library that reads the hub reads a folder in the same way."""
    entries = [json.dumps(dict(text=f'bar {i}', n=i)) for i in range(5)]
    (tmp_path / 'train.jsonl').write_text('\n'.join(entries) + '\n')
    assert [entry['text'] for entry in _read_hub(str(tmp_path), 'text')] == [f'bar {i}' for i in range(5)]
    with pytest.raises(UserError, match="no column 'lyrics' of text"):
        next(_read_hub(str(tmp_path), 'lyrics'))
    with pytest.raises(UserError, match="no column 'n' of text"):
        next(_read_hub(str(tmp_path), 'n'))


def test_a_null_of_the_hub_is_named(tmp_path):
    (tmp_path / 'train.jsonl').write_text('{"text": "a\\r\\nb"}\n{"text": null}\n')
    rows = _read_hub(str(tmp_path), 'text')
    assert next(rows)['text'] == 'a\nb'
    with pytest.raises(UserError, match="in row 2 'text' is null, not a text"):
        next(rows)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='needs /proc')
def test_memory_stays_flat(tmp_path):
    """60 MB of songs in much less memory than that: their text alone, or their tokens, would take as much."""
    line = json.dumps(dict(text='the kettle is on and the bars are strong, ' * 700)) + '\n'
    with open(tmp_path / 'songs.jsonl', 'w', encoding='utf-8') as f:
        for i in range(2000):
            f.write(line.replace('kettle', f'kettle {i}', 1))
    # not ru_maxrss: on Linux it begins with what the parent had
    code = ("import re, runpy, sys; sys.argv = sys.argv[1:]\n"
            "from nanorap.tokenizer import load_tokenizer; load_tokenizer('gpt2'); import numpy, tqdm\n"
            "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
            "start = peak(); runpy.run_path(sys.argv[0]); print('more:', peak() - start)")
    command = [sys.executable, '-c', code, 'data/lyrics/prepare.py']
    command += ['--input', str(tmp_path / 'songs.jsonl'), '--out_dir', str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert int(result.stdout.split('more:')[1]) < 80e6, result


@pytest.mark.slow
def test_kills_and_full_disks_leave_the_old_files(tmp_path):
    """Killed in the middle (the input is a pipe that stays open), or with files that can't grow."""
    songs = [json.dumps(dict(text=f'{i} ' + 'yo ' * 999)) + '\n' for i in range(3000)]
    (tmp_path / 'songs.jsonl').write_text(''.join(songs))
    out = tmp_path / 'out'
    flags = ['--out_dir', str(out), '--tokenizer=gpt2']
    run('data/lyrics/prepare.py', '--input', tmp_path / 'songs.jsonl', *flags)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    os.mkfifo(tmp_path / 'pipe.jsonl')
    process = start(sys.executable, 'data/lyrics/prepare.py', '--input', tmp_path / 'pipe.jsonl', *flags)
    with open(tmp_path / 'pipe.jsonl', 'w', encoding='utf-8') as pipe:
        pipe.writelines(songs)
        pipe.flush()
        half = out / '.prepare.tmp/train.bin'
        while not half.exists() or not half.stat().st_size:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.communicate()
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    command = [sys.executable, 'data/lyrics/prepare.py', *flags]
    command += ['--input', str(tmp_path / 'songs.jsonl'), '--header=']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)))
    assert result.returncode == 1 and "can't write to" in result.stderr and 'Traceback' not in result.stderr
    # and the killed run's half is gone
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_versions_of_a_song_stay_on_one_side(tmp_path):
    songs = [dict(text=f'{"abc"[v]}{i}', group=f'song {i}') for i in range(60) for v in range(3)]
    (tmp_path / 'data.json').write_text('[\n' + ',\n'.join(map(json.dumps, songs)) + '\n]\n')
    flags = ['--tokenizer=char', '--out_dir', tmp_path, '--val_share=0.3']
    run('data/lyrics/prepare.py', '--input', tmp_path / 'data.json', *flags)
    chars = CharTokenizer(json.loads((tmp_path / 'meta.json').read_text())['chars'])
    splits_of = {str(i): [] for i in range(60)}  # song number: the split of each of its versions
    for split in ('train', 'val'):
        text = chars.decode(np.fromfile(tmp_path / f'{split}.bin', '<u2').tolist())
        for number in re.findall(r'[abc](\d+)', text):
            splits_of[number].append(split)
    assert {tuple(splits) for splits in splits_of.values()} == {('train',) * 3, ('val',) * 3}


@pytest.mark.slow
def test_other_prepare_scripts(tmp_path):
    text = 'To be, or not to be: that is the question.\n' * 30
    (tmp_path / 'text.txt').write_text(text.replace('\n', '\r\n'), encoding='utf-8-sig', newline='')
    cases = ('shakespeare_char', CharTokenizer(text)), ('shakespeare', load_tokenizer('gpt2'))
    for name, tokenizer in cases:
        run(f'data/{name}/prepare.py', '--input', tmp_path / 'text.txt', '--out_dir', tmp_path / name)
        n = int(len(text) * 0.9)
        for split, part in (('train', text[:n]), ('val', text[n:])):
            tokens = np.fromfile(tmp_path / name / f'{split}.bin', '<u2').tolist()
            assert tokens == [*tokenizer.encode(part), tokenizer.eot]
    entries = [json.dumps(dict(text=f'document {i}')) for i in range(40)]
    (tmp_path / 'documents.jsonl').write_text('\n'.join(entries) + '\n')
    run('data/openwebtext/prepare.py', '--input', tmp_path / 'documents.jsonl', '--out_dir', tmp_path / 'owt',
        '--val_share=0.2')
    counts = read_meta(tmp_path / 'owt')['splits']
    assert counts['train']['documents'] + counts['val']['documents'] == 40 and counts['val']['documents'] > 0


@pytest.mark.slow
@pytest.mark.parametrize('args, words', [
    (['data/lyrics/prepare.py', '--input=nowhere.json'], "can't read nowhere.json"),
    (['data/lyrics/prepare.py', '--input=nobody/nothing'], "can't read 'nobody/nothing'"),
    (['data/lyrics/prepare.py', f'--input={ROOT / "LICENSE"}'], 'not an entry'),
    (['data/lyrics/prepare.py', '--header=artist,album'], "'album' is neither artist nor title"),
    (['data/lyrics/prepare.py', '--input=.'], "can't read"),
    (['data/lyrics/prepare.py', '--input=.', '--tokenizer=char'], "can't read"),
    (['data/lyrics/prepare.py', f'--input={ROOT / "LICENSE"}', '--tokenizer=nothing/here'],
     "can't get 'nothing/here'"),
    (['data/shakespeare_char/prepare.py', '--input=nowhere.txt'], "can't read nowhere.txt"),
    (['data/shakespeare_char/prepare.py', '--input=/dev/null'], "/dev/null is empty"),
    (['data/shakespeare/prepare.py', '--input=http://127.0.0.1:9/x'], 'give a text file'),
    (['data/openwebtext/prepare.py', '--input=nowhere.jsonl'], "can't read nowhere.jsonl"),
    (['data/openwebtext/prepare.py', '--input=nobody/nothing'], 'network access'),
])
def test_mistakes_get_one_line(args, words, tmp_path):
    assert words in run(*args, '--out_dir', tmp_path, ok=False).message
