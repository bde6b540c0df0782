"""Products with bf16 weights by the fastest kernel of this CPU: of one row, which is what a token costs, and of many.

Processors without bf16 emulate it. Many rows then cost up to 13 times what they do in fp32, into which bf16 converts
without loss.
"""

import threading
from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.base.timing import seconds_in_turns
from helpers.config import LARGE
from helpers.serve.kernels import NOISE, PROMPT, to_be_timed

# Whether oneDNN is used is one setting for all threads: where two requests are answered at once, a product of one waits
# while it is switched off for a row of the other, or it would be slower, and round otherwise.
_IN_TURN = threading.Lock()


def _as_vector(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = weight.mv(x.flatten())  # (out,)
    return (y if bias is None else y + bias).view(*x.shape[:-1], -1)


def _without_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    before, torch.backends.mkldnn.enabled = torch.backends.mkldnn.enabled, False
    try:
        return F.linear(x, weight, bias)
    finally:
        torch.backends.mkldnn.enabled = before


# What multiplies x (…, in), a single row, with a matrix (out, in). oneDNN's bf16 kernels are made for many rows; where
# they are the default, PyTorch's own may read the matrix two or three times as fast.
KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "plain": F.linear,
    "as a vector": _as_vector,
    "without oneDNN": _without_onednn,
}


def _in_fp32(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


# What multiplies more rows than one.
MANY: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {"plain": F.linear, "in fp32": _in_fp32}


class BF16Linear(nn.Linear):
    """A bf16 Linear on a CPU that multiplies a single row with one of KERNELS, and more with one of MANY."""

    kernel: str = "plain"
    many: str = "plain"

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        kernel = KERNELS[self.kernel] if x.numel() == self.in_features else MANY[self.many]
        with _IN_TURN:
            return kernel(x, self.weight, self.bias)


@cache
def timed(n_in: int, n_out: int) -> dict[str, float]:
    """What each of KERNELS takes here for a bf16 matrix (n_out, n_in); measured once."""
    columns, copies = to_be_timed(n_in, n_out, bytes_per_number=2)
    matrices = [torch.ones(columns, n_in, dtype=torch.bfloat16) for _ in range(copies)]
    x, bias = torch.ones(1, n_in, dtype=torch.bfloat16), torch.ones(columns, dtype=torch.bfloat16)
    with torch.no_grad(), _IN_TURN:
        calls = [lambda kernel=kernel: [kernel(x, matrix, bias) for matrix in matrices] for kernel in KERNELS.values()]
        return dict(zip(KERNELS, seconds_in_turns(calls), strict=True))


@cache
def fastest(n_in: int, n_out: int) -> tuple[str, str]:
    """The kernel to take for a bf16 matrix (n_out, n_in), and why: another than plain is faster, by more than noise.

    A small matrix stays in the caches, where all are alike: it is not timed, and a small model always has equal bits.
    """
    if min(n_in, n_out) < LARGE:
        return "plain", f"{n_in:,} -> {n_out:,}: plain, so small a matrix stays in the caches"
    seconds = timed(n_in, n_out)
    name = min(seconds, key=seconds.__getitem__)
    gain = seconds["plain"] / seconds[name]
    if gain <= NOISE:
        return "plain", f"{n_in:,} -> {n_out:,}: plain, no other is faster for one token"
    return name, f"{n_in:,} -> {n_out:,}: {name}, {gain:.1f} times as fast as plain for one token"


@cache
def timed_many(n_in: int = LARGE, n_out: int = LARGE) -> dict[str, float]:
    """What each of MANY takes here for PROMPT rows and a bf16 matrix (n_out, n_in); measured once."""
    x, weight = (torch.ones(n, n_in, dtype=torch.bfloat16) for n in (PROMPT, n_out))
    with torch.no_grad(), _IN_TURN:
        return dict(zip(MANY, seconds_in_turns([partial(way, x, weight, None) for way in MANY.values()]), strict=True))


def fastest_for_many() -> tuple[str, str]:
    """Which of MANY to take for every matrix, and why. One shape is timed: what a processor lacks, it lacks for all."""
    seconds = timed_many()
    gain = seconds["plain"] / seconds["in fp32"]
    if gain <= NOISE:
        return "plain", "several rows: plain, in fp32 they are no faster"
    return "in fp32", f"several rows: in fp32, {gain:.1f} times as fast as in bf16, which this processor emulates"
