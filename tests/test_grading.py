"""nbgrader itself, as a teacher uses it: a notebook is handed out, two submissions come back, points appear."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from helpers.base.files import ROOT
from tests.test_workbook import exercises

SOURCE = ROOT / "notebooks/01_tokenization.ipynb"
POINTS = {e.check.metadata.nbgrader.grade_id: e.check.metadata.nbgrader.points for e in exercises("01")}


@pytest.fixture
def course(monkeypatch):
    """A course with one assignment: notebook 1. It lies inside the series' folder, where the notebooks find it."""
    programs = Path(sys.executable).parent  # nbgrader calls alembic by its name
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="grading-", dir=ROOT / "build"))
    (folder / "source/tokenization").mkdir(parents=True)
    (folder / "source/tokenization" / SOURCE.name).write_text(SOURCE.read_text(encoding="utf-8"), encoding="utf-8")
    nbgrader(folder, "generate_assignment", "tokenization")
    yield folder
    shutil.rmtree(folder)


def nbgrader(folder, *words: str) -> None:
    env = {**os.environ, "RUNS_DIR": str(folder / "runs"), "JUPYTER_PLATFORM_DIRS": "1"}
    line = [sys.executable, "-m", "nbgrader", *words, f"--CourseDirectory.root={folder}"]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def hand_in(course, student: str, solved: int) -> None:
    """A submission: the released notebook with the first solutions pasted in."""
    notebook = nbformat.read(course / "release/tokenization" / SOURCE.name, as_version=4)
    solutions = {cell.id: cell.source for cell in nbformat.read(SOURCE, as_version=4).cells}
    stubs = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert len(stubs) == len(POINTS)
    for cell in stubs:
        assert "raise NotImplementedError()" in cell.source
    for cell in stubs[:solved]:
        cell.source = solutions[cell.id]
    folder = course / "submitted" / student / "tokenization"
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / SOURCE.name)


def test_nbgrader_hands_out_stubs_and_gives_a_solved_and_a_half_solved_submission_their_points(course):
    half = len(POINTS) // 2
    hand_in(course, "solved", len(POINTS))
    hand_in(course, "half", half)
    nbgrader(course, "autograde", "tokenization")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        for student, count in (("solved", len(POINTS)), ("half", half)):
            submission = book.find_submission("tokenization", student)
            scores = {grade.name: grade.auto_score for grade in submission.notebooks[0].grades}
            wanted = {name: points if n < count else 0 for n, (name, points) in enumerate(POINTS.items())}
            assert scores == wanted
            assert submission.max_score == sum(POINTS.values())
