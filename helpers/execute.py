"""Notebooks, run headless: papermill executes, nbconvert shows, nbstripout takes out what differs by machine.

`python -m helpers.execute run SOURCE TARGET --profile NAME` and `… refresh SOURCE …`, as the Makefile calls them.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from helpers.config import pick_profile
from helpers.errors import SeriesError
from helpers.runs import ROOT

VOLATILE = (  # metadata that differs from run to run
    "metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.widgets metadata.language_info.version"
)


class NotebookError(SeriesError, RuntimeError):
    """A notebook that did not run to its end; the message holds the traceback and says where to look."""


def run_notebook(source: Path, target: Path, profile: str | None = None) -> float:
    """Execute `source` into `target`, in the source's folder, with the parameter PROFILE where it is given; seconds.

    Written as *.partial.ipynb and moved when every cell has run. Raises NotebookError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial.ipynb")
    start = time.perf_counter()
    try:
        notebook = papermill.execute_notebook(
            str(source),
            str(partial),
            parameters={} if profile is None else {"PROFILE": profile},
            cwd=str(source.parent),
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=40"],  # no warning about local TCP
            record_timing=False,
            coalesce_streams=True,
        )
    except PapermillExecutionError as error:
        raise NotebookError(f"{error}\n{source.name} stopped in cell [{error.exec_count}]; see {partial}") from error
    unrun = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip() and not c.execution_count]
    if unrun:
        raise NotebookError(f"{source.name} ended early: {len(unrun)} cells did not run (sys.exit?); see {partial}")
    partial.replace(target)
    return time.perf_counter() - start


def write_html(notebook: Path) -> Path:
    """The executed notebook as a page beside it that loads nothing from the network."""
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="")
    page, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
    target = notebook.with_suffix(".html")
    target.write_text(page, encoding="utf-8")
    return target


def refresh_notebook(source: Path) -> float:
    """Put the set-up cell into the notebook, run it with its own parameters and store its outputs; seconds.

    Runs of the same source on the same machine give the same file, byte for byte.
    """
    set_up_cell = (ROOT / "helpers" / "set_up_cell.py").read_text(encoding="utf-8").strip()
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if "set-up" in cell.metadata.get("tags", []):
            cell.source = set_up_cell
    aside = ROOT / "build" / "refresh" / source.name
    aside.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, source)
    seconds = run_notebook(source, aside)
    strip = [sys.executable, "-m", "nbstripout", "--keep-output", "--keep-count", "--keep-id"]
    subprocess.run([*strip, "--extra-keys", VOLATILE, str(aside)], check=True)
    aside.replace(source)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.execute", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute SOURCE into TARGET, and show it as HTML beside it")
    run.add_argument("source", type=Path)
    run.add_argument("target", type=Path)
    run.add_argument("--profile", default="demo")
    refresh = commands.add_parser("refresh", help="execute notebooks in place and store their outputs")
    refresh.add_argument("sources", type=Path, nargs="+")
    args = parser.parse_args()
    if args.command == "run":
        seconds = run_notebook(args.source.resolve(), args.target.resolve(), pick_profile(args.profile).name)
        write_html(args.target.resolve())
        print(f"{args.source.stem:28s}{seconds:6.0f} s")
    else:
        for source in args.sources:
            print(f"{source.stem:28s}{refresh_notebook(source.resolve()):6.0f} s")


if __name__ == "__main__":
    try:
        main()
    except SeriesError as error:
        sys.exit(f"error: {error}")
