"""Logs of training runs, ours and other people's, as columns: what `python -m helpers diagnose` reads."""

import csv
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers.base.errors import SeriesError
from helpers.base.files import read_json
from helpers.run.log import RunLog

FORMATS = (
    "the log.csv of this series (its first line names the columns, `loss` among them)",
    "a plain list of losses, one per line",
    'nanoGPT\'s console ("iter 10: loss 4.1230, time 12.30ms, mfu 15.00%")',
    "transformers' trainer_state.json or console (\"{'loss': 3.2, 'learning_rate': 5e-05, 'epoch': 0.1}\")",
)
NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf(?:inity)?)"
ITER = re.compile(rf"\biter (\d+): loss ({NUMBER})", re.IGNORECASE)
STEP = re.compile(rf"\bstep (\d+): train loss ({NUMBER}), val loss ({NUMBER})", re.IGNORECASE)
RECORD = re.compile(r"\{'[^{}]*\}")  # one dictionary, as print shows it; a progress bar may stand before it
ENTRY = re.compile(rf"'(\w+)': '?({NUMBER})'?", re.IGNORECASE)  # some versions print the numbers as strings
NAMES = {"learning_rate": "lr", "grad_norm": "grad_norm", "epoch": "epoch"}  # transformers' names and ours


class LogError(SeriesError, ValueError):
    """A file that is no log that can be read here."""


@dataclass(frozen=True)
class TrainingLog:
    """A run's log. A record is what was logged at one step; a value that it lacks is nan."""

    source: str  # series, losses, nanoGPT, transformers, transformers console
    columns: dict[str, list[float]]  # step and loss; where they were logged lr, grad_norm, tokens, epoch
    measured: dict[int, float] = field(default_factory=dict)  # step -> loss on the training text, in evaluation mode
    held_out: dict[int, float] = field(default_factory=dict)  # step -> loss on a text that training does not see

    def column(self, name: str) -> list[float]:
        """One column, a value per record; nan throughout if it was not logged."""
        return self.columns.get(name, [math.nan] * len(self.columns["loss"]))


def as_log(log: TrainingLog | RunLog | Sequence[float], measured: dict[int, float] | None = None) -> TrainingLog:
    """A log as columns: a run of the series as it is in memory, or losses alone, one per step.

    measured: step -> whole-corpus loss, which a RunLog does not hold.
    """
    if isinstance(log, RunLog):
        columns = {name: [float(value) for value in log.column(name)] for name in ("step", "loss", "lr", "grad_norm")}
        columns["tokens"] = [float(round(row["seconds"] * row["tokens/s"])) for row in log.rows]
        return TrainingLog("series", columns, dict(measured or {}))
    if isinstance(log, TrainingLog):
        return TrainingLog(log.source, log.columns, log.measured | (measured or {}), log.held_out)
    losses = [float(loss) for loss in log]
    return TrainingLog(
        "losses", {"step": [float(i) for i in range(1, len(losses) + 1)], "loss": losses}, measured or {}
    )


def read_log(path: str | Path) -> TrainingLog:
    """The log in a file, whichever of FORMATS it has. LogError where it has none of them, or holds no loss.

    Of a CSV, a last line that a kill cut off is left out.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise LogError(f"cannot read {path} ({error.strerror}): name the file of a log") from error
    readers: tuple[Callable[[str], TrainingLog | None], ...] = (_state, _console, _nanogpt, read_rows, _losses)
    try:
        found = next((log for reader in readers if (log := reader(text)) is not None), None)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise LogError(f"{path} is damaged ({error}): is the file whole?") from error
    if found is None or not found.columns["loss"]:
        start = next((line.strip() for line in text.splitlines() if line.strip()), "")
        looks = f"begins with {start[:60]!r}" if start else "is empty"
        raise LogError(f"{path} {looks}: that is no log with losses that can be read here. These are: {_listed()}")
    return found


def beside(path: str | Path) -> tuple[int | None, float | None, dict[int, float]]:
    """What a run of the series tells beside its log.csv: vocabulary entries, floor, step -> whole-corpus loss.

    None, None and nothing for a log that stands alone.
    """
    folder = Path(path).parent
    run, metrics, meta = (_json(folder / name) for name in ("run.json", "metrics.json", "checkpoint/meta.json"))
    config, recipe = run.get("config"), run.get("recipe")
    if not isinstance(config, dict) or not isinstance(recipe, dict):
        return None, None, {}
    floor = metrics.get("floor_grid" if recipe.get("policy") == "grid" else "floor_random")
    return config.get("vocab_size"), floor, {int(step): loss for step, loss in meta.get("whole_corpus", [])}


def _json(path: Path) -> dict:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _listed() -> str:
    return "; ".join(f"({i}) {words}" for i, words in enumerate(FORMATS, 1))


def _state(text: str) -> TrainingLog | None:
    """transformers' trainer_state.json."""
    if not text.lstrip().startswith("{") or '"log_history"' not in text:
        return None
    known = {"step", "loss", "eval_loss", *NAMES}
    history = json.loads(text)["log_history"]
    return _from_records([{name: _number(record[name]) for name in known & set(record)} for record in history])


def _console(text: str) -> TrainingLog | None:
    """transformers' console: a dictionary per line, with a progress bar around it or without."""
    records = [{name: float(value) for name, value in ENTRY.findall(found)} for found in RECORD.findall(text)]
    return _from_records(records, " console") if any("loss" in record for record in records) else None


def _from_records(records: list[dict[str, float]], where: str = "") -> TrainingLog:
    training = [record for record in records if "loss" in record]
    columns = {"step": [record.get("step", i) for i, record in enumerate(training, 1)]}
    columns["loss"] = [record["loss"] for record in training]
    for theirs, ours in NAMES.items():
        if any(theirs in record for record in training):
            columns[ours] = [record.get(theirs, math.nan) for record in training]
    held_out, step = {}, 0
    for record in records:  # an evaluation without a step of its own follows the record before it
        step = int(record.get("step", step + ("loss" in record)))
        if "eval_loss" in record:
            held_out[step] = record["eval_loss"]
    return TrainingLog(f"transformers{where}", columns, {}, held_out)


def _nanogpt(text: str) -> TrainingLog | None:
    batches = [(float(step), float(loss)) for step, loss in ITER.findall(text)]
    tested = [(int(step), float(train), float(val)) for step, train, val in STEP.findall(text)]
    if not batches and not tested:
        return None
    steps, losses = zip(*(batches or [(float(step), train) for step, train, _ in tested]), strict=True)
    measured = {step: train for step, train, _ in tested}
    return TrainingLog(
        "nanoGPT", {"step": list(steps), "loss": list(losses)}, measured, {step: val for step, _, val in tested}
    )


def read_rows(text: str) -> TrainingLog | None:
    """A CSV log; None if its first line names no column `loss`."""
    names = [name.strip() for name in text.split("\n", 1)[0].split(",")]
    if "loss" not in names:
        return None
    rows = list(csv.DictReader((line for line in text.splitlines(keepends=True) if line.endswith("\n")), names))[1:]
    found = {name: [_number(row[name]) for row in rows] for name in names}
    columns = {"step": [float(i) for i in range(1, len(rows) + 1)]}
    columns |= {name: found[name] for name in ("step", "loss", "lr", "grad_norm", "tokens") if name in found}
    if "tokens/s" in found and "seconds" in found:
        columns["tokens"] = [float(round(a * b)) for a, b in zip(found["seconds"], found["tokens/s"], strict=True)]
    whole = zip(columns["step"], found.get("whole_corpus", []), strict=False)
    return TrainingLog("series", columns, {int(step): loss for step, loss in whole if not math.isnan(loss)})


def _losses(text: str) -> TrainingLog | None:
    try:
        return as_log([float(line) for line in text.splitlines() if line.strip()])
    except ValueError:
        return None


def _number(value: str | float | None) -> float:
    """An empty field is nan."""
    return math.nan if value in ("", None) else float(value)
