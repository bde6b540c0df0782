"""Provenance: what is the book's is found, whole, with its place; what is not, is not; a collage is no recitation."""

import random

import pytest

from helpers.serve.provenance import Span, Trace, VerbatimIndex, found_share
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


def test_the_continuation_comes_from_where_most_of_the_text_stands(fools):
    def continuation(text: str, n: int = 15) -> str:
        return fools.tokenizer.decode(fools.continuation(fools.tokenizer.encode(text), n))

    assert continuation("mice, and we are", n=4) == " its"
    assert continuation("The moon is ") == "a loaf,\nand we "  # the first of two equals
    assert continuation("cat?\nThe moon is ") == "late.\n"  # the longer of two
    assert continuation("is late") == ".\n"  # the book ends
    assert continuation("is late.\n") == continuation("is tame") == continuation("moon") == continuation("") == ""


def test_the_share_counts_characters_behind_the_prompt(fools):
    text = "The moon is in it"
    spans = fools.spans(text)
    assert found_share(text, spans) == 12 / 17
    assert found_share(text, spans, given=8) == 4 / 9
    assert found_share(text, spans, given=17) == found_share("", []) == 0


@pytest.mark.parametrize(
    ("prompt", "new", "in_book", "recited"),
    [
        ("The moon is ", "a loaf,", True, 7),
        ("The moon is ", "late.", True, 5),  # the better of two places
        ("The moon is a ", "loaf", True, 4),
        ("The moon is a lo", "af,\nand", True, 7),  # a prompt that ends inside a word
        ("The moon is ", "made of", True, 0),
        ("he cat?\nThe moon is ", "a loaf,", True, 0),  # the book has this prompt once, and goes on otherwise
        ("So the moon is ", "a loaf,", True, 7),  # its end is in the book
        ("The moon at ", "a loaf,", False, 0),  # it is not, whatever is said
        ("T", "he moon is a loaf", True, 17),
        ("late.\n", "The end", True, 0),  # behind the last word there is nothing to recite
        ("The moon", "", True, 0),
    ],
)
def test_recited_is_what_the_book_says_next_after_the_prompt(fools, prompt, new, in_book, recited):
    trace = fools.trace(prompt, list(new))
    assert (trace.prompt_in_book, trace.recited_tokens, trace.recited_characters) == (in_book, recited, recited)
    assert trace.new_tokens == len(new)


def trace_of(index: VerbatimIndex, prompt: str, new: str) -> Trace:
    return index.trace(prompt, index.tokenizer.pieces(index.tokenizer.encode(new)))


@pytest.fixture(scope="module")
def scene(gpt2, sample) -> VerbatimIndex:
    return VerbatimIndex(sample, gpt2)


def test_a_collage_is_found_in_pieces_and_not_recited(scene, sample):
    cut = sample[:60]  # it ends with " h" of " has": the answer of a model that knew the scene
    hound = "ound.\n\nHOLLIS:\nThe rain has put the lanterns out by twos,\nAnd every honest man lies deaf in wool."
    trace = trace_of(scene, cut, hound)
    assert (trace.prompt_in_book, trace.recited_tokens, trace.found, trace.pieces) == (True, 0, 1.0, 2)
    assert trace.in_words() == "0 of 31 tokens recited; 100% found in the book in 2 pieces, the longest of 21 tokens"
    book = trace_of(scene, cut, sample[60:200])
    assert (book.recited_characters, book.pieces, len(book.spans)) == (140, 1, 1)
    assert book.in_words() == f"all {book.new_tokens} tokens recited"


def test_a_prompt_that_is_not_in_the_book_cannot_be_recited_from(scene, sample):
    passage = sample[sample.index("But only what it comes") :][:120]
    trace = trace_of(scene, "To be, or not to be,\n", passage)
    assert (trace.prompt_in_book, trace.recited_tokens, trace.pieces) == (False, 0, 1)
    assert trace.in_words().startswith("the prompt is not in the book; ")


def test_every_place_and_every_cut_of_a_true_answer_is_recited_in_one_stretch(scene, sample):
    rng = random.Random(0)
    for _ in range(100):
        start = rng.randrange(len(sample) - 400)
        cut, end = start + rng.randrange(40, 150), start + rng.randrange(250, 400)
        trace = trace_of(scene, sample[start:cut], sample[cut:end])
        assert trace.recited_characters == end - cut
        assert trace.recited_tokens == trace.new_tokens
        assert sum(span.end > cut - start for span in trace.spans) == trace.pieces == 1
        assert trace.found == 1


def test_a_recitation_ends_where_the_book_is_left_and_not_inside_a_word(scene, sample):
    trace = trace_of(scene, sample[:49], "\nThe rain hound, and every honest man lies deaf in wool.")
    assert trace.recited_tokens == 3
    assert trace.recited_characters == len("\nThe rain")  # not the h of "has"
    assert not any(span.start < 58 < span.end for span in trace.spans)


def test_a_recitation_stays_whole_where_another_stretch_reaches_into_it():
    book = VerbatimIndex("xabcdefghijkl. mabcdefQ efghijkz.", CharTokenizer("abcdefghijklmnopqrstuvwxyzQ. "), 4)
    found = [(span.start, span.end) for span in book.spans("QQ. mabcdefghijkl")]
    assert found == [(2, 11), (11, 17)]  # from the left, ". mabcdef" is taken first
    trace = book.trace("QQ. mabcdef", list("ghijkl"))
    assert [(span.start, span.end) for span in trace.spans] == [(5, 17)]
    assert (trace.recited_tokens, trace.pieces, trace.longest_piece, trace.found) == (6, 1, 6, 1)


def test_a_table_of_three_tokens_is_found_in_the_book_and_recites_nothing(scene):
    follows: dict[tuple[int, ...], list[int]] = {}
    for *before, after in zip(*(scene.tokens[i:] for i in range(4)), strict=False):
        follows.setdefault(tuple(before), []).append(after)
    rng, traces = random.Random(0), []
    while len(traces) < 100:
        start = rng.randrange(len(scene.tokens) - 32)
        ids = scene.tokens[start : start + 32]
        while len(ids) < 182 and tuple(ids[-3:]) in follows:
            ids = [*ids, rng.choice(follows[tuple(ids[-3:])])]
        if len(ids) == 182:
            text = scene.tokenizer.pieces(ids)
            traces.append(scene.trace("".join(text[:32]), text[32:]))
    assert sum(trace.found for trace in traces) / 100 > 0.8
    assert sum(trace.recited_tokens for trace in traces) / 100 < 0.1 * 150
    assert sum(trace.recited_tokens >= 32 for trace in traces) <= 10  # of 100 places, 32 -> 32
    assert all(trace.pieces > 1 and trace.recited_tokens < 100 for trace in traces)


def test_the_share_found_never_stands_alone_and_is_not_rounded_up():
    trace = Trace([], True, 300, 12, 40, 0.9999, 3, 200)
    assert trace.in_words() == "12 of 300 tokens recited; 99% found in the book in 3 pieces, the longest of 200 tokens"
    assert Trace([], True, 300, 0, 0, 0.29, 1, 20).in_words().endswith("29% found in the book in 1 piece of 20 tokens")
    assert Trace([], False, 9, 0, 0, 0, 0, 0).in_words() == "the prompt is not in the book; nothing found in the book"


@pytest.mark.parametrize("prompt", ["", "é🦉", "\ud800", "\x00", " "])
def test_any_text_can_be_traced(gpt2, prompt):
    index = VerbatimIndex("été 🦉 🦉 🦉🦉 the owl, the owl, the owl\n" * 2, gpt2, min_length=2)
    assert gpt2.pieces(gpt2.encode("🦉 é")) == ["", "", "🦉", " é"]
    assert gpt2.pieces(gpt2.encode("🦉")[:2]) == ["", "�"]
    assert index.trace(prompt, ["", "", "🦉", " the owl"]).new_tokens == 4  # bytes are held back
    trace = index.trace("été ", ["", "", "🦉", " ", "", "", "🦉"])
    assert (trace.recited_tokens, trace.recited_characters) == (7, 3)
    assert index.trace("été ", ["", "", "🦊"]).recited_tokens == 0


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
