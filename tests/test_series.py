"""The series as a newcomer meets it: the set-up cell, headless runs, the Makefile, the README."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.base.files import ROOT, imported
from helpers.tools.execute import NotebookError, refresh_notebook, run_notebook
from helpers.tools.pages import with_mathml, write_html


def notebook(path, *cells: str):
    sources = ['PROFILE: str = "demo"  # which', *cells]
    nb = new_notebook(cells=[new_code_cell(source, id=f"c-{i}") for i, source in enumerate(sources)])
    nb.cells[0].metadata["tags"] = ["parameters"]
    nb.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(nb, path)
    return path


def test_a_notebook_that_fails_stops_with_its_traceback_and_leaves_no_target(tmp_path):
    source = notebook(tmp_path / "n.ipynb", "1 / 0", "print('never')")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/n.ipynb").write_text("an earlier success")
    with pytest.raises(NotebookError, match=r"ZeroDivisionError[\s\S]*stopped in cell \[3\]; see .*n\.partial\.ipynb"):
        run_notebook(source, tmp_path / "out/n.ipynb", "demo")
    assert (tmp_path / "out/n.ipynb").read_text() == "an earlier success"
    assert (tmp_path / "out/n.partial.ipynb").exists()


def test_a_notebook_that_ends_early_without_an_error_is_a_failure(tmp_path):
    source = notebook(tmp_path / "n.ipynb", "import sys\nsys.exit(0)", "print('never')")
    with pytest.raises(NotebookError, match="1 cells did not run"):
        run_notebook(source, tmp_path / "out.ipynb", "demo")
    assert not (tmp_path / "out.ipynb").exists()


def test_a_run_takes_its_profile_and_shows_itself_without_network(tmp_path):
    source = notebook(tmp_path / "n.ipynb", "print(PROFILE)")
    before = source.read_bytes()
    run_notebook(source, tmp_path / "out.ipynb", "laptop")
    done = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert done.cells[-1].outputs[0].text == "laptop\n"
    assert source.read_bytes() == before, "the input is never overwritten"
    page = write_html(tmp_path / "out.ipynb").read_text(encoding="utf-8")
    loads = re.findall(r"""(?:src|href)\s*=\s*["'](https?:[^"']+)|import\(?\s*["'](https?:[^"']+)""", page)
    assert loads == []


def test_an_executed_notebook_has_the_time_of_its_beginning(tmp_path):
    """For make: what was saved while it ran is newer."""
    source = notebook(tmp_path / "n.ipynb", "open('saved', 'w').close()")
    run_notebook(source, tmp_path / "out.ipynb", "demo")
    assert source.stat().st_mtime < (tmp_path / "out.ipynb").stat().st_mtime < (tmp_path / "saved").stat().st_mtime


def test_formulas_are_shown_without_network_and_code_is_left_alone():
    html = with_mathml("<p>Of $x_1$ and</p><p>$$\\frac{a}{b &lt; c}$$</p><pre>$HOME $x$</pre><code>a$b$c</code> $y$")
    assert html.count("<math") == 3
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in html
    assert "<mfrac>" in html
    assert "&lt;" in html or "&#x0003C;" in html
    assert "<pre>$HOME $x$</pre><code>a$b$c</code>" in html
    assert with_mathml("<p>nothing to do</p>") == "<p>nothing to do</p>"


def test_an_exported_page_has_formulas_and_links_to_pages(tmp_path):
    source = notebook(tmp_path / "n.ipynb", "1")
    held = nbformat.read(source, as_version=4)
    held.cells.append(nbformat.v4.new_markdown_cell("The sum $\\sum_i p_i = 1$, see [next](02_char_baseline.ipynb)."))
    held.cells.append(nbformat.v4.new_code_cell("find_the_series()", metadata={"tags": ["set-up"]}))
    pixel = base64.b64encode(b"one").decode()
    for words in ("a line that rises", 'a "bar"'):
        shown = {"data": {"image/png": pixel}, "metadata": {"image/png": {"alt": words}}}
        drawn = nbformat.v4.new_output("display_data", **shown)
        held.cells.append(nbformat.v4.new_code_cell("draw()", outputs=[drawn]))
    nbformat.write(held, source)
    page = write_html(source).read_text(encoding="utf-8")
    assert "find_the_series" not in page
    assert re.findall(r'<img alt="([^"]*)"', page) == ["a line that rises", "a &quot;bar&quot;"]
    assert "<msub>" in page
    assert "$" not in page.partition("The sum")[2].partition("</p>")[0]
    assert 'href="02_char_baseline.html"' in page


def test_refreshing_twice_gives_the_same_bytes(tmp_path):
    source = notebook(tmp_path / "n.ipynb", "print(1)\nprint(2)", "import random; random.seed(0); random.random()")
    digests = []
    for _ in range(2):
        refresh_notebook(source)
        digests.append(hashlib.sha256(source.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    stored = nbformat.read(source, as_version=4)
    assert [cell.execution_count for cell in stored.cells] == [1, 2, 3]
    assert stored.cells[1].outputs[0].text == "1\n2\n"
    assert "papermill" not in stored.metadata


def bare_make() -> dict[str, str]:
    """The environment without what `make test` itself sets for its children: another RUNS_DIR, its own flags."""
    return {k: v for k, v in os.environ.items() if k not in ("RUNS_DIR", "PROFILE", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")}


def make(*arguments: str) -> str:
    line = ["make", *arguments]
    return subprocess.run(line, cwd=ROOT, env=bare_make(), check=True, capture_output=True, text=True).stdout


def test_make_help_lists_every_target():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.M)[1].split()
    listed = re.findall(r"^  make ([a-z-]+)", make("help"), flags=re.M)
    assert sorted(listed) == sorted(phony)


NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the series in which every notebook has been executed, so far as make can tell."""
    folder = tmp_path_factory.mktemp("series")
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("helpers", "notebooks", "data"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "runs/demo").mkdir(parents=True)
    (folder / "runs/demo/.started").touch()
    for name in NOTEBOOKS:
        source, target = f"notebooks/{name}.ipynb", f"build/demo/{name}.ipynb"
        line = [sys.executable, "-m", "helpers.tools.depends", source, target]
        subprocess.run(line, cwd=folder, env=bare_make() | {"PYTHONPATH": ""}, check=True)
        (folder / target).touch()
    return folder


def planned(folder, *arguments: str, change: str | None = None) -> list[str]:
    """The notebooks that make would execute there; after a change of a file, which is taken back."""
    if change:
        before = (folder / change).stat()
        newest = max(path.stat().st_mtime for path in folder.rglob("*"))
        os.utime(folder / change, (newest + 10, newest + 10))
    line = ["make", "-n", "run-all", "PYTHON=python", *arguments]
    done = subprocess.run(line, cwd=folder, env=bare_make(), check=True, capture_output=True, text=True)
    if change:
        os.utime(folder / change, (before.st_atime, before.st_mtime))
    return re.findall(r"run notebooks/(\w+)", done.stdout)


def test_results_that_were_deleted_are_made_again(finished):
    """make on a copy in which every notebook has been executed: nothing to do; then the results vanish."""
    assert planned(finished) == []
    assert planned(finished, "PROFILE=laptop") == NOTEBOOKS
    (finished / "runs").rename(finished / "away")
    assert planned(finished) == NOTEBOOKS
    (finished / "away").rename(finished / "runs")
    assert planned(finished) == []


def test_a_notebook_runs_again_when_what_it_imports_has_changed_and_not_otherwise(finished):
    """And those after it, which may read what it leaves."""
    for change in ("helpers/serve/space.py", "helpers/tools/execute.py", "data/README.md", "data/runs/README.md"):
        assert planned(finished, change=change) == [], change
    for change in ("data/sample.txt", "data/runs", "data/runs/laws.csv", "data/runs/demo-seed-1/metrics.json"):
        assert planned(finished, change=change) == NOTEBOOKS, change  # the folder's: a run was added or deleted
    assert planned(finished, change=f"notebooks/{NOTEBOOKS[2]}.ipynb") == NOTEBOOKS[2:]
    for module in ("model", "run/session", "serve/engine", "serve/page"):
        word = f"helpers.{module.replace('/', '.')}"
        named = [name for name in NOTEBOOKS if word in (ROOT / f"notebooks/{name}.ipynb").read_text(encoding="utf-8")]
        again = planned(finished, change=f"helpers/{module}.py")
        assert again == NOTEBOOKS[-len(again) :], module
        assert set(named) <= set(again), module
    assert planned(finished, change="helpers/serve/page.py") != NOTEBOOKS
    assert planned(finished, change="helpers/tools/cli.py"), "a notebook starts the command line"


def test_a_helper_that_has_been_deleted_runs_its_notebooks_again_and_does_not_stop_make(finished):
    (finished / "helpers/model.py").rename(finished / "model.py")
    assert planned(finished) == NOTEBOOKS[-len(planned(finished)) :] != []
    (finished / "model.py").rename(finished / "helpers/model.py")


def test_what_a_program_imports_is_what_python_loads_for_it():
    program = "from helpers.run.session import Session\nfrom helpers.memorization import recall"
    loaded = "sorted(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'helpers')"
    line = [sys.executable, "-c", f"{program}\nimport sys\nprint(*{loaded}, sep='\\n')"]
    done = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True)
    assert sorted(str(ROOT / file) for file in imported(program)) == done.stdout.split()


def test_what_executes_a_notebook_does_not_build_the_grammar_of_addresses():
    program = (
        "import sys\nimport helpers.tools.execute\nassert {'jsonschema'} == {'jsonschema', 'lark'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_only_commands_import_helpers_late():
    """So what `imported` finds at the top of the files is all: for make, and for a Space."""
    for path in (ROOT / "helpers").glob("**/*.py"):
        if path.parent.name != "tools":
            assert not re.search(r"^ +from helpers", path.read_text(encoding="utf-8"), flags=re.M), path


def test_every_notebook_waits_for_the_one_before_it():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for before, after in pairwise(NOTEBOOKS):
        assert f"\n$(OUT)/{after}.ipynb: $(OUT)/{before}.ipynb\n" in makefile


def test_make_runs_the_notebooks_in_order_one_after_the_other():
    out = make("-n", "-B", "-j4", "run-all", "PYTHON=python")
    assert re.findall(r"run notebooks/(\d\d)_", out) == [name[:2] for name in NOTEBOOKS]


def test_the_limit_of_a_cell_is_set_from_the_command_line():
    assert "--cell-limit" not in make("-n", "-B", "run-all", "PYTHON=python"), "the profile's own"
    runs = re.findall(r"helpers.tools.execute run .*", make("-n", "-B", "run-all", "PYTHON=python", "CELL_LIMIT=9"))
    assert len(runs) == len(NOTEBOOKS)
    assert all(line.endswith("--profile demo --cell-limit 9") for line in runs)
    assert re.search(
        r"execute refresh .* --cell-limit 9$", make("-n", "refresh", "PYTHON=python", "CELL_LIMIT=9"), re.M
    )
    for arguments, seconds in (([], 600), (["CELL_LIMIT=9"], 9)):
        line = make("-n", "test", "PYTHON=python", *arguments).replace("\\\n", "")
        assert re.search(rf"-p tests.watching notebooks tests\s.*--nbval .* --nbval-cell-timeout {seconds}\n", line)


def test_refresh_is_of_the_demo_profile_and_refuses_another():
    """It would run demo and put the other profile's figure into the repository."""
    line = ["make", "refresh", "PYTHON=python", "PROFILE=laptop"]
    done = subprocess.run([*line, "-n"], cwd=ROOT, env=bare_make(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "refresh re-makes the outputs of the demo profile: leave PROFILE=laptop out" in done.stderr
    assert "helpers.tools.execute" not in done.stdout
    asked = [r"refresh notebooks/01_.*08_\w+\.ipynb .*assignment\.ipynb *", ".*glossary", ".*workbook", ".*answers"]
    assert re.search("\n".join([*asked, ".*runs/demo/figures"]), make("-n", "refresh"))


def test_the_readme_and_ci_use_commands_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {"run-all", "test"} <= set(re.findall(r"make ([a-z-]+)", readme)) <= targets
    script = (ROOT / ".ci/run").read_text()
    assert "make run-all" in script
    assert "make test" in script
    for path in ("helpers/README.md", "data/runs/README.md", "CONTRIBUTING.md"):
        text = (ROOT / path).read_text(encoding="utf-8")
        assert set(re.findall(r"(?:`|^|&& )make ([a-z-]+)", text, flags=re.M)) <= targets, path


def test_the_readme_describes_the_helpers_that_are_there():
    """And no others: the top of the folder by name, the three below it as a line each; helpers/README.md every file."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tree,) = (block for block in readme.split("```") if "helpers/  " in block)
    listed = re.findall(r"^  ([a-z_]+|__main__) .*?\S(?:  +([a-z_]+|__main__) .*)?$", tree, flags=re.M)
    top = {path.stem for path in (ROOT / "helpers").glob("*.py")} - {"__init__"}
    assert {name for names in listed for name in names if name} == top
    folders = {path.parent.name for path in (ROOT / "helpers").glob("*/*.py")}
    assert set(re.findall(r"^  ([a-z]+)/ ", tree, flags=re.M)) == folders
    mapped = re.findall(r"^\| `([\w/]+)\.py` \|", (ROOT / "helpers/README.md").read_text(encoding="utf-8"), flags=re.M)
    files = [path.relative_to(ROOT / "helpers") for path in (ROOT / "helpers").glob("**/*.py")]
    assert sorted(mapped) == sorted(f.with_suffix("").as_posix() for f in files if f.stem != "__init__")
