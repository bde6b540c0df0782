"""A pytest plugin, `-p tests.watching`: which test or cell runs, while it takes long, and the end of a hang.

nbval makes an item of every cell. After --nbval-cell-timeout seconds a cell that hangs fails with its notebook, its
source and its stack, and its kernel is ended; a test that hangs ends the run.
"""

import contextlib
import faulthandler
import functools
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty
from typing import Any

import psutil
import pytest

from helpers.base.files import ROOT
from helpers.tools.kernel import Kernel, end_family, name_cells
from helpers.tools.watch import GRACE, Watch
from helpers.tools.work import Work, hang_line, usual_of, usual_seconds

_STDERR = os.fdopen(os.dup(2), "w")  # before pytest captures it
SECONDS = "watch/seconds"  # in pytest's cache: what each test took the last time


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two options, so that the plugin itself can be tested in seconds."""
    group = parser.getgroup("watch", "what runs, while it takes long")
    group.addoption("--watch-every", type=float, default=60.0, help="seconds between two lines in a log")
    group.addoption("--watch-patience", type=float, default=20.0, help="seconds below which nothing is called slow")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin to watch, where pytest reports: the workers of pytest-xdist do not, but say where they are when asked.

    The cells that a worker runs are watched there, because it has started their kernels.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell leaves it to what it starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        if hasattr(faulthandler, "register"):
            faulthandler.register(signal.SIGUSR1, file=_STDERR)
        config.pluginmanager.register(CellsWatch(config), "item-watch")
    elif getattr(config.option, "numprocesses", None):
        config.pluginmanager.register(WorkersWatch(config), "item-watch")
    elif config.pluginmanager.hasplugin("terminalreporter"):
        config.pluginmanager.register(ItemWatch(config), "item-watch")


class OwnProcess:
    """The tests' own process, looked at by one of its threads. say: tells a person."""

    def __init__(self, name: str, limit: float, say: Callable[[str], None]) -> None:
        self.name, self.limit, self.say = name, limit, say

    def stack(self) -> str:
        """Where the main thread is, as far as it runs a test, most recent call first."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            threads = re.split(r"\n+(?=Thread |Current thread )", file.read())
        main = next((thread for thread in threads if "_pytest" in thread), threads[-1]).splitlines()
        pytests = [i for i, frame in enumerate(main) if re.search(r"[/\\](_pytest|pluggy)[/\\]", frame)]
        return "\n".join(main[: pytests[0]] if pytests else main)

    def interrupt(self) -> None:
        """KeyboardInterrupt in the main thread: pytest reports what it has, and ends."""
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def end(self) -> None:
        """Say where it hangs, end what it started, then the run."""
        self.say(f"{self.name} hangs: it is not over after {self.limit:g} s, the limit; the run ends.\n{self.stack()}")
        end_family(os.getpid(), itself=False)
        self.interrupt()


class Workers(OwnProcess):
    """The processes of pytest-xdist, looked at from the one that they report to."""

    def end(self) -> None:
        """Let all say where they are, one after the other, for two at once write into each other's lines; end them."""
        self.say(f"{self.name} hangs: it is not over after {self.limit:g} s, the limit; the run ends. Its worker:")
        for worker in psutil.Process().children() if hasattr(signal, "SIGUSR1") else ():
            with contextlib.suppress(psutil.Error):
                worker.send_signal(signal.SIGUSR1)
                time.sleep(1)
        end_family(os.getpid(), itself=False)
        self.interrupt()


class ItemWatch:
    """Tells the watch what pytest runs. Between two items pytest's line of dots is taken up again."""

    def __init__(self, config: pytest.Config) -> None:
        self.reporter = config.pluginmanager.getplugin("terminalreporter")
        self.limit = float(getattr(config.option, "nbval_cell_timeout", 2000))
        self.cache = getattr(config, "cache", None)
        self.seconds = self.cache.get(SECONDS, {}) if self.cache else {}
        self.watch = Watch(
            _stdout(), every=config.option.watch_every, patience=config.option.watch_patience, apart=True
        )

    def pytest_sessionstart(self) -> None:
        """The thread starts."""
        self.watch.__enter__()

    def pytest_unconfigure(self) -> None:
        """It ends; the next run knows what is usual."""
        self.watch.__exit__()
        if self.cache:
            self.cache.set(SECONDS, self.seconds)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """An item, from its fixtures to their end. Where C holds Python itself, faulthandler's thread ends a test."""
        self.watch.begin(self._work(item))
        if not _is_cell(item) and self.watch.stream:
            faulthandler.dump_traceback_later(self.limit + GRACE, exit=True, file=self.watch.stream)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()
            seconds = self.watch.end()
            if not _is_cell(item):
                self.seconds[item.nodeid] = max(1.0, float(f"{seconds:.2g}"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """A cell: its kernel runs by now, and is told to answer."""
        kernel = getattr(item.parent, "kernel", None)
        if _is_cell(item) and kernel is not None and kernel.is_alive():
            if not hasattr(kernel, "seen"):
                self._greet(kernel)
            kernel.item = item
            self.watch.begin(self._work(item, kernel.seen))  # its seconds without those of the kernel's start
        return (yield)

    def pytest_enter_pdb(self) -> None:
        """A person is at work: no limit holds."""
        faulthandler.cancel_dump_traceback_later()
        self.watch.end()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Let pytest name the file again, if a line of ours stands behind its dots."""
        if self.watch.touched:
            self.watch.touched = False
            self.reporter.currentfspath = None
            if self.reporter.verbosity <= 0:
                self.reporter.write_fspath_result(report.nodeid, "")

    def _work(self, item: pytest.Item, kernel: Kernel | None = None) -> Work:
        if _is_cell(item):
            usual = usual_seconds(item.path, ROOT / "build" / "demo" / item.path.name, "demo")
            return Work(item.nodeid, item.cell.source, usual_of(usual, item.cell.get("id")), self.limit, kernel)
        process = OwnProcess(item.nodeid, self.limit, self.watch.say)
        return Work(item.nodeid, "", self.seconds.get(item.nodeid), self.limit, process)

    def _greet(self, kernel: Any) -> None:
        """Make nbval's kernel answer; from then on the watch ends what hangs, a little before nbval would."""
        kernel.seen = Kernel(kernel.interrupt)
        message = kernel.kc.execute(kernel.seen.greeting, silent=True, store_history=False)
        kernel.await_reply(message, timeout=60)
        kernel.seen.greeted()
        if kernel.seen.pid:
            kernel.await_reply = functools.partial(self._await_reply, kernel, kernel.await_reply)

    def _await_reply(self, kernel: Any, wait: Callable[..., None], message: str, **_: float) -> None:
        """nbval's `await_reply` for a cell, which also sees that the kernel has died; the watch keeps the time-out."""
        work, alive, answered = self.watch.work, True, False
        while alive and not answered:
            with contextlib.suppress(Empty):
                wait(message, timeout=1.0)
                answered = True
            alive = kernel.is_alive()
        ended = self.watch.ended(work)
        kernel.item.parent.timed_out |= work.interrupted or ended or not alive
        if ended or not alive:
            self._fail(kernel, work)

    def _fail(self, kernel: Any, work: Work) -> None:
        """The cell fails as nbval's cells do: its source and its stack are reported."""
        from nbval.plugin import NbCellError

        item, name = kernel.item, kernel.item.path.name
        kernel.seen.close()
        kernel.stop()
        cells = [cell.source for cell in item.parent.nb.cells if cell.cell_type == "code"]
        message = hang_line(work, name) if work.ended else f"{name}: the kernel died (out of memory?)"
        raise NbCellError(item.cell_num, message, item.cell.source, name_cells(work.stack, cells))


def _is_cell(item: pytest.Item) -> bool:
    return hasattr(item, "cell_num") and hasattr(item.parent, "nb")


def _stdout() -> Any:
    """pytest's own stdout, also while that of a test is captured; None where it is no file."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding, errors="replace")
    return None


class CellsWatch(ItemWatch):
    """In a worker of pytest-xdist: its cells alone, in lines on stderr, which is the run's own."""

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config)
        self.cache, self.watch.stream, self.watch.live = None, _STDERR, False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """A test is watched from the process that the workers report to."""
        return (yield from super().pytest_runtest_protocol(item)) if _is_cell(item) else (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """No line of dots is written here."""


class WorkersWatch(ItemWatch):
    """The same where tests run in several processes: the watch is on the one that has run the longest."""

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config)
        self.works: dict[str, Work] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A worker begins a test; a cell is its own to watch."""
        if ".ipynb::" in nodeid:
            return
        process = Workers(nodeid, self.limit, self.watch.say)
        self.works[nodeid] = Work(nodeid, "", self.seconds.get(nodeid), self.limit, process)
        self._look_at_the_longest()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """It is over."""
        work = self.works.pop(nodeid, None)
        if work is not None:
            self.seconds[nodeid] = max(1.0, float(f"{time.monotonic() - work.begun:.2g}"))
            self._look_at_the_longest()

    def _look_at_the_longest(self) -> None:
        longest = min(self.works.values(), key=lambda work: work.begun, default=None)
        if longest is None:
            self.watch.end()
        elif longest is not self.watch.work:
            touched = self.watch.touched
            self.watch.begin(longest)
            self.watch.touched = touched
