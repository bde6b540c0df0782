"""The committed notebooks: their shape, their outputs, and that a changed output does not go unnoticed.

nbval compares every cell that is not tagged `nbval-ignore-output`; it lets a cell without outputs and count pass
whatever it prints, so what must be there is tested here.
"""

import ast
import copy
import math
import os
import re
import statistics
import subprocess
import sys

import nbformat
import pytest

from helpers.base.files import ROOT
from helpers.plots import SERIES
from helpers.run.evaluation import measure
from helpers.tools.execute import VOLATILE
from tests.conftest import tiny_gpt

SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [source.stem for source in SOURCES]
CHECKED, MEASURED = "nbval-check-output", "nbval-ignore-output"


def read(source):
    return nbformat.read(source, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def printed(cell) -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")


def shown(cell) -> str:
    """What a cell printed, and the captions of its figures."""
    return printed(cell) + "".join(o.get("data", {}).get("text/markdown", "") for o in cell.outputs)


def problems(notebook) -> list[str]:
    """What is wrong with the stored outputs of a notebook, by cell."""
    found = []
    for number, cell in enumerate(code(notebook), 1):
        label = [tag for tag in tags(cell) if tag in (CHECKED, MEASURED)]
        if cell.execution_count != number:
            found.append(f"[{number}] has execution count {cell.execution_count}")
        if cell.outputs and len(label) != 1:
            found.append(f"[{number}] has outputs and not exactly one of {CHECKED} and {MEASURED}")
        if label and not cell.outputs:
            found.append(f"[{number}] is tagged {label[0]} and has no stored output")
        if any(o.output_type == "error" for o in cell.outputs):
            found.append(f"[{number}] stores an error")
        if any(o.get("name") == "stderr" for o in cell.outputs):
            found.append(f"[{number}] stores stderr")
        if re.search(r"0x[0-9a-f]{6,}|/(?:home|root|tmp|Users)/", printed(cell)):
            found.append(f"[{number}] prints an address or a path of one machine")
    return found


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_stored_outputs_are_whole(source):
    assert problems(read(source)) == []


def test_metadata_is_free_of_what_differs_by_machine():
    keep = ["--keep-output", "--keep-count", "--keep-id", "--extra-keys", VOLATILE]
    line = [sys.executable, "-m", "nbstripout", *keep, "--verify", *map(str, SOURCES)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for source in SOURCES:
        assert not [cell.id for cell in code(read(source)) if "injected-parameters" in tags(cell)]


def test_windows_too_short_for_a_recall_do_not_break_notebook_08(tokens):
    """Its comparison of formats, on windows of 64: they hold no 50 -> 50."""
    cells = [cell.source for cell in code(read(ROOT / "notebooks/08_serving.ipynb"))]
    model = tiny_gpt(block_size=64)
    measured = measure(model, tokens, 64)
    assert math.isnan(measured["recall_50_50"])
    assert not math.isnan(measured["recall_32_32"])
    found = {name: dict(measured) for name in ("fp32", "bf16", "int8")}
    for words in ('"recall_50_50": "recall 50 -> 50"', "def kept("):
        (source,) = (source for source in cells if words in source)
        exec(source, space := {"found": found})
    assert space["kept"]("int8")
    found["int8"]["recall_32_32"] -= 0.02
    assert not space["kept"]("int8")


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_the_set_up_cell_is_the_same_everywhere(source):
    (cell,) = (cell for cell in code(read(source)) if "set-up" in tags(cell))
    assert cell.source == (ROOT / "helpers/tools/setup_cell.py").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_parameters_are_plain_literals_of_the_demo_profile(source):
    (cell,) = (cell for cell in code(read(source)) if "parameters" in tags(cell))
    statements = ast.parse(cell.source).body
    assert all(isinstance(s, ast.AnnAssign) and isinstance(s.value, ast.Constant) for s in statements)
    assert {s.target.id: s.value.value for s in statements}["PROFILE"] == "demo"


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_notebook_has_the_series_skeleton(source):
    cells = read(source).cells
    first, last = cells[0].source, cells[-1].source
    number = int(source.stem[:2])
    assert first.startswith(f"# {number} · ")
    assert all(f"**{word}" in first for word in ("You will be able to", "You need", "Time", "Reads"))
    assert any(f"show_roadmap({number})" in cell.source for cell in cells)
    assert any(re.search(r"^## Checks$", cell.source, flags=re.M) for cell in cells)
    assert last.startswith("## What you can do now")
    assert "**Further reading" in last
    assert "](https://" in last
    for word, at in (("Previous", number - 2), ("Next", number)):
        if 0 <= at < len(SOURCES):
            assert re.search(rf"\*\*{word}:\*\* \[[^]]+\]\({SOURCES[at].name}\)", last), word


def test_the_roadmap_shows_the_notebooks_that_there_are():
    assert len(SERIES) == len(SOURCES)
    for title, source in zip(SERIES, SOURCES, strict=True):
        assert title.lower().replace("-", "").split()[0] in source.stem.replace("_", " ")


def lines_of(cell) -> list[str]:
    return [line for line in cell.source.splitlines() if line.strip()]


WORK = {"exercise", "guess", "review"}  # cells in which the reader works; all others are the lecture


def lecture(source) -> list:
    return [cell for cell in read(source).cells if not WORK & set(tags(cell))]


def words(cell) -> int:
    """Words that are read: a formula in a line is one; one of its own line is none, nor is what is folded (hints)."""
    unfolded = re.sub(r"\$\$.+?\$\$|<details>.+?</details>", "", cell.source, flags=re.S)
    return len(re.sub(r"\$[^$\n]+\$", "x", unfolded).split())


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_notebook_is_a_lesson_of_ninety_minutes(source):
    cells = lecture(source)
    prose = [words(cell) for cell in cells if cell.cell_type == "markdown"]
    assert len(cells) <= 60
    assert len(read(source).cells) <= 60 + 26
    assert sum(prose) <= 1800
    assert max(prose) <= 150
    assert sum(CHECKED in tags(cell) for cell in cells) >= 0.7 * sum(cell.cell_type == "code" for cell in cells)


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_prose_comes_first(source):
    cells = lecture(source)[4:]  # after title, set-up, imports and parameters
    kinds = "".join("c" if cell.cell_type == "code" else "m" for cell in cells)
    assert "ccc" not in kinds, "more than two code cells in a row"
    assert statistics.median(len(lines_of(cell)) for cell in cells if cell.cell_type == "code") <= 6


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_imports_come_where_they_are_needed(source):
    for cell in code(read(source)):
        if "set-up" not in tags(cell):
            assert len([line for line in lines_of(cell) if re.match(r"(from|import) ", line)]) <= 12


HEARTS = {  # what the series is about is written out where it is taught, and compared with the helper
    "01": ["merges", "windows", "loss floor"],
    "04": ["training step"],
    "05": ["corpus loss", "recall"],
    "06": ["AdamW", "Muon"],
    "07": ["sampling"],
    "08": ["KV cache", "int8 rows", "draft and verify"],
}


@pytest.mark.parametrize(("number", "heart"), [(n, heart) for n, hearts in HEARTS.items() for heart in hearts])
def test_the_heart_is_on_the_page(number, heart):
    (source,) = (source for source in SOURCES if source.stem.startswith(number))
    cells = [cell for cell in code(read(source)) if f"{heart}: ours == helper: True" in printed(cell)]
    assert len(cells) == 1
    assert CHECKED in tags(cells[0])


FORMULAS = {  # a notebook teaches them; each has a piece of LaTeX that only it has
    "01": [r"H\(", r"\\log"],
    "02": [r"\\sqrt", "softmax", r"\\sigma"],
    "03": [r"\\mathrm{GELU}", r"12"],
    "04": [r"\\eta", r"\\nabla|\\lVert"],
    "05": [r"\\frac", "recall"],
    "06": [r"\\sqrt", r"\\beta", r"X\^"],
    "07": ["softmax|exp", r"\\sum"],
    "08": [r"\\min", r"\\max"],
    "09": ["exposure", r"\\log_2"],
}


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_formulas_are_formulas(source):
    prose = "\n".join(cell.source for cell in read(source).cells if cell.cell_type == "markdown")
    found = " ".join(a or b for a, b in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", prose, flags=re.S))
    for piece in FORMULAS[source.stem[:2]]:
        assert re.search(piece, found), piece


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_every_figure_has_its_caption_and_words_for_who_cannot_see_it(source):
    captions = []
    for cell in code(read(source)):
        pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        if pictures:
            assert CHECKED in tags(cell)
            assert len(pictures) == 1
            assert len(pictures[0].metadata["image/png"]["alt"]) > 30
            below = "".join(o.data.get("text/markdown", "") for o in cell.outputs if o.output_type == "display_data")
            if "show_roadmap" not in cell.source:
                captions += re.findall(r"\*\*Figure (\d+)\.(\d+)\.\*\* \S", below)
    assert captions == [(str(int(source.stem[:2])), str(n)) for n in range(1, len(captions) + 1)]
    assert captions


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_text_of_a_notebook_needs_no_network_to_be_read(source):
    prose = "\n".join(cell.source for cell in read(source).cells if cell.cell_type == "markdown")
    assert not re.search(r"!\[[^]]*\]\(http|<img", prose)


# --- changed copies must fail ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original():
    return read(ROOT / "notebooks/01_tokenization.ipynb")


def index_of(notebook, pattern: str) -> int:
    """Which code cell showed the pattern."""
    return next(i for i, cell in enumerate(code(notebook)) if re.search(pattern, shown(cell)))


def change_number(cell):
    (stream,) = (o for o in cell.outputs if o.output_type == "stream")
    stream.text = re.sub(r"\d(?=\D*$)", lambda m: str((int(m[0]) + 1) % 10), stream.text, count=1)


def change_caption(cell):
    caption = next(o for o in cell.outputs if "text/markdown" in o.get("data", {}))
    caption.data["text/markdown"] += " More."


def change_figure(cell):
    picture = next(o for o in cell.outputs if "image/png" in o.get("data", {}))
    picture.data["text/plain"] = picture.data["text/plain"].replace("1 Axes", "2 Axes")


def delete_output(cell):
    cell.outputs = []


def clear_count(cell):
    cell.execution_count = None


@pytest.mark.parametrize("change", [delete_output, clear_count], ids=lambda f: f.__name__)
def test_a_deleted_output_or_count_fails_the_structure_tests(original, change):
    for number in (4, 10, 20):
        changed = copy.deepcopy(original)
        cell = code(changed)[number]
        had_output = bool(cell.outputs)
        change(cell)
        assert bool(problems(changed)) == (had_output or change is clear_count)
    measured = read(ROOT / "notebooks/07_generation.ipynb")
    cell = next(cell for cell in code(measured) if MEASURED in tags(cell))
    change(cell)
    assert problems(measured)


def test_a_changed_digit_caption_or_figure_fails_nbval(original):
    """One copy with several changes; nbval must name exactly the changed cells."""
    changed = copy.deepcopy(original)
    changes = {
        index_of(changed, "distinct symbols"): change_number,
        index_of(changed, r"Figure 1\.1\."): change_caption,
        index_of(changed, r"Figure 1\.2\."): change_figure,
        index_of(changed, "occur exactly once"): delete_output,
    }
    for index, change in changes.items():
        change(code(changed)[index])
    folder = ROOT / "build" / "changed-copies"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(changed, folder / "changed.ipynb")

    line = [
        sys.executable,
        "-m",
        "pytest",
        str(folder),
        "--nbval",
        "--nbval-current-env",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    env = {**os.environ, "RUNS_DIR": str(folder / "runs")}
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)
    failed = {int(number) for number in re.findall(r"^FAILED .*::Cell (\d+)", done.stdout, flags=re.M)}
    assert failed == set(changes), done.stdout[-3000:]
