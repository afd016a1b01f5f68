"""
GPT-2, Llama, Qwen, Gemma and their kin from one Block, with every difference between them a plain switch in
GPTConfig.

    model = GPT(GPTConfig(n_layer=12, n_head=12, n_embd=768, block_size=1024, vocab_size=50304))
    logits = model(idx)                 # (B, T) -> (B, T, vocab_size)
    loss = model(idx, targets)          # the mean over all targets that are not -1
    model = GPT.from_pretrained('gpt2')

References:
1) GPT-2 in TensorFlow, by OpenAI: https://github.com/openai/gpt-2/blob/master/src/model.py
2) all other families in transformers: https://github.com/huggingface/transformers, src/transformers/models
"""

import math
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn as nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from nanorap.common import UserError
from nanorap.loss import ChunkedLoss
from nanorap.positions import alibi_slopes, rope_frequencies


@dataclass
class GPTConfig:
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int  # tokens of the longest context
    vocab_size: int
    dropout: float = 0.0
    bias: bool = True  # in every Linear and LayerNorm, as in GPT-2; False is a bit better and faster
    qkv_bias: bool | None = None  # of queries, keys and values (Qwen2: the only ones). None: as bias
    proj_bias: bool | None = None  # of attention's output projection. None: as bias
    n_kv_head: int | None = None  # heads of keys and values; fewer than n_head: grouped-query. None: n_head
    head_dim: int | None = None  # width of a head. None: n_embd / n_head
    n_hidden: int | None = None  # width inside the MLP. None: 4 * n_embd
    # 'learned', 'rotary' (arxiv.org/abs/2104.09864), 'alibi' (arxiv.org/abs/2108.12409)
    pos: str = 'learned'
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None  # of positions.rope_frequencies(), for a longer context
    rope_fraction: float = 1.0  # of a head's dimensions that are rotated (GPT-NeoX, arxiv.org/abs/2204.06745)
    nope_layers: list | None = None  # layers without positions (SmolLM3, arxiv.org/abs/2501.18795)
    window: int | None = None  # tokens that a local layer attends to (Mistral, arxiv.org/abs/2310.06825)
    local_layers: list | None = None  # the layers with that window. None: all of them, if there is one
    rope_local_theta: float | None = None  # local layers have a theta of their own (Gemma 3)
    attn_scale: float | None = None  # factor of the attention scores. None: 1 / sqrt(head_dim)
    # normalise queries and keys. True: in each head (arxiv.org/abs/2010.04245); 'all': over all (OLMo 2)
    qk_norm: bool | str = False
    norm: str = 'layernorm'  # 'layernorm', 'rmsnorm' (arxiv.org/abs/1910.07467)
    norms: str = 'before'  # each sublayer, 'after' it (OLMo 2, arxiv.org/abs/2501.00656), 'both' (Gemma 3)
    norm_eps: float = 1e-5
    parallel_mlp: bool = False  # attention and MLP read the same input, side by side (GPT-NeoX)
    # 'gelu' (by tanh, GPT-2's), 'gelu_exact', 'relu', 'relu2' (arxiv.org/abs/2109.08668); with a gate:
    mlp: str = 'gelu'  # 'swiglu', 'geglu' (arxiv.org/abs/2002.05202)
    # add this many preceding tokens' embeddings, each scaled by a learned per-channel weight (initially 0)
    smear: int = 0
    embed_scale: float = 1.0  # factor of the token embeddings (Gemma: sqrt(n_embd))
    tie_weights: bool = True  # the head shares the token embedding's matrix (arxiv.org/abs/1608.05859)
    logit_softcap: float | None = None  # bounds the logits, by tanh (arxiv.org/abs/2408.00118). None: off

    def __post_init__(self):
        has_own_head_dim = self.head_dim is not None
        self.n_kv_head = self.n_kv_head or self.n_head
        self.n_hidden = self.n_hidden or 4 * self.n_embd
        self.qkv_bias = self.bias if self.qkv_bias is None else self.qkv_bias
        self.proj_bias = self.bias if self.proj_bias is None else self.proj_bias
        for field, choices in dict(pos=('learned', 'rotary', 'alibi'), norm=('layernorm', 'rmsnorm'),
                                   mlp=tuple(ACTIVATIONS), norms=('before', 'after', 'both'),
                                   qk_norm=(False, True, 'all')).items():
            if getattr(self, field) not in choices:
                names = ', '.join(map(str, choices))
                raise UserError(f"{field}={getattr(self, field)!r}: choose one of {names}")
        sizes = 'n_layer', 'n_head', 'n_embd', 'block_size', 'vocab_size', 'n_kv_head', 'n_hidden'
        for field in (*sizes, 'head_dim', 'window'):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise UserError(f"{field}={value} must be 1 or more")
        self.head_dim = self.head_dim or self.n_embd // self.n_head
        for a, b in (('n_embd', 'n_head'), ('n_head', 'n_kv_head'))[has_own_head_dim:]:
            if getattr(self, a) % getattr(self, b):
                raise UserError(f"{a}={getattr(self, a)} must be a multiple of {b}={getattr(self, b)}")
        if self.smear < 0 or not 0 <= self.dropout < 1:
            raise UserError(f"smear={self.smear} must be 0 or more, and dropout={self.dropout} lie in [0, 1)")
        self.n_rotary = int(self.head_dim * self.rope_fraction)  # dimensions of a head
        if self.pos == 'rotary' and self.n_rotary % 2:
            raise UserError(f"rotary positions need an even head_dim (n_embd / n_head), not {self.n_rotary}")

    @property
    def is_gated(self):
        return self.mlp in GATED

    def is_local(self, layer):
        return self.window is not None and (self.local_layers is None or layer in self.local_layers)

    def has_rope(self, layer):
        return self.pos == 'rotary' and layer not in (self.nope_layers or ())


def relu2(x: torch.Tensor) -> torch.Tensor:
    x = F.relu(x)
    return x * x  # square() has a slower backward


gelu = partial(F.gelu, approximate='tanh')
ACTIVATIONS = dict(gelu=gelu, gelu_exact=F.gelu, relu=F.relu, relu2=relu2, swiglu=F.silu, geglu=gelu)
GATED = 'swiglu', 'geglu'  # the first half, activated, multiplies the second


def norm(config, size):
    if config.norm == 'rmsnorm':
        return nn.RMSNorm(size, eps=config.norm_eps)
    return nn.LayerNorm(size, eps=config.norm_eps, bias=config.bias)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair (a, b) = (x[i], x[i + hs/2]) of a head by an angle, to (a cos - b sin, b cos + a sin).

    x is (B, nh, T, hs); cos and sin come from GPT.rope(). Dimensions beyond theirs stay as they are.
    """
    if cos.size(-1) < x.size(-1):
        n = cos.size(-1)
        return torch.cat((rotate(x[..., :n], cos, sin), x[..., n:]), dim=-1)
    a, b = x.chunk(2, dim=-1)
    # with (cos, cos) and (-sin, sin) both halves are one operation, and their result needs no concatenation
    return torch.addcmul(x * cos, torch.cat((b, a), dim=-1), sin).type_as(x)


class Attention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.layer, self.dropout = layer, config.dropout
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        self.scale = config.attn_scale
        # query, key, value projections for all heads, in one matrix
        width = (config.n_head + 2 * config.n_kv_head) * config.head_dim
        self.c_attn = nn.Linear(config.n_embd, width, bias=config.qkv_bias)
        # output projection
        self.c_proj = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=config.proj_bias)
        self.norms_all_heads = config.qk_norm == 'all'
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()
        if config.qk_norm:
            n_q, n_k = (config.n_head, config.n_kv_head) if self.norms_all_heads else (1, 1)
            self.q_norm = norm(config, n_q * config.head_dim)
            self.k_norm = norm(config, n_k * config.head_dim)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, rope, mask, cache) -> torch.Tensor:
        B, T, C = x.size()  # batch size, sequence length, embedding dimensionality (n_embd)

        # query, key and value of all heads in one matmul; then the heads become a batch dimension
        heads = self.c_attn(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # (B, nh + 2 nkv, T, hs)
        q, k, v = heads.split([self.n_head, self.n_kv_head, self.n_kv_head], dim=1)
        # both before the cache, which then holds keys that are ready for use at their own positions
        if self.norms_all_heads:  # the heads side by side, for a moment
            q, k = (norm(x.transpose(1, 2).flatten(2)).view(B, T, -1, self.head_dim).transpose(1, 2)
                    for x, norm in ((q, self.q_norm), (k, self.k_norm)))
        else:
            q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # those of the tokens before, too: (B, nkv, end, hs)

        # (B, nh, T, hs) x (B, nkv, hs, end) -> (B, nh, T, end), by the device's fused kernel. A single query
        # without a mask attends to all keys. A cache may be in another dtype than autocast's
        y = F.scaled_dot_product_attention(
            q.type_as(k), k, v, attn_mask=mask, is_causal=mask is None and T > 1, scale=self.scale,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.n_kv_head != self.n_head,  # n_head / n_kv_head queries share each key and value
        )
        y = y.transpose(1, 2).reshape(B, T, -1).type_as(heads)  # all heads side by side again
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.activation, self.is_gated = ACTIVATIONS[config.mlp], config.is_gated
        # gated: gate and up projection in one matrix
        width = config.n_hidden * (2 if self.is_gated else 1)
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
        if self.is_gated:
            gate, up = x.chunk(2, dim=-1)
            return self.c_proj(self.activation(gate) * up)
        return self.c_proj(self.activation(x))


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.parallel = config.parallel_mlp
        has_before, has_after = config.norms != 'after', config.norms != 'before'
        self.ln_1 = norm(config, config.n_embd) if has_before else nn.Identity()
        self.attn = Attention(config, layer)
        self.post_1 = norm(config, config.n_embd) if has_after else nn.Identity()
        self.ln_2 = norm(config, config.n_embd) if has_before else nn.Identity()
        self.mlp = MLP(config)
        self.post_2 = norm(config, config.n_embd) if has_after else nn.Identity()

    def forward(self, x: torch.Tensor, rope, mask, cache) -> torch.Tensor:
        attended = x + self.post_1(self.attn(self.ln_1(x), rope, mask, cache))
        return attended + self.post_2(self.mlp(self.ln_2(x if self.parallel else attended)))


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
        self.is_local = [config.is_local(layer) for layer in range(config.n_layer)]
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
        if self.config.embed_scale != 1:
            x = x * torch.tensor(self.config.embed_scale, dtype=x.dtype)  # rounded, as when it was trained
        if self.config.pos == 'learned':
            x = x + self.transformer.wpe(pos)
        # the same for all layers with a window, and for all without
        masks = {local: self.attention_mask(pos, x, cache, local) for local in set(self.is_local)}
        ropes = {local: self.rope(pos, local) for local in masks if self.config.pos == 'rotary'}
        x = self.transformer.drop(x)
        for layer, block in enumerate(self.transformer.h):
            local = self.is_local[layer]
            mask, rope = masks[local], ropes[local] if self.config.has_rope(layer) else None
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

    def rope(self, pos: torch.Tensor, is_local=False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (cos, cos) and (-sin, sin) of the angles at pos, (T,) or (B, 1), each (1 or B, 1, T, hs)."""
        c = self.config
        theta, scaling = c.rope_theta, c.rope_scaling
        if is_local and c.rope_local_theta:
            theta, scaling = c.rope_local_theta, None
        freqs, factor = rope_frequencies(theta, c.n_rotary, scaling, pos.device)
        angles = (pos[..., None] * freqs).view(-1, 1, pos.size(-1), len(freqs))
        cos, sin = angles.cos() * factor, angles.sin() * factor
        return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)

    def attention_mask(self, pos: torch.Tensor, x: torch.Tensor, cache=None,
                       is_local=False) -> torch.Tensor | None:
        """Return what to add to the attention scores, (B or n_head or 1, …, keys); None if plainly causal.

        pos: the positions of the new tokens, (T,) or (B, 1). x: only its device and dtype matter. is_local:
        for layers with a window.
        """
        has_alibi, T = self.config.pos == 'alibi', pos.size(-1)
        decodes = cache is not None and T == 1
        # decoding: every column in use lies before the new token. Else: queries and keys are the same tokens
        is_plain = cache.rows_are_aligned if decodes else cache is None or cache.pos[0] == 0
        n_keys = T if cache is None else cache.end
        has_window = is_local and n_keys > self.config.window
        if is_plain and not has_alibi and not has_window:
            return None

        # how far key j lies behind query i; negative: in the future, or an empty column
        if decodes:
            distance = cache.distance(pos)  # a full cache has overwritten columns: not in order of position
        else:
            distance = pos[:, None] - torch.arange(n_keys, device=x.device)
        bias = torch.zeros(1, 1, 1, device=x.device, dtype=x.dtype if cache is None else cache.k.dtype)
        if has_alibi:
            # the further away a key, the lower its score, in each head with another slope
            bias = -alibi_slopes(self.config.n_head, bias)[:, None, None] * distance
        is_hidden = distance < 0
        if has_window:
            is_hidden = is_hidden | (distance >= self.config.window)
        return bias.masked_fill(is_hidden, float('-inf'))

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

    @classmethod
    def from_pretrained(cls, name, dropout=0.0, dtype=torch.float32):
        """Load 'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl', 'smollm2', a folder or hub name of a model in
        the transformers format, or an out_dir of train.py."""
        from nanorap import pretrained  # not needed for a model from scratch

        config, state_dict = pretrained.load(name, dtype)
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
        n_keys = sum(min(T, c.window) if c.is_local(layer) else T for layer in range(c.n_layer))
        return n + 12 * c.n_head * c.head_dim * n_keys


class NoInit(TorchFunctionMode):
    """Skip nn.init's functions: on the meta device a random one imports torch._dynamo, for seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, '__module__', None) == 'torch.nn.init':
            return kwargs['tensor'] if 'tensor' in kwargs else args[0]
        return func(*args, **kwargs)
