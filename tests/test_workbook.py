"""Exercises: stubs fail kindly, solutions pass, wrong answers get the sentence that names the slip; nbgrader agrees."""

import ast
import importlib
import itertools
import os
import re
import signal
import subprocess
import sys
import warnings

import nbformat
import pytest
from nbgrader.preprocessors import ClearSolutions

from helpers.base.files import ROOT
from helpers.tools import answers, workbook
from helpers.workbook import check as checks
from helpers.workbook.check import NotYetError, WrongError, check, expect, refuse
from helpers.workbook.guess import review

SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [source.stem for source in SOURCES]
ASSIGNMENT = ROOT / "notebooks/teaching/assignment.ipynb"
NUMBER = re.compile(r"^### Exercise ((?:\d+|A)\.\d+) · (.+)$", re.MULTILINE)
EFFORT = re.compile(r"^\*(\d+) minutes · (●○○|●●○|●●●) · (\d+) points?\*$", re.MULTILINE)


def read(source):
    return nbformat.read(source, as_version=4).cells


def tagged(cell, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


class Exercise:
    """An exercise of a notebook: its task, its solution, its check, and what stands before them."""

    def __init__(self, cells: list, at: int) -> None:
        self.task, self.solution, self.check = cells[at : at + 3]
        self.number, self.title = NUMBER.search(self.task.source).groups()
        self.before = [cell for cell in cells[:at] if cell.cell_type == "code"]

    def stub(self) -> str:
        cell = nbformat.from_dict(dict(self.solution))
        ClearSolutions().preprocess_cell(cell, {"language": "python"}, 0)
        return cell.source

    def space(self) -> dict:
        """What the reader has by then: imports, functions and plain numbers; no cell with data has run."""
        space = {}
        for cell in self.before:
            if not tagged(cell, "set-up") and not tagged(cell, "exercise"):
                kept = [node for node in ast.parse(cell.source).body if ready(node)]
                exec(compile(ast.Module(kept, []), "before", "exec"), space)
        return space

    def asked(self, source: str) -> str:
        """What the check answers where `source` stands in the solution's cell."""
        space = self.space()
        path = f"/exercise-{self.number}"
        exec(compile(source, path, "exec"), space)
        calls = [node for node in ast.parse(self.check.source).body if calls_check(node)]
        assert len(calls) == 1, "one line of the cell is print(check(…))"
        space["check"], said = check, []
        space["print"] = said.append
        exec(compile(ast.Module(calls, []), "check", "exec"), space)
        return said[0]


def ready(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return isinstance(node.value, ast.Constant) and isinstance(node.targets[0], ast.Name)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def calls_check(node: ast.stmt) -> bool:
    return ast.unparse(node).startswith("print(check(")


def exercises(of: str = "") -> list[Exercise]:
    """All, or those of one notebook, "01"."""
    found = []
    for source in (source for source in [*SOURCES, ASSIGNMENT] if source.stem.startswith(of)):
        cells = read(source)
        for at, cell in enumerate(cells):
            if cell.cell_type == "markdown" and NUMBER.search(cell.source):
                found.append(Exercise(cells, at))
    return found


EXERCISES = exercises()
each = pytest.mark.parametrize("exercise", EXERCISES, ids=[e.number for e in EXERCISES])


def mutants(number: str) -> list:
    of = number.partition(".")[0]
    file = f"notebook_{int(of):02d}" if of.isdigit() else "assignment"
    return importlib.import_module(f"tests.mutants.{file}").MUTANTS[number]


MUTANTS = [(e, *mutant) for e in EXERCISES for mutant in mutants(e.number)]


# --- every exercise ---------------------------------------------------------------------------------------------------


@each
def test_a_stub_fails_kindly(exercise):
    with pytest.raises(NotYetError) as caught:
        exercise.asked(exercise.stub())
    assert str(caught.value).startswith(f"Exercise {exercise.number}: not written yet. Put your lines in place of")
    assert caught.value._render_traceback_() == [str(caught.value)]


@each
def test_a_solution_passes(exercise):
    said = exercise.asked(exercise.solution.source)
    assert re.match(rf"Exercise {exercise.number}: right\. [A-Z].+\.$", said)
    stored = "".join(output.get("text", "") for output in exercise.check.outputs)
    assert said in stored, "the committed notebook shows it"


@pytest.mark.parametrize(
    ("exercise", "what", "changes", "says"), MUTANTS, ids=[f"{m[0].number} {m[1]}" for m in MUTANTS]
)
def test_a_typical_slip_is_named(exercise, what, changes, says, monkeypatch):
    monkeypatch.setattr(checks, "LIMIT", 3.0)
    source = exercise.solution.source
    for old, new in changes:
        assert old in source, f"{what}: {old!r} is not in the solution"
        source = source.replace(old, new)
    with pytest.raises(NotYetError) as caught:
        exercise.asked(source)
    assert re.search(says, str(caught.value)), str(caught.value)


@each
def test_three_slips_at_least_are_tried(exercise):
    assert len({says for _, _, says in mutants(exercise.number)}) >= 3, "with three different answers"


@each
def test_an_exercise_has_its_form(exercise):
    """Task, solution under nbgrader's markers, check that gives points; hints are folded."""
    task, solution, check_ = exercise.task, exercise.solution, exercise.check
    minutes, level, points = EFFORT.search(task.source).groups()
    assert 3 <= int(minutes) <= 30
    assert int(points) == level.count("●") + 1
    visible = re.sub(r"<details>.*?</details>", "", task.source, flags=re.S)
    assert len(visible.split()) <= 130
    assert 2 <= task.source.count("<details><summary>Hint") <= 3
    assert all(tagged(cell, "exercise") for cell in (solution, check_))
    body = ast.parse(solution.source).body
    assert all(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom) for node in body)
    assert solution.source.count("### BEGIN SOLUTION") == solution.source.count("### END SOLUTION") >= 1
    assert solution.metadata.nbgrader.solution
    assert not solution.metadata.nbgrader.grade
    assert check_.metadata.nbgrader.grade
    assert check_.metadata.nbgrader.locked
    assert check_.metadata.nbgrader.points == int(points)
    assert check_.metadata.nbgrader.grade_id == check_.id
    assert ast.parse(exercise.stub())


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_notebook_has_its_exercises_in_order(source):
    numbers = [e.number for e in exercises(source.stem)]
    assert numbers == [f"{int(source.stem[:2])}.{k}" for k in range(1, len(numbers) + 1)]
    assert len(numbers) >= 4


def test_there_are_thirty_two_at_least_and_the_readme_counts_them():
    of_series = [e for e in EXERCISES if e.number[0] != "A"]
    assert len(of_series) >= 32
    assert f"exercises unsolved: {len(of_series)} in all" in (ROOT / "README.md").read_text(encoding="utf-8")


def bound(source: str) -> set[str]:
    """The names that a cell leaves behind: not those inside its functions."""
    names, nodes = set(), list(ast.parse(source).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        else:
            names |= {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
            nodes += ast.iter_child_nodes(node)
    return names


def loaded(source: str) -> set[str]:
    names = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Load)}


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_lecture_goes_on_without_its_exercises(source):
    """No cell of the lecture uses a name that only an exercise has defined, import included."""
    of_exercises, of_lecture = set(), set()
    for cell in read(source):
        if cell.cell_type == "code" and tagged(cell, "exercise"):
            of_exercises |= bound(cell.source)
        elif cell.cell_type == "code":
            of_lecture |= bound(cell.source)
            assert not (loaded(cell.source) - of_lecture) & of_exercises, cell.id


# --- guesses and answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_guesses_are_typed_before_and_taken_up_at_the_end(source):
    cells = read(source)
    guesses = [name for cell in cells if tagged(cell, "guess") for name in bound(cell.source)]
    assert len(guesses) >= 2
    for cell in cells:
        if tagged(cell, "guess"):
            assert re.fullmatch(r"my_\w+ = None  # \S.+", cell.source)
    (reviewed,) = (cell for cell in cells if tagged(cell, "review") and cell.cell_type == "code")
    assert re.findall(r"\bmy_\w+", reviewed.source) == guesses


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_every_question_has_its_answer_folded_below_it(source):
    last = read(source)[-1].source
    questions = last.partition("**Questions**")[2].partition("**Further reading**")[0]
    asked = len(re.findall(r"^\d+\. ", questions, flags=re.M))
    answers = re.findall(r"<details><summary>Answer</summary>\n\n(.+?)\n\n\s*</details>", questions, flags=re.S)
    assert len(answers) == asked >= 4
    assert all(len(answer.split()) >= 10 for answer in answers)


def test_a_review_says_what_became_of_each_guess():
    said = review(
        ("steps", None, 1371), ("loss", 0.5, 0.25), ("loss", 0.5, 0.5), ("first", "The", "the"), ("share", 3, 0)
    )
    assert said.splitlines() == [
        "steps  it is 1,371; you have not guessed",
        "loss   it is 0.25; your 0.5 is 2.0 times too high",
        "loss   0.5, exactly as you guessed",
        "first  the, as you guessed",
        "share  it is 0; you guessed 3",
    ]
    assert "you guessed b" in review(("which", "b", "a"))
    assert "your 1,370 is close" in review(("steps", 1370, 1371))
    assert "your 500 is 167 times too high" in review(("steps", 500, 3))
    assert "your 0.08 is 1.07 times too low" in review(("loss", 0.08, 0.0857))


# --- the checks' own machinery ----------------------------------------------------------------------------------------


def test_expect_names_the_kind_of_thing_before_its_value():
    import torch

    for found, wanted, says in (
        (None, 1, "returns nothing"),
        ([1.0], torch.ones(1), "tensor of the shape"),
        (torch.ones(2), torch.ones(1), r"shape is \(2,\), and should be \(1,\)\. sum"),
        (torch.tensor([float("nan")]), torch.ones(1), "sum"),
        ([1, 2], [1, 3], "sum"),
        ((1, 2), [1, 2, 3], "sum"),
        (0.2, 0.1, "sum"),
        (float("nan"), 0.1, "sum"),
    ):
        with pytest.raises(WrongError, match=says):
            expect(found, wanted, "sum", tolerance=1e-3)
    for found, wanted in ((0.1001, 0.1), ((1, 2), [1, 2]), (torch.tensor(0.1), 0.1), (torch.tensor([1, 2]), [1, 2])):
        expect(found, wanted, "sum", tolerance=1e-3)
    refuse(False, "no")
    with pytest.raises(WrongError, match="it is 7 and not 8"):
        expect(7, 8, "it is {found} and not {wanted}")
    with pytest.raises(WrongError, match=r"\[0\.3333, 12\] and not \[0\.5\]"):
        expect([1 / 3, 12], [0.5], "{found} and not {wanted}")


def test_an_error_of_the_learners_own_is_told_with_its_line(tmp_path):
    (tmp_path / "cell.py").write_text("def bpe(word, ranks):\n    return ranks[99]\n")
    exec(compile((tmp_path / "cell.py").read_text(), str(tmp_path / "cell.py"), "exec"), space := {})
    with pytest.raises(NotYetError, match=r"stops with KeyError: 99 \(line 2 of your cell: return ranks\[99\]\)"):
        check("1.2", space["bpe"])


def test_the_line_of_a_decorated_function_is_the_learners_too(tmp_path):
    code = "import torch\n\n@torch.no_grad()\ndef bpe(word, ranks):\n    return ranks[99]\n"
    exec(compile(code, str(tmp_path / "cell.py"), "exec"), space := {})
    with pytest.raises(NotYetError, match=r"stops with KeyError: 99 \(line 5 of your cell\)"):
        check("1.2", space["bpe"])


def test_what_stops_the_check_itself_is_not_blamed_on_a_line():
    with pytest.raises(NotYetError, match=r"The check cannot use what it got: TypeError.*kind that is asked for\?$"):
        check("1.2", lambda: None)


def test_a_missing_kernel_of_pytorch_is_no_stub():
    import torch

    with pytest.raises(NotYetError, match=r"stops with NotImplementedError: .*line"):
        check("1.2", lambda *_: torch.softmax(torch.tensor([1, 2]), 0))


def test_exit_is_an_error_like_others():
    with pytest.raises(NotYetError, match="stops with SystemExit: 3"):
        check("1.2", lambda *_: sys.exit(3))


def test_a_warning_costs_no_points(capfd):
    """nbgrader takes anything on stderr for a failure."""
    solution = next(e for e in EXERCISES if e.number == "1.2")
    exec(solution.solution.source, space := solution.space())

    def warned(word, ranks):
        warnings.warn("old", stacklevel=1)
        print("seen", file=sys.stderr)
        return space["bpe"](word, ranks)

    assert check("1.2", warned).startswith("Exercise 1.2: right.")
    assert "old" not in capfd.readouterr().err


def test_an_answer_that_spoils_its_arguments_does_not_spoil_the_next_check():
    solved = next(e for e in EXERCISES if e.number == "5.6")

    def spoils(_, tokens, *__):
        tokens.zero_()

    with pytest.raises(NotYetError):
        check("5.6", spoils)
    assert solved.asked(solved.solution.source).startswith("Exercise 5.6: right.")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such clock")
def test_a_loop_without_end_is_ended(monkeypatch):
    monkeypatch.setattr(checks, "LIMIT", 0.2)
    count = itertools.count()

    def forever(*_):
        while True:
            try:
                sum(range(100))
            except:  # noqa: E722
                if next(count):
                    raise

    with pytest.raises(NotYetError, match=r"has not come to an end after 0\.2 seconds of work"):
        check("1.1", forever)


# --- the student's notebooks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [*SOURCES, ASSIGNMENT], ids=[*NAMES, "assignment"])
def test_the_committed_workbook_is_what_make_workbook_writes(source):
    made = workbook.student_version(source)
    assert (workbook.FOLDER / source.name).read_text(encoding="utf-8") == made, "make workbook"
    assert "BEGIN SOLUTION" not in made


@pytest.mark.parametrize("source", [*SOURCES, ASSIGNMENT], ids=[*NAMES, "assignment"])
def test_with_the_solutions_pasted_in_the_workbook_is_the_notebook(source):
    """Cell by cell the same source, so its numbers are the committed ones, which nbval compares."""
    solved, student = read(source), read(workbook.FOLDER / source.name)
    assert [cell.id for cell in solved] == [cell.id for cell in student]
    for ours, theirs in zip(solved[1:], student[1:], strict=True):
        if ours.metadata.get("nbgrader", {}).get("solution"):
            assert "raise NotImplementedError()" in theirs.source or theirs.source == "YOUR ANSWER HERE"
            theirs.source = ours.source
        if theirs.source.startswith(workbook.OPEN):
            theirs.source = theirs.source.removeprefix(workbook.OPEN).replace(workbook.CLOSE, "", 1)
        assert ours.source == theirs.source
        left_out = tagged(ours, "exercise") or source == ASSIGNMENT
        assert ours.get("outputs") == theirs.get("outputs") or (left_out and not theirs.outputs)


def test_what_tells_the_result_of_a_guess_is_folded():
    """All outputs up to the next prose, and that prose up to its next heading."""
    for source in SOURCES:
        cells = read(workbook.FOLDER / source.name)
        for at in [at for at, cell in enumerate(cells) if tagged(cell, "guess")]:
            after = [cell for cell in cells[at + 1 :] if not tagged(cell, "exercise")]
            results = list(itertools.takewhile(lambda cell: cell.cell_type == "code", after))
            assert results
            assert all(cell.metadata.jupyter.outputs_hidden for cell in results if not tagged(cell, "guess"))
            prose = after[len(results)].source
            assert prose.startswith(("#", workbook.OPEN)), (source.stem, prose[:60])
    assert workbook.folded("# Title\n\nText") == "# Title\n\nText"
    assert (
        workbook.folded("Seen.\n\n## Next\n\nText") == workbook.OPEN + "Seen." + workbook.CLOSE + "\n\n## Next\n\nText"
    )


def test_the_assignment_that_is_handed_out_shows_no_result_and_no_way_to_the_solution():
    for path in (workbook.FOLDER / ASSIGNMENT.name, ASSIGNMENT):
        assert "teaching/" not in path.read_text(encoding="utf-8")
    assert not any(cell.get("outputs") for cell in read(workbook.FOLDER / ASSIGNMENT.name))


def test_run_all_goes_on_over_what_is_not_solved(tmp_path):
    """Every cell of a student's notebook runs; the checks alone stop, each with its one sentence."""
    source = workbook.FOLDER / SOURCES[0].name
    line = [
        sys.executable,
        "-m",
        "nbconvert",
        "--to",
        "notebook",
        "--execute",
        str(source),
        "--output-dir",
        str(tmp_path),
    ]
    env = {**os.environ, "RUNS_DIR": str(tmp_path / "runs")}
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    errors = [o for cell in read(tmp_path / source.name) for o in cell.get("outputs", []) if o.output_type == "error"]
    assert [e.number for e in exercises("01")] == [re.match(r"Exercise (\S+):", e.evalue)[1] for e in errors]
    assert all(error.traceback == [error.evalue] for error in errors)


def test_the_answer_key_is_made_from_the_notebooks_and_holds_every_solution():
    key = answers.answer_key()
    assert answers.KEY.read_text(encoding="utf-8") == key, "make workbook"
    for exercise in EXERCISES:
        assert f"### Exercise {exercise.number} · {exercise.title}" in key
        last = [line for line in exercise.solution.source.splitlines() if "### END" not in line][-1]
        assert last in key
    assert "BEGIN SOLUTION" not in key


def test_the_teachers_plans_say_where_each_exercise_goes():
    text = (ROOT / "notebooks/TEACHING.md").read_text(encoding="utf-8")
    plans = re.split(r"^### (?=\d+ · )", text, flags=re.M)[1:]
    assert len(plans) == len(SOURCES)
    for plan, source in zip(plans, SOURCES, strict=True):
        plan = plan.partition("\n## ")[0]
        named = re.findall(r"\b\d+\.\d\b", plan)
        assert set(named) >= {e.number for e in exercises(source.stem)}, source.stem
        assert all(word in plan for word in ("Board:", "Discuss:", "Common mistakes:"))
        minutes = [int(found) for found in re.findall(r"^\| (\d+) \|", plan, flags=re.M)]
        assert sum(minutes) == 90, source.stem
    points = sum(cell.metadata.get("nbgrader", {}).get("points", 0) for cell in read(ASSIGNMENT))
    assert f"a graded assignment, {points} points" in text
