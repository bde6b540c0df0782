"""Kernels for products with 8-bit weights: those that PyTorch has on this machine, and the fastest, found by timing.

Which one is fast depends on the processor, by factors of a thousand: a kernel that is exact everywhere can be
reference code on the next machine. So none is taken unseen, and none that is slower than weights dequantized.
"""

import math
import threading
import warnings
from functools import cache

import torch
from torch import Tensor

from helpers.base.timing import seconds_in_turns
from helpers.config import LARGE
from helpers.quantize import Dequantized

TOKEN, PROMPT = 1, 64  # rows of x that a kernel is timed with: what a decoding step and what a prefill multiply
NOISE = 1.1  # times that a timing may be off
CACHES = 8 * 2**20  # bytes that do not stay in a core's caches, as a large model's weights from token to token
COLUMNS = 8192  # a wider matrix is timed by so many of its columns
_PACKING = threading.Lock()  # PyTorch's choice of engine, and its warnings, belong to all threads


class _Integers:
    """The rows of x in 8 bits too, each with a scale and a zero point of its own: exact sums of integers, whatever
    stands in other rows. A row's smallest and largest entry (or 0) become 0 and 2 * levels + 1, unsigned, as x86
    processors multiply them.

    Without VNNI they add pairs in 16 bits, which overflows at the largest values; half the range fits. So `levels` is
    the larger of 127 and 63 with which the extremes come out exactly.
    """

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        self.levels = self.exact_levels()
        self.pack(weight, scale.flatten())
        self.ones = weight.sum(1).float() * scale.flatten()  # (out,): the product with a row of ones

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        shape, dtype, x = x.shape, x.dtype, x.float().flatten(0, -2)  # (M, in)
        low, high = x.amin(-1, keepdim=True).clamp_(max=0), x.amax(-1, keepdim=True).clamp_(min=0)
        step = ((high - low) / (2 * self.levels + 1)).clamp_(min=1e-30)  # (M, 1)
        middle = self.levels + 1 + (low / step).round_()  # 8 bits hold x / step - middle, from -levels - 1 to levels
        y = self.product((x / step).round_().sub_(middle).clamp_(-self.levels - 1, self.levels))
        return y.addcmul_(middle, self.ones).mul_(step).to(dtype).view(*shape[:-1], -1)

    @classmethod
    @cache
    def exact_levels(cls) -> int:
        """RuntimeError if the kernel is exact at neither level."""
        weight, scale = torch.full((64, 256), -127, dtype=torch.int8), torch.ones(64)
        for levels in (127, 63):
            kernel = cls.__new__(cls)
            kernel.levels = levels
            kernel.pack(weight, scale)
            if bool((kernel.product(torch.full((2, 256), float(levels))) == -127 * levels * 256).all()):
                return levels
        raise RuntimeError(f"{cls.__name__} does not add exactly on this machine")

    def pack(self, weight: Tensor, scale: Tensor) -> None:
        """Lay int8 (out, in) and float32 (out,) out as the kernel wants them."""
        raise NotImplementedError

    def product(self, x: Tensor) -> Tensor:
        """float32 (M, in), whole numbers from -levels - 1 to levels -> float32 (M, out): integer sums times scale."""
        raise NotImplementedError


class Onednn(_Integers):
    """oneDNN's kernel. Signed activations would be exact too, and run in its reference code where there is no AMX."""

    def pack(self, weight: Tensor, scale: Tensor) -> None:
        self.packed = torch.ops.onednn.qlinear_prepack(weight, None)
        self.scale, self.zeros = scale, torch.zeros(len(scale), dtype=torch.int32)

    def product(self, x: Tensor) -> Tensor:
        u8 = x.add(self.levels + 1).to(torch.uint8)
        none = (None, 1.0, 0, torch.float32, "none", [], "")  # no bias, no second scale, float32 out, no activation
        return torch.ops.onednn.qlinear_pointwise(u8, 1.0, self.levels + 1, self.packed, self.scale, self.zeros, *none)


class Fbgemm(_Integers):
    """FBGEMM's kernel, the fastest for single rows on every x86 processor tried.

    It is packed from a quantized tensor, a type that PyTorch will remove (pytorch/pytorch issue 184982). From then on
    there is one kernel less to choose from.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """A single row, which is what decoding multiplies, is rounded, multiplied and scaled in one call, alike but for
        numbers halfway between two steps, which it may round the other way.
        """
        if x.numel() > x.size(-1) or x.dtype != torch.float32:
            return super().__call__(x)
        return self.linear(x, self.packed, self.levels < 127)

    def pack(self, weight: Tensor, scale: Tensor) -> None:
        self.linear = torch.ops.quantized.linear_dynamic.default
        with _PACKING, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
            zeros = torch.zeros(len(scale), dtype=torch.int64)
            quantized = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
            before = torch.backends.quantized.engine
            torch.backends.quantized.engine = "fbgemm"
            try:
                self.packed = torch.ops.quantized.linear_prepack(quantized, None)
            finally:
                torch.backends.quantized.engine = before

    def product(self, x: Tensor) -> Tensor:
        linear = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        return linear(x, 1.0, self.levels + 1, self.packed)


class WeightOnly:
    """PyTorch's kernel that multiplies bf16 with int8 as it is: on any CPU, Apple's and NVIDIA's GPUs."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        self.weight, self.scale = weight, scale.flatten().bfloat16()

    def __call__(self, x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(x.bfloat16().flatten(0, -2), self.weight, self.scale)  # (M, out)
        return y.to(x.dtype).view(*x.shape[:-1], -1)


Kernel = Dequantized | Fbgemm | Onednn | WeightOnly
KERNELS: dict[str, type[Kernel]] = {
    "dequantized": Dequantized,
    "fbgemm": Fbgemm,
    "onednn": Onednn,
    "weight only": WeightOnly,
}


def available_kernels(n_in: int, n_out: int, device: str, copies: int = 1) -> dict[str, list[Kernel]]:
    """Each of KERNELS that this machine has for a matrix (n_out, n_in), packed with random weights, so many times.

    What raises is left out, and what is off by more than rounding.
    """
    g = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, (n_out, n_in), generator=g, dtype=torch.int8).to(device)
    scale, x = torch.full((n_out, 1), 0.01, device=device), torch.randn(3, n_in, generator=g).to(device)
    found: dict[str, list[Kernel]] = {}
    for name, kernel in KERNELS.items():
        if issubclass(kernel, _Integers) and device != "cpu":
            continue
        try:
            packed = [kernel(weight, scale) for _ in range(copies)]
            y = packed[0](x)
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            continue
        exact = found["dequantized"][0](x) if found else y
        if (y - exact).norm() <= 0.03 * exact.norm():
            found[name] = packed
    return found


def to_be_timed(n_in: int, n_out: int, bytes_per_number: int = 1) -> tuple[int, int]:
    """Columns of a matrix (n_out, n_in) that are timed, and how many such matrices in turns: as a token reads them."""
    columns = min(n_out, COLUMNS)
    return columns, -(-CACHES // (n_in * columns * bytes_per_number)) if min(n_in, n_out) >= LARGE else 1


@cache
def timed(n_in: int, n_out: int, device: str) -> dict[str, tuple[float, float]]:
    """Seconds of each kernel here, for a row and for PROMPT rows of x times a matrix (n_out, n_in); measured once."""
    columns, copies = to_be_timed(n_in, n_out)
    x, many = (torch.ones(n, n_in, device=device) for n in (TOKEN, PROMPT))  # no random number is drawn: runs repeat
    kernels = available_kernels(n_in, columns, device, copies)
    row = seconds_in_turns([lambda packed=packed: [p(x) for p in packed] for packed in kernels.values()], device)
    rows = seconds_in_turns([lambda p=packed[0]: p(many) for packed in kernels.values()], device)
    share = n_out / columns
    return {name: (a / copies * share, b * share) for name, a, b in zip(kernels, row, rows, strict=True)}


def fastest(n_in: int, n_out: int, device: str = "cpu") -> tuple[str, str]:
    """The kernel to take for a matrix (n_out, n_in), and why.

    Of those that are faster than `Dequantized` with one row, and no slower with PROMPT rows: the one that reads
    PROMPT tokens at once and then writes as many, one at a time, in the shortest time. `Dequantized` if none is.
    """
    seconds = timed(n_in, n_out, device)
    plain = seconds["dequantized"]
    better = {name: s for name, s in seconds.items() if s[0] < plain[0] and s[1] <= NOISE * plain[1]}
    name = min(better, key=lambda name: PROMPT * better[name][0] + better[name][1], default="dequantized")
    if name != "dequantized":
        gain = (before / now for before, now in zip(plain, seconds[name], strict=True))
        why = "{:.1f} times as fast as dequantized for one token, {:.1f} for {}".format(*gain, PROMPT)
    else:
        rival = min((s[0] for other, s in seconds.items() if other != name), default=math.inf)
        why = f"the best other takes {rival / plain[0]:.1f} times as long for one token, or is slower for {PROMPT}"
    return name, f"{n_in:,} -> {n_out:,}: {name}, {why}"


def packed_kernel(weight: Tensor, scale: Tensor, kernel: str | None = None) -> Kernel:
    """What multiplies with int8 (out, in) times float32 (out, 1): one of KERNELS, or the fastest of them here."""
    n_out, n_in = weight.shape
    return KERNELS[kernel or fastest(n_in, n_out, weight.device.type)[0]](weight, scale)
