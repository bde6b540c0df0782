"""A few numbers that say what a loss curve looks like, each with the words to tell it in."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.run.read_log import TrainingLog

LEAST = 8  # records below which nothing is said of a curve
MANY = 40  # records that noise and repetition need
PRINTED = 1e-5  # what a loss that is printed as 0.0000 may be


@dataclass(frozen=True)
class Feature:
    """One number of a curve. Most are logarithms, so that a factor counts the same up and down."""

    words: str  # what it is, in a sentence
    shown: Callable[[float], str]  # its value, in that sentence
    least: float  # a difference below this means nothing
    rough: float | None = None  # likewise on a run of another size; None: it means nothing there
    column: str = "loss"  # what the log must have for it


def _factor(value: float) -> str:
    return f"{math.exp(value):.3g}"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


SHARES = (0.05, 0.1, 0.25, 0.5)  # of the run, where the loss is read
FEATURES: dict[str, Feature] = {
    "start": Feature("the first loss, as a multiple of log V", _factor, 0.02, 0.05, "vocab_size"),
    **{f"at {p}": Feature(f"the loss after {_share(p)} of the run", _factor, 0.05) for p in SHARES},
    "end": Feature("the loss at the end", _factor, 0.05),
    "below floor": Feature("the loss at the end, as a share of the floor, at most 1", _factor, 0.1, 0.1, "floor"),
    "noise": Feature("the usual change from one loss to the next", lambda v: _share(math.expm1(v)), 0.02),
    "rise": Feature("the largest rise of the smoothed loss, as a factor", _factor, 0.05, 0.15),
    "repeats": Feature("how alike losses are that lie one period apart, from 0 to 1", lambda v: f"{v:.2f}", 0.05, 0.15),
    "gap": Feature("the whole corpus's loss, as a multiple of the batches'", _factor, 0.05, 0.3, "whole_corpus"),
    "early norm": Feature("the gradient norm in the first tenth", _factor, 0.05, None, "grad_norm"),
    "late norm": Feature("the gradient norm in the second half", _factor, 0.05, None, "grad_norm"),
    "peak rate": Feature("the highest learning rate", _factor, 0.02, None, "lr"),
    "first rate": Feature("the first step's rate, as a share of the highest", _share, 0.05, 0.3, "lr"),
    "short windows": Feature("the share of steps with fewer tokens than the fullest", _share, 0.02, None, "tokens"),
}


def finite_part(log: TrainingLog) -> tuple[Tensor, Tensor]:
    """Steps and losses (N,), float64, up to the first loss that is NaN, infinite or negative; of 0 a printed rest."""
    steps, losses = (torch.tensor(log.column(name), dtype=torch.float64) for name in ("step", "loss"))
    good = losses.isfinite() & (losses >= 0)
    n = int(good.long().cumprod(0).sum())
    return steps[:n], losses[:n].clamp(min=PRINTED)


def smoothed(values: Tensor, width: int) -> Tensor:
    """The median of every `width` values in a row; (N,) -> (N - width + 1,)."""
    return values.unfold(0, width, 1).median(dim=1).values


def features_of(
    log: TrainingLog, vocab_size: int | None, floor: float | None, planned: int | None = None
) -> dict[str, float]:
    """Every one of FEATURES, by name; nan where the log does not tell it.

    planned: steps of the whole run, if the log may hold its beginning only; what needs the end is then nan.
    """
    found = dict.fromkeys(FEATURES, math.nan)
    steps, losses = finite_part(log)
    n = len(losses)
    if n < LEAST:
        return found
    logs, last = losses.log(), float(planned or steps[-1])
    if vocab_size and steps[0] <= 1 and log.source != "transformers console":  # whose first record is a mean of many
        found["start"] = float(logs[0]) - math.log(math.log(vocab_size))
    for p in SHARES:
        near = (steps - p * last).abs() <= max(0.01 * last, 1)
        found[f"at {p}"] = float(logs[near].median()) if near.any() else math.nan
    found |= _of_columns(log, steps, last)
    if steps[-1] < last:
        return found
    found["end"] = float(logs[-max(1, n // 20) :].median())
    if floor:
        found["below floor"] = min(0.0, found["end"] - math.log(floor))
    curve = smoothed(logs, max(1, n // 20))
    found["rise"] = float((curve - curve.cummin(0).values).max())
    if n >= MANY:
        found["noise"] = float(logs[n // 2 :].diff().abs().median())
        found["repeats"] = repetition(logs)[0]
    found["gap"] = gap(log, steps, logs)
    return found


def repetition(logs: Tensor) -> tuple[float, int]:
    """How alike log losses (N,) are that lie one period apart, and the period, in records: the best of 2 to 64.

    What is compared is the difference from the smoothed curve, in the second half of the run.
    """
    width = 2 * (max(5, len(logs) // 16) // 2) + 1
    rest = logs[width // 2 : len(logs) - width // 2] - smoothed(logs, width)
    rest = rest[len(rest) // 2 :]
    rest = rest - rest.mean()
    power = float((rest * rest).mean())
    if power == 0:
        return 0.0, 0
    lags = range(2, min(64, len(rest) // 3) + 1)
    alike = [float((rest[lag:] * rest[:-lag]).mean()) / power for lag in lags]
    best = max(range(len(alike)), key=alike.__getitem__)
    return max(0.0, alike[best]), lags[best]


def gap(log: TrainingLog, steps: Tensor, logs: Tensor) -> float:
    """log of (loss in evaluation mode / loss of the batches around it), the median over the run's second half."""
    found = []
    for step, loss in log.measured.items():
        near = (steps - step).abs() <= max(4.0, 0.02 * float(steps[-1]))
        if step > steps[-1] / 2 and near.any() and 0 <= loss < math.inf:
            found.append(math.log(max(loss, PRINTED)) - float(logs[near].mean()))
    return float(torch.tensor(found, dtype=torch.float64).median()) if found else math.nan


def _of_columns(log: TrainingLog, steps: Tensor, last: float) -> dict[str, float]:
    """The features of other columns than the loss; steps (N,): of the records that count."""
    columns = (torch.tensor(log.column(name)[: len(steps)]) for name in ("grad_norm", "lr", "tokens"))
    norms, rates, tokens = columns
    found = {}
    for name, part in (("early norm", norms[steps <= 0.1 * last]), ("late norm", norms[steps > 0.5 * last])):
        found[name] = float(part.clamp(min=1e-12).log().nanmedian()) if len(part) else math.nan
    if rates.isfinite().any() and (peak := float(rates[rates.isfinite()].max())) > 0:
        found["peak rate"] = math.log(peak)
        if steps[0] <= 1:
            found["first rate"] = float(rates[0]) / peak
    if not tokens.isnan().all():
        found["short windows"] = float((tokens < tokens.max()).double().mean())
    return found
