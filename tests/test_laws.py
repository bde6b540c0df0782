"""The recorded seeds of notebook 09: they are whole, and the notebook's prose says what they say."""

import csv
import re
from collections import defaultdict
from statistics import mean

import nbformat
import pytest

from helpers.base.files import ROOT
from tests.benchmarks.laws import SEEDS, SOURCE


@pytest.fixture(scope="module")
def law():
    """(law, series) -> at -> seed -> value."""
    found = defaultdict(lambda: defaultdict(dict))
    with (ROOT / "data/runs/laws.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            at = found[row["law"], row["series"]][float(row["at"])]
            assert int(row["seed"]) not in at, row
            at[int(row["seed"])] = float(row["value"])
    return found


def test_every_point_has_every_seed(law):
    assert all(sorted(at) == sorted(SEEDS) for points in law.values() for at in points.values())
    assert len(law) == 25


def test_values_are_what_they_can_be(law):
    bounds = {"exposure": (0, 12), "price": (0, 8), "capacity": (0, 3.6)}
    for (name, series), points in law.items():
        low, high = bounds.get(name, (0, 1))
        assert all(low <= value <= high for at in points.values() for value in at.values()), (name, series)


SAID = {  # what a cell says -> law, series, at of the mean, and what one unit of the number is
    r"width 32 recites after 128 readings \((\d+) % of the places\)": ("repetition", "32", 128, 0.01),
    r"width 128 recites after 16 to 32 \((\d+) and \d+ %\)": ("repetition", "128", 16, 0.01),
    r"width 128 recites after 16 to 32 \(\d+ and (\d+) %\)": ("repetition", "128", 32, 0.01),
    r"then 19, 40, (\d+) %": ("time", "A", 329, 0.01),
    r"64 steps bring back (\d+) %": ("time", "A again", 617, 0.01),
    r"has read only B gets (\d+) % from them": ("time", "only B", 617, 0.01),
    r"After eight readings (\d+) % of the places are extractable": ("remedies", "plain", 8, 0.01),
    r"recited less \((\d+) % of the places, not \d+ %\)": ("remedies", "deduplicated", 128, 0.01),
    r"recited less \(\d+ % of the places, not (\d+) %\)": ("remedies", "plain", 128, 0.01),
    r"About (\d\.\d) bits for the smallest model": ("capacity", "2000 steps", 8128, 1),
}


@pytest.mark.parametrize("pattern", SAID)
def test_the_prose_says_the_mean_of_the_seeds(law, pattern):
    text = "\n".join(cell.source for cell in nbformat.read(SOURCE, as_version=4).cells if cell.cell_type == "markdown")
    (number,) = re.findall(pattern, " ".join(text.split()))
    name, series, at, unit = SAID[pattern]
    digits = len(number.partition(".")[2])
    assert abs(float(number) - mean(law[name, series][at].values()) / unit) <= 0.51 * 10**-digits
