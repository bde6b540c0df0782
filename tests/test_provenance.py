"""Provenance: what is the book's is found, whole, with its place; what is not, is not."""

import random

import pytest

from helpers.provenance import Span, VerbatimIndex, verbatim_share
from helpers.tokenizer import CharTokenizer

BOOK = (
    "First Fool:\nThe moon is a loaf,\nand we are its mice.\n\nSecond Fool:\nThen who is the cat?\nThe moon is late.\n"
)


@pytest.fixture(scope="module")
def fools() -> VerbatimIndex:
    """A book of two speeches, in characters."""
    return VerbatimIndex(BOOK, CharTokenizer(BOOK), min_length=6)


def test_a_stretch_is_found_whole_with_line_and_speaker(fools):
    assert fools.spans("and we are its catand we") == [Span(0, 15, 3, "First Fool"), Span(18, 24, 3, "First Fool")]
    assert fools.spans("The moon is late.") == [Span(0, 17, 7, "Second Fool")]  # the longer of two beginnings
    assert fools.spans("The moon is tame") == [Span(0, 12, 2, "First Fool")]  # the first of two equals
    assert fools.spans("\n\nSecond Fool:") == [Span(0, 14, 5, "Second Fool")]  # breaks in front are not the place
    assert fools.spans(BOOK) == [Span(0, len(BOOK), 1, "First Fool")]
    assert fools.spans("sooner") == fools.spans("moon ") == fools.spans("") == []


def test_a_book_goes_on_where_most_of_the_text_stands(fools):
    def goes_on(text: str, n: int = 15) -> str:
        return fools.tokenizer.decode(fools.goes_on(fools.tokenizer.encode(text), n))

    assert goes_on("mice, and we are", n=4) == " its"
    assert goes_on("The moon is ") == "a loaf,\nand we "  # the first of two equals
    assert goes_on("cat?\nThe moon is ") == "late.\n"  # the longer of two
    assert goes_on("is late") == ".\n"  # the book ends
    assert goes_on("is late.\n") == goes_on("is tame") == goes_on("moon") == goes_on("") == ""


def test_the_share_counts_characters_behind_the_prompt(fools):
    text = "The moon is in it"
    spans = fools.spans(text)
    assert verbatim_share(text, spans) == 12 / 17
    assert verbatim_share(text, spans, given=8) == 4 / 9
    assert verbatim_share(text, spans, given=17) == verbatim_share("", []) == 0


def test_spans_of_random_texts_are_those_that_a_search_finds(gpt2, sample):
    index, rng = VerbatimIndex(sample, gpt2), random.Random(0)
    lines, tokens = sample.split("\n"), gpt2.encode(sample)
    known = {tuple(tokens[i : i + 8]) for i in range(len(tokens) - 7)}
    for _ in range(50):
        pieces = []
        for _ in range(4):
            start = rng.randrange(len(sample) - 200)
            pieces += [sample[start : start + rng.randrange(5, 200)], rng.choice([" 🙂 ", "XYZ", "\n", ""])]
        text = "".join(pieces)
        for span in index.spans(text):
            words = text[span.start : span.end].strip("\n�🙂 ")
            assert words in sample
            assert words.split("\n")[0] in "\n".join(lines[span.line - 1 : span.line + 1])
        ids = gpt2.encode(text)
        found = index.token_spans(ids)
        covered = {i for start, end, _ in found for i in range(start, end)}
        for start in range(len(ids) - 7):
            if not covered & set(range(start, start + 8)):
                assert tuple(ids[start : start + 8]) not in known
        for start, end, place in found:
            assert ids[start:end] == index.tokens[place : place + end - start]
            assert end == len(ids) or ids[start : end + 1] != index.tokens[place : place + end + 1 - start]


def test_a_text_without_speakers_has_lines_all_the_same(gpt2):
    book = (
        "one two three four five six seven eight nine\nten eleven twelve thirteen fourteen fifteen sixteen seventeen\n"
    )
    (span,) = VerbatimIndex(book, gpt2).spans("ten eleven twelve thirteen fourteen fifteen sixteen seventeen\n")
    assert (span.line, span.speaker) == (2, "")


def test_spans_do_not_overlap_and_are_the_longest_from_the_left():
    rng = random.Random(1)
    book = "".join(rng.choice("abc") for _ in range(200))
    index = VerbatimIndex(book, CharTokenizer("abc"), min_length=5)
    for _ in range(50):
        text, end = "".join(rng.choice("abc") for _ in range(60)), 0
        for span in index.spans(text):
            assert span.start >= end
            assert not any(text[i : i + 5] in book for i in range(end, span.start))
            end = span.end
            assert text[span.start : end] in book
            assert end == len(text) or text[span.start : end + 1] not in book
