"""Notebooks, run headless: papermill executes, pages.py shows, nbstripout takes out what differs by machine.

`python -m helpers.tools.execute run SOURCE TARGET --profile NAME` and `… refresh SOURCE …`, as the Makefile calls them.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from helpers.base.errors import SeriesError
from helpers.base.files import ROOT, read_json, runs_folder, write_json
from helpers.config import Profile, pick_profile
from helpers.tools.address import set_up
from helpers.tools.client import runs_code
from helpers.tools.kernel import name_cells
from helpers.tools.pages import write_html
from helpers.tools.watch import Watch
from helpers.tools.work import USUAL, hang_message, usual_seconds

VOLATILE = (  # metadata that differs from run to run
    "metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.widgets metadata.language_info.version"
)


CELL_LIMIT = {"demo": 1800.0, "laptop": 4 * 3600.0, "t4": 12 * 3600.0}  # seconds that one cell may take


class NotebookError(SeriesError, RuntimeError):
    """A notebook that did not run to its end; the message holds the traceback and says where to look."""


def run_notebook(
    source: Path,
    target: Path,
    profile: str | None = None,
    limit: float | None = None,
    stream: TextIO | None = None,
    **watching: Any,
) -> float:
    """Execute `source` into `target`, in the source's folder, with the parameter PROFILE where it is given; seconds.

    Written as *.partial.ipynb and moved when every cell has run, with the time of its beginning; beside it, what the
    next run calls usual.
    limit: seconds that a cell may take, the profile's own by default; stream: where it is said what runs, `watching`
    how (as for `Watch`). Raises NotebookError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial.ipynb")
    usual, seconds = usual_seconds(source, target, profile), {}
    limit = limit or CELL_LIMIT.get(profile or "demo", max(CELL_LIMIT.values()))
    begun, start = time.time(), time.perf_counter()
    with Watch(stream, source.stem, usual.get("notebook"), **watching) as watch:
        try:
            watched = {"watch": watch, "usual": usual, "limit": limit, "seconds": seconds}
            notebook = _papermill(source, partial, {} if profile is None else {"PROFILE": profile}, watched)
        except (PapermillExecutionError, DeadKernelError) as error:
            raise NotebookError(f"{_what_happened(source, partial, watch, error)}; see {partial}") from error
    unrun = [cell for cell in notebook.cells if runs_code(cell) and not cell.execution_count]
    if unrun:
        raise NotebookError(f"{source.name} ended early: {len(unrun)} cells did not run (sys.exit?); see {partial}")
    os.utime(partial, (begun, begun))  # a helper that was saved while this ran is newer, for make
    partial.replace(target)
    total = time.perf_counter() - start
    cells = {name: float(f"{s:.2g}") for name, s in seconds.items() if name and s > 1}
    write_json(target.with_suffix(".seconds.json"), {"notebook": float(f"{total:.2g}"), "cells": cells})
    return total


def _papermill(source: Path, partial: Path, parameters: dict[str, str], watched: dict[str, Any]) -> Any:
    return papermill.execute_notebook(
        str(source),
        str(partial),
        parameters=parameters,
        engine_name="watched",
        cwd=str(source.parent),
        kernel_name="python3",
        progress_bar=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # no warning about local TCP
        record_timing=False,
        coalesce_streams=True,
        shutdown_kernel="immediate",  # all that it had to write is written; leaving politely takes a second
        **watched,
    )


def _what_happened(source: Path, partial: Path, watch: Watch, error: Exception) -> str:
    """Why a notebook stopped, and in which cell."""
    work = watch.hung or watch.work
    where = f"{source.name}, {work.name}" if work else f"{source.name}, before its first cell"
    if watch.hung:
        cells = [cell.source for cell in nbformat.read(partial, as_version=4).cells if runs_code(cell)]
        stack = str(error) if isinstance(error, PapermillExecutionError) else name_cells(work.stack, cells)
        return f"{hang_message(work, where, stack)}\n\nAnother limit: `make run-all CELL_LIMIT=seconds`"
    if isinstance(error, PapermillExecutionError):
        return f"{error}\n{source.name} stopped in cell [{error.exec_count}]"
    return f"{where}: the kernel died (out of memory?)"


def refresh_notebook(source: Path, limit: float | None = None, stream: TextIO | None = None) -> float:
    """Put the set-up cell into the notebook, run it with its own parameters and store its outputs; seconds.

    Runs of the same source on the same machine give the same file, byte for byte. What its cells took goes to
    usual_seconds.json beside it.
    """
    set_up_cell = (ROOT / "helpers/tools/setup_cell.py").read_text(encoding="utf-8").strip()
    notebook = nbformat.read(source, as_version=4)
    set_up(notebook.cells, set_up_cell)
    aside = ROOT / "build" / "refresh" / source.name
    aside.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, source)
    seconds = run_notebook(source, aside, limit=limit, stream=stream)
    strip = [sys.executable, "-m", "nbstripout", "--keep-output", "--keep-count", "--keep-id"]
    subprocess.run([*strip, "--extra-keys", VOLATILE, str(aside)], check=True)
    aside.replace(source)
    known = source.with_name(USUAL)
    usual = (read_json(known) if known.exists() else {}) | {source.stem: read_json(aside.with_suffix(".seconds.json"))}
    write_json(known, dict(sorted(usual.items())))
    return seconds


def refuse_hours(profile: Profile) -> None:
    """Raise NotebookError, before the first notebook, where this machine would train the profile's model for hours."""
    if not profile.main.gpt.large or (runs_folder(profile.name) / "gpt/checkpoint").exists():
        return
    from helpers.run.preflight import (  # torch takes seconds to import: only where it matters
        RefusedError,
        refuse_without_gpu,
    )
    from helpers.runtime import pick_runtime

    try:
        refuse_without_gpu(profile.main.gpt, profile.main.recipe, pick_runtime(large=True))
    except RefusedError as refusal:
        raise NotebookError(str(refusal)) from refusal


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.tools.execute", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute SOURCE into TARGET, and show it as HTML beside it")
    run.add_argument("source", type=Path)
    run.add_argument("target", type=Path)
    run.add_argument("--profile", default="demo")
    refresh = commands.add_parser("refresh", help="execute notebooks in place and store their outputs")
    refresh.add_argument("sources", type=Path, nargs="+")
    for command in (run, refresh):
        command.add_argument("--cell-limit", type=_seconds, help="seconds that a cell may take, then it is ended")
    args = parser.parse_args(argv)
    if args.command == "run":
        target, profile = args.target.resolve(), pick_profile(args.profile)
        refuse_hours(profile)
        seconds = run_notebook(args.source.resolve(), target, profile.name, args.cell_limit, sys.stdout)
        write_html(target)
        print(f"{args.source.stem:28s}{seconds:6.0f} s")
    else:
        for source in args.sources:
            seconds = refresh_notebook(source.resolve(), args.cell_limit, sys.stdout)
            print(f"{source.stem:28s}{seconds:6.0f} s")


def _seconds(text: str) -> float:
    """A number above 0, or argparse refuses it."""
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return seconds


if __name__ == "__main__":
    try:
        main()
    except SeriesError as error:
        sys.exit(f"error: {error}")
