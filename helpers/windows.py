"""Which stretches of the token stream a training step or a measurement sees."""

import bisect

import torch
from torch import Tensor

from helpers.base.errors import require
from helpers.config import IGNORE, POLICIES


def grid(n_tokens: int, window: int, offset: int = 0) -> tuple[Tensor, Tensor]:
    """Starts and lengths of the windows that predict every token but the first exactly once.

    Windows begin at offset, offset + window, …; what lies before the offset and the tail are shorter windows
    of their own, so no token is left out. Lengths count predictions. Two (W,) int64 tensors.
    Raises ValueError if there is nothing to predict or the offset is not inside a window.
    """
    if n_tokens < 2 or window < 1:
        raise ValueError(f"a grid needs 2 tokens and a window of 1, not {n_tokens} and {window}")
    if not 0 <= offset < window:
        raise ValueError(f"offset={offset} is not inside a window of {window}")
    starts = torch.arange(offset, max(offset, n_tokens - 1), window)
    if offset:
        starts = torch.cat((torch.zeros(1, dtype=torch.int64), starts))
    ends = torch.cat((starts[1:], torch.tensor([n_tokens - 1])))
    return starts, ends - starts


def random_windows(n_tokens: int, window: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Starts and lengths of as many full windows as the grid has, each beginning anywhere. Two (W,) int64 tensors."""
    count = -(-(n_tokens - 1) // window)
    return torch.randint(n_tokens - window, (count,), generator=generator), torch.full((count,), window)


def slice_windows(tokens: Tensor, starts: Tensor, lengths: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Inputs x and targets y, both (B, window), of the windows at `starts`; y is IGNORE past a window's length."""
    steps = torch.arange(window, device=tokens.device)
    places = (starts[:, None].to(tokens.device) + steps).clamp(max=tokens.numel() - 2)  # (B, window)
    padding = steps >= lengths[:, None].to(tokens.device)
    return tokens[places], tokens[places + 1].masked_fill(padding, IGNORE)


def kept_context(window: int) -> int:
    """Tokens that stay when a context of `window` tokens is full: the newer half is read again, from position 0."""
    return max(1, window // 2)


class Windows:
    """An endless, seeded stream of training windows; step s sees windows s * batch … (s + 1) * batch - 1 of it.

    grid: the same windows every epoch, in a new order. offset: a new grid offset every epoch, each of the `window`
    offsets once before any comes again. random: independent starts; an "epoch" is as many windows as the grid has.
    The first `halved` steps see twice as many windows of half the length, a stream of their own.
    A batch is a pure function of (seed, step): a resumed run needs no more than its step number.
    """

    def __init__(
        self, tokens: Tensor, window: int, batch: int, policy: str = "offset", seed: int = 1337, halved: int = 0
    ) -> None:
        require(policy in POLICIES, f"policy={policy!r} is none of {', '.join(POLICIES)}")
        needs = f"a window of {window} needs {window + 1} tokens, the text has {tokens.numel()}"
        require(window < tokens.numel(), needs)
        self.tokens, self.window, self.batch_size, self.policy, self.seed = tokens, window, batch, policy, seed
        require(0 <= seed < 2**32, f"seed={seed} must lie between 0 and {2**32 - 1:,}")
        require(not halved or window % 2 == 0, f"a window of {window} tokens cannot be halved")
        self.halved = halved
        self._short = Windows(tokens, window // 2, 2 * batch, policy, seed) if halved else None
        self._firsts = [0]  # number, in the stream, of each epoch's first window
        self._epoch: tuple[int, Tensor, Tensor] = (-1, torch.empty(0), torch.empty(0))

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps in an epoch, on average: an offset makes a short window at the start, too."""
        offsets = range(self.window if self.policy == "offset" else 1)
        counts = [(offset > 0) - (offset - self.tokens.numel() + 1) // self.window for offset in offsets]
        return sum(counts) / len(counts) / self.batch_size

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """x, y: (batch, window) int64, on the tokens' device; (2 batch, window / 2) in the halved steps."""
        if step < self.halved:
            return self._short.batch(step)
        first = (step - self.halved) * self.batch_size
        starts, lengths = zip(*(self._window(first + i) for i in range(self.batch_size)), strict=True)
        return slice_windows(self.tokens, torch.stack(starts), torch.stack(lengths), self.window)

    def _window(self, number: int) -> tuple[Tensor, Tensor]:
        while number >= self._firsts[-1]:
            self._firsts.append(self._firsts[-1] + len(self._draw(len(self._firsts) - 1)[0]))
        epoch = bisect.bisect_right(self._firsts, number) - 1
        if self._epoch[0] != epoch:
            self._epoch = (epoch, *self._draw(epoch))
        _, starts, lengths = self._epoch
        place = number - self._firsts[epoch]
        return starts[place], lengths[place]

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Starts and lengths of one epoch, shuffled."""
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        n, T = self.tokens.numel(), self.window
        if self.policy == "random":
            return random_windows(n, T, g)
        starts, lengths = grid(n, T, self._offset(epoch) if self.policy == "offset" else 0)
        order = torch.randperm(len(starts), generator=g)
        return starts[order], lengths[order]

    def _offset(self, epoch: int) -> int:
        lap, place = divmod(epoch, self.window)
        g = torch.Generator().manual_seed(self.seed * 1_000_003 - 1 - lap)
        return int(torch.randperm(self.window, generator=g)[place])
