"""The KV cache: what attention has read, kept, so that a new token costs one row and not the whole text."""

from collections.abc import Sequence

import torch
from torch import Tensor

from helpers.config import GPTConfig


class KVCache:
    """Keys and values of several texts, which may differ in length.

    k, v: (n_layer, B, nh, capacity, hs), allocated once; row b is filled up to lengths[b].
    """

    def __init__(self, config: GPTConfig, batch: int, capacity: int, like: Tensor) -> None:
        shape = (config.n_layer, batch, config.n_head, capacity, config.n_embd // config.n_head)
        self.k = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.v = torch.empty_like(self.k)
        self.lengths = [0] * batch
        self.mask: Tensor | None = None  # of the forward pass in progress: what each new token may see; None: all
        self.causal = True  # it starts from nothing, so that the mask is the usual triangle
        self.ragged = False  # rows differ in length

    def advance(self, T: int) -> Tensor:
        """Make T more places in every row; their positions in the text, (T,) or (B, T).

        ValueError if it is full; nothing has changed then."""
        if (end := max(self.lengths) + T) > self.k.size(3):
            raise ValueError(f"{end} tokens do not fit into a cache of {self.k.size(3)}")
        starts, self.lengths = self.lengths, [n + T for n in self.lengths]
        self.start, self.end, device = starts[0], end, self.k.device
        was_ragged, self.ragged, self.causal = self.ragged, len(set(starts)) > 1, not any(starts)
        columns = torch.arange(self.end, device=device)
        if not self.ragged:
            pos = columns[self.start :]  # (T,)
            self.mask = None if self.causal or T == 1 else columns <= pos[:, None]  # (T, end)
            return pos
        if not was_ragged:  # what a row has not read is masked, but a NaN there would still be one
            for row, n in enumerate(starts):
                self.k[:, row, :, n:], self.v[:, row, :, n:] = 0, 0
        self.rows = torch.arange(len(starts), device=device)[:, None]  # (B, 1)
        self.pos = torch.tensor(starts, device=device)[:, None] + torch.arange(T, device=device)  # (B, T)
        self.mask = (columns <= self.pos[:, :, None])[:, None]  # (B, 1, T, end)
        return self.pos

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, nh, T, hs) in the places just made; all that is there, twice (B, nh, end, hs)."""
        for store, new in ((self.k[layer], k), (self.v[layer], v)):  # (B, nh, capacity, hs)
            if self.ragged:
                store[self.rows, :, self.pos] = new.transpose(1, 2)  # (B, T, nh, hs)
            else:
                store[:, :, self.start : self.end] = new
        return self.k[layer, :, :, : self.end], self.v[layer, :, :, : self.end]

    def put(self, row: int, other: "KVCache", its: int) -> None:
        """Make `row` a copy of row `its` of another cache."""
        n = self.lengths[row] = other.lengths[its]
        self.k[:, row, :, :n] = other.k[:, its, :, :n]
        self.v[:, row, :, :n] = other.v[:, its, :, :n]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        self.k, self.v = self.k[:, rows], self.v[:, rows]
        self.lengths = [self.lengths[row] for row in rows]
