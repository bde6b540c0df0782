"""The field's words: what a reader would not find in a paper names nothing in code and explains nothing in prose."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from helpers.base.files import ROOT

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


PROSE = {  # what is not said, in notebooks and READMEs, and what is
    r"tables? of pairs": "bigram model",
    r"\brungs?\b|\bladder\b|\bclimb": "model variant, ablation",
    r"\ba bend\b": "activation function",
    r"time to think": "feed-forward layer",
    r"\bthe mix\b": "output projection",
    r"silent blocks?": "zero-initialised residual projections",
    r"stretch and shift|\bgains\b": "scale and bias",
    r"two memories": "running moments",
    r"what the memory allows": "memory-bandwidth bound",
    r"reading ahead|reads ahead|goes on ahead": "speculative decoding",
    r"loss that is no number": "NaN or infinite loss",
    r"thr(?:ow|ew) of the (?:die|dice)|the dice": "random draw",
    r"\bvictim|\bdies\b": "the interrupted run, is interrupted",
    r"\b(?:nats|bits|tokens|windows|steps|bytes|passes|parameters|FLOPs?|operations) an? "
    r"(?:token|character|second|step|window|pass|row|epoch|run|minute|weight|parameter)\b(?! sees)": "per",
}


def prose() -> list[tuple[str, str]]:
    """What readers read: each Markdown cell, what is shown below figures, and the READMEs; with its place."""
    found = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            texts = [cell.source] if cell.cell_type == "markdown" else re.findall(r'"[^"\n]*"', cell.source)
            found += [(f"{path.stem} {cell.id}", text) for text in texts]
    pages = (ROOT / name for name in ("README.md", "helpers/README.md", "data/runs/README.md", "CONTRIBUTING.md"))
    return found + [(path.name, path.read_text(encoding="utf-8")) for path in pages]


@pytest.mark.parametrize("pattern", PROSE)
def test_prose_says_it_as_the_field_does(pattern):
    found = [(place, hit[0]) for place, text in prose() for hit in re.finditer(pattern, text)]
    assert found == [], PROSE[pattern]


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
    """Where each name of the helpers is given, and each module. In the workbook a guess is a reader's own."""
    found: dict[str, set[Path]] = {}
    readers = (*(ROOT / "helpers/workbook").glob("*.py"), ROOT / "helpers/tools/answers.py")
    for path in sorted(set((ROOT / "helpers").glob("**/*.py")) - set(readers)):
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
