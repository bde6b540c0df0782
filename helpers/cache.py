"""The KV cache: keys and values that attention has computed, kept, so that a new token costs one row of products."""

from collections.abc import Sequence

import torch
from torch import Tensor

from helpers.config import GPTConfig


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
