"""How much of the demo text is recalled after half of the tokens, by recipe: same model and text, three seeds.

The demo recipe reads the scene 67 times. Here each candidate but the first reads it 40 times. What is measured is the
series' own aim, recall from 1,000 random places, not the loss on a grid.
`python -m tests.benchmarks fewer_tokens` writes build/fewer-tokens.csv; data/runs has the recorded one, and its README
says what came of it.
"""

from dataclasses import replace
from statistics import mean

from helpers.config import PROFILES
from helpers.data import load_corpus
from helpers.memorization import corpus_loss, recall
from helpers.run.experiment import new_trainer, tokenize
from helpers.runtime import set_up
from tests.benchmarks.table import write_table

SEEDS = (1337, 1, 2)
COLUMNS = ("recipe", "seed", "tokens", "loss", "recall_32_32", "recall_50_50")
FEWER = {"steps": 205}
SMALL = {"steps": 410, "batch_size": 4}
SHORT = SMALL | {"half_windows": 0.4}
CANDIDATES = {
    "the demo recipe": {},
    "in 205 steps": FEWER,
    "in 410 steps of 4 windows": SMALL,
    "half windows in the first 40 % of 205 steps": FEWER | {"half_windows": 0.4},
    "half windows in the first 40 % of 410 steps": SHORT,
    "the same, momentum 0.9": SHORT | {"muon_momentum": 0.9},
    "the same, momentum 0.9, betas 0.9 and 0.99": SHORT | {"muon_momentum": 0.9, "betas": (0.9, 0.99)},
    "the same, in the first 70 %": SHORT | {"half_windows": 0.7, "muon_momentum": 0.9, "betas": (0.9, 0.99)},
    "the same, rates half as high again": SHORT
    | {"muon_momentum": 0.9, "betas": (0.9, 0.99), "lr": 1.35e-2, "muon_lr": 0.06},
    "the same, cosine": SHORT | {"muon_momentum": 0.9, "betas": (0.9, 0.99), "schedule": "cosine"},
}


def run() -> dict:
    set_up(SEEDS[0])
    lesson = PROFILES["demo"].lesson
    data = tokenize(lesson, load_corpus("sample"))
    rows = []
    for name, changes in CANDIDATES.items():
        experiment = replace(lesson, recipe=replace(lesson.recipe, **changes))
        rows += [[name, seed, *found(experiment, data, seed)] for seed in SEEDS]
        shares = [row[4] for row in rows[-len(SEEDS) :]]
        print(f"{name:45s} recall 32 -> 32: " + " ".join(f"{share:.1%}" for share in shares), flush=True)
        write_table("fewer-tokens", COLUMNS, rows)
    return {name: mean(row[4] for row in rows if row[0] == name) for name in CANDIDATES}


def found(experiment, data, seed: int) -> tuple[int, float, float, float]:
    """Tokens read, loss of the whole text on the grid, recall 32 -> 32 and 50 -> 50."""
    trainer = new_trainer(experiment, data, seed, device="cpu")
    tokens = sum(step.tokens for step in trainer.steps())
    loss = corpus_loss(trainer.model, data.tokens, experiment.recipe.window).mean
    shares = [recall(trainer.model, data.tokens, n, n).verbatim for n in (32, 50)]
    return tokens, round(loss, 4), *shares
