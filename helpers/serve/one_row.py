"""The product of a single bf16 row with a matrix, which is what a token costs, by the fastest kernel of this CPU."""

import threading
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.base.timing import seconds_in_turns
from helpers.config import LARGE
from helpers.serve.kernels import NOISE, to_be_timed

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


class OneRowLinear(nn.Linear):
    """A bf16 Linear on a CPU that multiplies a single row with one of KERNELS."""

    kernel: str = "plain"

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        kernel = KERNELS[self.kernel] if x.numel() == self.in_features else F.linear
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
