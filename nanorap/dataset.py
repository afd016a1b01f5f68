"""
Token files at both ends: writing a data folder, and drawing batches from it.

A data folder holds train.bin and val.bin, token ids end to end, little-endian, every document closed by the end-of-text
id, and meta.json: the tokenizer, dtype, and per split the tokens, documents and sha256. This file imports no torch.
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

from nanorap.common import UserError, ceil_div

CHUNK = 4_000_000  # characters that are tokenized at once, so that every core is busy and memory stays flat


def write_dataset(out_dir, tokenizer, documents, **about):
    """Write train.bin, val.bin and meta.json from an iterable of (split, text); returns meta, to which `about` is added.

    It works in a stream, some documents at a time on every core. Everything is written under a temporary name first: a run
    that fails or is killed leaves the old files as they were.
    """
    out_dir = Path(out_dir)
    temporary = out_dir / '.prepare.tmp'
    dtype = np.dtype('<u2' if tokenizer.vocab_size <= 2**16 else '<u4')
    splits = {split: dict(tokens=0, documents=0, sha256=hashlib.sha256()) for split in ('train', 'val')}
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
        temporary.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            files = {split: stack.enter_context(open(temporary / f'{split}.bin', 'wb')) for split in splits}
            for chunk in _chunks(documents):
                for (split, _), ids in zip(chunk, tokenizer.encode_batch([text for _, text in chunk]), strict=True):
                    data = np.empty(len(ids) + 1, dtype)
                    data[:-1], data[-1] = ids, tokenizer.eot
                    files[split].write(data)
                    splits[split]['sha256'].update(data)
                    splits[split]['tokens'] += len(data)
                    splits[split]['documents'] += 1
        for split, count in splits.items():
            if not count['documents']:
                raise UserError(f"{out_dir}: no document fell to the {split} split; prepare more documents")
            count['sha256'] = count['sha256'].hexdigest()
        meta = tokenizer.meta() | dict(dtype='uint16' if dtype.itemsize == 2 else 'uint32', splits=splits) | about
        tokenizer.save(temporary)
        (temporary / 'meta.json').write_text(json.dumps(meta, indent=1) + '\n', encoding='utf-8')
        for path in sorted(temporary.iterdir()):
            with open(path, 'rb+') as file:
                os.fsync(file.fileno())
        if not (temporary / 'tokenizer.json').exists():  # another tokenizer's would be taken for this one's
            (out_dir / 'tokenizer.json').unlink(missing_ok=True)
        for path in sorted(temporary.iterdir(), reverse=True):  # meta.json last: it is checked against the others
            path.replace(out_dir / path.name)
        return meta
    except OSError as e:
        raise UserError(f"can't write to {out_dir} ({e.strerror}): what was there is as it was") from e
    except KeyboardInterrupt:
        print(f"\nstopped: what was in {out_dir} is as it was", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _chunks(documents):
    """Lists of documents, of about CHUNK characters each."""
    chunk, size = [], 0
    for document in documents:
        chunk.append(document)
        size += len(document[1])
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    yield chunk


def read_documents(source, column='text'):
    """The entries of a data.json (one a line), of a JSON-lines file, or of a dataset on the Hugging Face hub, one by one, as
    dicts whose `column` is a string. Nothing is held in memory."""
    path = Path(source)
    is_name = re.fullmatch(r'[\w-][\w.-]*(/[\w.-]+)?', path.as_posix()) and path.suffix not in ('.json', '.jsonl')
    if is_name and not path.exists():
        yield from _read_hub(path.as_posix(), column)
        return
    try:
        with open(path, encoding='utf-8') as f:
            for number, line in enumerate(f, 1):
                line = line.strip().rstrip(',')
                if line not in ('', '[', ']'):
                    try:
                        entry = json.loads(line)
                        entry[column] + ''  # a TypeError where it is no string
                        yield entry
                    except (ValueError, KeyError, TypeError) as e:
                        raise UserError(f'{path}, line {number}: not an entry ({e!r}). Each line, in a data.json between [ '
                                        f'and ], holds one: {{"{column}": "…"}}') from None
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"can't read {path} ({getattr(e, 'strerror', None) or e}): give a file in UTF-8") from None


def _read_hub(name, column):
    try:
        from datasets import load_dataset

        for entry in load_dataset(name, split='train', streaming=True):
            entry[column] + ''
            yield entry
    except (KeyError, TypeError):
        raise UserError(f"the dataset {name} has no column '{column}' of text: name another with --column") from None
    except Exception as e:  # dozens: offline, misspelt, gated, a dataset that is a script
        reason = f"{type(e).__name__}: {' '.join(str(e).split())[:150]}"
        raise UserError(f"can't read '{name}' ({reason}). It is no file here; the hub's datasets need network access, and any "
                        "copy of the dataset there will do, or --input=FILE.jsonl") from None


def read_text(source):
    """The text of a file or an http(s) URL."""
    try:
        if source.startswith(('http://', 'https://')):
            import requests

            response = requests.get(source, timeout=60)
            response.raise_for_status()
            text = response.content.decode('utf-8')
        else:
            text = Path(source).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as e:  # requests' errors are OSErrors
        reason = getattr(e, 'strerror', None) or type(e).__name__
        raise UserError(f"can't read {source} ({reason}): give a text file in UTF-8 with --input=FILE") from None
    if not text:
        raise UserError(f"{source} is empty: give a text file with --input=FILE")
    return text


def is_held_out(key, share):
    """Whether the document of this key is held out for validation: by a hash, so that it never moves."""
    return int(hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:13], 16) < share * 16**13


def read_meta(data_dir):
    """meta.json of a data folder, checked against the files beside it."""
    data_dir = Path(data_dir)
    script = data_dir / 'prepare.py'
    prepare = f"run python {script}" if script.exists() else "run the prepare.py in data/ that writes it"
    try:
        meta = json.loads((data_dir / 'meta.json').read_text(encoding='utf-8'))
        for split, count in meta['splits'].items():
            size = (data_dir / f'{split}.bin').stat().st_size
            if size != count['tokens'] * np.dtype(meta['dtype']).itemsize:
                raise UserError(f"{data_dir / split}.bin has {size:,} bytes, not the {count['tokens']:,} tokens that "
                                f"meta.json names: {prepare} again")
        meta['tokenizer'], meta['vocab_size'], meta['eot']  # a KeyError where one is missing
    except OSError as e:
        raise UserError(f"no prepared data: {e.filename} is missing; {prepare} first") from None
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{data_dir / 'meta.json'} is damaged ({e!r}): {prepare} again") from None
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
    """The data folder that --dataset names: one below the repository's data/, or any path."""
    below = Path(__file__).resolve().parents[1] / 'data' / name
    return below if below.is_dir() else Path(name)


class MicroBatch(NamedTuple):
    x: np.ndarray  # (B, T) inputs, int64
    y: np.ndarray  # (B, T) targets; -1 where there is none
    weight: float  # the share of the step's targets that y holds, times the number of processes (DDP averages over them)
    row: int  # its first row's index in the run
    is_last: bool  # of this process in this step


class Batches:
    """Rows of one split. Row k of a run is a pure function of (seed, k): whatever the batch size and the processes are.

    A split is cut into windows of at most block_size targets; the token before a window is its first input, and an
    end-of-text stands before the first. mode 'stream': windows follow each other whatever they hold. 'documents': a
    window begins where a document begins, and a longer document goes on in the next window; so no window has two
    documents, and attention can't cross from one into another. Every epoch takes each window once, in a new order.
    """

    def __init__(self, data_dir, split, block_size, mode='stream', seed=0):
        self.meta = read_meta(data_dir)
        self.path = Path(data_dir) / f'{split}.bin'
        self.block_size, self.seed, self.mode = block_size, seed, mode
        self.n_tokens = self.meta['splits'][split]['tokens']
        if mode == 'documents':
            ends = self._document_ends()
            starts = np.concatenate([[0], ends[:-1]])
            n_windows = -((starts - ends) // block_size)  # of each document, rounded up
            document = np.repeat(np.arange(len(ends)), n_windows)
            nth = np.arange(len(document)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
            self.starts = starts[document] + nth * block_size
            self.ends = np.minimum(self.starts + block_size, ends[document])
        elif mode == 'stream':
            if self.n_tokens <= block_size:
                raise UserError(f"{self.path} has {self.n_tokens:,} tokens, less than a block of {block_size:,}: "
                                "prepare more text, or lower --block_size")
        else:
            raise UserError(f"--batches={mode}: choose documents or stream")
        self._epoch = None

    def _tokens(self):
        # a new memmap each time: one that lives on keeps every page that it ever touched in memory,
        # https://stackoverflow.com/questions/45132940/numpy-memmap-memory-usage-want-to-iterate-once/61472122#61472122
        return np.memmap(self.path, dtype=np.dtype(self.meta['dtype']).newbyteorder('<'), mode='r')

    def _document_ends(self):
        """Where each document ends: one behind its end-of-text id."""
        step = 2**24
        ends = [at + 1 + np.flatnonzero(self._tokens()[at : at + step] == self.meta['eot'])
                for at in range(0, self.n_tokens, step)]
        return np.concatenate(ends)

    @property
    def n_windows(self):
        """Windows of the split in file order, every token a target exactly once."""
        return len(self.starts) if self.mode == 'documents' else ceil_div(self.n_tokens, self.block_size)

    @property
    def rows_per_epoch(self):
        # a stream's training windows are all whole, and begin at another offset in each epoch
        return self.n_windows if self.mode == 'documents' else max(1, self.n_tokens // self.block_size - 1)

    def window(self, i):
        """(start, end) of the targets of window i, in file order: what evaluation goes through."""
        if self.mode == 'documents':
            return int(self.starts[i]), int(self.ends[i])
        return i * self.block_size, min((i + 1) * self.block_size, self.n_tokens)

    def row(self, k):
        """(start, end) of the targets of row k of the run."""
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

    def draw(self, spans):
        """Inputs and targets, (B, T) int64 arrays, of a list of (start, end); T is the longest one's length, and the rest
        of a shorter row is padding, whose targets are -1."""
        T = max(end - start for start, end in spans)
        tokens, eot = self._tokens(), self.meta['eot']
        x = np.full((len(spans), T), eot, dtype=np.int64)
        y = np.full((len(spans), T), -1, dtype=np.int64)
        for b, (start, end) in enumerate(spans):
            y[b, : end - start] = tokens[start:end]
            x[b, 1 : end - start] = y[b, : end - start - 1]
            x[b, 0] = tokens[start - 1] if start else eot
        if max(x.max(), y.max()) >= self.meta['vocab_size']:
            raise UserError(f"{self.path} holds token id {max(x.max(), y.max())}, beyond the vocabulary of "
                            f"{self.meta['vocab_size']}: prepare the data again")
        return x, y

    def n_targets(self, first_row, n_rows):
        """Targets in n_rows rows of the run from first_row on."""
        return sum(end - start for start, end in map(self.row, range(first_row, first_row + n_rows)))

    def step(self, first_row, batch_size, n_micro, rank=0, world_size=1):
        """This process's MicroBatches of one update, which takes batch_size * n_micro rows of the run from first_row on."""
        n_targets = self.n_targets(first_row, batch_size * n_micro)
        for m in range(rank, n_micro, world_size):
            row = first_row + m * batch_size
            weight = self.n_targets(row, batch_size) / n_targets * world_size
            x, y = self.draw([self.row(row + b) for b in range(batch_size)])
            yield MicroBatch(x, y, weight, row, is_last=m + world_size >= n_micro)
