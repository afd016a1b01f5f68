"""What attention remembers of the tokens before, so that decoding computes each of them once."""

import torch


class KVCache:
    """Keys and values of every layer for up to B sequences, allocated once; the caller owns it and passes it to the model.

    Row b holds pos[b] tokens, each in the column of its position. model(idx, cache=cache) goes on with the first idx.size(0)
    rows. When max_len columns are full, rotary and ALiBi models go on: a new token takes the oldest one's place, but the first
    SINKS tokens stay, without which attention breaks down (https://arxiv.org/abs/2309.17453).
    """

    SINKS = 4

    def __init__(self, config, B, max_len, device='cpu', dtype=torch.float32):
        shape = (config.n_layer, B, config.n_kv_head, max_len, config.n_embd // config.n_head)
        if torch.device(device).type == 'cpu':
            dtype = torch.float32  # attention in bfloat16 takes ten times as long there
        self.k = torch.zeros(shape, device=device, dtype=dtype)
        self.v = torch.zeros(shape, device=device, dtype=dtype)
        self.layers = list(zip(self.k, self.v, strict=True))  # views
        self.ids = torch.zeros(1, B, 1, max_len, 1, device=device, dtype=torch.long)  # for models with smear
        self.tensors = self.k, self.v, self.ids  # each (…, B, …, max_len, …)
        self.pos, self.max_len, self.sinks = [0] * B, max_len, min(self.SINKS, max_len - 1)

    def begin(self, B, T):
        """T more tokens for the first B rows: their positions, (T,), or (B, 1) for rows of different lengths."""
        pos, device = self.pos[:B], self.k.device
        self.end = min(max(pos) + T, self.max_len)
        self.filled = slice(B), slice(None), slice(self.end)
        self.even = min(pos) == max(pos)
        if self.even and pos[0] + T <= self.max_len:
            self.place = slice(B), slice(None), slice(pos[0], pos[0] + T)
            return torch.arange(pos[0], pos[0] + T, device=device)
        assert T == 1, f"{T} tokens at once for rows that hold {min(pos)} to {max(pos)} of {self.max_len} tokens"
        pos = torch.tensor(pos, device=device)
        self.place = torch.arange(B, device=device), slice(None), self.columns(pos)
        return pos[:, None]

    def columns(self, pos):
        """Where the tokens of these positions are."""
        return torch.where(pos < self.max_len, pos, self.sinks + (pos - self.sinks) % (self.max_len - self.sinks))

    def update(self, layer, k, v):
        """Store the new k and v, (B, n_kv_head, T, hs), of one layer; return all there are, (B, n_kv_head, end, hs)."""
        keys, values = self.layers[layer]
        if not isinstance(self.place[0], slice):
            k, v = k[:, :, 0], v[:, :, 0]
        keys[self.place], values[self.place] = k, v
        return keys[self.filled], values[self.filled]

    def with_before(self, idx, n):
        """Store the new ids, (B, T); return them with the n before them, (B, n + T), -1 where there is none."""
        B, T = idx.shape
        pos = torch.tensor(self.pos[:B], device=idx.device)[:, None] + torch.arange(-n, T, device=idx.device)
        columns, ids = self.columns(pos).clamp(min=0), self.ids[0, :B, 0, :, 0]  # a view, (B, max_len)
        ids.scatter_(1, columns[:, n:], idx)
        return ids.gather(1, columns).masked_fill(pos < 0, -1)

    def distance(self, pos):
        """How far each column's token lies behind the newest, pos (B, 1) or (1,); negative for an empty one; (B, 1, 1, end)."""
        columns = torch.arange(self.end, device=pos.device)
        distance = pos.view(-1, 1, 1, 1) - columns
        return torch.where((columns < self.sinks) | (distance < 0), distance, distance % (self.max_len - self.sinks))

    def copy_from(self, other, source=0, target=slice(None)):
        """Row `source` of another cache, or of this one, goes into row `target`, or into all of them."""
        target = slice(target, target + 1) if isinstance(target, int) else target
        n = min(other.pos[source], self.max_len)
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine[:, target, :, :n] = theirs[:, source : source + 1, :, :n]
        self.pos[target] = [other.pos[source]] * len(self.pos[target])
