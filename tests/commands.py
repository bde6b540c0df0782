"""`python -m helpers`, as a shell meets it: in this process, or in one of its own that need not import torch first."""

import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
import torch._dynamo  # which the first optimizer of a process imports, and takes as long for as for torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from helpers.tools.cli import main

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
        self._start(output, _run, [str(argument) for argument in arguments], threads)

    def _start(self, output: Path, target: Callable, *given: object) -> None:
        self.output = output
        self._process = FORKED.Process(target=target, args=(str(output), *given))
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


class Torchrun(Process):
    """The command in several processes of one thread each, as torchrun starts, watches and ends them: forked too."""

    def __init__(self, output: Path, processes: int, *arguments: str | os.PathLike) -> None:
        self._start(output, _torchrun, [str(argument) for argument in arguments], processes)

    def pid(self, rank: int) -> int:
        """Of one of the processes that train; FileNotFoundError before it has begun."""
        return int(Path(f"{self.output}.{rank}").read_text())


def _torchrun(output: str, line: list[str], processes: int) -> None:
    """What `torch.distributed.run --standalone` does, whose workers need not import torch."""
    _print_to(output)
    one_machine = {"min_nodes": 1, "max_nodes": 1, "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    once = {"run_id": uuid4().hex, "max_restarts": 0}
    config = LaunchConfig(**one_machine, **once, nproc_per_node=processes, start_method="fork")
    elastic_launch(config, _train)(output, line)


def _train(output: str, line: list[str]) -> None:
    """A process of several. It returns where all went well: torchrun waits for what its functions return."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a new interpreter: not torchrun's own
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    Path(f"{output}.{os.environ['RANK']}").write_text(str(os.getpid()))
    if answer := main(line):
        sys.exit(answer)


def _print_to(output: str) -> None:
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115


def _run(output: str, line: list[str], threads: int | None) -> None:
    if threads:
        torch.set_num_threads(threads)
    _print_to(output)
    try:
        sys.exit(main(line))
    finally:
        sys.stdout.flush()
