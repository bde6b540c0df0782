"""Where and in which precision to compute: each automatic choice comes with the sentence that says why."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial

import torch

from helpers.base.errors import SettingError, require
from helpers.base.machine import card, free_cores, no_compiler, out_of_reach, too_old
from helpers.base.timing import seconds_in_turns

WORTH_IT = 1.3  # times as fast as fp32 that another dtype must be, measured, to be taken


@dataclass(frozen=True)
class Runtime:
    """A device, a dtype for matrix products, and the reasons for both."""

    device: torch.device
    dtype: torch.dtype
    reasons: tuple[str, ...]
    compiles: bool = False  # whether torch.compile pays here

    def autocast(self) -> AbstractContextManager:
        """The context in which forward passes run; it does nothing at fp32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)


def pick_device(name: str | None = None) -> tuple[torch.device, str]:
    """`name`, or the fastest device of this machine; and why. ValueError where the name is no device here."""
    if name is not None:
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise SettingError(f"device {name!r} cannot be used here ({error}); leave it out to choose one") from error
        return torch.device(name), f"{name}: asked for"
    if torch.cuda.is_available():
        old = too_old()
        return (torch.device("cpu"), f"cpu: {old}") if old else (torch.device("cuda"), f"cuda: {card()} is there")
    if torch.backends.mps.is_available():
        return torch.device("mps"), "mps: an Apple GPU is there"
    return torch.device("cpu"), f"cpu: {out_of_reach() or 'no GPU is there'}"


def pick_dtype(device: torch.device, large: bool) -> tuple[torch.dtype, str]:
    """The fastest training dtype that `device` has in hardware, and why.

    large: the model has tens of millions of parameters; below that a CPU is fastest in fp32.
    A T4 claims bf16 (it emulates it), so the compute capability decides.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if (major, minor) >= (8, 0):
            return torch.bfloat16, f"bf16: compute capability {major}.{minor} has it in hardware"
        if (major, minor) >= (7, 0):
            return torch.float16, f"fp16 with loss scaling: compute capability {major}.{minor} only emulates bf16"
        return torch.float32, f"fp32: compute capability {major}.{minor} has no tensor cores"
    if not large:
        return torch.float32, "fp32: at this size it is the fastest, and the steadiest"
    if device.type == "mps":
        return torch.bfloat16, "bf16: Apple GPUs have it"
    gain = _bf16_gain(256, 768, 3072)
    if gain >= WORTH_IT:
        return torch.bfloat16, f"bf16: a product takes this CPU 1/{gain:.1f} of the time in fp32"
    return torch.float32, f"fp32: a product in bf16 takes this CPU {1 / gain:.1f} times as long"


@cache
def _bf16_gain(rows: int, n_in: int, n_out: int) -> float:
    """How many times as fast as in fp32 this CPU multiplies (rows, n_in) and (n_in, n_out) in bf16; measured once."""
    x, weight = torch.ones(rows, n_in), torch.ones(n_out, n_in)
    pairs = [(x.to(dtype), weight.to(dtype).T) for dtype in (torch.float32, torch.bfloat16)]
    fp32, bf16 = seconds_in_turns([partial(torch.matmul, *pair) for pair in pairs])
    return fp32 / bf16


def pick_compile(device: torch.device, large: bool) -> tuple[bool, str]:
    """Whether torch.compile pays for a small or large model on `device`, and why."""
    if device.type != "cuda" or not large or torch.cuda.get_device_capability(device) < (7, 0):
        return False, "not compiled: a minute of compiling pays on a CUDA GPU and for a large model only"
    if missing := no_compiler():
        return False, f"not compiled: {missing}"
    return True, "compiled, if the compiler agrees: fewer and larger kernels"


def pick_runtime(large: bool = False, device: str | None = None) -> Runtime:
    """The device, dtype and compiler to train a small or large model with on this machine.

    Where a GPU has TF32, products that stay in fp32 use it from here on.
    """
    chosen, why = pick_device(device)
    dtype, why_dtype = pick_dtype(chosen, large)
    compiles, why_compiled = pick_compile(chosen, large)
    if chosen.type == "cuda":
        torch.set_float32_matmul_precision("high")
        if chosen.index is not None:
            torch.cuda.set_device(chosen)  # so that memory and time are asked of this card
    return Runtime(chosen, dtype, (why, why_dtype, why_compiled), compiles)


def set_up(seed: int) -> int:
    """Seed Python's and torch's generators; use the free cores, eight at most, or fewer where OMP_NUM_THREADS says so.

    Returns the thread count: sums differ in their last bit between counts, so a resumed run should use the same.
    SettingError for a seed that torch does not take.
    """
    require(0 <= seed < 2**32, f"seed={seed} must lie between 0 and {2**32 - 1:,}")
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(min(torch.get_num_threads(), free_cores(), 8))
    return torch.get_num_threads()


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode for a while; a model that is in it is not visited, which would cost as much as a small one's step."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()
