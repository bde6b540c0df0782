"""A notebook's kernel, seen from outside: where its code is, inside C too, and its end with all that it started."""

import contextlib
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

CELL = re.compile(r'File "[^"]*ipykernel_\d+[/\\](\d+)\.py", line (\d+) in (.+)')  # a frame in a cell
OWN = re.compile(r"[/\\](ipykernel|IPython|tornado|zmq|tqdm)[/\\]")  # frames of a kernel's own threads


class Kernel:
    """A kernel that runs `greeting` once, in silence, and from then on writes its stack whenever SIGUSR1 comes.

    interrupt: what interrupts it, for machines without that signal.
    """

    def __init__(self, interrupt: Callable[[], object]) -> None:
        handle, path = tempfile.mkstemp(suffix=".stack")
        self.path, self.file = Path(path), os.fdopen(handle, encoding="utf-8", errors="replace")
        self.pid, self.answers, self.interrupt = 0, False, interrupt
        code = (
            f"import faulthandler, os, signal\nfile = open({path!r}, 'a')\nanswers = hasattr(signal, 'SIGUSR1')\n"
            "if answers:\n    faulthandler.register(signal.SIGUSR1, file)\n"
            "print(os.getpid(), int(answers), file=file, flush=True)"
        )
        self.greeting = f"exec({code!r}, {{}})"  # leaves no name behind in the notebook

    def greeted(self) -> None:
        """Read what the greeting wrote: the process id, and whether it will answer."""
        words = self.file.read().split()
        if len(words) == 2:
            self.pid, self.answers = int(words[0]), words[1] == "1"
        with contextlib.suppress(OSError):  # Windows keeps a file that is open
            self.path.unlink()

    def stack(self, patience: float = 5.0) -> str:
        """What its threads do for the notebook, most recent call first; "" if it does not answer in `patience` s."""
        text, until = "", time.monotonic() + patience
        if self.answers:
            self.file.read()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGUSR1)
                while time.monotonic() < until:
                    time.sleep(0.1)
                    more = self.file.read()
                    if text and not more:
                        break
                    text += more
        return notebook_part(text)

    def end(self) -> None:
        """Kill the kernel and every process that it started."""
        if self.pid:
            end_family(self.pid, itself=True)

    def close(self) -> None:
        """Forget it; the kernel itself goes on."""
        self.file.close()


def end_family(pid: int, itself: bool) -> None:
    """Kill every process that a process started, and the process `itself`; what is gone already is no error."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in [*([parent] if itself else []), *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def notebook_part(stack: str) -> str:
    """Of all threads those that run the notebook's code, down to the cell, and those that it started, without the
    kernel's own; every thread where no cell is found."""
    with_cell, others = [], []
    for thread in re.split(r"\n+(?=Thread |Current thread )", stack.strip()):
        frames = thread.splitlines()
        cells = [i for i, frame in enumerate(frames) if CELL.search(frame)]
        if cells:
            with_cell.append("\n".join(frames[: cells[-1] + 1]))
        elif not OWN.search(thread):
            others.append(thread)
    return "\n".join([*with_cell, *others]) if with_cell else stack


def line_now(stack: str, source: str) -> int | None:
    """Which line of a cell runs, counted from 1, as the stack has it; None where it does not say."""
    lines = [int(number) for _, number, function in CELL.findall(stack) if function == "<module>"]
    return lines[-1] if lines and lines[-1] <= len(source.splitlines()) else None


def name_cells(stack: str, sources: list[str]) -> str:
    """The stack with "cell [3]" in place of a file that never was; sources: of the cells, in order."""
    try:
        from ipykernel.compiler import get_file_name
    except ImportError:
        return stack
    numbers = {Path(get_file_name(source)).stem: number for number, source in enumerate(sources, 1)}
    return CELL.sub(lambda m: f"cell [{numbers[m[1]]}], line {m[2]} in {m[3]}" if m[1] in numbers else m[0], stack)
