"""`make bench`: what the series claims, measured: speed against a named peer in the same run, searches, other seeds.

Machines are noisy and shared, so only ratios count. Prints a table and writes build/bench.json after each benchmark.
`python -m tests.benchmarks NAME` runs one of them.
"""

import sys

from helpers.base.files import ROOT, write_json
from helpers.data import DataError
from tests.benchmarks import char_baseline, decoding, fewer_tokens, laws, page, recipes, schemes, step, throughput

EVERY = {
    "throughput": throughput,
    "step": step,
    "decoding": decoding,
    "page": page,
    "recipes": recipes,
    "schemes": schemes,
    "char_baseline": char_baseline,
    "fewer_tokens": fewer_tokens,
    "laws": laws,
}

if __name__ == "__main__":
    asked, results = sys.argv[1:] or list(EVERY), {}
    if unknown := [name for name in asked if name not in EVERY]:
        sys.exit(f"error: no benchmark {', '.join(unknown)}: say one of {', '.join(EVERY)}")
    for name in asked:
        try:
            results[name] = EVERY[name].run()
        except DataError as error:
            sys.exit(f"error: {name} was not run: {error}")
        write_json(ROOT / "build/bench.json", results)
    print("written to build/bench.json")
