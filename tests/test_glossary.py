"""The glossary: every term is defined once, where it first occurs; the file is what the notebooks say."""

import json
import re
from collections import Counter
from itertools import pairwise

import pytest

from helpers.tools.glossary import GLOSSARY, NOTEBOOKS, Term, all_terms, as_markdown, prose, terms

NEEDED = """
token, tokenizer, vocabulary, byte-pair encoding, context window, target, batch, epoch, language model, autoregressive,
cross-entropy, entropy, conditional entropy, loss floor, perplexity, bigram model, embedding matrix, logit, softmax,
self-attention, causal mask, multi-head attention, feed-forward layer, activation function, residual connection,
layer normalization, gradient descent, backpropagation, learning rate, validation loss, overfitting, ablation, dropout,
teacher forcing, weight tying, position embedding, GELU, pre-norm, warm-up, gradient clipping, weight decay, checkpoint,
early stopping, mixed precision, model FLOPs utilization, memorization, k-extractable, exact match, n-gram model,
AdamW, Muon, momentum, greedy decoding, temperature, top-k, top-p,
token healing, KV cache, roofline, quantization, int8,
speculative decoding, draft token
"""


@pytest.fixture(scope="module")
def found() -> list[Term]:
    return all_terms()


def named(text: str) -> re.Pattern[str]:
    """Finds a term in prose, in the plural too."""
    words = re.split(r"\s*\(", text)[0]  # "byte-pair encoding (BPE)": what stands before the bracket
    return re.compile(rf"\b{re.escape(words)}(?:s|es)?\b", re.IGNORECASE)


def test_there_are_enough_terms_each_defined_once(found):
    assert len(found) >= 80
    assert [name for name, times in Counter(term.name.lower() for term in found).items() if times > 1] == []


@pytest.mark.parametrize("needed", [" ".join(term.split()) for term in NEEDED.split(",")])
def test_the_fields_words_are_among_them(needed, found):
    assert any(named(needed).search(term.name) for term in found)


def test_a_definition_is_a_sentence(found):
    poor = [term for term in found if len(term.sentence.split()) < 7 or not re.search(r"[.!?:]\W*$", term.sentence)]
    assert [f"{term.name}: {term.sentence}" for term in poor] == []


EVERYDAY = {"order", "scale", "space", "sampling"}  # words before they are terms


def used_early(term: Term, text: str) -> str | None:
    """Where a lesson's text uses a term, unless the paragraph says which notebook is about it."""
    lesson = re.sub(r"^#+ .*$|`[^`]*`|\]\([^)]*\)|\$[^$]*\$", "", text, flags=re.MULTILINE)
    for paragraph in lesson.split("\n\n"):
        hit = named(term.name).search(paragraph)
        if hit and not re.search(r"[Nn]otebook \d", paragraph):
            return " ".join(paragraph[max(0, hit.start() - 40) : hit.end() + 20].split())
    return None


def test_no_term_is_used_before_it_is_defined(found):
    """In the lessons' prose; titles, objectives and headings may name what is to come."""
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    lessons = [(notebook, number, text) for notebook in notebooks for number, text in prose(notebook)]
    early = []
    for term in found:
        before = [lesson for lesson in lessons if lesson[:2] < (term.notebook, term.cell)]
        uses = [(notebook.stem[:2], number, used_early(term, text)) for notebook, number, text in before]
        early += [(term.name, *use) for use in uses if use[2] and term.name.lower() not in EVERYDAY]
    assert early == []


def test_the_file_is_what_the_notebooks_say(found):
    assert GLOSSARY.read_text(encoding="utf-8") == as_markdown(found)
    names = re.findall(r"^- \*\*(.+?)\*\*:", as_markdown(found), flags=re.MULTILINE)
    assert all(a.lower() <= b.lower() for a, b in pairwise(names))


def test_terms_are_bold_and_labels_are_not_terms(tmp_path):
    title = {"cell_type": "markdown", "source": ["# 1 · Title\n", "A **term** here does not count."]}
    text = "## Words\n\n**Predict:** how many?\n\nFirst a line. A **token** is a piece\nof text. More.\n\n"
    text += "- **B pair**: two."
    cells = [title, {"cell_type": "code", "source": []}, {"cell_type": "markdown", "source": [text]}, title]
    path = tmp_path / "01_x.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    token, pair = terms(path)
    assert (token.name, token.sentence, token.heading) == ("token", "A token is a piece of text.", "Words")
    assert (pair.name, pair.sentence) == ("B pair", "B pair: two.")
    assert "- **token**: A token is a piece of text. ([01, Words](01_x.ipynb#Words))" in as_markdown([token, pair])
