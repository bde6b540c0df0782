"""The field's words: what a reader would not find in a paper names no module, class, function, parameter or field."""

import ast
from pathlib import Path

import pytest

from helpers.files import ROOT

REPLACED = {  # by what
    "Writing": "Decoder",
    "choose": "sample",
    "dice": "generators, rng",
    "said": "history, new",
    "Voice": "TextStream",
    "Served": "Engine",
    "served": "engine",
    "Answer": "Completion",
    "Answers": "Completions",
    "answer": "completion",
    "Study": "TrainingData",
    "read": "tokenize",
    "guard": "preflight",
    "scattered": "random_windows",
    "cut": "slice_windows",
    "round_rows": "quantize_rows",
    "ready_to_write": "for_decoding",
    "load_to_write": "load_for_decoding",
    "hollow": "empty",
    "lying": "wide",
    "even": "orthogonal",
    "lr_share": "lr_factor",
    "clip": "grad_clip",
    "dt": "seconds",
    "norm": "grad_norm",
    "guess": "draft",
    "goes_on": "continuation",
    "halves": "last_merge",
    "how": "sampling, options",
    "WAYS": "KERNELS",
    "ways_here": "available_kernels",
    "rung": "model variant",
    "ladder": "ablation",
    "climb": "ablation",
    "gains": "scale",
}


def names(tree: ast.AST) -> set[str]:
    """What code names: classes, functions, parameters, fields and variables; without the underscore of the private."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return {name.lstrip("_") for name in found}


@pytest.fixture(scope="module")
def named() -> dict[str, set[Path]]:
    """Where each name of the helpers is given, and each module."""
    found: dict[str, set[Path]] = {}
    for path in sorted((ROOT / "helpers").glob("**/*.py")):
        for name in {path.stem, path.parent.name, *names(ast.parse(path.read_text(encoding="utf-8")))}:
            found.setdefault(name, set()).add(path.relative_to(ROOT))
    return found


@pytest.mark.parametrize("word", sorted(REPLACED))
def test_the_field_has_a_word_for_it(word, named):
    assert not named.get(word), f"{word}: the field says {REPLACED[word]}"


def test_names_are_found_wherever_they_are_given():
    code = """
class _Voice:
    said: list
    def choose(self, dice, *, how=1):
        self.norm = [cut for cut in dice]
"""
    assert names(ast.parse(code)) == {"Voice", "said", "choose", "self", "dice", "how", "norm", "cut"}
