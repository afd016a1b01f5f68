"""
Token files at both ends: writing a data folder, and reading batches from it.

A data folder holds train.bin and val.bin, token ids end to end, little-endian, every document closed by the
end-of-text id, and meta.json: the tokenizer, dtype, and per split the tokens, documents and sha256. This file
imports no torch.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nanorap.common import (
    UNREADABLE,
    Damaged,
    UserError,
    ceil_div,
    check_readable,
    hub_reason,
    load_json,
    plain_text,
    read_plain_text,
    reason,
    sync_to_disk,
)

CHUNK = 4_000_000  # characters that are tokenized at once, so that every core is busy and memory stays flat
SCAN = 2**24  # tokens that are read at once in the search for document ends, which also keeps memory flat


def write_dataset(out_dir, tokenizer, documents, **about):
    """Write train.bin, val.bin and meta.json from an iterable of (split, text); return meta.

    Documents are processed as a stream, CHUNK characters at a time on every core. Everything is written under
    a temporary name first, so that a run that fails or is killed leaves the old files unchanged. `about` is
    added to meta.
    """
    out_dir = Path(out_dir)
    temporary = out_dir / '.prepare.tmp'
    dtype = np.dtype('<u2' if tokenizer.vocab_size <= 2**16 else '<u4')
    splits = {split: dict(tokens=0, documents=0, sha256=hashlib.sha256()) for split in ('train', 'val')}
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed
        temporary.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            files = {split: stack.enter_context(open(temporary / f'{split}.bin', 'wb')) for split in splits}
            for chunk in _chunks(documents):
                texts = [text for _, text in chunk]
                for (split, _), ids in zip(chunk, tokenizer.encode_batch(texts), strict=True):
                    data = np.empty(len(ids) + 1, dtype)
                    data[:-1], data[-1] = ids, tokenizer.eot
                    files[split].write(data)
                    splits[split]['sha256'].update(data)
                    splits[split]['tokens'] += len(data)
                    splits[split]['documents'] += 1
        for split, count in splits.items():
            if not count['documents']:
                raise UserError(f"{out_dir}: no document fell to the {split} split; prepare at least two "
                                "different ones")
            count['sha256'] = count['sha256'].hexdigest()
        dtype_name = 'uint16' if dtype.itemsize == 2 else 'uint32'
        meta = tokenizer.meta() | dict(dtype=dtype_name, splits=splits) | about
        tokenizer.save(temporary)
        (temporary / 'meta.json').write_text(json.dumps(meta, indent=1) + '\n', encoding='utf-8')
        for path in temporary.iterdir():
            sync_to_disk(path)
        if not (temporary / 'tokenizer.json').exists():  # another tokenizer's would be taken for this one's
            (out_dir / 'tokenizer.json').unlink(missing_ok=True)
        others = [path for path in temporary.iterdir() if path.name != 'meta.json']
        for path in [*others, temporary / 'meta.json']:  # meta.json last: it is checked against the others
            path.replace(out_dir / path.name)
        return meta
    except OSError as e:
        raise UserError(f"can't write to {out_dir} ({e.strerror}): the old files there are unchanged; make "
                        "room, or choose another --out_dir") from e
    except KeyboardInterrupt:
        print(f"\nstopped: the old files in {out_dir} are unchanged", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _chunks(documents):
    """Yield lists of documents, of about CHUNK characters each."""
    chunk, size = [], 0
    for document in documents:
        chunk.append(document)
        size += len(document[1])
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    yield chunk


def read_documents(source, column='text'):
    """Yield dicts whose `column` is a string, a plain_text(), one by one, without holding them in memory.

    source: a data.json (one entry per line), a JSON-lines file, or the name of a dataset on the Hugging Face
    hub.
    """
    path = Path(source)
    is_name_or_path = re.fullmatch(r'[\w-][\w.-]*(/[\w.-]+)?', path.as_posix())
    if is_name_or_path and path.suffix not in ('.json', '.jsonl') and not path.exists():
        yield from _read_hub(path.as_posix(), column)
        return
    try:
        with open(path, encoding='utf-8') as f:
            for number, line in enumerate(f, 1):
                line = plain_text(line).strip().rstrip(',')
                if line in ('', '[', ']'):
                    continue
                try:
                    entry = json.loads(line)
                    problem = _problem(entry, column)
                except (ValueError, RecursionError) as e:
                    problem = f"it is not JSON from column {getattr(e, 'colno', 1)} on"
                if problem:
                    raise UserError(f'{path}, line {number}: not an entry ({problem}). Each line, in a '
                                    f'data.json between [ and ], holds one: {{"{column}": "…"}}')
                yield entry | {column: plain_text(entry[column])}
    except (OSError, UnicodeError) as e:
        raise UserError(f"can't read {path}: {reason(e)}") from None


def _problem(entry, column):
    """Return why an entry has no text in a column, in words; '' if it has one."""
    if not isinstance(entry, dict):
        return f"it is {_shown(entry)}, not an object in braces"
    if column not in entry:
        return f"it has no '{column}'"
    return '' if isinstance(entry[column], str) else f"'{column}' is {_shown(entry[column])}, not a text"


def _shown(value):
    """Return the beginning of a value as JSON writes it, null for None."""
    return json.dumps(value, ensure_ascii=False, default=str)[:40]


def _read_hub(name, column):
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError("the hub's data sets need a package: pip install -r requirements-more.txt, or give "
                        "--input=FILE.jsonl") from None
    try:
        for number, entry in enumerate(load_dataset(name, split='train', streaming=True), 1):
            if problem := _problem(entry, column):
                raise UserError(f"the dataset {name} has no column '{column}' of text, in row {number} "
                                f"{problem}: name another with --column, or another dataset")
            yield entry | {column: plain_text(entry[column])}
    except Exception as e:  # dozens: offline, misspelt, gated, a dataset that is a script
        raise UserError(f"can't read '{name}' ({hub_reason(e)}). It is no file here; the hub's datasets need "
                        "network access, and any copy of the dataset there will do, or "
                        "--input=FILE.jsonl") from None


def read_text(source):
    """Return the text of a file or an http(s) URL."""
    try:
        if source.startswith(('http://', 'https://')):
            import requests

            response = requests.get(source, timeout=60)
            response.raise_for_status()
            text = plain_text(response.content.decode('utf-8'))
        else:
            text = read_plain_text(source)
    except (OSError, UnicodeError) as e:  # requests' errors are OSErrors
        answer = getattr(e, 'response', None)  # of a server, an error such as 404
        why = reason(e) if answer is None else f"the server answers {answer.status_code}"
        raise UserError(f"can't read {source} ({why}): give a text file with --input=FILE") from None
    if is_blank(text):
        raise UserError(f"{source} is empty: give a text file with --input=FILE")
    return text


def is_blank(text):
    """Return whether a text has nothing that could be seen: letters, digits, signs."""
    return not any(char.isprintable() and not char.isspace() for char in text)


def is_held_out(key, share):
    """Return whether the document of this key is held out for validation, by a hash: it never moves."""
    return _place(key) < share


def _place(key):
    """Return a number in [0, 1) that depends on nothing but the key, by a hash."""
    digits = hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:13]  # 52 bits: exact as a float
    return int(digits, 16) / 16**13


def split_documents(documents, val_share):
    """Yield (split, text) of an iterable of (key, text), in its order, for write_dataset().

    Documents of one key are on one side, by is_held_out(). With two keys or more each split gets at least
    one: if the share takes none of them, it grows until it takes the first, and shrinks if it takes all. So
    documents wait in memory until both splits have one. Blank texts are left out, and counted in a line.
    """
    if not 0 < val_share < 1:
        raise UserError(f"val_share={val_share} must lie between 0 and 1")
    waiting, sides, n_blank = [], set(), 0
    for key, text in documents:
        if is_blank(text):
            n_blank += 1
            continue
        waiting.append((key, text))
        if len(sides) < 2:
            sides.add(is_held_out(key, val_share))
        if len(sides) == 2:
            yield from _with_splits(waiting, val_share)
            waiting = []
    places = sorted({_place(key) for key, _ in waiting})
    if len(places) > 1:
        val_share = places[-1] if sides == {True} else places[1]
    yield from _with_splits(waiting, val_share)
    if n_blank:
        tqdm.write(f"left out: {n_blank:,} blank text(s)")


def _with_splits(documents, val_share):
    return [('val' if is_held_out(key, val_share) else 'train', text) for key, text in documents]


def read_meta(data_dir):
    """Return meta.json of a data folder as a dict, checked against the files beside it."""
    data_dir = Path(data_dir)
    check_readable(data_dir, names=['meta.json', 'train.bin', 'val.bin', 'tokenizer.json'])
    script = data_dir / 'prepare.py'
    prepare = f"run python {script}" if script.exists() else "run the prepare.py in data/ that writes it"
    try:
        meta = load_json(data_dir / 'meta.json')
        for split, count in meta['splits'].items():
            size = (data_dir / f'{split}.bin').stat().st_size
            if size != count['tokens'] * np.dtype(meta['dtype']).itemsize:
                raise UserError(f"{data_dir / split}.bin has {size:,} bytes, not the {count['tokens']:,} "
                                f"tokens that meta.json names: {prepare} again")
        for key, kind in (('tokenizer', str), ('vocab_size', int), ('eot', int)):
            if not isinstance(meta[key], kind):
                raise Damaged(f"its '{key}' is {_shown(meta[key])}")
    except FileNotFoundError as e:
        raise UserError(f"no prepared data: {e.filename} is missing; {prepare} first") from None
    except UNREADABLE as e:
        raise UserError(f"{data_dir / 'meta.json'} is damaged ({reason(e)}): {prepare} again") from None
    return meta


def read_split(data_dir, split):
    """Yield the documents of a prepared split one by one, each a list of ids without the end-of-text id."""
    meta = read_meta(data_dir)
    ids = np.memmap(f'{data_dir}/{split}.bin', dtype=np.dtype(meta['dtype']).newbyteorder('<'), mode='r')
    ends = np.flatnonzero(ids == meta['eot'])
    for start, end in zip([0, *(ends + 1)], [*ends, len(ids)], strict=True):
        if start < end:
            yield ids[start:end].tolist()


def find_dataset(name):
    """Return the data folder that --dataset names: one below the repository's data/, or any path."""
    below = Path(__file__).resolve().parents[1] / 'data' / name
    return below if os.path.isdir(below) else Path(name)  # False too where this user may not look


class MicroBatch(NamedTuple):
    x: np.ndarray  # (B, T) inputs, int64
    y: np.ndarray  # (B, T) targets; -1 where there is none
    weight: float  # y's share of the step's targets, times the number of processes (DDP averages over them)
    first_row: int  # the index in the run of x's first row
    is_last: bool  # of this process in this step


class Batches:
    """The batches of one split. Row k of a run is a pure function of (seed, k), for any batch size and ranks.

    A split is cut into windows (start, end) of at most block_size targets. The token before a window is its
    first input; an end-of-text stands before the first window. Each epoch takes every window once, in a new
    order.

    mode 'stream': windows follow each other, whatever documents they hold. mode 'documents': a window begins
    where a document begins, and a longer document continues in the next window; so no window has two
    documents, and attention can't cross from one into another.
    """

    def __init__(self, data_dir, split, block_size, mode='stream', seed=0):
        self.meta = read_meta(data_dir)
        self.path = Path(data_dir) / f'{split}.bin'
        self.block_size, self.seed, self.mode = block_size, seed, mode
        self.n_tokens = self.meta['splits'][split]['tokens']
        if mode == 'documents':
            ends = self._document_ends()
            starts = np.concatenate([[0], ends[:-1]])
            n_windows = ceil_div(ends - starts, block_size)  # of each document
            document = np.repeat(np.arange(len(ends)), n_windows)  # the document of each window
            first_window = np.cumsum(n_windows) - n_windows  # of each document
            nth = np.arange(len(document)) - first_window[document]  # of its document's windows
            self.starts = starts[document] + nth * block_size
            self.ends = np.minimum(self.starts + block_size, ends[document])
        elif mode == 'stream':
            if self.n_tokens <= block_size:
                raise UserError(f"{self.path} has {self.n_tokens:,} tokens, less than a block of "
                                f"{block_size:,}: prepare more text, or lower --block_size")
        else:
            raise UserError(f"--batches={mode}: choose documents or stream")
        self._epoch = None

    def _tokens(self):
        # a new memmap each time: an old one keeps every page that it ever touched in memory,
        # https://stackoverflow.com/questions/45132940/numpy-memmap-memory-usage-want-to-iterate-once
        return np.memmap(self.path, dtype=np.dtype(self.meta['dtype']).newbyteorder('<'), mode='r')

    def _document_ends(self):
        """Return where each document ends: one behind its end-of-text id."""
        ends = [at + 1 + np.flatnonzero(self._tokens()[at : at + SCAN] == self.meta['eot'])
                for at in range(0, self.n_tokens, SCAN)]
        return np.concatenate(ends)

    @property
    def n_windows(self):
        """The number of windows in file order, in which every token of the split is a target exactly once."""
        return len(self.starts) if self.mode == 'documents' else ceil_div(self.n_tokens, self.block_size)

    @property
    def rows_per_epoch(self):
        # a stream's training windows are all whole, and begin at another offset in each epoch
        return self.n_windows if self.mode == 'documents' else max(1, self.n_tokens // self.block_size - 1)

    def window(self, i):
        """Return (start, end) of window i in file order, the order of evaluation."""
        if self.mode == 'documents':
            return int(self.starts[i]), int(self.ends[i])
        return i * self.block_size, min((i + 1) * self.block_size, self.n_tokens)

    def row_window(self, k):
        """Return (start, end) of the window that is row k of the run, in the shuffled order of training."""
        epoch, i = divmod(k, self.rows_per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, epoch))
            slack = self.n_tokens - self.rows_per_epoch * self.block_size
            self._offset = int(rng.integers(slack + 1)) if self.mode == 'stream' else 0
            self._order = rng.permutation(self.rows_per_epoch)
            self._epoch = epoch
        i = int(self._order[i])
        if self.mode == 'documents':
            return self.window(i)
        return self._offset + i * self.block_size, self._offset + (i + 1) * self.block_size

    def read(self, windows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and targets of B windows, int64 arrays (B, T), where T is the longest one's length.

        The rest of a shorter row is padding, whose targets are -1.
        """
        T = max(end - start for start, end in windows)
        tokens, eot = self._tokens(), self.meta['eot']
        x = np.full((len(windows), T), eot, dtype=np.int64)
        y = np.full((len(windows), T), -1, dtype=np.int64)
        for b, (start, end) in enumerate(windows):
            y[b, : end - start] = tokens[start:end]
            x[b, 1 : end - start] = y[b, : end - start - 1]
            starts_text = not start or tokens[start - 1] == eot
            x[b, 0] = self.meta.get('bos', eot) if starts_text else tokens[start - 1]
        highest = max(x.max(), y.max())
        if highest >= self.meta['vocab_size']:
            raise UserError(f"{self.path} holds token id {highest}, beyond the vocabulary of "
                            f"{self.meta['vocab_size']}: prepare the data again")
        return x, y

    def n_targets(self, first_row, n_rows):
        """Return the number of targets in n_rows rows of the run from first_row on."""
        return count_targets(self.row_windows(first_row, n_rows))

    def row_windows(self, first_row, n_rows):
        """Return row_window() of n_rows rows of the run from first_row on."""
        return [self.row_window(k) for k in range(first_row, first_row + n_rows)]

    def step(self, first_row, batch_size, n_micro, rank=0, world_size=1):
        """Yield this process's MicroBatches of one update.

        The update takes batch_size * n_micro rows of the run from first_row on; the processes take turns.
        """
        windows = self.row_windows(first_row, batch_size * n_micro)
        n_targets = count_targets(windows)
        for m in range(rank, n_micro, world_size):
            micro_windows = windows[m * batch_size : (m + 1) * batch_size]
            x, y = self.read(micro_windows)
            weight = count_targets(micro_windows) / n_targets * world_size
            yield MicroBatch(x, y, weight, first_row + m * batch_size, is_last=m + world_size >= n_micro)


def count_targets(windows):
    return sum(end - start for start, end in windows)
