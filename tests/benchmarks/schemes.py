"""Three models of `demo` size that differ only in where their training windows begin: the table at the top of README.

As many steps of as many windows, same weights at the start. Notebook 05 has the model of `offset` from notebook 04, and
trains one on the grid for a third of the steps; here all three train to the end.
`python -m tests.benchmarks schemes` writes build/schemes.csv; data/runs has the one that README and notebook 05 show.
"""

from helpers.config import POLICIES, PROFILES
from helpers.data import load_corpus
from helpers.memorization import corpus_loss, recall
from helpers.run.experiment import new_trainer, tokenize
from helpers.runtime import set_up
from tests.benchmarks.table import write_table

SEED = 1337
COLUMNS = ("windows", "steps", "loss_grid", "loss_shift_1", "recall_32_32")


def run() -> dict:
    set_up(SEED)
    lesson = PROFILES["demo"].lesson
    data = tokenize(lesson, load_corpus(PROFILES["demo"].corpus))
    rows = []
    for policy in POLICIES:
        trainer = new_trainer(lesson, data, SEED, device="cpu", policy=policy)
        steps = len(list(trainer.steps()))
        losses = [corpus_loss(trainer.model, data.tokens, lesson.recipe.window, shift).mean for shift in (0, 1)]
        exact = recall(trainer.model, data.tokens, 32, 32).verbatim
        rows.append([policy, steps, *(f"{loss:.4f}" for loss in losses), f"{exact:.3f}"])
        print(*rows[-1])
    write_table("schemes", COLUMNS, rows)
    return {row[0]: dict(zip(COLUMNS[1:], row[1:], strict=True)) for row in rows}
