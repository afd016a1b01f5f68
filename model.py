"""
GPT-2 and the Llama family from one Block, with every difference between them a plain switch in GPTConfig.

    model = GPT(GPTConfig(n_layer=12, n_head=12, n_embd=768, block_size=1024, vocab_size=50304))
    logits = model(idx)                 # (B, T) -> (B, T, vocab_size)
    loss = model(idx, targets)          # the mean over all targets that are not -1
    model = GPT.from_pretrained('gpt2')

References:
1) GPT-2 in TensorFlow, by OpenAI: https://github.com/openai/gpt-2/blob/master/src/model.py
2) GPT-2 and Llama in transformers: https://github.com/huggingface/transformers, src/transformers/models
"""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from nanorap.common import UserError
from nanorap.loss import ChunkedLoss


@dataclass
class GPTConfig:
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int  # tokens of the longest context
    vocab_size: int
    dropout: float = 0.0
    bias: bool = True  # in every Linear and LayerNorm, as in GPT-2; False is a bit better and faster
    n_kv_head: int | None = None  # heads of keys and values; fewer than n_head: grouped-query. None: n_head
    n_hidden: int | None = None  # width inside the MLP. None: 4 * n_embd
    pos: str = 'learned'  # 'learned', 'rotary' (arxiv.org/abs/2104.09864), 'alibi' (arxiv.org/abs/2108.12409)
    norm: str = 'layernorm'  # 'layernorm', 'rmsnorm' (arxiv.org/abs/1910.07467)
    mlp: str = 'gelu'  # 'gelu', 'swiglu' (arxiv.org/abs/2002.05202), 'relu2' (arxiv.org/abs/2109.08668)
    # add this many preceding tokens' embeddings, each scaled by a learned per-channel weight (initially 0)
    smear: int = 0
    qk_norm: bool = False  # normalise queries and keys in each head (arxiv.org/abs/2010.04245)
    tie_weights: bool = True  # the head shares the token embedding's matrix (arxiv.org/abs/1608.05859)
    logit_softcap: float | None = None  # bounds the logits, by tanh (arxiv.org/abs/2408.00118). None: off
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self):
        self.n_kv_head = self.n_kv_head or self.n_head
        self.n_hidden = self.n_hidden or 4 * self.n_embd
        for field, choices in dict(pos=('learned', 'rotary', 'alibi'), norm=('layernorm', 'rmsnorm'),
                                   mlp=('gelu', 'swiglu', 'relu2')).items():
            if getattr(self, field) not in choices:
                raise UserError(f"{field}={getattr(self, field)!r}: choose one of {', '.join(choices)}")
        for field in ('n_layer', 'n_head', 'n_embd', 'block_size', 'vocab_size', 'n_kv_head', 'n_hidden'):
            if getattr(self, field) < 1:
                raise UserError(f"{field}={getattr(self, field)} must be 1 or more")
        for a, b in (('n_embd', 'n_head'), ('n_head', 'n_kv_head')):
            if getattr(self, a) % getattr(self, b):
                raise UserError(f"{a}={getattr(self, a)} must be a multiple of {b}={getattr(self, b)}")
        if self.smear < 0 or not 0 <= self.dropout < 1:
            raise UserError(f"smear={self.smear} must be 0 or more, and dropout={self.dropout} lie in [0, 1)")
        head_dim = self.n_embd // self.n_head
        if self.pos == 'rotary' and head_dim % 2:
            raise UserError(f"rotary positions need an even n_embd / n_head, which is {head_dim}")


def norm(config, size):
    if config.norm == 'rmsnorm':
        return nn.RMSNorm(size, eps=config.norm_eps)
    return nn.LayerNorm(size, eps=config.norm_eps, bias=config.bias)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair (a, b) = (x[i], x[i + hs/2]) of a head by an angle, to (a cos - b sin, b cos + a sin).

    x is (B, nh, T, hs); cos and sin come from GPT.rope().
    """
    a, b = x.chunk(2, dim=-1)
    # with (cos, cos) and (-sin, sin) both halves are one operation, and their result needs no concatenation
    return torch.addcmul(x * cos, torch.cat((b, a), dim=-1), sin).type_as(x)


class Attention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.layer, self.dropout = layer, config.dropout
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        self.head_dim = config.n_embd // config.n_head
        # query, key, value projections for all heads, in one matrix
        width = (config.n_head + 2 * config.n_kv_head) * self.head_dim
        self.c_attn = nn.Linear(config.n_embd, width, bias=config.bias)
        # output projection
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.q_norm = norm(config, self.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = norm(config, self.head_dim) if config.qk_norm else nn.Identity()
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, rope, mask, cache) -> torch.Tensor:
        B, T, C = x.size()  # batch size, sequence length, embedding dimensionality (n_embd)

        # query, key and value of all heads in one matmul; then the heads become a batch dimension
        heads = self.c_attn(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # (B, nh + 2 nkv, T, hs)
        q, k, v = heads.split([self.n_head, self.n_kv_head, self.n_kv_head], dim=1)
        # both before the cache, which then holds keys that are ready for use at their own positions
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # those of the tokens before, too: (B, nkv, end, hs)

        # (B, nh, T, hs) x (B, nkv, hs, end) -> (B, nh, T, end), by the device's fused kernel. A single query
        # without a mask attends to all keys. A cache may be in another dtype than autocast's
        y = F.scaled_dot_product_attention(
            q.type_as(k), k, v, attn_mask=mask, is_causal=mask is None and T > 1,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.n_kv_head != self.n_head,  # n_head / n_kv_head queries share each key and value
        )
        y = y.transpose(1, 2).reshape(B, T, C).type_as(heads)  # all heads side by side again
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.kind = config.mlp
        # swiglu: gate and up projection in one matrix
        width = config.n_hidden * (2 if config.mlp == 'swiglu' else 1)
        self.c_fc = nn.Linear(config.n_embd, width, bias=config.bias)
        self.c_proj = nn.Linear(config.n_hidden, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.c_fc(x)
        if self.training and torch.is_grad_enabled():
            # the backward computes the nonlinearity again, at next to no cost: a fifth less of activations
            x = checkpoint(self.activate_and_project, x, use_reentrant=False, preserve_rng_state=False)
        else:
            x = self.activate_and_project(x)
        return self.dropout(x)

    def activate_and_project(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == 'gelu':
            x = F.gelu(x, approximate='tanh')  # GPT-2's
        elif self.kind == 'relu2':
            x = F.relu(x)
            x = x * x  # square() has a slower backward
        else:
            gate, up = x.chunk(2, dim=-1)
            x = F.silu(gate) * up
        return self.c_proj(x)


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.ln_1 = norm(config, config.n_embd)
        self.attn = Attention(config, layer)
        self.ln_2 = norm(config, config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: torch.Tensor, rope, mask, cache) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x), rope, mask, cache)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, config, init='gpt2'):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(config.vocab_size, config.n_embd),
            drop=nn.Dropout(config.dropout),
            h=nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)]),
            ln_f=norm(config, config.n_embd),
        ))
        if config.pos == 'learned':
            self.transformer.wpe = nn.Embedding(config.block_size, config.n_embd)
        if config.smear:
            self.transformer.smear = nn.Parameter(torch.zeros(config.smear, config.n_embd))
        self.lm_head = None  # tied: the logits are products with wte's rows
        if not config.tie_weights:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.recompute = False  # True: the backward computes each block's activations again, none are kept
        self.init_weights(init)

    def init_weights(self, init):
        """Set all weights at random, and all biases to 0.

        'gpt2': normal, std 0.02; in the layers that write to the residual stream, 0.02 / sqrt(their number).
        'zero': those layers are zero, so that a block is the identity at first (https://arxiv.org/abs/2203.03466,
        D.2); a block's others have std 0.6 / sqrt(n_embd), untied token embeddings 0.5.
        """
        if init not in ('gpt2', 'zero'):
            raise UserError(f"init={init!r}: choose one of gpt2, zero")
        for name, module in self.named_modules():
            if not isinstance(module, nn.Linear | nn.Embedding):
                continue
            std = 0.02
            if name.endswith('c_proj'):
                # the residual stream sums 2 * n_layer of these, and its variance should not grow with depth
                std = 0.0 if init == 'zero' else 0.02 / math.sqrt(2 * self.config.n_layer)
            elif init == 'zero' and name == 'transformer.wte' and not self.config.tie_weights:
                std = 0.5
            elif init == 'zero' and '.h.' in name:
                std = 0.6 / math.sqrt(self.config.n_embd)
            nn.init.normal_(module.weight, std=std)
            if getattr(module, 'bias', None) is not None:
                nn.init.zeros_(module.bias)

    def forward(self, idx: torch.Tensor, targets: torch.Tensor | None = None, cache=None) -> torch.Tensor:
        """Turn token ids (B, T) into logits (B, T, vocab_size).

        With targets (B, T), -1 where there is none, return the mean loss in nats instead. With a KVCache, idx
        continues its sequences, and the result has the logits of the last position only, (B, vocab_size).
        """
        B, T = idx.size()
        if cache is None:
            pos, end = torch.arange(T, device=idx.device), T
        else:
            pos, end = cache.prepare(B, T), max(cache.pos[:B]) + T
        # with a cache, rotary and ALiBi models go on beyond block_size: the cache drops the oldest tokens
        if cache is None or self.config.pos == 'learned':
            assert end <= self.config.block_size, f"{end} tokens, but block_size is {self.config.block_size}"

        # token embeddings, (B, T, C), and positions
        x = self.smeared_embeddings(idx, cache) if self.config.smear else self.transformer.wte(idx)
        rope = None
        if self.config.pos == 'learned':
            x = x + self.transformer.wpe(pos)
        elif self.config.pos == 'rotary':
            rope = self.rope(pos)  # the same for all layers
        mask = self.attention_mask(pos, x, cache)
        x = self.transformer.drop(x)
        for block in self.transformer.h:
            if self.recompute and self.training:
                x = checkpoint(block, x, rope, mask, cache, use_reentrant=False)
            else:
                x = block(x, rope, mask, cache)

        if targets is not None:
            # head and loss in one, since the logits are larger than anything else in training
            weight = self.transformer.wte.weight if self.lm_head is None else self.lm_head.weight
            x = self.transformer.ln_f(x)
            x, targets = x.view(-1, x.size(-1)), targets.reshape(-1)
            return ChunkedLoss.apply(x, weight, targets, self.config.logit_softcap)
        if cache is not None:
            cache.pos[:B] = [p + T for p in cache.pos[:B]]
            x = x[:, -1]  # generation needs no other position's logits
        return self.head(x)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        x = self.transformer.ln_f(x)
        logits = F.linear(x, self.transformer.wte.weight) if self.lm_head is None else self.lm_head(x)
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def smeared_embeddings(self, idx: torch.Tensor, cache) -> torch.Tensor:
        """Return embeddings (B, T, C) of idx (B, T), each with weighted ones of the tokens before it added.

        This gives it its local spelling context, which the first layers would otherwise spend attention on.
        """
        n, T = self.config.smear, idx.size(1)
        # ids with the n before them, (B, n + T), where -1 stands for a place before the text
        ids = F.pad(idx, (n, 0), value=-1) if cache is None else cache.update_ids(idx, n)
        x = self.transformer.wte(ids.clamp(min=0)) * (ids >= 0)[..., None]
        weights = enumerate(self.transformer.smear, start=1)  # weight i, (C,): for the token i places before
        return x[:, n:] + sum(w * x[:, n - i : n - i + T] for i, w in weights)

    def rope(self, pos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (cos, cos) and (-sin, sin) of the angles at pos, (T,) or (B, 1), each (1 or B, 1, T, hs)."""
        hs = self.config.n_embd // self.config.n_head
        # pair i of a head turns by theta^(-2i/hs) per position, the first pairs fast, the last ones slowly.
        # Always in float32: bfloat16 can't tell neighbouring positions above 256 apart
        exponents = torch.arange(0, hs, 2, device=pos.device, dtype=torch.float32) / hs
        freqs = self.config.rope_theta ** -exponents
        angles = (pos[..., None] * freqs).view(-1, 1, pos.size(-1), hs // 2)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)

    def attention_mask(self, pos: torch.Tensor, x: torch.Tensor, cache=None) -> torch.Tensor | None:
        """Return what to add to the attention scores, (B or n_head or 1, …, keys); None if plainly causal.

        pos: the positions of the new tokens, (T,) or (B, 1). x: only its device and dtype matter.
        """
        has_alibi, T = self.config.pos == 'alibi', pos.size(-1)
        decodes = cache is not None and T == 1
        # decoding: every column in use lies before the new token. Else: queries and keys are the same tokens
        is_plain = cache.rows_are_aligned if decodes else cache is None or cache.pos[0] == 0
        if is_plain and not has_alibi:
            return None

        # how far key j lies behind query i; negative: in the future, or an empty column
        if decodes:
            distance = cache.distance(pos)  # a full cache has overwritten columns: not in order of position
        else:
            distance = pos[:, None] - torch.arange(T if cache is None else cache.end, device=x.device)
        bias = torch.zeros(1, 1, 1, device=x.device, dtype=x.dtype if cache is None else cache.k.dtype)
        if has_alibi:
            # the further away a key, the lower its score, in each head with another slope
            bias = -alibi_slopes(self.config.n_head, bias)[:, None, None] * distance
        return bias.masked_fill(distance < 0, float('-inf'))

    def set_block_size(self, block_size):
        """Crop the context to save memory. Rotary and ALiBi may also extend it; learned positions can't."""
        if self.config.pos == 'learned' and block_size != self.config.block_size:
            assert block_size <= self.config.block_size, f"{block_size} is more than {self.config.block_size}"
            self.transformer.wpe.weight = nn.Parameter(self.transformer.wpe.weight[:block_size].clone())
        self.config.block_size = block_size

    def freeze_embeddings(self):
        """Exclude the token and position embeddings, and an untied head, from training."""
        for part in ('wte', 'wpe'):
            if part in self.transformer:
                self.transformer[part].requires_grad_(False)
        if not self.config.tie_weights:
            self.lm_head.requires_grad_(False)

    def matrix_rows(self, name):
        """Return the row counts of the matrices stacked in this parameter (c_attn: q, k, v), for Muon."""
        c = self.config
        if name.endswith('c_attn.weight'):
            hs = c.n_embd // c.n_head
            return [c.n_head * hs, c.n_kv_head * hs, c.n_kv_head * hs]
        if name.endswith('c_fc.weight'):
            return [c.n_hidden] * (2 if c.mlp == 'swiglu' else 1)  # swiglu: gate, up
        return [c.n_embd]

    @classmethod
    def from_pretrained(cls, name, dropout=0.0):
        """Load 'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl', 'smollm2', a folder or hub name of a GPT-2 or
        Llama model in the transformers format, or an out_dir of train.py."""
        from nanorap import pretrained  # not needed for a model from scratch

        config, state_dict = pretrained.load(name)
        try:
            return cls.from_state_dict(config | dict(dropout=dropout), state_dict)
        except (RuntimeError, TypeError) as e:
            reason = ' '.join(str(e).split())[:200] if type(e) is RuntimeError else "an unknown field or type"
            raise UserError(f"{name}: its config.json doesn't fit its weights ({reason})") from None

    @classmethod
    def from_state_dict(cls, config, state_dict):
        """Build a model of GPTConfig's fields (a dict) around the tensors of a state dict, without a copy."""
        with torch.device('meta'), NoInit():  # no memory: every parameter comes from the state dict
            model = cls(GPTConfig(**config))
        model.load_state_dict(state_dict, assign=True)
        return model.requires_grad_(True)

    def config_dict(self):
        return asdict(self.config)

    def flops_per_token(self, T):
        """Return the FLOPs per token of one training step, forward and backward, with T tokens of context
        (PaLM, https://arxiv.org/abs/2204.02311, appendix B)."""
        c = self.config
        # per weight: 2 forward, 2 for the gradient of the input, 2 for the weight's own if it is trained
        n = sum(p.numel() * (6 if p.requires_grad else 4) for p in self.parameters())
        # embeddings are looked up, not multiplied; but a tied one is the head, too
        look_ups = [self.transformer.wpe.weight] if c.pos == 'learned' else []
        look_ups += [] if c.tie_weights else [self.transformer.wte.weight]
        n -= sum(p.numel() * (6 if p.requires_grad else 4) for p in look_ups)
        return n + 12 * c.n_layer * c.n_embd * T


class NoInit(TorchFunctionMode):
    """Skip nn.init's functions: on the meta device a random one imports torch._dynamo, for seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, '__module__', None) == 'torch.nn.init':
            return kwargs['tensor'] if 'tensor' in kwargs else args[0]
        return func(*args, **kwargs)


def alibi_slopes(n_head: int, like: torch.Tensor) -> torch.Tensor:
    """Return one slope per head: 2^(-8/n), 2^(-16/n), …, with the dtype and device of `like`.

    If n is no power of two: the next lower power's, and every other one of the next higher power's, as in the
    paper's code.
    """
    def powers(n):
        return [2 ** (-8 * (i + 1) / n) for i in range(n)]

    n = 2 ** int(math.log2(n_head))
    slopes = powers(n) + powers(2 * n)[::2][: n_head - n]
    return torch.tensor(slopes, device=like.device, dtype=like.dtype)
