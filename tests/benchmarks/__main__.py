"""`make bench`: what the series claims about speed, measured against a named peer in the same run.

Machines are noisy and shared, so only ratios count. Prints a table and writes build/bench.json.
"""

import sys

from helpers.runs import ROOT, write_json
from tests.benchmarks import char_baseline

if __name__ == "__main__":
    results = {"char_baseline": char_baseline.run()}
    write_json(ROOT / "build" / "bench.json", results)
    sys.stdout.write("written to build/bench.json\n")
