"""What the checks of notebook 5 ask."""

from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.memorization import corpus_loss
from helpers.workbook.check import expect, refuse
from helpers.workbook.notebook_05_models import BOOK, TEXT, Reciter, Untrained, refuse_values


def exercise_5_1(loss_of: Callable) -> str:
    """The loss of a whole text in windows that begin at a shift."""
    model = Untrained()
    found = loss_of(model, TEXT[:5], 4)
    model.refuse_slips()
    (one,) = model.losses(0, 4)
    inside = "A window of 4 inputs makes 4 predictions: the target of its last token lies one token further."
    slips = {
        sum(one): "That is the sum of the losses: divide it by the number of predictions, len(tokens) - 1.",
        sum(one) / 5: "N tokens have N - 1 predictions, nobody predicts the first: divide by len(tokens) - 1.",
        sum(one[:3]) / 3: inside,
        sum(one[:3]) / 4: inside,
    }
    refuse_values(found, slips)
    expect(found, sum(one) / 4, "Five tokens, one window of 4: {wanted} nats per token, not {found}.", 1e-4)
    found, parts = loss_of(model, TEXT, 4), model.losses(0, 4, 8, 11)
    tail, lost = "The last window is shorter, and yours leaves it out: its tokens count too.", sum(map(sum, parts[:2]))
    slips = {
        lost / 8: tail,
        lost / 11: tail,
        sum(sum(w) / len(w) for w in parts) / 3: "A mean of window means gives the short last window too much weight.",
        sum(sum(w[:-1]) for w in parts[:2]) / 6: inside,
    }
    refuse_values(found, slips)
    expect(found, corpus_loss(model.gpt, TEXT, 4).mean, "Twelve tokens, windows of 4: {wanted}, not {found}.", 1e-4)
    found, parts = loss_of(model, TEXT, 4, 3), model.losses(0, 3, 7, 11)
    head, lost = "What lies before the shift is left out: it is a short window of its own.", sum(map(sum, parts[1:]))
    slips = {corpus_loss(model.gpt, TEXT, 4).mean: "shift=3 changes nothing: the first full window must begin at 3."}
    refuse_values(found, slips | {lost / 8: head, lost / 11: head})
    expect(found, sum(map(sum, parts)) / 11, "Twelve tokens, windows of 4, shift 3: {wanted}, not {found}.", 1e-4)
    return "Every token but the first is predicted once, whatever the shift, and short windows count too."


def exercise_5_2(by_position: Callable) -> str:
    """The mean loss at each position of a window."""
    model, starts = Untrained(), [0, 3, 7]
    rows = torch.tensor([model.losses(s, s + 4)[0] for s in starts])  # (3, 4)
    found = by_position(model, TEXT, starts, 4)
    model.refuse_slips()
    if isinstance(found, Tensor):
        refuse(found.numel() == 1, "One number is the mean of all: ask cross_entropy for reduction='none'.")
        refuse(found.shape == (3,), "You have a number per window: average over the windows, dim 0.")
        refuse(found.shape == (3, 4), "You have all losses, (windows, positions): average over the windows, dim 0.")
    expect(found, torch.zeros(4), "It is a number per position.", float("inf"))
    x, y = (torch.stack([TEXT[s + d : s + d + 4] for s in starts]) for d in (0, 1))  # (3, 4), (3, 4)
    logits = model.gpt(x)[0].detach()  # (3, 4, 10)
    slips = {
        "That is the sum over the windows: divide by their number.": rows.sum(0),
        "You score the input itself: the target at position i is token i + 1.": _mean(logits.transpose(1, 2), x),
        "reshape(P, V, T) mixes the dimensions up: logits.transpose(1, 2).": _mean(logits.reshape(3, 10, 4), y),
        "cross_entropy wants logits: it takes the softmax itself.": _mean(logits.softmax(-1).transpose(1, 2), y),
        "The losses come window by window: reshape to (windows, positions).": rows.reshape(4, 3).mean(1),
        "You return the last window's losses: average over all windows.": rows[-1],
    }
    for message, value in slips.items():
        refuse(torch.allclose(found.double(), value.double(), atol=1e-4), message)
    expect(found, rows.mean(0), "Windows at [0, 3, 7] give {wanted}, not {found}.", 1e-4)
    wanted = torch.tensor(model.losses(2, 10)[0])
    expect(by_position(model, TEXT, [2], 8), wanted, "One window at 2 has its own losses, {wanted}: not {found}.", 1e-4)
    return "Position by position it averages over the windows: now you see where in a window the loss is."


def _mean(logits: Tensor, targets: Tensor) -> Tensor:
    """(P, V, T), (P, T) -> (T,): the mean loss at each position."""
    return F.cross_entropy(logits, targets, reduction="none").mean(0)


def exercise_5_3(recall: Callable) -> str:
    """The share of places from which n tokens after k given ones are right."""
    model = Reciter()
    found = recall(model, BOOK, 4, 3, [0, 5])
    model.refuse_slips()
    refuse_values(found, {2: "You return how many places are right: divide by the number of places."})
    refuse_values(found, {0: "A model that knows all gets 0: compare the choice at position i with token i + 1."})
    expect(found, 1.0, "A model that knows all must get 1.0; yours says {found}.")
    expect(recall(Reciter(*range(20)), BOOK, 4, 3, [0, 5]), 0.0, "A model that knows nothing gets {found}, not 0.0.")
    found = recall(Reciter(1), BOOK, 4, 3, [0])
    expect(found, 1.0, "The prompt is given, not recited: a wrong choice inside it must not count (k = 4, n = 3).")
    found = recall(Reciter(needs=4), BOOK, 4, 3, [0])
    expect(found, 1.0, "Show the model the whole prompt: all k tokens, before the n that it must choose.")
    found = recall(Reciter(3), BOOK, 4, 3, [0])
    refuse_values(found, {2 / 3: "Two of three tokens right are no exact match: a place counts only with all n right."})
    expect(found, 0.0, "The first choice to judge is made at the prompt's last token, position k - 1: yours misses it.")
    found = recall(Reciter(5), BOOK, 4, 3, [0])
    refuse_values(found, {1: "The last of the n choices is made at position k + n - 2: yours misses it."})
    expect(found, 0.0, "One wrong choice among three makes a place wrong: 0.0, not {found}.")
    found = recall(Reciter(6), BOOK, 4, 3, [0])
    expect(found, 1.0, "Only n choices count: that at position k + n - 1 is one too many.")
    found = recall(Reciter(13), BOOK, 4, 3, [0, 8, 9, 10, 11])
    refuse_values(found, {0: "One bad place makes your recall 0: count place by place, then divide."})
    expect(found, 0.4, "Of five places two are right: {wanted}, not {found}.", 1e-4)
    expect(recall(model, BOOK, 1, 1, [0, 18]), 1.0, "With k = n = 1, at the text's end too, it is 1.0, not {found}.")
    return "A place counts where all n choices after the prompt are the text's own; recall is the share of such places."


def exercise_5_4(write: Callable) -> str:
    """Greedy writing by n-gram tables with back-off."""
    tables, given = {order: _table([1, 2, 1, 3], order) for order in range(3)}, [1, 2]
    found = write(tables, given, 3)
    refuse(given != [1, 2], "Your function changes the list that it is given: begin with a copy, list(ids).")
    refuse(found == [1, 3, 1], "Return the given tokens too, and the new ones after them.")
    refuse(found == [1, 2, 1, 1, 1], "You begin at order 0, which sees nothing: try the highest order first.")
    refuse(found == [1, 2, 1, 2, 1], "After 2, 1 comes 3, which order 1 cannot know: try the highest order first.")
    expect(found, [1, 2, 1, 3, 1], "In the text 1 2 1 3, [1, 2] and three more tokens are {wanted}, not {found}.")
    found = write({0: {(): Counter([7, 7, 8])}, 1: {(5,): Counter({7: 1, 8: 2})}}, [5], 1)
    expect(found, [5, 8], "After 5 came 7 once and 8 twice: take the most frequent, {wanted}, not {found}.")
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
    return "Each piece is as long as it can be, none overlaps, and short matches are left to chance."


def _pairs(found: object) -> object:
    """A list of pairs as tuples, whatever the learner took; anything else as it is."""
    return [tuple(p) if isinstance(p, list) else p for p in found] if isinstance(found, list | tuple) else found


def exercise_5_6(longest: Callable) -> str:
    """How far greedy decoding recites before its first mistake."""
    model = Reciter(9)
    found = longest(model, BOOK, 4, 8)
    model.refuse_slips()
    refuse(model.longest > 8, f"The model got {model.longest} tokens at once: it reads at most the last `window`.")
    refuse(found == 10, "The prompt's tokens were given, not recited: leave them out of the count.")
    refuse(found == 7, "The mistake itself does not count: stop before it.")
    refuse(found == 15, "One mistake ends the recitation: you go on behind it and count what is right there.")
    refuse(found == 5, "You are one short: the token predicted from the prompt alone counts too.")
    expect(found, 6, "Given 0 1 2 3, the model writes 4 to 9 and then errs: {wanted} tokens, not {found}.")
    try:
        found = longest(Reciter(), BOOK, 4, 8)
    except IndexError:
        refuse(True, "With a model that knows all you read past the text's end: stop after its last token.")
    expect(found, 16, "A model that knows all recites the other {wanted} tokens, yours {found}.")
    expect(longest(Reciter(3), BOOK, 4, 8), 0, "If the first choice is wrong, nothing is recited: not {found}.")
    found = longest(Reciter(needs=4), BOOK, 4, 8)
    expect(found, 16, "Show the model all of its last `window` tokens, the prompt too: it needs more than one.")
    found = longest(Reciter(needs=8), BOOK, 8, 8)
    expect(found, 12, "When more than `window` tokens are written, give the last 8, not fewer: {wanted}, not {found}.")
    return "The first token that is not the text's ends the count, and neither it nor the prompt is in it."
