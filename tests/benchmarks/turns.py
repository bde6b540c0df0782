"""Contestants take turns, each turn in a process of its own: its memory is its own, and a busy minute hits everyone."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from helpers.base.files import ROOT


def take_turns(module: str, names: Sequence[str], times: int, *args: object) -> dict[str, list[dict[str, Any]]]:
    """By name, what `python -m tests.benchmarks.MODULE NAME ARGS` prints last, which is JSON, so many times."""
    turns = {name: [] for name in names}
    for _ in range(times):
        for name in names:
            line = [sys.executable, "-m", f"tests.benchmarks.{module}", name, *map(str, args)]
            done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"error: {' '.join(line[2:])} failed:\n{done.stderr}")
            turns[name].append(json.loads(done.stdout.splitlines()[-1]))
    return turns
