"""The series as a newcomer meets it: the set-up cell, headless runs, the Makefile, the README."""

import hashlib
import os
import re
import shutil
import subprocess

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.files import ROOT
from helpers.tools.execute import NotebookError, refresh_notebook, run_notebook, write_html


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


def test_results_that_were_deleted_are_made_again(tmp_path):
    """make on a copy in which every notebook has been executed: nothing to do; then the results vanish."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("notebooks/01_a.ipynb", "notebooks/02_b.ipynb", "helpers/x.py", "data/sample.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "runs/demo").mkdir(parents=True)
    (tmp_path / "runs/demo/.started").touch()
    (tmp_path / "build/demo").mkdir(parents=True)
    for name in ("01_a", "02_b"):
        (tmp_path / f"build/demo/{name}.ipynb").touch()

    def planned(*arguments):
        line = ["make", "-n", "run-all", "PYTHON=python", *arguments]
        done = subprocess.run(line, cwd=tmp_path, env=bare_make(), check=True, capture_output=True, text=True)
        return re.findall(r"run notebooks/(\w+)", done.stdout)

    assert planned() == []
    assert planned("PROFILE=laptop") == ["01_a", "02_b"]
    shutil.rmtree(tmp_path / "runs")
    assert planned() == ["01_a", "02_b"]


def test_make_runs_the_notebooks_in_order_one_after_the_other():
    out = make("-n", "-B", "-j4", "run-all", "PYTHON=python")
    assert re.findall(r"run notebooks/(\d\d)_", out) == ["01", "02", "03", "04", "05", "06"]


def test_the_limit_of_a_cell_is_set_from_the_command_line():
    assert "--cell-limit" not in make("-n", "-B", "run-all", "PYTHON=python"), "the profile's own"
    runs = re.findall(r"helpers.tools.execute run .*", make("-n", "-B", "run-all", "PYTHON=python", "CELL_LIMIT=9"))
    assert len(runs) == 6
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
    assert re.search(
        r"helpers.tools.execute refresh notebooks/01_.*06_\w+\.ipynb *\n.*runs/demo/figures", make("-n", "refresh")
    )


def test_the_readme_and_ci_use_commands_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {"run-all", "test"} <= set(re.findall(r"make ([a-z-]+)", readme)) <= targets
    script = (ROOT / ".ci/run").read_text()
    assert "make run-all" in script
    assert "make test" in script
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert (ROOT / path).exists(), path


def test_the_readme_describes_the_helpers_that_are_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("```")[readme.split("```").index(next(b for b in readme.split("```") if "helpers/  " in b))]
    programs = {"install", "set_up_cell", "__init__"}
    for path in (ROOT / "helpers").glob("*.py"):
        assert path.stem in programs or re.search(rf"\b{path.stem}\b", tree), path.stem
