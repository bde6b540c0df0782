"""What nbval takes from notebooks that `make run-all` has executed, and when it executes them itself."""

import os
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tests.cpus import CLASSES
from tests.executed import PLAYED


def write(path: Path, printed: str, source: str = "print(1)") -> None:
    """A notebook whose second cell leaves a file where it is executed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    outputs = [new_output("stream", name="stdout", text=printed)]
    mark = new_code_cell("open('executed', 'w').close()", id="mark", execution_count=2)
    nbformat.write(
        new_notebook(cells=[new_code_cell(source, id="one", execution_count=1, outputs=outputs), mark]), path
    )


@pytest.fixture
def series(tmp_path, monkeypatch) -> Path:
    """A notebook and its executed copy, and a Makefile that knows how old they are."""
    for variable in (*PLAYED, "MAKEFLAGS"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "Makefile").write_text("build/demo/%.ipynb: notebooks/%.ipynb\n\tfalse\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    write(tmp_path / "notebooks/one.ipynb", "1\n")
    (tmp_path / "build/demo").mkdir(parents=True)
    (tmp_path / "build/demo/one.mk").touch()
    write(tmp_path / "build/demo/one.ipynb", "1\n")
    return tmp_path


class Seen:
    """A plugin that keeps what the others have made of the cells, and how each ended."""

    def __init__(self) -> None:
        self.taken, self.ended = [], {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.taken = [bool(item.user_properties) for item in session.items]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.ended[report.nodeid] = report.outcome


def run(folder: Path, *options: str) -> Seen:
    """pytest with the plugin, in this process."""
    plugins = ["-p", "tests.executed", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:xdist"]
    line = [str(folder / "notebooks"), "--rootdir", str(folder), "--executed", "build/demo", *plugins, *options]
    pytest.main([*line, "--nbval", "--nbval-current-env"], plugins=[seen := Seen()])
    assert len(seen.taken) == 2
    return seen


def taken(folder: Path) -> bool:
    """Whether the cells would be taken from build/demo."""
    (answer,) = set(run(folder, "--collect-only").taken)
    return answer


def test_what_run_all_has_just_executed_is_not_executed_again(series, capsys):
    assert set(run(series).ended.values()) == {"passed"}
    assert not (series / "notebooks/executed").exists()
    assert "2 cells were not executed again: make finds build/demo up to date" in capsys.readouterr().out


def older(series):
    os.utime(series / "build/demo/one.ipynb", (1, 1))


def other_output(series):
    write(series / "build/demo/one.ipynb", "2\n")


def other_source(series):
    write(series / "build/demo/one.ipynb", "1\n", "print(2 - 1)")


def ready(series):
    age_all(series)
    (series / ".venv").mkdir()
    (series / ".venv/.ready").touch()


def other_packages(series):
    age_all(series)
    (series / ".venv/lib/python3.11/site-packages").mkdir(parents=True)


def age_all(series):
    for path in series.glob("**/one.*"):
        os.utime(path, (time.time() - 60,) * 2)


def no_helpers(series):
    (series / "build/demo/one.mk").unlink()


def helpers_of_another(series):
    os.utime(series / "build/demo/one.mk", (1, 1))


def no_copy(series):
    (series / "build/demo/one.ipynb").unlink()


CHANGES = [older, other_output, other_source, ready, other_packages, no_helpers, helpers_of_another, no_copy]


@pytest.mark.parametrize("change", CHANGES)
def test_anything_else_is_executed(series, change):
    assert taken(series)
    change(series)
    assert not taken(series)


@pytest.mark.parametrize("variable", PLAYED)
def test_another_processor_executes(series, variable, monkeypatch):
    monkeypatch.setenv(variable, "avx2")
    assert not taken(series)


def test_all_that_plays_a_processor_is_known():
    assert set(PLAYED) == {variable for told in CLASSES.values() for variable in told}


def test_the_execution_decides(series):
    """The committed output is wrong, the executed copy agrees with it and is old: nbval finds out."""
    write(series / "notebooks/one.ipynb", "2\n")
    other_output(series)
    older(series)
    assert list(run(series).ended.values()) == ["failed", "passed"]
    assert (series / "notebooks/executed").exists()
