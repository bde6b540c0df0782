"""What the checks of notebook 5 ask of n-gram models and of pieces found in a text."""

from collections import Counter
from collections.abc import Callable

from helpers.workbook.check import expect, refuse


def exercise_5_4(write: Callable) -> str:
    """Greedy writing by n-gram tables with back-off."""
    tables, given = {order: _table([1, 2, 1, 3], order) for order in range(3)}, [1, 2]
    found = write(tables, given, 3)
    refuse(given != [1, 2], "Your function changes the list that it is given: begin with a copy, list(ids).")
    refuse(found == [1, 3, 1], "Return the given tokens too, and the new ones after them.")
    refuse(found == [1, 2, 1, 1, 1], "You begin at order 0, which sees nothing: try the highest order first.")
    refuse(found == [1, 2, 1, 2, 1], "After 2, 1 comes 3, which order 1 cannot know: try the highest order first.")
    expect(found, [1, 2, 1, 3, 1], "In the text 1 2 1 3, [1, 2] and three more tokens are {wanted}, not {found}.")
    found = write({0: {(): Counter([7, 7, 8])}, 1: {(5,): Counter({8: 1, 7: 2})}}, [5], 1)
    expect(found, [5, 7], "After 5 came 8 once and 7 twice: take the most frequent, {wanted}, not {found}.")
    found = write({0: {(): Counter([7, 7, 6])}, 1: {(5,): Counter([7, 6])}}, [5], 1)
    expect(found, [5, 7], "After 5 came 7 and 6, once each: of equals the one counted first, {wanted}, not {found}.")
    found = write({0: {(): Counter([7, 7, 6])}, 1: {(5,): Counter([6, 7])}}, [5], 1)
    expect(found, [5, 6], "After 5 came 6 and 7, once each: of equals the one counted first, {wanted}, not {found}.")
    try:
        found = write(tables, [9, 2], 2)
    except (KeyError, AttributeError):
        refuse(True, "You look (9, 2) up, but no table has it: where a context is unknown, back off to order 1, (2,).")
    refuse(found == [9, 2, 1, 2], "After backing off you stay at order 1: begin at the highest order for every token.")
    refuse(found == [9, 2], "Where the longest context is unknown you stop: back off to a shorter one.")
    expect(found, [9, 2, 1, 3], "[9, 2] backs off to 2, then goes on with order 2: {wanted}, not {found}.")
    empty = "The text has no 9, so order 0 is left. Its context is (), but ids[-0:] is the whole list."
    try:
        found = write(tables, [9], 1)
    except (KeyError, UnboundLocalError, AttributeError):
        refuse(True, empty)
    expect(found, [9, 1], empty)
    expect(write(tables, [2], 1), [2, 1], "A prompt shorter than the order has a context too: {wanted}, not {found}.")
    expect(write(tables, [2], 0), [2], "n = 0 adds nothing: {wanted}, not {found}.")
    return "It trusts the longest context that the text has, and backs off only where it must."


def _table(text: list[int], order: int) -> dict[tuple[int, ...], Counter]:
    ring, table = text + text[:order], {}
    for i in range(len(text)):
        table.setdefault(tuple(ring[i : i + order]), Counter())[ring[i + order]] += 1
    return table


def exercise_5_5(pieces: Callable) -> str:
    """The stretches of an answer that stand in a book."""
    book = list(range(30))
    found = _pairs(pieces([*range(5, 15)], book, 8))
    refuse(found == [(5, 15)], "Say where a piece lies in the answer, (0, 10): you say where it lies in the book.")
    refuse(found == [(0, 9)], "`end` is the first token behind the piece, as in a slice: (0, 10).")
    refuse(found == [(0, 8)], "Ten tokens in a row are the book's, you take eight: let a piece grow as far as it goes.")
    refuse(isinstance(found, list) and len(found) > 1, "Pieces must not overlap: after one, go on behind its end.")
    expect(found, [(0, 10)], "The answer 5 … 14 is one piece of the book 0 … 29: {wanted}, not {found}.")
    expect(pieces([*range(5, 12)], book, 8), [], "Seven tokens are too short: {wanted}, not {found}.")
    expect(pieces([*range(5, 13)], book, 8), [(0, 8)], "A stretch of exactly `least` tokens counts: {wanted}.")
    expect(pieces([99] * 12, book, 8), [], "What the book has nowhere is no piece: {wanted}, not {found}.")
    found = _pairs(pieces([*range(20, 29), *range(3, 13)], book, 8))
    refuse(found == [(0, 19)], "Two pieces from different places are not one: look for the whole stretch in the book.")
    refuse(found == [(0, 9)], "Your search ends after the first piece: a second begins right behind it.")
    expect(found, [(0, 9), (9, 19)], "Two pieces side by side are {wanted}, not {found}.")
    found = _pairs(pieces([*range(1, 11)], [*range(1, 9), 99, *range(1, 12)], 8))
    refuse(found == [(0, 8)], "The book has this twice, the second time longer: look at every place, take the longest.")
    expect(found, [(0, 10)], "The longest match of all places counts: {wanted}, not {found}.")
    found = pieces([*range(22, 30), 50, 51, *range(10)], book, 8)
    expect(found, [(0, 8), (10, 20)], "The book's last tokens, two others, its first ten: {wanted}, not {found}.")
    expect(pieces([1, 2, 9, 5, 6, 7], book, 2), [(0, 2), (3, 6)], "With least=2: {wanted}, not {found}.")
    found = _pairs(pieces([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 9, 1, 2, 3, 8], 3))
    refuse(found == [(0, 3)], "The book has 1 2 3 4 5, and later 1 2 3: the longest match counts, not the last.")
    expect(found, [(0, 5)], "1 2 3 4 5 stands in the book as one piece, {wanted}, not {found}.")
    short = "A match that is too short is no reason to jump behind it: go on one token further, {wanted}, not {found}."
    expect(pieces([5, 6, 7, 8], [5, 6, 0, 6, 7, 8], 3), [(1, 4)], short)
    expect(pieces([1, 2, 3], [11, 2, 33], 3), [], "Compare ids, not text: 1 2 3 is not in 11 2 33.")
    return "Each piece is as long as it can be, none overlaps, and short matches are left to chance."


def _pairs(found: object) -> object:
    """A list of pairs as tuples, whatever the learner took; anything else as it is."""
    return [tuple(p) if isinstance(p, list) else p for p in found] if isinstance(found, list | tuple) else found
