"""KV cache: each token is processed once during decoding."""

import torch


class KVCache:
    """Keys and values of every layer for up to B sequences of max_len tokens, allocated once.

    The caller owns it and passes it to the model: model(idx, cache=cache) appends idx (b, T) to the first b
    rows. Row b holds pos[b] tokens; the token at position p is in column p. When all max_len columns are in
    use, rotary and ALiBi models can go on: a new token overwrites the oldest one, except that the first SINKS
    tokens stay, without which attention breaks down (https://arxiv.org/abs/2309.17453).
    """

    SINKS = 4

    def __init__(self, config, B, max_len, device='cpu', dtype=torch.float32):
        if torch.device(device).type == 'cpu':
            dtype = torch.float32  # attention in bfloat16 takes ten times as long there
        shape = (config.n_layer, B, config.n_kv_head, max_len, config.head_dim)
        self.k = torch.zeros(shape, device=device, dtype=dtype)
        self.v = torch.zeros(shape, device=device, dtype=dtype)
        self.layers = list(zip(self.k, self.v, strict=True))  # views
        # the token ids themselves, which models with smear need; shaped like k and v
        self.ids = torch.zeros(1, B, 1, max_len, 1, device=device, dtype=torch.long)
        self.tensors = self.k, self.v, self.ids  # each (…, B, …, max_len, …)
        self.pos = [0] * B
        self.max_len = max_len
        self.sinks = min(self.SINKS, max_len - 1)

    def prepare(self, B: int, T: int) -> torch.Tensor:
        """Prepare for T more tokens in each of the first B rows, and return their positions.

        They are (T,) where all rows are equally long, else (B, 1): rows of different lengths take one token
        at a time. The caller adds T to pos[:B] when the tokens have gone through all layers.
        """
        shortest, longest = min(self.pos[:B]), max(self.pos[:B])
        self.rows_are_aligned = shortest == longest
        self.end = min(longest + T, self.max_len)  # columns in use, with the new tokens
        self.read_index = slice(B), slice(None), slice(self.end)

        if self.rows_are_aligned and longest + T <= self.max_len:
            # the new tokens are one block of columns
            self.write_index = slice(B), slice(None), slice(longest, longest + T)
            return torch.arange(longest, longest + T, device=self.k.device)

        assert T == 1, f"{T} tokens at once for rows of {shortest} to {longest} of {self.max_len} tokens"
        pos = torch.tensor(self.pos[:B], device=self.k.device)
        self.write_index = torch.arange(B, device=self.k.device), slice(None), self.columns(pos)
        return pos[:, None]

    def columns(self, pos: torch.Tensor) -> torch.Tensor:
        """Return the column of each position: the same number, until a full cache wraps around."""
        n_sliding = self.max_len - self.sinks
        return torch.where(pos < self.max_len, pos, self.sinks + (pos - self.sinks) % n_sliding)

    def update(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store a layer's new k and v, (B, n_kv_head, T, hs); return all of them, (B, n_kv_head, end, hs)."""
        keys, values = self.layers[layer]
        writes_a_block = isinstance(self.write_index[0], slice)
        if not writes_a_block:  # one column per row
            k, v = k[:, :, 0], v[:, :, 0]
        keys[self.write_index] = k
        values[self.write_index] = v
        return keys[self.read_index], values[self.read_index]

    def update_ids(self, idx: torch.Tensor, n: int) -> torch.Tensor:
        """Store the new ids (B, T); return them with the n before them, (B, n + T), -1 before the start."""
        B, T = idx.shape
        start = torch.tensor(self.pos[:B], device=idx.device)[:, None]
        pos = start + torch.arange(-n, T, device=idx.device)
        columns = self.columns(pos).clamp(min=0)
        ids = self.ids[0, :B, 0, :, 0]  # a view, (B, max_len)
        ids.scatter_(1, columns[:, n:], idx)
        return ids.gather(1, columns).masked_fill(pos < 0, -1)

    def distance(self, pos: torch.Tensor) -> torch.Tensor:
        """Return how far each column's token lies behind the newest one of its row, at pos (B, 1) or (1,).

        The result is (B, 1, 1, end) or (1, 1, 1, end), negative for a column that is empty.
        """
        columns = torch.arange(self.end, device=pos.device)
        distance = pos.view(-1, 1, 1, 1) - columns
        # a column behind the sinks holds the newest of the positions that share it
        is_exact = (columns < self.sinks) | (distance < 0)
        return torch.where(is_exact, distance, distance % (self.max_len - self.sinks))

    def copy_from(self, other: 'KVCache', source: int = 0, target: int | slice = slice(None)):
        """Copy row `source` of `other` (may be self) into row(s) `target`, by default all."""
        if isinstance(target, int):
            target = slice(target, target + 1)
        n_tokens = other.pos[source]
        n_columns = min(n_tokens, self.max_len)
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine[:, target, :, :n_columns] = theirs[:, source : source + 1, :, :n_columns]
        self.pos[target] = [n_tokens] * len(self.pos[target])
