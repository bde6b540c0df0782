"""Long work shows where it is, and what hangs is ended: on a terminal and in a log, by papermill and under pytest."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from xdist.remote import Producer

from helpers.base.files import ROOT, read_json, write_json
from helpers.tools import execute
from helpers.tools.execute import NotebookError, refresh_notebook, run_notebook
from helpers.tools.kernel import Kernel
from helpers.tools.watch import Watch
from helpers.tools.work import USUAL, Work, usual_of, usual_seconds
from tests.conftest import TRAINED, pytest_collection_modifyitems, pytest_xdist_make_scheduler

WHO = """import os, pathlib, subprocess
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
_ = pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}")"""
FOREVER = "import itertools\ndef forever(x):\n    return sum(itertools.repeat(x))"
HANGS = {  # what hangs: the cell, the line it hangs in, what the stack must name
    "python": ("import time\nwhile True:\n    time.sleep(0.01)", "line 3: time.sleep(0.01)", "cell [3], line 3"),
    "lock": ("import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()", "line 4", "cell [3], line 4"),
    "C": ("x = 0\nforever(x)", "line 2: forever(x)", "cell [2], line 3 in forever"),
}


def notebook(path: Path, *cells: str) -> Path:
    nb = new_notebook(cells=[new_code_cell(s, id=f"c-{i}", execution_count=i + 1) for i, s in enumerate(cells)])
    nb.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(nb, path)
    return path


def alive(folder: Path) -> list[int]:
    """Of the kernel and the child that a notebook wrote down, those that still run."""
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    assert len(pids) == 2
    gone = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    until = time.monotonic() + 5
    while time.monotonic() < until:
        left = [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() not in gone]
        if not left:
            return []
        time.sleep(0.1)
    return left


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# --- a hang under papermill -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", HANGS)
def test_a_hang_ends_with_its_notebook_cell_line_and_stack_and_leaves_nothing_behind(tmp_path, where):
    cell, line, stack = HANGS[where]
    source = notebook(tmp_path / "n.ipynb", WHO, FOREVER, cell, "print('never')")
    with pytest.raises(NotebookError) as caught:
        run_notebook(source, tmp_path / "out/n.ipynb", limit=2)
    message = str(caught.value)
    assert message.startswith(f"n.ipynb, cell 3/4 hangs: it is not over after 2 s, the limit. It is in {line}")
    assert all(f"  {text}" in message for text in cell.splitlines()), "the source of the cell"
    assert stack in message
    assert "ipykernel" not in message, "the kernel's own frames say nothing to a reader"
    assert "CELL_LIMIT" in message
    assert not (tmp_path / "out/n.ipynb").exists()
    assert nbformat.read(tmp_path / "out/n.partial.ipynb", as_version=4).cells[0].execution_count == 1
    assert alive(tmp_path) == []


def test_without_the_signal_a_hang_is_interrupted_and_its_traceback_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(Kernel, "stack", lambda _: "")
    source = notebook(tmp_path / "n.ipynb", "import time\ndef wait():\n    time.sleep(100)\nwait()")
    with pytest.raises(NotebookError, match=r"n\.ipynb, cell 1/1 hangs[\s\S]*KeyboardInterrupt") as caught:
        run_notebook(source, tmp_path / "out.ipynb", limit=1)
    assert "time.sleep(100)" in str(caught.value)


def test_a_kernel_that_dies_is_told_with_its_cell(tmp_path):
    source = notebook(tmp_path / "n.ipynb", "x = 1", "import os\nos._exit(1)")
    with pytest.raises(NotebookError, match=r"n\.ipynb, cell 2/2: the kernel died"):
        run_notebook(source, tmp_path / "out.ipynb")


def test_a_profile_has_its_own_limit_and_nonsense_is_refused(capsys):
    assert execute.CELL_LIMIT["demo"] == 1800
    assert execute.CELL_LIMIT["t4"] > execute.CELL_LIMIT["laptop"] > execute.CELL_LIMIT["demo"]
    for limit in ("0", "-1", "nan", "soon"):
        with pytest.raises(SystemExit):
            execute.main(["run", "a.ipynb", "b.ipynb", f"--cell-limit={limit}"])
    assert "seconds" in capsys.readouterr().err


# --- what is slow is reported while it runs ---------------------------------------------------------------------------


class Log(io.StringIO):
    """A log that leaves a file as soon as the report has come."""

    def __init__(self, sign: Path) -> None:
        super().__init__()
        self.sign = sign

    def write(self, text: str) -> int:
        if "still runs" in text:
            self.sign.touch()
        return super().write(text)


def test_a_cell_over_ten_times_its_usual_is_reported_while_it_runs(tmp_path):
    """The cell waits for the report: it ends only if it came in time."""
    wait = "import pathlib, time\nwhile not pathlib.Path('told').exists():\n    time.sleep(0.01)"
    source = notebook(tmp_path / "n.ipynb", "x = 1", wait)
    write_json(tmp_path / USUAL, {"n": {"notebook": 3, "cells": {"c-1": 0.02}}})
    log = Log(tmp_path / "told")
    run_notebook(source, tmp_path / "out.ipynb", "demo", 60, log, patience=0.3)
    (line,) = [line for line in log.getvalue().splitlines() if "still runs" in line]
    assert re.fullmatch(r"n cell \d/\d: \d+ s, more than 10 times its usual 1 s, and it still runs: .+", line)
    assert line.endswith(("time.sleep(0.01)", "while not pathlib.Path('told').exists():"))


def watched(stream, seconds: float, work: Work, **options) -> str:
    with Watch(stream, **options) as watch:
        watch.begin(work)
        work.hear("step 1\nstep 2  loss 0.5\n\x1b[32mstep 3\x1b[0m\tloss 0.4\n")
        time.sleep(seconds)
        watch.end()
    return stream.getvalue()


def test_a_log_gets_a_line_a_minute_with_what_the_cell_prints():
    work = Work("cell 12/47", "\nrun = train(model)\nprint(run)", usual=40.0)
    text = watched(io.StringIO(), 0.9, work, name="04_overfitting", usual=127.0, every=0.25)
    lines = text.splitlines()
    line = r"04_overfitting  \d s \(usually 127 s\)  cell 12/47  \d s \(usually 40 s\): run = train\(model\)"
    assert lines
    assert all(re.fullmatch(line + r"  > step 3loss 0\.4", text) for text in lines)
    assert len(lines) <= 4, "a line every 0.25 s, not one at every look"
    assert "\r" not in text
    assert watched(io.StringIO(), 0.3, Work("cell 1/2"), name="n", every=60.0) == "", "nothing before the first minute"


def test_a_terminal_gets_one_line_that_is_rewritten_with_a_bar_and_taken_away():
    work = Work("cell 1/2", "x" * 500, usual=1.0)
    text = watched(Terminal(), 1.2, work, name="04", usual=0.5, every=0.5)
    assert "\n" not in text
    states = [state for state in text.split("\r") if state.strip()]
    assert states[-1].startswith("04  ##########  1 s (usually 1 s)  cell 1/2  1 s (usually 1 s): xxx")
    assert max(map(len, states)) < 200, "cut to the terminal's width"
    assert text.endswith("\r")
    assert not text.split("\r")[-2].strip(), "nothing of it stays"


def test_a_stream_that_is_closed_or_knows_no_umlauts_does_not_stop_the_watch():
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with Watch(narrow, "n", every=0.1) as seen:
        seen.begin(Work("cell 1/1", "größe = 1"))
        time.sleep(0.5)
        narrow.close()
        time.sleep(0.3)
        assert seen._thread.is_alive()
        assert seen.end() > 0.5


def test_make_run_all_shows_the_cell_on_a_real_terminal_and_ends_with_the_line_of_always(tmp_path):
    source = notebook(
        tmp_path / "n.ipynb", 'PROFILE: str = "demo"', "print('far', flush=True)\nimport time; time.sleep(2)"
    )
    nb = nbformat.read(source, as_version=4)
    nb.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nb, source)
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", "helpers.tools.execute", "run", str(source), str(tmp_path / "out.ipynb")]
    done = subprocess.Popen(line, cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    text = ""
    try:
        while more := os.read(ours, 65536):
            text += more.decode()
    except OSError:  # how a pty says that the other side has gone
        pass
    assert done.wait() == 0, done.stderr.read()
    assert re.search(r"\rn  \d+ s  cell 3/3  \d s: print\('far', flush=True\)  > far", text)
    assert re.fullmatch(r"n {27} +\d+ s", text.split("\r")[-2].strip("\r\n") or text.splitlines()[-1].split("\r")[-1])


# --- what is usual ----------------------------------------------------------------------------------------------------


def test_the_last_run_on_this_machine_comes_before_what_is_committed(tmp_path):
    source, target = tmp_path / "n.ipynb", tmp_path / "build/n.ipynb"
    assert usual_seconds(source, target, "demo") == {}
    assert usual_of({}, "c-0") is None, "nobody knows"
    write_json(tmp_path / USUAL, {"n": {"notebook": 9, "cells": {"c-0": 8}}})
    assert usual_seconds(source, target, "demo")["notebook"] == 9
    assert usual_seconds(source, target, "laptop") == {}, "what is committed is the demo's"
    write_json(target.with_suffix(".seconds.json"), {"notebook": 5, "cells": {"c-0": 4}})
    for profile in ("demo", "laptop"):
        here = usual_seconds(source, target, profile)
        assert (usual_of(here, "c-0"), usual_of(here, "c-1")) == (4, 1.0)


def test_a_run_keeps_its_seconds_beside_its_target_and_refresh_beside_the_source(tmp_path):
    source = notebook(tmp_path / "n.ipynb", "x = 1", "import time\ntime.sleep(1.2)")
    run_notebook(source, tmp_path / "out/n.ipynb")
    kept = read_json(tmp_path / "out/n.seconds.json")
    assert kept["notebook"] >= kept["cells"]["c-1"] >= 1.2
    assert not (tmp_path / USUAL).exists(), "only refresh writes it"
    write_json(tmp_path / USUAL, {"z": {"notebook": 1, "cells": {}}, "n": {"notebook": 99, "cells": {}}})
    refresh_notebook(source)
    usual = read_json(tmp_path / USUAL)
    assert list(usual) == ["n", "z"]
    assert 1.2 <= usual["n"]["cells"]["c-1"] < 99
    assert usual["z"] == {"notebook": 1, "cells": {}}


def test_what_is_committed_as_usual_names_cells_that_exist():
    usual = read_json(ROOT / "notebooks" / USUAL)
    names = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(usual) == names
    for name, seconds in usual.items():
        ids = {cell.id for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells}
        assert set(seconds["cells"]) <= ids
        assert all(1 <= s <= seconds["notebook"] for s in seconds["cells"].values())


# --- under pytest -----------------------------------------------------------------------------------------------------


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "pytest", "-p", "tests.watching", str(folder), "--rootdir", str(folder)]
    line += ["--nbval", "--nbval-current-env", "--color=no", "-c", os.devnull, *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("processes", [(), ("-n2", "--dist=loadfile")], ids=["one", "two"])
def test_under_nbval_a_hang_and_a_death_fail_with_notebook_cell_and_stack(tmp_path, processes):
    notebook(tmp_path / "hangs.ipynb", WHO, FOREVER, "x = 0\nforever(x)", "y = 1")
    notebook(tmp_path / "dies.ipynb", "import os\nos._exit(1)")
    write_json(tmp_path / USUAL, {"hangs": {"notebook": 1, "cells": {}}})
    quick = ("--watch-every=0.5", "--watch-patience=0.5", "--nbval-cell-timeout=3")
    done = run_pytest(tmp_path, *quick, *processes)
    assert done.returncode == 1, done.stdout
    line = r"^hangs\.ipynb::Cell 2  \d s \(usually 1 s\): x = 0$"
    assert re.search(line, done.stderr if processes else done.stdout, flags=re.M)
    assert "hangs.ipynb hangs: it is not over after 3 s, the limit. It is in line 2: forever(x)" in done.stdout
    assert "cell [2], line 3 in forever\n  cell [3], line 2 in <module>" in done.stdout
    assert "dies.ipynb: the kernel died" in done.stdout
    assert re.search(r"2 failed, .*1 xfailed", done.stdout), "what follows a hang is not run"
    assert alive(tmp_path) == []


SLOW_TESTS = """
import pathlib, subprocess, time
def test_quick(): pass
def test_slow():
    time.sleep(1.5)
def test_hang():
    if pathlib.Path(__file__).with_name("now").exists():
        subprocess.run(["sleep", "1000"])
"""


def test_a_slow_test_is_named_while_it_runs_and_one_that_hangs_ends_the_run(tmp_path):
    (tmp_path / "test_it.py").write_text(SLOW_TESTS)
    first = run_pytest(tmp_path, "--watch-every=0.5", "--watch-patience=0.5")
    assert first.returncode == 0, first.stdout
    assert re.search(r"^test_it\.py::test_slow  \d s\n(?:test_it\.py::.*\n)*test_it\.py \.", first.stdout, re.M), (
        "a line of its own, and pytest's dots go on"
    )
    assert "usual" not in first.stdout
    cache = next(tmp_path.rglob("watch/seconds"))
    seconds = json.loads(cache.read_text())
    assert 1.5 <= seconds["test_it.py::test_slow"] < 1000
    cache.write_text(json.dumps({**seconds, "test_it.py::test_slow": 0.01}))
    (tmp_path / "now").touch()
    done = run_pytest(tmp_path, "--watch-every=0.5", "--watch-patience=0.5", "--nbval-cell-timeout=4")
    assert re.search(
        r"^test_it\.py::test_slow: \d s, more than 10 times its usual 1 s, and it still runs$", done.stdout, re.M
    )
    assert "test_it.py::test_hang hangs: it is not over after 4 s, the limit; the run ends." in done.stdout
    assert re.search(r'subprocess\.py", line \d+ in run\n  File ".*test_it\.py", line 8 in test_hang', done.stdout)
    assert done.returncode != 0


def test_a_hang_in_one_of_several_processes_is_named_with_its_stack_and_ends_the_run(tmp_path):
    """pytest-xdist's workers do not report: the process that they report to watches, and asks them where they are."""
    (tmp_path / "test_it.py").write_text("import time\n\n\ndef test_hang():\n    time.sleep(1e6)\n")
    (tmp_path / "test_other.py").write_text("def test_quick():\n    pass\n")
    options = ("-n2", "--dist=loadfile", "--watch-every=1", "--nbval-cell-timeout=4")
    done = run_pytest(tmp_path, *options)
    said = done.stdout + done.stderr
    assert re.search(r"^test_it\.py::test_hang  \d+ s$", said, re.M)
    assert "test_it.py::test_hang hangs: it is not over after 4 s, the limit; the run ends. Its worker:" in said
    assert re.search(r'File ".*test_it\.py", line 5 in test_hang', said)
    assert done.returncode != 0


def test_notebooks_of_one_model_are_one_processs_work_in_order_and_files_stay_whole(pytestconfig):
    """`make test` runs them beside the unit tests."""
    config = SimpleNamespace(getvalue=lambda _: "loadfile", option=pytestconfig.option)
    scope = pytest_xdist_make_scheduler(config, Producer("test"))._split_scope
    sources = sorted((ROOT / "notebooks").glob("*.ipynb"))
    cells = [f"notebooks/{path.name}::Cell 3" for path in sources]
    together = {scope(cell) for path, cell in zip(sources, cells, strict=True) if path.stem.startswith(TRAINED)}
    assert together == {"notebooks of one model"}
    reading = [path.stem[:2] for path in sources if "trained(profile" in path.read_text(encoding="utf-8")]
    assert ("04", *reading) == TRAINED
    assert {scope(cell) for cell in cells} == {"notebooks of one model", "notebooks by themselves"}
    assert (
        scope("tests/test_optim.py::test_a")
        == scope("tests/test_optim.py::test_b[x]")
        != scope("tests/test_x.py::test_a")
    )
    assert pytest_xdist_make_scheduler(SimpleNamespace(getvalue=lambda _: "load"), None) is None
    items = [SimpleNamespace(nodeid=name) for name in ("tests/test_a.py::x", "tests/test_session.py::x", *cells)]
    pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == [*cells, "tests/test_session.py::x", "tests/test_a.py::x"]
    (target,) = re.findall(r"^test: .*\n(?:\t.*\n)+", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert "notebooks tests" in target
    assert "--dist loadfile --no-loadscope-reorder" in target
