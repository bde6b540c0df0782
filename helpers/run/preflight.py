"""What a run will cost, estimated before and measured after its first steps; what cannot work is refused early."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from helpers.base.errors import SeriesError
from helpers.base.machine import card, too_old
from helpers.base.timing import synchronize
from helpers.config import GPTConfig, Recipe
from helpers.run.cost import flops_per_token, n_block_matrices, n_params
from helpers.runtime import Runtime

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None

GIB = 2**30
PROBE_STEPS = 20  # after so many steps their speed is the run's
PATIENCE = 3 * 3600  # seconds that a run may take on a CPU that nobody asked for


class RefusedError(SeriesError, RuntimeError):
    """A run that cannot reach its target, does not fit, or costs more than its budget; the message has the numbers."""


def matrix_rate(runtime: Runtime, n: int | None = None) -> float:
    """The FLOP/s that this machine reaches in a square matrix product in the training dtype: what MFU is a share of."""
    n = n or (8192 if runtime.device.type == "cuda" else 1024 if runtime.dtype == torch.float32 else 2048)
    a = torch.randn(n, n, device=runtime.device).to(runtime.dtype)
    best = 0.0
    for _ in range(4):
        synchronize(runtime.device.type)
        start = time.perf_counter()
        for _ in range(3):
            a @ a
        synchronize(runtime.device.type)
        best = max(best, 3 * 2 * n**3 / (time.perf_counter() - start))
    return best


def memory_needed(config: GPTConfig, recipe: Recipe, windows: int, bytes_per_number: int) -> float:
    """Bytes of a step with `windows` windows in a forward pass, roughly: enough to tell hopeless from possible.

    Weights, gradients and AdamW's running moments, first and second, in fp32 (Muon keeps one); what a block keeps of
    each token for the backward pass, some 32 numbers for each of its C (arXiv 2205.05198, without dropout masks and
    with attention recomputed) and the residual stream in fp32; and the parts of the head that are there at once.
    """
    C, V, tokens = config.n_embd, config.vocab_size, windows * recipe.window
    hidden = n_block_matrices(config)
    states = 4 * (4 * (n_params(config) - hidden) + (3 if recipe.optimizer == "muon" else 4) * hidden)
    activations = tokens * config.n_layer * C * (32 * bytes_per_number + 16)
    head = min(tokens, 2048) * V * (4 + 2 * bytes_per_number) + V * C * (4 + bytes_per_number)
    return states + activations + head


def free_memory(runtime: Runtime) -> int:
    """Bytes that a run may still take: of the GPU, or of the machine."""
    if runtime.device.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def peak_memory(runtime: Runtime) -> int:
    """The most bytes that this process has held at once: on its GPU, or altogether."""
    if runtime.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if resource is None:
        return psutil.Process().memory_info().peak_wset
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def refuse_without_gpu(
    config: GPTConfig, recipe: Recipe, runtime: Runtime, asked_for: str | None = None, steps_done: int = 0
) -> None:
    """Raise RefusedError if a CPU that nobody asked for is to train a large model: beside a card too old, or for hours.

    More than PATIENCE are too many; they are what its steps' products take at this machine's rate, measured here.
    """
    if asked_for is not None or runtime.device.type != "cpu" or not config.large:
        return
    if torch.cuda.is_available():
        raise RefusedError(f"{too_old()}: choose another card (on Kaggle, GPU T4 x2), or say --device cpu")
    tokens = (recipe.steps - steps_done) * recipe.batch_size * recipe.window
    if tokens == 0:
        return
    seconds = tokens * flops_per_token(config, recipe.window) / matrix_rate(runtime)
    if seconds > PATIENCE:
        raise RefusedError(
            f"no GPU is in use ({runtime.reasons[0]}), and on this CPU the {tokens:,} tokens of this run take at least "
            f"{seconds / 3600:,.0f} hours. {_get_a_gpu()} A smaller profile needs none; `python -m helpers train "
            "--device cpu` does it all the same, where you mean it"
        )


def _get_a_gpu() -> str:
    """What to click to get one, where this is."""
    if "COLAB_RELEASE_TAG" in os.environ or Path("/content/sample_data").is_dir():
        return "In Colab: Runtime > Change runtime type > T4 GPU, then start again."
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ or Path("/kaggle/working").is_dir():
        return "On Kaggle: Settings > Accelerator > GPU T4 x2, then start again."
    return "Use a machine with a GPU (Colab and Kaggle lend one)."


def refuse_hopeless(
    config: GPTConfig, recipe: Recipe, runtime: Runtime, floor: float, target: float, asked_for: str | None = None
) -> None:
    """Raise RefusedError, with numbers, if the run cannot work whatever happens: floor, card and memory.

    floor: the lowest loss possible with the recipe's windows; asked_for: the device that the user named, if any.
    """
    if floor > target:
        raise RefusedError(
            f"a loss of {target} cannot be reached with {recipe.policy} windows of {recipe.window} tokens: the floor, "
            f"for any model, is {floor:.4f}. Use longer windows, or --force to see it for yourself."
        )
    refuse_without_gpu(config, recipe, runtime, asked_for)
    free, needed = free_memory(runtime), memory_needed(config, recipe, 1, runtime.dtype.itemsize)
    if needed > free:
        where = card() if runtime.device.type == "cuda" else "this machine"
        raise RefusedError(
            f"a step needs about {needed / GIB:.1f} GiB even with one window at a time, and {where} has "
            f"{free / GIB:.1f} GiB free: close what else is running there, use a larger one, or a smaller --profile"
        )


def first_micro_batch(config: GPTConfig, recipe: Recipe, runtime: Runtime, world: int = 1) -> int:
    """Where `fit_to_machine`, which picks the micro-batch by trying it, begins: windows in one forward pass.

    The most that the recipe allows and, on a GPU, nine tenths of free memory should hold. The trial alone would begin
    too high there: it runs before the optimizers have their states, and compiles anew for each size that it tries.
    world: how many processes share the windows of a step.
    """
    windows = min(recipe.batch_size // recipe.accumulation, -(-recipe.batch_size // world))
    if runtime.device.type != "cuda":
        return windows
    room = 0.9 * free_memory(runtime)
    while windows > 1 and memory_needed(config, recipe, windows, runtime.dtype.itemsize) > room:
        windows = -(-windows // 2)
    return windows


@dataclass(frozen=True)
class Forecast:
    """What the first steps say of the rest."""

    tokens_per_second: float
    mfu: float  # model FLOP/s over the measured rate of a matrix product
    seconds_left: float
    peak_bytes: int

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds_left), 60)
        return (
            f"{self.tokens_per_second:,.0f} tokens/s, MFU {self.mfu:.0%}, {minutes}:{seconds:02d} min to the end, "
            f"peak memory {self.peak_bytes / GIB:.1f} GiB"
        )


def forecast(
    rows: list[dict[str, float]],
    steps_left: int,
    other_tokens: float,
    flops: float,
    rate: float,
    peak_bytes: int,
    world: int = 1,
    saving: float = 0.0,
) -> Forecast:
    """From rows of a run's log. flops: per token; rate: FLOP/s of one device; world: how many share the work.

    other_tokens: what is still to be measured, in tokens that cost as much as training on them. saving: seconds that
    checkpoints take for each second between them.
    """
    seconds = sorted(row["seconds"] for row in rows)[len(rows) // 2]  # the median: first steps are slow
    speed = sorted(row["tokens/s"] for row in rows)[len(rows) // 2]
    left = (steps_left * seconds + other_tokens / speed) * (1 + saving)
    return Forecast(speed, speed * flops / rate / world, left, peak_bytes)


def refuse_over_budget(expected: Forecast, minutes: float | None) -> None:
    """Raise RefusedError if what is left takes longer than the budget."""
    if minutes is not None and expected.seconds_left > 60 * minutes:
        raise RefusedError(
            f"{expected}: over the budget of {minutes:g} minutes. Fewer --steps, a smaller --profile, a faster "
            "machine or a larger --budget; the steps so far are saved, --resume goes on"
        )
