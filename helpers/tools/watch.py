"""Where long work is: which cell or test runs, its seconds so far and the usual ones; what hangs is shown and ended.

`make run-all` (execute) and `make test` (watch_tests) use it. The watch is a thread, because the work may hang in C.
"""

import contextlib
import shutil
import threading
import time
from typing import Self, TextIO

from helpers.tools.work import Work

SLOW = 10  # times its usual seconds, and work is reported while it runs
GRACE = 10.0  # seconds that an interrupted cell has to give its traceback


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
        if work.printed:
            parts.append(f"  > {work.printed[:80]}")
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
