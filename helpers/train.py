"""The training loop: mechanics here, policy (print, measure, stop, save, plot) in the `for` loop that uses it."""

import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from helpers.checkpoint import CheckpointError, load_checkpoint, load_weights, read_training, save_checkpoint
from helpers.config import IGNORE, Recipe
from helpers.optim import build_optimizers, lr_share
from helpers.runtime import Runtime
from helpers.windows import Windows

__all__ = ["RunLog", "Step", "Trainer", "load_checkpoint", "read_log", "save_checkpoint", "stop_step"]


@dataclass(frozen=True)
class Step:
    """What one optimizer step did."""

    number: int  # 1, 2, …
    loss: float  # mean over the step's tokens, before the update, in nats
    lr: float  # AdamW's learning rate
    norm: float  # gradient norm before clipping
    dt: float  # seconds
    tokens: int  # tokens predicted in this step


class Trainer:
    """A model in training, with all that must survive a kill: optimizers, loss scaler, step count, random state.

    model(x, y) returns (logits, loss); the windows say which tokens step s sees.
    """

    def __init__(self, model: nn.Module, windows: Windows, recipe: Recipe, runtime: Runtime) -> None:
        self.model, self.windows, self.recipe, self.runtime = model, windows, recipe, runtime
        self.optimizers = build_optimizers(model, recipe)
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.dtype == torch.float16)
        self.steps_done = 0

    def steps(self) -> Iterator[Step]:
        """One record an optimizer step, until the recipe's last. FloatingPointError at a loss that is no number."""
        while self.steps_done < self.recipe.steps:
            self.model.train()  # the caller may have measured in between
            yield self._one_step()

    def _one_step(self) -> Step:
        start = time.perf_counter()
        lr = self._set_lr()
        x, y = self.windows.batch(self.steps_done)  # (B, T)
        n_tokens = (y != IGNORE).sum()
        loss = torch.zeros((), device=x.device)
        for x_part, y_part in zip(x.chunk(self.recipe.accumulation), y.chunk(self.recipe.accumulation), strict=True):
            share = (y_part != IGNORE).sum() / n_tokens
            with self.runtime.autocast():
                part = self.model(x_part, y_part)[1] * share
            self.scaler.scale(part).backward()
            loss += part.detach()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self._check_finite(loss.item(), norm.item(), lr)
        for optimizer in self.optimizers:
            if norm.isfinite():  # else the loss scale was too high: this step is left out, and the scale lowered
                self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        self.steps_done += 1
        return Step(self.steps_done, loss.item(), lr, norm.item(), time.perf_counter() - start, int(n_tokens))

    def _set_lr(self) -> float:
        share = lr_share(self.recipe, self.steps_done)
        for group in (g for o in self.optimizers for g in o.param_groups):
            group["lr"] = group["peak_lr"] * share
        return self.recipe.lr * share

    def _check_finite(self, loss: float, norm: float, lr: float) -> None:
        scale_too_high = self.scaler.is_enabled() and self.scaler.get_scale() >= 1  # below 1 it is not the scale
        if not math.isfinite(loss) or not (scale_too_high or math.isfinite(norm)):
            raise FloatingPointError(
                f"step {self.steps_done + 1}: loss {loss}, gradient norm {norm} at lr {lr:.2e}. The weights were not "
                "touched and the last checkpoint is good. Likely a learning rate that is too high: start over with a "
                "lower one; or damaged data: check the corpus."
            )

    def training_state(self) -> dict[str, Any]:
        """All but the weights, as `save_checkpoint` stores it."""
        return {
            "step": self.steps_done,
            "seed": self.windows.seed,
            "machine": self._machine(),
            "recipe": asdict(self.recipe),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def _machine(self) -> dict[str, Any]:
        """What must stay the same for a resumed run to end with the same bits."""
        runtime = self.runtime
        return {"device": runtime.device.type, "dtype": str(runtime.dtype), "threads": torch.get_num_threads()}

    def resume(self, folder: str | Path) -> list[str]:
        """Go on exactly where the checkpoint in `folder` stopped.

        Returns a sentence for each difference that keeps the run from ending with the very same bits (another
        device, dtype or thread count). Raises CheckpointError if the checkpoint is of another run.
        """
        state = read_training(folder)
        mine = {**asdict(self.recipe), "seed": self.windows.seed}
        theirs = {**state["recipe"], "seed": state["seed"]}
        other = [f"{k}={theirs.get(k)} there, {mine[k]} here" for k in mine if theirs.get(k) != mine[k]]
        if other:
            raise CheckpointError(f"{folder} is of another run ({'; '.join(other)}); use another folder with --out")
        load_weights(folder, self.model)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if state["scaler"]:  # empty where the run so far needed no loss scaling
            self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        for i, rng in enumerate(state["cuda_rng"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(rng, i)
        self.steps_done = state["step"]
        before, now = state["machine"], self._machine()
        return [f"{k} was {before[k]} and is {now[k]}: equal in kind, not in bits" for k in now if before[k] != now[k]]


class RunLog:
    """The steps of a run, in memory and, with a path, in a CSV file that grows by a line a step.

    Columns: step; loss, avg_loss (mean of the last 100 steps), best_loss in nats; lr; norm; dt in s; tokens/s.
    """

    COLUMNS = ("step", "loss", "avg_loss", "best_loss", "lr", "norm", "dt", "tokens/s")

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else None
        self.rows: list[dict[str, float]] = []
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._rewrite()

    @classmethod
    def resume(cls, path: str | Path, last_step: int) -> "RunLog":
        """The log in `path` as it was after `last_step`: a killed run may have logged more than it saved."""
        rows = read_log(path)[:last_step] if Path(path).is_file() else []
        if [row["step"] for row in rows] != list(range(1, last_step + 1)):
            raise CheckpointError(f"{path} does not hold steps 1 to {last_step}; start over with --fresh")
        log = cls()
        log.path, log.rows = Path(path), rows
        log._rewrite()
        return log

    def append(self, step: Step) -> None:
        losses = [row["loss"] for row in self.rows[-99:]] + [step.loss]
        best = min(step.loss, self.rows[-1]["best_loss"] if self.rows else math.inf)
        avg, speed = sum(losses) / len(losses), step.tokens / step.dt
        values = (step.number, step.loss, avg, best, step.lr, step.norm, step.dt, speed)
        self.rows.append(dict(zip(self.COLUMNS, values, strict=True)))
        if self.path:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow(self.rows[-1].values())

    def column(self, name: str) -> list[float]:
        """One column, a value a step."""
        return [row[name] for row in self.rows]

    def _rewrite(self) -> None:
        aside = self.path.with_name(self.path.name + ".partial")
        with aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        aside.replace(self.path)


def read_log(path: str | Path) -> list[dict[str, float]]:
    """The rows of a CSV log; a last line that a kill cut off is left out."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    return [{name: int(value) if name == "step" else float(value) for name, value in row.items()} for row in rows]


def stop_step(log: RunLog, rule: str, target: float, whole_corpus: dict[int, float] | None = None) -> int | None:
    """The step at which a stop rule ends a run, or None.

    "single batch": the first batch below the target. "mean of 100": the first mean of the last 100 batches below
    it. "whole corpus": the first measurement of the whole corpus below it, from `whole_corpus` {step: loss}.
    """
    tests: dict[str, Callable[[], Iterator[int]]] = {
        "single batch": lambda: (r["step"] for r in log.rows if r["loss"] < target),
        "mean of 100": lambda: (r["step"] for r in log.rows[99:] if r["avg_loss"] < target),
        "whole corpus": lambda: (s for s, loss in sorted((whole_corpus or {}).items()) if loss < target),
    }
    if rule not in tests:
        raise ValueError(f"rule={rule!r} is none of {', '.join(tests)}")
    return next(tests[rule](), None)
