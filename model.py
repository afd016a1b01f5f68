"""
The model: GPT-2 and the Llama family from one Block, with every difference between them a plain switch in GPTConfig.

    model = GPT(GPTConfig(n_layer=12, n_head=12, n_embd=768, block_size=1024, vocab_size=50304))
    logits = model(idx)                 # (B, T) -> (B, T, vocab_size)
    loss = model(idx, targets)          # the mean over all targets that are not -1
    model = GPT.from_pretrained('gpt2')

References:
1) GPT-2 in TensorFlow, by OpenAI: https://github.com/openai/gpt-2/blob/master/src/model.py
2) GPT-2 and Llama in transformers: https://github.com/huggingface/transformers/tree/main/src/transformers/models
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
    block_size: int  # T: the longest context
    vocab_size: int
    dropout: float = 0.0
    bias: bool = True  # in every Linear and LayerNorm, as in GPT-2; False is a bit better and faster
    n_kv_head: int | None = None  # heads that keys and values have; fewer than n_head: grouped-query attention. None: n_head
    n_hidden: int | None = None  # width inside the MLP. None: 4 * n_embd
    pos: str = 'learned'  # 'learned', 'rotary' (https://arxiv.org/abs/2104.09864) or 'alibi' (https://arxiv.org/abs/2108.12409)
    norm: str = 'layernorm'  # 'layernorm' or 'rmsnorm' (https://arxiv.org/abs/1910.07467)
    mlp: str = 'gelu'  # 'gelu', 'swiglu' (https://arxiv.org/abs/2002.05202) or 'relu2' (https://arxiv.org/abs/2109.08668)
    smear: int = 0  # so many tokens before add to each one's embedding, by a weight a channel, learned from 0
    qk_norm: bool = False  # normalise queries and keys in each head (https://arxiv.org/abs/2010.04245)
    tie_weights: bool = True  # the head shares the token embedding's matrix (https://arxiv.org/abs/1608.05859)
    logit_softcap: float | None = None  # logits within ±this, by tanh (https://arxiv.org/abs/2408.00118). None: off
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
        if self.pos == 'rotary' and self.n_embd // self.n_head % 2:
            raise UserError(f"rotary positions need an even n_embd / n_head, which is {self.n_embd // self.n_head}")


def norm(config, size):
    if config.norm == 'rmsnorm':
        return nn.RMSNorm(size, eps=config.norm_eps)
    return nn.LayerNorm(size, eps=config.norm_eps, bias=config.bias)


def rotate(x, cos, sin):
    """Turn each pair (a, b) = (x[i], x[i + hs/2]) of a head by its position's angle, to (a cos - b sin, b cos + a sin).

    x (B, nh, T, hs); cos (cos, cos) and sin (-sin, sin), each (1 or B, 1, T, hs): see GPT.rope()."""
    a, b = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat((b, a), dim=-1), sin).type_as(x)


class Attention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.layer, self.dropout = layer, config.dropout
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.n_kv_head, config.n_embd // config.n_head
        # query, key, value projections for all heads, in one matrix
        self.c_attn = nn.Linear(config.n_embd, (config.n_head + 2 * config.n_kv_head) * self.head_dim, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.q_norm = norm(config, self.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = norm(config, self.head_dim) if config.qk_norm else nn.Identity()
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x, rope, mask, cache):
        B, T, C = x.size()
        heads = self.c_attn(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # (B, n_head + 2 n_kv_head, T, hs)
        q, k, v = heads.split([self.n_head, self.n_kv_head, self.n_kv_head], dim=1)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        y = F.scaled_dot_product_attention(
            q.type_as(k), k, v, attn_mask=mask, is_causal=mask is None and T > 1,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.n_kv_head != self.n_head,
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

    def forward(self, x):
        x = self.c_fc(x)
        if self.training and torch.is_grad_enabled():
            # the backward computes the nonlinearity again, which costs next to nothing and spares a fifth of the activations
            x = checkpoint(self.project, x, use_reentrant=False, preserve_rng_state=False)
        else:
            x = self.project(x)
        return self.dropout(x)

    def project(self, x):
        if self.kind == 'gelu':
            x = F.gelu(x, approximate='tanh')  # GPT-2's
        elif self.kind == 'relu2':
            x = F.relu(x)
            x = x * x  # square() is slower on the way back
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

    def forward(self, x, rope, mask, cache):
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
        self.lm_head = None  # tied to wte
        if not config.tie_weights:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.recompute = False  # True: activations inside a block are computed again for its backward, not kept
        self.init_weights(init)

    def init_weights(self, init):
        """'gpt2': normal, std 0.02, and smaller in the layers that write to the residual stream, by how many there are.
        'zero': those layers zero, so that a block is the identity at first (https://arxiv.org/abs/2203.03466, D.2), the
        others normal with 0.6 / sqrt(inputs), token embeddings with std 0.5. 'uniform': as 'gpt2', from a uniform
        distribution of the same std."""
        if init not in ('gpt2', 'zero', 'uniform'):
            raise UserError(f"init={init!r}: choose one of gpt2, zero, uniform")
        for name, module in self.named_modules():
            if not isinstance(module, nn.Linear | nn.Embedding):
                continue
            std = 0.02
            if name.endswith('c_proj'):
                std = 0.0 if init == 'zero' else 0.02 / math.sqrt(2 * self.config.n_layer)
            elif init == 'zero' and name == 'transformer.wte' and not self.config.tie_weights:
                std = 0.5
            elif init == 'zero' and '.h.' in name:
                std = 0.6 / math.sqrt(self.config.n_embd)
            if init == 'uniform':
                nn.init.uniform_(module.weight, -(3**0.5) * std, 3**0.5 * std)
            else:
                nn.init.normal_(module.weight, std=std)
            if getattr(module, 'bias', None) is not None:
                nn.init.zeros_(module.bias)

    def forward(self, idx, targets=None, cache=None):
        """Token ids (B, T) to logits (B, T, V); with targets (B, T), -1 where there is none, to the mean loss, in nats;
        with a cache, in which idx goes on, to the last position's logits (B, V)."""
        B, T = idx.size()
        pos = torch.arange(T, device=idx.device) if cache is None else cache.begin(B, T)
        if cache is None or self.config.pos == 'learned':
            end = T if cache is None else max(cache.pos[:B]) + T
            assert end <= self.config.block_size, f"{end} tokens, but block_size is {self.config.block_size}"
        x = self.smeared(idx, cache) if self.config.smear else self.transformer.wte(idx)  # (B, T, C)
        rope = None
        if self.config.pos == 'learned':
            x = x + self.transformer.wpe(pos)
        elif self.config.pos == 'rotary':
            rope = self.rope(pos)
        mask = self.attention_mask(pos, x, cache)
        x = self.transformer.drop(x)
        for block in self.transformer.h:
            if self.recompute and self.training:
                x = checkpoint(block, x, rope, mask, cache, use_reentrant=False)
            else:
                x = block(x, rope, mask, cache)
        if targets is not None:
            weight = self.transformer.wte.weight if self.lm_head is None else self.lm_head.weight
            x = self.transformer.ln_f(x)
            return ChunkedLoss.apply(x.view(-1, x.size(-1)), weight, targets.reshape(-1), self.config.logit_softcap)
        if cache is not None:
            cache.pos[:B] = [p + T for p in cache.pos[:B]]
            x = x[:, -1]
        return self.head(x)

    def head(self, x):
        x = self.transformer.ln_f(x)
        logits = F.linear(x, self.transformer.wte.weight) if self.lm_head is None else self.lm_head(x)
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def smeared(self, idx, cache):
        """Embeddings (B, T, C) of idx (B, T), each with some of those before it: what a word needs of its spelling, and an
        early layer would spend its attention on."""
        n, T = self.config.smear, idx.size(1)
        ids = F.pad(idx, (n, 0), value=-1) if cache is None else cache.with_before(idx, n)
        x = self.transformer.wte(ids.clamp(min=0)) * (ids >= 0)[..., None]
        return x[:, n:] + sum(w * x[:, n - i : n - i + T] for i, w in enumerate(self.transformer.smear, start=1))

    def rope(self, pos):
        """For rotate(): the angles of positions (T,) or (B, 1), as (cos, cos) and (-sin, sin), each (1 or B, 1, T, hs)."""
        hs = self.config.n_embd // self.config.n_head
        freqs = self.config.rope_theta ** -(torch.arange(0, hs, 2, device=pos.device, dtype=torch.float32) / hs)
        angles = (pos[..., None] * freqs).view(-1, 1, pos.size(-1), hs // 2)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)

    def attention_mask(self, pos, x, cache=None):
        """What to add to the attention scores, (B or n_head or 1, …, keys); None where plain causal attention is right.

        pos: the positions of the new tokens, (T,) or (B, 1)."""
        alibi, T = self.config.pos == 'alibi', pos.size(-1)
        if not alibi and (cache.even if T == 1 and cache is not None else cache is None or cache.pos[0] == 0):
            return None
        # how far key j lies behind query i: negative for a key in the future, or none
        if T == 1 and cache is not None:
            distance = cache.distance(pos)
        else:
            distance = pos[:, None] - torch.arange(T if cache is None else cache.end, device=x.device)
        bias = torch.zeros(1, 1, 1, device=x.device, dtype=x.dtype if cache is None else cache.k.dtype)
        if alibi:
            bias = -alibi_slopes(self.config.n_head, bias)[:, None, None] * distance
        return bias.masked_fill(distance < 0, float('-inf'))

    def set_block_size(self, block_size):
        """Make do with a shorter context, on which a pretrained model trains with less memory. A longer one than it was
        trained on is something to try with rotary positions and ALiBi; learned ones end with it."""
        if self.config.pos == 'learned' and block_size != self.config.block_size:
            assert block_size <= self.config.block_size, f"{block_size} is more than {self.config.block_size}"
            self.transformer.wpe.weight = nn.Parameter(self.transformer.wpe.weight[:block_size].clone())
        self.config.block_size = block_size

    def freeze_embeddings(self):
        """Leave token and position embeddings, and a head of its own, as they are in training."""
        for part in ('wte', 'wpe'):
            if part in self.transformer:
                self.transformer[part].requires_grad_(False)
        if not self.config.tie_weights:
            self.lm_head.requires_grad_(False)

    def matrix_rows(self, name):
        """How many rows each of the matrices has that lie one below the other in the block's parameter of this name."""
        c = self.config
        if name.endswith('c_attn.weight'):  # query, key, value
            hs = c.n_embd // c.n_head
            return [c.n_head * hs, c.n_kv_head * hs, c.n_kv_head * hs]
        if name.endswith('c_fc.weight'):
            return [c.n_hidden] * (2 if c.mlp == 'swiglu' else 1)
        return [c.n_embd]

    @classmethod
    def from_pretrained(cls, name, dropout=0.0):
        """'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl', 'smollm2', a folder or hub name of a GPT-2 or Llama model in the
        transformers format, or an out_dir of train.py."""
        from nanorap import pretrained

        config, state_dict = pretrained.load(name)
        try:
            return cls.from_state_dict(config | dict(dropout=dropout), state_dict)
        except (RuntimeError, TypeError) as e:
            raise UserError(f"{name}: its config.json doesn't fit its weights ({' '.join(str(e).split())[:200]})") from None

    @classmethod
    def from_state_dict(cls, config, state_dict):
        """config: GPTConfig's fields, a dict. The model takes the tensors over as they are, with no copy."""
        with torch.device('meta'), NoInit():  # no memory: every parameter comes from the state dict
            model = cls(GPTConfig(**config))
        model.load_state_dict(state_dict, assign=True)
        return model.requires_grad_(True)

    def config_dict(self):
        return asdict(self.config)

    def flops_per_token(self, T):
        """Floating-point operations of one training step per token, forward and backward, with T tokens of context
        (PaLM, https://arxiv.org/abs/2204.02311, appendix B)."""
        c = self.config
        # two operations a weight forward, two for the gradient of the input, two for the weight's own if it is trained
        n = sum(p.numel() * (6 if p.requires_grad else 4) for p in self.parameters())
        look_ups = [self.transformer.wpe.weight] if c.pos == 'learned' else []
        look_ups += [] if c.tie_weights else [self.transformer.wte.weight]  # a tied one is the head, too
        n -= sum(p.numel() * (6 if p.requires_grad else 4) for p in look_ups)
        return n + 12 * c.n_layer * c.n_embd * T


class NoInit(TorchFunctionMode):
    """nn.init's functions do nothing; on the meta device a random one would import torch._dynamo, which takes seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, '__module__', None) == 'torch.nn.init':
            return kwargs['tensor'] if 'tensor' in kwargs else args[0]
        return func(*args, **kwargs)


def alibi_slopes(n_head, like):
    """One slope a head: 2^(-8/n), 2^(-16/n), …; where n is no power of two, those of the next lower one and every other
    of the next higher one, as in the ALiBi paper's code."""
    def powers(n):
        return [2 ** (-8 * (i + 1) / n) for i in range(n)]

    n = 2 ** int(math.log2(n_head))
    slopes = powers(n) + powers(2 * n)[::2][: n_head - n]
    return torch.tensor(slopes, device=like.device, dtype=like.dtype)
