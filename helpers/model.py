"""GPT-2, leaves first, under the parameter names that OpenAI's and Hugging Face's checkpoints use."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.base.cross_entropy import linear_cross_entropy
from helpers.base.gelu import gelu
from helpers.config import IGNORE, GPTConfig


def _dropout(config: GPTConfig) -> nn.Module:
    return nn.Dropout(config.dropout) if config.dropout else nn.Identity()


class KVCache:
    """Keys and values of B texts that end in the same column; a shorter text begins in a later one (left padding).

    k, v: (n_layer, B, nh, capacity, hs), allocated once and filled up to column `end`; text b begins at starts[b].
    """

    def __init__(self, config: GPTConfig, batch: int, capacity: int, like: Tensor) -> None:
        shape = (config.n_layer, batch, config.n_head, capacity, config.n_embd // config.n_head)
        self.k = torch.zeros(shape, dtype=like.dtype, device=like.device)  # masked columns must not hold a NaN
        self.v = torch.zeros_like(self.k)
        self.starts, self.end = [0] * batch, 0

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, nh, T, hs) in columns end to end + T; all that is there then, twice (B, nh, end + T, hs)."""
        end = self.end + k.size(2)
        self.k[layer, :, :, self.end : end] = k
        self.v[layer, :, :, self.end : end] = v
        return self.k[layer, :, :, :end], self.v[layer, :, :, :end]

    def positions(self, T: int) -> tuple[Tensor, Tensor | None]:
        """Of the next T tokens: positions in their texts, (T,) or (B, T), and the attention mask: True is visible.

        The mask is (T, end + T) or (B, 1, T, end + T), and None where the columns need none: a token sees every
        column before it. ValueError if there is no room for T more.
        """
        end, device = self.end + T, self.k.device
        if end > self.k.size(3):
            raise ValueError(f"{end} tokens do not fit into a cache of {self.k.size(3)}")
        columns = torch.arange(end, device=device)
        new = columns[self.end :]  # (T,)
        if not any(self.starts):
            return new, None if T == 1 or self.end == 0 else columns <= new[:, None]
        starts = torch.tensor(self.starts, device=device)[:, None]  # (B, 1)
        mask = (columns <= new[:, None]) & (columns >= starts[:, :, None])  # (B, T, end)
        return new - starts, mask[:, None]

    def put(self, row: int, other: "KVCache") -> None:
        """Make `row` the one text of another cache, which is no longer than `end`."""
        start = self.starts[row] = self.end - other.end
        self.k[:, row, :, start : self.end] = other.k[:, 0, :, : other.end]
        self.v[:, row, :, start : self.end] = other.v[:, 0, :, : other.end]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        self.k, self.v = self.k[:, rows], self.v[:, rows]
        self.starts = [self.starts[row] for row in rows]

    def drop_padding(self) -> None:
        """Move all texts to the left by the columns that none of them fills."""
        free = min(self.starts)
        if free:
            for store in (self.k, self.v):
                store[..., : self.end - free, :] = store[..., free : self.end, :].clone()
            self.starts, self.end = [start - free for start in self.starts], self.end - free


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a position sees itself and what came before it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)  # query, key, value
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)  # back into the stream
        self.resid_dropout = _dropout(config)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0, mask: Tensor | None = None) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)  # 3 x (B, nh, T, hs)
        if cache is not None:
            k, v = cache.update(layer, k, v)  # (B, nh, past + T, hs)
        causal = mask is None and T > 1  # a single token may look at all that is there
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout)
        y = y.transpose(1, 2).reshape(B, T, C)  # (B, nh, T, hs), and the heads side by side again
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    """Feed-forward layer: four times wider, a nonlinearity, and back; each position on its own."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = _dropout(config)

    def forward(self, x: Tensor) -> Tensor:
        x = gelu(self.c_fc(x))  # (B, T, 4C); the tanh form, with which GPT-2 was trained
        return self.dropout(self.c_proj(x))  # (B, T, C)


class Block(nn.Module):
    """Talk to the past, then think alone; each adds its answer to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache, layer, mask)  # (B, T, C)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """GPT-2 (Radford et al. 2019): token and position embeddings, blocks, a head; 124,439,808 parameters by default."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(
            dict(
                wte=nn.Embedding(config.vocab_size, config.n_embd),
                wpe=nn.Embedding(config.block_size, config.n_embd),
                drop=_dropout(config),
                h=nn.ModuleList(Block(config) for _ in range(config.n_layer)),
                ln_f=nn.LayerNorm(config.n_embd, bias=config.bias),
            )
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight  # weight tying: the head is the embedding transposed
        self.init_weights()

    def init_weights(self, zero_residual: bool = False) -> None:
        """GPT-2's start: N(0, 0.02); the 2 * n_layer matrices that write into the stream are scaled down.

        zero_residual: those matrices start at 0 instead, so that every block begins as the identity.
        """
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.ndim == 1:  # LayerNorm's scale
                nn.init.ones_(p)
            elif name.endswith("c_proj.weight"):
                nn.init.normal_(p, std=0.0 if zero_residual else 0.02 / math.sqrt(2 * self.config.n_layer))
            else:
                nn.init.normal_(p, std=0.02)

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for `batch` texts of up to `capacity` tokens."""
        return KVCache(self.config, batch, capacity, self.transformer.ln_f.weight)

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """idx, targets: (B, T) int64 -> logits (B, T, V), and the mean loss in nats per token where targets are given.

        Targets equal to `IGNORE` do not count. With a cache, `idx` continues what the cache has read.
        Raises ValueError if the text is longer than `block_size`.
        """
        x = self.hidden(idx, cache)  # (B, T, C)
        logits = self.lm_head(x)  # (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)

    def loss(self, idx: Tensor, targets: Tensor) -> Tensor:
        """The loss of `forward` without its logits: what training calls, because they are most of the memory."""
        x = self.hidden(idx)  # (B, T, C)
        return linear_cross_entropy(x.flatten(0, 1), self.lm_head.weight, targets.flatten(), IGNORE)

    def hidden(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T) -> (B, T, C): what the head reads."""
        T = idx.size(1)
        start = 0 if cache is None else cache.end - min(cache.starts)  # how far the longest text has been read
        end, longest = start + T, self.config.block_size
        if end > longest:
            too_long = f"{end} tokens do not fit into a context of block_size={longest}"
            raise ValueError(f"{too_long}: pass the last {longest} or fewer")
        pos, mask = (torch.arange(T, device=idx.device), None) if cache is None else cache.positions(T)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(pos))  # (B, T, C)
        for layer, block in enumerate(self.transformer.h):
            x = block(x, cache, layer, mask)
        if cache is not None:
            cache.end += T
        return self.transformer.ln_f(x)
