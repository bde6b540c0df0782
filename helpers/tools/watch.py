"""Where long work is: which cell or test runs, its seconds so far and the usual ones; what hangs is shown and ended.

`make run-all` (execute) and `make test` (watch_tests) use it. The watch is a thread, because the work may hang in C.
"""

import contextlib
import math
import re
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from helpers.files import read_json
from helpers.tools.kernel import line_now

SLOW = 10  # times its usual seconds, and work is reported while it runs
USUAL = "usual_seconds.json"  # beside the notebooks: the demo profile, as `make refresh` found it
GRACE = 10.0  # seconds that an interrupted cell has to give its traceback
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
    said: str = ""  # the last line that it printed
    slow: bool = False  # was reported
    interrupted: bool = False
    ended: bool = False
    stack: str = ""  # where it was when its limit had passed

    def hear(self, printed: str) -> None:
        """Keep the last line of what it printed (of a progress bar: its last state)."""
        lines = [line for line in re.split(r"[\r\n]", printed) if line.strip()]
        self.said = CONTROL.sub("", lines[-1]).strip() if lines else self.said

    def line(self, stack: str = "") -> str:
        """The line of its source that runs, where the stack says which, else the first; "" without a source."""
        lines = self.source.splitlines()
        now = line_now(stack, self.source)
        return lines[now - 1].strip() if now else next((line.strip() for line in lines if line.strip()), "")


class Watch:
    """Says on `stream` where the work is: a rewritten line on a terminal, in a log a line every `every` seconds.

    name, usual: of the whole, a notebook. patience: seconds below which nothing is called slow.
    apart: others write there too (pytest its dots): every line begins on a new one, each piece of work has minutes of
    its own, and what is over in ten seconds is not shown. With the stream None nothing is said, limits hold.
    """

    def __init__(
        self,
        stream: TextIO | None,
        name: str = "",
        usual: float | None = None,
        every: float = 60.0,
        patience: float = 20.0,
        apart: bool = False,
    ) -> None:
        self.stream, self.name, self.usual = stream, name, usual
        self.every, self.patience, self.apart = every, patience, apart
        self.live = stream is not None and stream.isatty()
        self.begun = time.monotonic()
        self.work: Work | None = None  # the last that was begun
        self.hung: Work | None = None  # what had to be interrupted or ended
        self.touched = False  # something was said since then
        self._running, self._next, self._shown = False, self.begun + every, 0
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._clear()

    def begin(self, work: Work) -> None:
        """`work` runs from now on."""
        with self._lock:
            self.work, self._running, self.touched = work, True, False
            self._next = work.begun + self.every if self.apart else self._next

    def end(self) -> float:
        """It is over; its seconds."""
        with self._lock:
            self._running = False
            self._shown = 0 if self.apart else self._shown
            return time.monotonic() - self.work.begun

    def ended(self, work: Work) -> bool:
        """Whether `work` was ended because it hung; waits for a look at it that is being taken."""
        with self._lock:
            return work.ended

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        self._write(f"\n{text}" if self.apart else f"{text}\n")

    def _watch(self) -> None:
        while not self._over.wait(0.1 if self.every < 1 else 0.5):
            with self._lock:
                if self._running:
                    self._look(self.work, time.monotonic())

    def _look(self, work: Work, now: float) -> None:
        seconds = now - work.begun
        if work.process and not work.ended and seconds > work.limit + GRACE * work.interrupted:
            self._end_hang(work)
        elif work.usual is not None and not work.slow and seconds > max(SLOW * work.usual, self.patience):
            work.slow = True
            stack = work.process.stack() if work.process else ""
            where = f"{self.name} {work.name}".strip()
            usual = f"{SLOW} times its usual {max(work.usual, 1):.0f} s"
            self.say(f"{where}: {seconds:.0f} s, more than {usual}, and it still runs{_colon(work.line(stack))}")
        elif self.live and (seconds >= 10 or not self.apart):
            self._show(self._text(work, now))
        elif not self.live and now >= self._next:
            self._next = now + self.every
            self.say(self._text(work, now))

    def _end_hang(self, work: Work) -> None:
        """Ask where it is, then end it; where nothing answers, interrupt it first, for the traceback of the cell."""
        self.hung, work.stack = work, work.process.stack()
        if work.stack or work.interrupted:
            work.ended = True
            work.process.end()
        else:
            work.interrupted = True
            work.process.interrupt()

    def _text(self, work: Work, now: float) -> str:
        parts = [f"{work.name}  {_clock(now - work.begun, work.usual)}{_colon(work.line()[:60])}"]
        if self.name:
            seconds = now - self.begun
            share = min(seconds / self.usual, 1.0) if self.usual else 0.0
            bar = f"  {'#' * int(10 * share):.<10s}" if self.live and self.usual else ""
            parts.insert(0, f"{self.name}{bar}  {_clock(seconds, self.usual)}  ")
        if work.said:
            parts.append(f"  > {work.said[:80]}")
        return "".join(parts)

    def _show(self, text: str) -> None:
        """The line that is rewritten, cut to the terminal's width."""
        text = text[: shutil.get_terminal_size().columns - 1]
        start = "\n" if self.apart and not self.touched else "\r"
        self._write(start + text.ljust(self._shown))
        self._shown = len(text)

    def _clear(self) -> None:
        if self._shown:
            self._write(f"\r{' ' * self._shown}\r")
        self._shown = 0

    def _write(self, text: str) -> None:
        """Write at once. A stream that is closed or knows few characters must not stop the watch."""
        self.touched = True
        if self.stream is not None:
            encoding = getattr(self.stream, "encoding", None) or "utf-8"
            with contextlib.suppress(OSError, ValueError):
                self.stream.write(text.encode(encoding, "replace").decode(encoding))
                self.stream.flush()


def _clock(seconds: float, usual: float | None) -> str:
    """Seconds so far and the usual ones: "33 s (usually 40 s)"."""
    return f"{seconds:.0f} s" + ("" if usual is None else f" (usually {max(usual, 1):.0f} s)")


def _colon(line: str) -> str:
    return f": {line}" if line else ""


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
