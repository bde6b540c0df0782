"""Notebook 09 with other seeds: what its figures show beside the reader's own run.

`python -m tests.benchmarks laws` executes the notebook with seeds 1 to 5, the larger models of its last section too,
and writes build/laws.csv: a row per seed, law, series and point. data/runs has the one that the notebook shows.
"""

import csv
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import papermill

from helpers.base.files import ROOT
from tests.benchmarks.table import write_table

SEEDS = (1, 2, 3, 4, 5)
SOURCE = ROOT / "notebooks/09_laws_of_memorization.ipynb"


def run() -> dict:
    rows = []
    for seed in SEEDS:
        with TemporaryDirectory() as folder:
            rows += [[seed, *row] for row in found_with(seed, Path(folder))]
        print(f"seed {seed}: {len(rows):,} rows", flush=True)
        write_table("laws", ("seed", "law", "series", "at", "value"), rows)
    return {"rows": len(rows), "seeds": len(SEEDS)}


def found_with(seed: int, folder: Path) -> list[list[str]]:
    """law, series, at, value of each number that the notebook finds with this seed."""
    with mock.patch.dict(os.environ, {"RUNS_DIR": str(folder)}):
        papermill.execute_notebook(
            str(SOURCE),
            str(folder / SOURCE.name),
            parameters={"SEED": seed, "STUDY": True},
            cwd=str(SOURCE.parent),
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=40"],  # no warning about local TCP
        )
    with (folder / "demo/laws/laws.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]
