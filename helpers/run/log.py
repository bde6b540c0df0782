"""The log of a run: a row per step, a CSV file that survives a kill, and the rules that say when a run is done."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from helpers.base.files import atomic_write, writing
from helpers.checkpoint import CheckpointError
from helpers.train import Step


class RunLog:
    """The steps of a run, in memory and, with a path, in a CSV file that grows by a line per step.

    Columns: step; loss, avg_loss (mean of the last 100 steps), best_loss in nats; lr; grad_norm; seconds; tokens/s.
    """

    COLUMNS = ("step", "loss", "avg_loss", "best_loss", "lr", "grad_norm", "seconds", "tokens/s")

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else None
        self.rows: list[dict[str, float]] = []
        if self.path:
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
        avg, speed = sum(losses) / len(losses), step.tokens / step.seconds
        values = (step.number, step.loss, avg, best, step.lr, step.grad_norm, step.seconds, speed)
        self.rows.append(dict(zip(self.COLUMNS, values, strict=True)))
        if self.path:
            with writing(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow(self.rows[-1].values())

    def column(self, name: str) -> list[float]:
        """One column, a value per step."""
        return [row[name] for row in self.rows]

    def _rewrite(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic_write(self.path, text.getvalue())


def tokens_seen(rows: Iterable[dict[str, float]]) -> list[int]:
    """Tokens predicted until each row of a log, that row's included."""
    return list(accumulate(round(row["seconds"] * row["tokens/s"]) for row in rows))


def read_log(path: str | Path) -> list[dict[str, float]]:
    """The rows of a CSV log; a last line that a kill cut off, wherever in it, is left out."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if line.endswith("\n")))
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
