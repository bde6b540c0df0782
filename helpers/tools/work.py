"""A piece of work that is watched: a cell or a test, its usual seconds, and what is told of it if it hangs."""

import contextlib
import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from helpers.base.files import read_json
from helpers.tools.kernel import line_now

USUAL = "usual_seconds.json"  # beside the notebooks: the demo profile, as `make refresh` found it
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f\x7f]")  # colours and the like, which would spoil a line


class Process(Protocol):
    """Who does the work: it can be asked where it is, interrupted, and ended."""

    def stack(self) -> str: ...
    def interrupt(self) -> None: ...
    def end(self) -> None: ...


@dataclass
class Work:
    """A cell or a test that runs, and what has become of it."""

    name: str  # "cell 12/47"
    source: str = ""
    usual: float | None = None  # seconds; None where nobody knows
    limit: float = math.inf  # seconds
    process: Process | None = None
    begun: float = field(default_factory=time.monotonic)
    printed: str = ""  # the last line that it printed
    slow: bool = False  # was reported
    interrupted: bool = False
    ended: bool = False
    stack: str = ""  # where it was when its limit had passed

    def hear(self, printed: str) -> None:
        """Keep the last line of what it printed (of a progress bar: its last state)."""
        lines = [line for line in re.split(r"[\r\n]", printed) if line.strip()]
        self.printed = CONTROL.sub("", lines[-1]).strip() if lines else self.printed

    def line(self, stack: str = "") -> str:
        """The line of its source that runs, where the stack says which, else the first; "" without a source."""
        lines = self.source.splitlines()
        now = line_now(stack, self.source)
        return lines[now - 1].strip() if now else next((line.strip() for line in lines if line.strip()), "")


def hang_line(work: Work, what: str) -> str:
    """What hung, in one line: its limit, and the line of its source that it is in."""
    now = line_now(work.stack, work.source)
    line = f" It is in line {now}: {work.line(work.stack)}" if now else ""
    return f"{what} hangs: it is not over after {work.limit:g} s, the limit.{line}"


def hang_message(work: Work, what: str, stack: str) -> str:
    """What a reader needs about a cell that hung: `hang_line`, its whole source with a mark, its stack."""
    now = line_now(work.stack, work.source)
    source = [f"{'>' if n == now else ' '} {n:3d}  {line}" for n, line in enumerate(work.source.splitlines(), 1)]
    where = stack.splitlines() or ["its kernel gave no stack"]
    return "\n".join([hang_line(work, what), "", *source, "", *where])


def usual_seconds(source: Path, target: Path, profile: str | None) -> dict[str, Any]:
    """{"notebook": seconds, "cells": {id: seconds, where above 1}} of a notebook; {} where nobody knows.

    The last run on this machine that made `target` comes before what is committed beside `source` (demo only).
    """
    with contextlib.suppress(FileNotFoundError):
        return read_json(target.with_suffix(".seconds.json"))
    with contextlib.suppress(FileNotFoundError):
        return read_json(source.with_name(USUAL)).get(source.stem, {}) if profile in (None, "demo") else {}
    return {}


def usual_of(usual: dict[str, Any], cell_id: str | None) -> float | None:
    """A cell's usual seconds: those that are not kept are at most 1."""
    return usual["cells"].get(cell_id, 1.0) if usual else None
