"""`make bench`: what the series claims about speed, measured against a named peer in the same run.

Machines are noisy and shared, so only ratios count. Prints a table and writes build/bench.json.
`python -m tests.benchmarks NAME` runs one of them.
"""

import sys

from helpers.runs import ROOT, write_json
from tests.benchmarks import char_baseline, decoding, page, recipes, throughput

if __name__ == "__main__":
    every = {
        "throughput": throughput,
        "decoding": decoding,
        "page": page,
        "recipes": recipes,
        "char_baseline": char_baseline,
    }
    asked = sys.argv[1:] or list(every)
    write_json(ROOT / "build/bench.json", {name: every[name].run() for name in asked})
    sys.stdout.write("written to build/bench.json\n")
