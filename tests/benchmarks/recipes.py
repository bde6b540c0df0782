"""Tokens and seconds to a whole-corpus loss of 0.1 at `demo` size, by recipe: same model, text and windows.

Fixed-grid windows in training and measurement for all, because that is how the described set-ups measure (the series'
own measure is stricter: see notebook 05). A recipe whose rate falls inside the run is as good as its shortest run that
still gets there, so its number of steps is tuned like its rate.
`python -m tests.benchmarks recipes` repeats the search that notebook 06 shows, into build/recipes.csv, then the finals.
"""

import csv
import time
from dataclasses import replace
from statistics import mean

from helpers.base.files import ROOT
from helpers.config import PROFILES, RECIPES
from helpers.data import load_corpus
from helpers.memorization import corpus_loss
from helpers.run.experiment import new_trainer, tokenize
from helpers.runtime import set_up

TARGET = 0.1
SEEDS = (1, 2, 3)
FOUR = {"policy": "grid", "batch_size": 4}
ADAMW = RECIPES["constant"] | FOUR
OWN = FOUR | {"optimizer": "muon"}
COLUMNS = ("recipe", "seed", "steps", "reached", "tokens", "epochs", "seconds", "loss")
# The contest: the plain recipe, the best plain AdamW and the best Muon of the search below.
FINALS = {
    "constant AdamW 3e-4": ADAMW | {"steps": 4000},
    "best plain AdamW": ADAMW | {"lr": 2e-3, "steps": 1200},
    "own": OWN | {"lr": 3e-2, "muon_lr": 0.05, "steps": 100},
}


def to_target(changes: dict, seed: int, every: int = 5) -> dict:
    """Train until the whole corpus is below the target, or to the recipe's end; measured every few steps."""
    experiment = PROFILES["demo"].main
    experiment = replace(experiment, recipe=replace(experiment.recipe, **changes))
    data = tokenize(experiment, load_corpus("sample"))
    trainer = new_trainer(experiment, data, seed, "cpu")
    tokens, seconds, loss = 0, 0.0, float("nan")
    for step in trainer.steps():
        tokens, seconds = tokens + step.tokens, seconds + step.seconds
        if step.number % every == 0:
            loss = corpus_loss(trainer.model, data.tokens, experiment.recipe.window).mean
            if loss < TARGET or loss != loss:
                break
    epochs = tokens / (len(data.tokens) - 1)
    found = (seed, experiment.recipe.steps, trainer.steps_done, tokens, epochs, seconds, loss)
    return dict(zip(COLUMNS[1:], found, strict=True))


def row(name: str, found: dict) -> str:
    got_there = f"{found['tokens']:9,} tokens" if found["loss"] < TARGET else f"not, ended at {found['loss']:.2f}"
    return f"{name:44s} seed {found['seed']}  {got_there:>22s} {found['epochs']:6.1f} epochs {found['seconds']:6.1f} s"


def run() -> dict:
    """The search; then the finals, three seeds each."""
    search()
    results = {}
    for name, changes in FINALS.items():
        results[name] = [to_target(changes, seed) for seed in SEEDS]
        for found in results[name]:
            print(row(name, found), flush=True)
    mine = mean(found["tokens"] for found in results["own"])
    for name, found in results.items():
        print(f"{name}: {mean(f['tokens'] for f in found) / mine:.1f} times the tokens of own")
    return results


def candidates() -> dict[str, dict]:
    """What the search tries: the described set-ups, plain AdamW tuned, Muon tuned, and its ingredients taken away."""
    tried = {
        "constant AdamW 3e-4": FINALS["constant AdamW 3e-4"],
        "cosine AdamW 3e-4": RECIPES["cosine"] | FOUR | {"steps": 1500},
        "OneCycle AdamW 2e-4": RECIPES["onecycle"] | FOUR | {"steps": 1500},
    }
    for lr in (1e-3, 2e-3, 4e-3):
        tried[f"constant AdamW {lr:g}"] = ADAMW | {"lr": lr, "steps": 1200}
    for lr, steps in ((1e-3, 400), (1e-3, 500), (2e-3, 300), (2e-3, 400), (2e-3, 500), (4e-3, 400)):
        linear = {"lr": lr, "schedule": "linear", "warmup": 0.02, "steps": steps}
        tried[f"linear AdamW {lr:g} in {steps}"] = ADAMW | linear
        zero_init = {"zero_residual": True, "betas": (0.9, 0.95)}
        tried[f"linear AdamW {lr:g} in {steps}, zero-init, 0.95"] = ADAMW | linear | zero_init
    for muon_lr, lr in (
        (0.03, 7e-3),
        (0.03, 1.5e-2),
        (0.03, 3e-2),
        (0.05, 1.5e-2),
        (0.05, 3e-2),
        (0.08, 3e-2),
        (0.03, 5e-2),
    ):
        for steps in (80, 100, 120):
            tried[f"Muon {muon_lr:g}, AdamW {lr:g} in {steps}"] = OWN | {"muon_lr": muon_lr, "lr": lr, "steps": steps}
    base = OWN | {"muon_lr": 0.03, "lr": 3e-2, "steps": 100}
    return tried | {
        "Muon 0.03, AdamW 0.03, not zero-initialised": base | {"zero_residual": False},
        "Muon 0.03, AdamW 0.03, constant rate": base | {"schedule": "constant"},
        "Muon 0.03, AdamW 0.03, cosine": base | {"schedule": "cosine"},
        "Muon 0.03, AdamW 0.03 in 60, 8 windows per step": base | {"batch_size": 8, "steps": 60},
        "Muon 0.03, AdamW 0.03 in 150, 2 windows per step": base | {"batch_size": 2, "steps": 150},
        "Muon 0.03, AdamW 0.03, offset windows": base | {"policy": "offset"},
        "Muon 0.03, AdamW 0.03, random windows": base | {"policy": "random"},
    }


def search() -> None:
    """One seed of every candidate, into build/recipes.csv, a line as soon as it is known."""
    set_up(SEEDS[0])
    start = time.perf_counter()
    path = ROOT / "build/recipes.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for name, changes in candidates().items():
            found = to_target(changes, SEEDS[0])
            writer.writerow({"recipe": name, **found})
            file.flush()
            print(row(name, found), flush=True)
    print(f"{time.perf_counter() - start:.0f} s")
