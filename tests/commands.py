"""`python -m helpers`, as a shell meets it: in this process, or in one of its own that need not import torch first."""

import io
import multiprocessing
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
import torch._dynamo  # which the first optimizer of a process imports, and takes as long for as for torch

from helpers.__main__ import main

# Children are forked from a process that has imported this file and, with it, the series; nothing has computed there
# (a fork of a process that has, such as pytest's, would wait for threads that it lacks).
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str | os.PathLike) -> Done:
    """Run it here, as the interpreter would: a string to exit with is printed, and means 1."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            answer = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse
            answer = ended.code
    if isinstance(answer, str):
        err.write(answer + "\n")
        answer = 1
    return Done(answer, out.getvalue(), err.getvalue())


class Process:
    """A command in a process of its own: what it prints goes to a file. threads: as OMP_NUM_THREADS would say."""

    def __init__(self, output: Path, *arguments: str | os.PathLike, threads: int | None = None) -> None:
        self.output = output
        line = [str(argument) for argument in arguments]
        self._process = FORKED.Process(target=_run, args=(str(output), line, threads))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def wait(self, timeout: float = 300) -> int:
        """The exit code; minus the signal where one killed it."""
        self._process.join(timeout)
        if self.poll() is None:
            self._process.kill()
            raise TimeoutError(self.text())
        return self.poll()

    def text(self) -> str:
        return self.output.read_text()


def _run(output: str, line: list[str], threads: int | None) -> None:
    if threads:
        torch.set_num_threads(threads)
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    try:
        sys.exit(main(line))
    finally:
        sys.stdout.flush()
