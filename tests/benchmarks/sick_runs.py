"""Runs of the demo recipe, healthy and with one fault each: what `python -m helpers diagnose LOG` compares a log with.

`python -m tests.benchmarks.sick_runs` trains 20 healthy seeds and five seeds of each fault, an hour on a quiet core,
and writes data/runs/sick/KIND.csv: a run's rows are added when it is over, and a run that is there is not trained
again. `--judge` writes into data/runs/README.md how often the diagnosis is right about them.
"""

import csv
import io
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from helpers.base.files import ROOT, atomic_write
from helpers.config import PROFILES, Experiment
from helpers.data import gpt2_tokenizer, load_corpus
from helpers.run.diagnose import NOTHING, UNKNOWN, compare
from helpers.run.evaluation import whole_corpus_loss
from helpers.run.experiment import TrainingData, new_trainer, tokenize
from helpers.run.features import FEATURES
from helpers.run.reference import HEALTHY, reference
from helpers.runtime import Runtime, set_up
from helpers.train import DivergedError, Trainer
from helpers.windows import grid

FOLDER = ROOT / "data/runs/sick"
COLUMNS = ("seed", "step", "loss", "lr", "grad_norm", "tokens", "whole_corpus")
HEALTHY_SEEDS, SICK_SEEDS = range(1, 21), range(1, 6)
MEASURED_EVERY = 34  # steps: ten measurements of the whole corpus per run
DROPOUT, PARTS = 0.2, 4


@dataclass(frozen=True)
class Kind:
    """A kind of run: what differs from the demo profile's main run."""

    recipe: dict = field(default_factory=dict)  # entries of the recipe that it changes
    dropout: float = 0.0
    full_vocab: bool = False  # all 50,257 entries, for a text that uses fewer than 2,000
    fault: Callable[[Trainer], None] | None = None  # what is built into the trainer
    steps: int | None = None  # of the 340, after which it is enough; None: all


class Loss(nn.Module):
    """x, y -> the loss, for a trainer that must not compute it in its own way."""

    def __init__(self, model: nn.Module, of: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.of = model, of

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.of(self.model, x, y)


def not_shifted(trainer: Trainer) -> None:
    """The target of a token is the token itself."""
    right = trainer.windows.batch
    trainer.windows.batch = lambda t: (right(t)[0], torch.where(right(t)[1] < 0, right(t)[1], right(t)[0]))


def no_mask(trainer: Trainer) -> None:
    """Attention sees the whole window, in training and in measurement."""

    def see_all(_, inputs: tuple) -> tuple:
        x, cache, layer, _ = inputs
        return x, cache, layer, torch.ones(x.size(1), x.size(1), dtype=torch.bool)  # (T, T)

    for block in trainer.model.transformer.h:
        block.attn.register_forward_pre_hook(see_all)


def tail_dropped(trainer: Trainer) -> None:
    """Windows that are not full are thrown away, as a DataLoader's drop_last throws away batches."""
    windows = trainer.windows
    draw = windows._draw

    def full(epoch: int) -> tuple[Tensor, Tensor]:
        starts, lengths = draw(epoch)
        return starts[lengths == windows.window], lengths[lengths == windows.window]

    windows._draw = full


def evaluated_in_train_mode(trainer: Trainer) -> None:
    """`model.eval()` does nothing: dropout stays on while the whole corpus is measured."""
    trainer.model.eval = lambda: trainer.model


def divided_twice(trainer: Trainer) -> None:
    """The mean loss is divided by the number of micro-batches once more: in the log and in the gradient."""
    parts = trainer.recipe.accumulation
    trainer.loss_of = Loss(trainer.model, lambda model, x, y: model.loss(x, y) / parts)


def unscaled_fp16(trainer: Trainer) -> None:
    """Products in fp16, logits and their gradients too, as `autocast` makes them, and no loss scaling."""
    trainer.runtime = Runtime(trainer.runtime.device, torch.float16, ("cpu", "fp16 without loss scaling"))
    trainer.loss_of = Loss(trainer.model, lambda model, x, y: model(x, y)[1])


def one_batch(trainer: Trainer) -> None:
    """The loader returns its first windows forever."""
    first = trainer.windows.batch(0)
    trainer.windows.batch = lambda _: first


def not_shuffled(trainer: Trainer) -> None:
    """Windows of the fixed grid, in the order of the text, in every epoch."""
    windows = trainer.windows
    windows._draw = lambda _: grid(windows.tokens.numel(), windows.window)


OWN = PROFILES["demo"].main.recipe
KINDS = {
    "healthy": Kind(),
    "rate x 10": Kind({"lr": 10 * OWN.lr, "muon_lr": 10 * OWN.muon_lr}),
    "no warm-up": Kind({"warmup": 0.0}),
    "targets not shifted": Kind(fault=not_shifted),
    "mask missing": Kind(fault=no_mask),
    "tail dropped": Kind(fault=tail_dropped),
    "evaluation in train mode": Kind(dropout=DROPOUT, fault=evaluated_in_train_mode),
    "dropout left on": Kind(dropout=DROPOUT),
    "loss averaged wrongly": Kind({"accumulation": PARTS}, fault=divided_twice),
    "fp16 without scaling": Kind(fault=unscaled_fp16),
    "stopped on one batch": Kind(fault=one_batch),
    "data not shuffled": Kind({"policy": "grid"}, fault=not_shuffled),
    "wrong vocabulary": Kind(full_vocab=True, steps=51),  # it shows at once, and a step takes seven times as long
}


def trainer_of(kind: Kind, main: Experiment, data: TrainingData, seed: int) -> Trainer:
    """A trainer with the kind's fault."""
    main = replace(main, gpt=replace(main.gpt, dropout=kind.dropout))
    data = replace(data, tokenizer=gpt2_tokenizer()) if kind.full_vocab else data
    trainer = new_trainer(main, data, seed, "cpu", **kind.recipe)
    if kind.fault:
        kind.fault(trainer)
    return trainer


def rows_of(trainer: Trainer, tokens: Tensor, seed: int, steps: int | None = None) -> Iterator[tuple]:
    """A row of COLUMNS per step, of all or so many steps; one that diverges has a last row whose loss is nan."""
    last = steps or trainer.recipe.steps
    try:
        for step in trainer.steps():
            whole = float("nan")
            if step.number % MEASURED_EVERY == 0 or step.number == last:
                whole = whole_corpus_loss(trainer.model, tokens, trainer.recipe.window)
            yield seed, step.number, step.loss, step.lr, step.grad_norm, step.tokens, whole
            if step.number == last:
                return
    except DivergedError:
        yield seed, trainer.steps_done + 1, *[float("nan")] * 5


def file_of(name: str) -> Path:
    return FOLDER / f"{name.replace(' ', '-')}.csv"


def seeds_in(path: Path) -> list[int]:
    """The seeds whose runs a file holds."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return sorted({int(row["seed"]) for row in csv.DictReader(file)})


def add(path: Path, rows: list[tuple]) -> None:
    """Rows behind those of a file, its numbers to four significant digits; nan is an empty field."""
    text = io.StringIO(path.read_text(encoding="utf-8") if path.is_file() else ",".join(COLUMNS) + "\n")
    text.seek(0, io.SEEK_END)
    for row in rows:
        text.write(",".join("" if value != value else f"{value:.4g}" for value in row) + "\n")
    atomic_write(path, text.getvalue())


def plan() -> Iterator[tuple[str, int]]:
    """What is trained, in this order: the healthy runs, then the first seed of every fault, and so on."""
    yield from (("healthy", seed) for seed in HEALTHY_SEEDS)
    yield from ((name, seed) for seed in SICK_SEEDS for name in KINDS if name != "healthy")


def record() -> None:
    """Train what is not recorded yet."""
    set_up(1)
    main = PROFILES["demo"].main
    data = tokenize(main, load_corpus("sample"))
    for name, seed in plan():
        path = file_of(name)
        if seed in seeds_in(path):
            continue
        start = time.perf_counter()
        trainer = trainer_of(KINDS[name], main, data, seed)
        rows = list(rows_of(trainer, data.tokens, seed, KINDS[name].steps))
        add(path, rows)
        said = f"{len(rows)} steps, batch {rows[-1][2]:.4f}, whole corpus {rows[-1][-1]:.4f}, {trainer.reasons[-1]}"
        print(f"{name}, seed {seed}: {said}, {time.perf_counter() - start:.0f} s", flush=True)


ALL = frozenset(feature.column for feature in FEATURES.values())
LOSSES = frozenset({"loss", "vocab_size", "floor"})


@cache
def judged(columns: frozenset[str], unknown: bool = False) -> dict[str, Counter]:
    """Kind -> how often each answer was given to its runs: each compared with runs of other seeds only.

    columns: what the log is taken to have. unknown: each run is compared with other kinds only, besides.
    """
    known, found = reference(), {kind: Counter() for kind in reference().kinds}
    for values, k, seed in zip(known.runs.tolist(), known.kind.tolist(), known.seed.tolist(), strict=True):
        others = (known.seed != seed) & ((known.kind != k) if unknown and k else True)
        pairs = zip(FEATURES.items(), values, strict=True)
        told = {name: value if feature.column in columns else float("nan") for (name, feature), value in pairs}
        found[known.kinds[k]][compare(told, known.only(others)).verdict] += 1
    return found


def table(found: dict[str, Counter]) -> list[str]:
    """The confusion matrix in Markdown, a row per kind, without its zeros; the share of runs named rightly below."""
    rows = ["| recorded | runs | answers |", "|---|---|---|"]
    for kind, answers in found.items():
        bold = {answer: "**" if right(answer, kind) else "" for answer in answers}
        said = ", ".join(f"{bold[answer]}{answer}{bold[answer]} {n}" for answer, n in answers.most_common())
        rows.append(f"| {kind} | {answers.total()} | {said} |")
    return rows


def right(answer: str, kind: str) -> bool:
    """Whether an answer names a kind, alone or as one of several that look the same."""
    return kind in answer.split(" or ") or (kind, answer) == (HEALTHY, NOTHING)


def score(found: dict[str, Counter]) -> dict[str, int]:
    """Runs; those named rightly; faults that look healthy and "I cannot tell"; those named wrongly, which is worst."""
    counts = Counter()
    for kind, answers in found.items():
        for answer, n in answers.items():
            silent = answer == UNKNOWN or (answer == NOTHING and kind != HEALTHY)
            named = "rightly" if right(answer, kind) else "not" if silent else "wrongly"
            counts[named] += n
    names = {"named rightly": "rightly", "not named": "not", "named wrongly": "wrongly"}
    return {"runs": counts.total()} | {words: counts[name] for words, name in names.items()}


def judge() -> None:
    """Write the three confusion matrices into data/runs/README.md, and print them."""
    text = "\n\n".join(told(title, judged(columns, unknown)) for title, columns, unknown in JUDGED)
    before, _, rest = README.read_text(encoding="utf-8").partition(MARKS[0])
    atomic_write(README, f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")
    print(text)


def told(title: str, found: dict[str, Counter]) -> str:
    """A confusion matrix with the sentence above it."""
    counts = ", ".join(f"{n} {words}" for words, n in score(found).items())
    return "\n".join((f"**{title}**: {counts}.", "", *table(found)))


README, MARKS = ROOT / "data/runs/README.md", ("<!-- judged -->", "<!-- end of judged -->")
JUDGED = (
    ("All columns", ALL, False),
    ("Losses only", LOSSES, False),
    ("All columns, of a fault that the reference lacks", ALL, True),
)

if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - {"--judge"}:
        sys.exit(f"error: {', '.join(unknown)} is not known: say --judge, or nothing to train")
    judge() if "--judge" in sys.argv else record()
