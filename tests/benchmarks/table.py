"""What a benchmark leaves in build/: a table, of which data/runs may hold a copy."""

import csv
from collections.abc import Iterable, Sequence

from helpers.base.files import ROOT


def write_table(name: str, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """build/NAME.csv with these columns and rows."""
    path = ROOT / f"build/{name}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
