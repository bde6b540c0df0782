"""A pytest plugin, `-p tests.executed --executed FOLDER`: nbval compares what `make run-all` has just left there.

Where make finds every notebook up to date, and each shows what is committed, none is executed a second time: that takes
minutes. Otherwise nbval executes all of them, for one may read what another leaves, and decides. What only a second
execution shows, in a folder of runs of its own, is seen by `make test` before the first run-all.
"""

import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

# Those of tests/cpus.py: they play another processor, as which run-all may not have run.
PLAYED = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "FBGEMM_ENABLE_INSTRUCTIONS")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Without the option nothing is different."""
    parser.addoption("--executed", metavar="FOLDER", help="executed notebooks that make keeps up to date")


def pytest_collection_finish(session: pytest.Session) -> None:
    """All notebooks or none: their cells take the stored outputs, and no kernel is started."""
    root, folder = session.config.rootpath, session.config.option.executed
    cells = [item for item in session.items if hasattr(item, "cell_num") and item.path.parent == root / "notebooks"]
    files = {item.parent for item in cells}
    if not folder or not files or set(PLAYED) & set(os.environ):
        return
    if not up_to_date([f"{folder}/{file.path.name}" for file in files], root):
        return
    left = {file: stored(root / folder / file.path.name) for file in files}
    comparisons = [functools.partial(compare, item, left[item.parent]) for item in cells]
    if not all(map(agrees, comparisons)):
        return
    for file in files:
        file.setup = lambda: None  # nbval's starts a kernel
    for item, comparison in zip(cells, comparisons, strict=True):
        item.runtest = comparison
        item.user_properties.append(("executed", folder))


def up_to_date(targets: list[str], root: Path) -> bool:
    """Whether `make run-all` would have nothing to do, and was run with the packages that are installed now.

    A notebook's helpers are those of its .mk: it must be there, and of this notebook.
    """
    copies = [root / target for target in targets]
    packages = [root / ".venv/.ready", *root.glob(".venv/lib/python*/site-packages")]  # pip changes the folder
    since = max((path.stat().st_mtime for path in packages if path.exists()), default=0.0)
    for copy in copies:
        helpers = copy.with_suffix(".mk")
        if not (copy.exists() and copy.stat().st_mtime >= since and helpers.exists()):
            return False
        if helpers.stat().st_mtime < (root / "notebooks" / copy.name).stat().st_mtime:
            return False
    bare = {name: value for name, value in os.environ.items() if name != "RUNS_DIR"}  # that of the tests
    line = ["make", "--question", "PROFILE=demo", *targets]
    return subprocess.run(line, cwd=root, env=bare, capture_output=True).returncode == 0


def stored(path: Path) -> dict[tuple[str, str], list]:
    """(id, source) of each code cell of an executed notebook -> its outputs."""
    cells = nbformat.read(path, as_version=4).cells
    return {(cell.id, cell.source): cell.outputs for cell in cells if cell.cell_type == "code"}


def compare(item: Any, left: dict[tuple[str, str], list]) -> None:
    """What nbval's `runtest` does when a cell has been executed, with these outputs: NbCellError where they differ."""
    from nbval.plugin import coalesce_streams

    found = left.get((item.cell.id, item.cell.source))
    if found is None:
        item.raise_cell_error("The executed notebook lacks this cell")
    if any(output.output_type == "error" for output in found) and not item.options["check_exception"]:
        item.raise_cell_error("The executed notebook stores an error")
    unrun = item.cell.execution_count is None
    if unrun and item.cell.outputs:
        item.raise_cell_error("Unrun reference cell has outputs")
    checked = item.options["check"] and not unrun
    if checked and not item.compare_outputs(coalesce_streams(found), coalesce_streams(item.cell.outputs)):
        item.raise_cell_error("Cell outputs differ", "\n".join(item.comparison_traceback))


def agrees(comparison: Callable[[], None]) -> bool:
    """Whether a comparison finds no difference."""
    from nbval.plugin import NbCellError

    try:
        comparison()
    except NbCellError:
        return False
    return True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was not executed is said."""
    passed = (dict(report.user_properties) for report in terminalreporter.getreports("passed"))
    taken = [properties["executed"] for properties in passed if "executed" in properties]
    if taken:
        terminalreporter.write_line(f"{len(taken)} cells were not executed again: make finds {taken[0]} up to date")
