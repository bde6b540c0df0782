"""Contestants take turns, each turn in a process of its own: its memory is its own, and a busy minute hits everyone."""

import json
import subprocess
import sys
from typing import Any

from helpers.runs import ROOT


def turn(module: str, *args: object) -> dict[str, Any]:
    """`python -m tests.benchmarks.MODULE ARGS`: what it prints last, which is JSON."""
    line = [sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, args)]
    done = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])
