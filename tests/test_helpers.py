"""House rules that a reader of the helpers relies on."""

import ast
from graphlib import TopologicalSorter

import nbformat
import pytest

from helpers.base import files
from helpers.base.files import ROOT, read_json, write_json
from helpers.run.report import verdict

HELPERS = ROOT / "helpers"
FILES = {".".join(p.relative_to(HELPERS).with_suffix("").parts): p for p in sorted(HELPERS.glob("**/*.py"))}
PACKAGES = {  # a package, and what it may import: the course itself and its base, and nobody notebooks or tests
    "base": {"base"},
    "": {"", "base"},
    "run": {"", "base", "run"},
    "serve": {"", "base", "serve", "run.log"},
    "tools": {"", "base", "run", "serve", "tools"},
    "workbook": {"", "base", "run", "serve", "workbook"},
}
COURSE = (
    "config runtime data tokenizer windows model optim train checkpoint memorization generate quantize interop plots"
)
DOORS = {"app": {"serve.page"}, "__main__": {"tools.cli"}}  # names that users know, for what lies deeper
PROGRAMS = ("address", "answers", "cli", "execute", "install", "setup_cell", "slides", "workbook")
SPEAKERS = {f"tools.{name}" for name in PROGRAMS}  # the others return


def imports(path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found.append(node.module or "." * node.level)
            assert not any(alias.name == "*" for alias in node.names), f"{path.name}: star import"
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def package(name: str) -> str:
    return name.rpartition(".")[0]


def ours(name: str) -> set[str]:
    """Which helpers a helper imports."""
    found = {module.removeprefix("helpers.") for module in imports(FILES[name]) if module.startswith("helpers.")}
    assert found <= set(FILES), f"{name}: import from the module, not from a package"
    return found


@pytest.mark.parametrize("name", FILES)
def test_helpers_import_only_what_they_may(name):
    allowed = PACKAGES[package(name)]
    wrong = [m for m in ours(name) if package(m) not in allowed and m not in allowed | DOORS.get(name, set())]
    assert wrong == []
    assert not any(m.startswith((".", "notebooks", "tests")) or m == "helpers" for m in imports(FILES[name]))


def test_no_helper_imports_itself_through_others():
    TopologicalSorter({name: ours(name) for name in FILES}).prepare()  # CycleError names the cycle


def test_the_graph_is_drawn_with_every_module_below_what_it_imports():
    from tests.import_graph import drawn, levels

    assert levels({"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": set()}) == [["a", "d"], ["b"], ["c"]]
    picture = drawn()
    assert all(f"  {name.rpartition('.')[2]}" in picture for name in FILES)
    assert "helpers/run -> helpers/: " in picture
    assert "helpers/ -> helpers/run" not in picture


@pytest.mark.parametrize("name", FILES)
def test_what_is_private_stays_in_its_module(name):
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    froms = (n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("helpers"))
    assert [alias.name for node in froms for alias in node.names if alias.name.startswith("_")] == []


@pytest.mark.parametrize("name", sorted(set(FILES) - SPEAKERS))
def test_helpers_return_values_and_do_not_print(name):
    calls = [n for n in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


@pytest.mark.parametrize("name", FILES)
def test_helpers_never_validate_by_assert(name):
    assert not [
        n.lineno for n in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))) if isinstance(n, ast.Assert)
    ]


@pytest.mark.parametrize("name", FILES)
def test_every_public_name_has_a_docstring(name):
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    without = [n.name for n in public if not ast.get_docstring(n) and n.name not in ("main", "parser")]
    assert not without
    assert ast.get_docstring(tree) or name == "tools.setup_cell"


@pytest.mark.parametrize("name", FILES)
def test_helpers_stay_thin(name):
    text = FILES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    assert [n.name for n in functions if n.end_lineno - n.lineno + 1 > 40] == []


def test_the_top_holds_what_the_course_teaches_and_two_doors():
    top = {name: path for name, path in FILES.items() if not package(name)}
    assert set(top) == {*COURSE.split(), *DOORS, "__init__"}
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in top.values()) <= 2200


# Functions of the course that one notebook or one package alone imports, or none, and why they stay.
ONE_USER = {
    "checkpoint.has_checkpoint": "it knows where a kill between two moves has left the checkpoint",
    "checkpoint.clear_checkpoint": "it knows what belongs to a checkpoint and may be deleted",
    "generate.next_token_probs": "temperature, top-k and top-p: what the Decoder samples with, shown by one notebook",
    "memorization.windows_loss": "corpus_loss on windows of any kind: what it does itself, for `measure`",
    "optim.lr_factor": "the schedule of a step, held against torch's OneCycleLR by a test",
    "optim.beta1": "the other half of a OneCycleLR schedule, held against torch's by a test",
    "quantize.quantize_rows": "the rounding that Int8Linear stores, and one notebook shows",
    "quantize.load_int8": "the other half of save_int8",
    "runtime.pick_device": "one of the three choices of pick_runtime; processes ask before they are connected",
    "runtime.pick_dtype": "one of the three choices of pick_runtime",
    "runtime.pick_compile": "one of the three choices of pick_runtime",
}
CONTRACT = {
    *("app.build_app", "data.load_corpus", "data.gpt2_tokenizer", "generate.generate", "quantize.quantize_int8"),
    *("interop.to_huggingface", "interop.from_huggingface", "checkpoint.save_checkpoint", "checkpoint.load_checkpoint"),
    *("memorization.loss_floor", "memorization.corpus_loss", "memorization.recall", "memorization.longest_recitation"),
}


def users() -> dict[str, set[str]]:
    """Who imports each name of a helper: a notebook, a package, or the course for another module at the top."""
    sources = [(path.stem, cell) for path in (ROOT / "notebooks").glob("*.ipynb") for cell in code_of(path)]
    sources += [(package(name) or "course", path.read_text(encoding="utf-8")) for name, path in FILES.items()]
    found: dict[str, set[str]] = {}
    for user, source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers."):
                module = node.module.removeprefix("helpers.")
                for alias in node.names:
                    found.setdefault(f"{module}.{alias.name}", set()).add(user)
    return found


def code_of(notebook) -> list[str]:
    return [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


def test_what_one_notebook_or_package_alone_uses_stands_there_and_not_at_the_top():
    """What another module of the course imports has no other place; a class may be what functions take or return."""
    found, alone = users(), set()
    for name, path in FILES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = names_used(tree)
        for node in () if package(name) else tree.body:
            named = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if named and not (isinstance(node, ast.ClassDef) and node.name in inside):
                by = found.get(f"{name}.{node.name}", set())
                if len(by) < 2 and "course" not in by:
                    alone.add(f"{name}.{node.name}")
    assert alone - CONTRACT == set(ONE_USER)


def test_the_contract_can_be_imported():
    from helpers.app import build_app
    from helpers.config import PROFILES, GPTConfig
    from helpers.data import CharTokenizer, gpt2_tokenizer, load_corpus
    from helpers.generate import generate
    from helpers.interop import from_huggingface, to_huggingface
    from helpers.memorization import corpus_loss, longest_recitation, loss_floor, recall
    from helpers.model import GPT
    from helpers.quantize import quantize_int8
    from helpers.train import load_checkpoint, save_checkpoint

    names = [CharTokenizer, gpt2_tokenizer, load_corpus, generate, corpus_loss, longest_recitation, loss_floor, recall]
    names += [GPT, GPTConfig, load_checkpoint, save_checkpoint]
    names += [build_app, from_huggingface, to_huggingface, quantize_int8]
    assert all(callable(name) for name in names)
    assert list(PROFILES) == ["demo", "laptop", "t4"]


def test_json_is_whole_or_absent(tmp_path):
    path = write_json(tmp_path / "new" / "metrics.json", {"loss": 0.5})
    assert read_json(path) == {"loss": 0.5}
    with pytest.raises(TypeError):
        write_json(path, {"loss": object()})
    assert read_json(path) == {"loss": 0.5}
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]


def test_a_verdict_names_what_failed():
    assert verdict({"a": True, "b": True}) == "a: True\nb: True"
    with pytest.raises(RuntimeError, match="not as promised: b; c"):
        verdict({"a": True, "b": False, "c": False})


def test_what_no_run_has_reached_before_is_said_and_not_raised():
    checks = {"a": True, "b": False}
    assert verdict(checks, ["b"], measured=False).splitlines() == [
        "a: True",
        "b: False (a hope: this profile has not been measured before)",
    ]
    with pytest.raises(RuntimeError, match="not as promised: b"):
        verdict(checks, ["b"], measured=True)
    with pytest.raises(RuntimeError, match="not as promised: b"):
        verdict(checks, ["a"], measured=False)
    with pytest.raises(ValueError, match="no such check: c"):
        verdict(checks, ["c"])


def names_used(tree) -> list[str]:
    """Every name that code refers to: loaded, imported, or looked up on something."""
    used = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.append(node.id)
        elif isinstance(node, ast.Attribute):
            used.append(node.attr)
        elif isinstance(node, ast.ImportFrom):
            used += [alias.name for alias in node.names]
    return used


def test_nothing_in_the_helpers_is_dead():
    """Every function, class, method and constant is used by a notebook or a helper; tests do not count.

    The check of an exercise is found by its number.
    """
    used = {"forward", "main", "execute_managed_notebook"}  # called by PyTorch, by Python and by papermill
    used |= {"preprocess", "preprocess_cell", "_render_traceback_"}  # by nbconvert and by IPython
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        used.update(*(names_used(ast.parse(source)) for source in code_of(path)))
    parsed = {name: path for name, path in FILES.items() if name != "tools.setup_cell"}
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in parsed.items()}
    used.update(*(names_used(tree) for tree in trees.values()))
    defined = []
    for name, tree in trees.items():
        nodes = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        constants = [t for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
        defined += [(name, n.name) for n in nodes if not n.name.startswith("__")]
        defined += [(name, t.id) for t in constants if not t.id.startswith("__")]
    dead = [
        f"{module}.{name}"
        for module, name in defined
        if name not in used and not name.startswith(("pytest_", "exercise_"))
    ]
    assert dead == []


def test_results_go_where_they_last(monkeypatch, tmp_path):
    monkeypatch.delenv("RUNS_DIR", raising=False)
    monkeypatch.setattr(files, "ROOT", tmp_path / "series")
    monkeypatch.setattr(files, "DRIVE", tmp_path / "drive")
    (tmp_path / "series").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert files.runs_folder("demo") == tmp_path / "series/runs/demo"
    monkeypatch.setattr(files.os, "access", lambda path, _: path == tmp_path / "elsewhere")
    assert files.runs_folder("demo") == tmp_path / "elsewhere/runs/demo", "an attached Kaggle input is read-only"
    monkeypatch.setattr(files.os, "access", lambda path, _: path == tmp_path / "drive")
    assert files.runs_folder("demo") == tmp_path / "drive/series/runs/demo", "Colab keeps Drive and nothing else"
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "mine"))
    assert files.runs_folder("demo") == tmp_path / "mine/demo"
