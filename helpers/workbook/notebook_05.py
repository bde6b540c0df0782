"""What the checks of notebook 5 ask."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.memorization import corpus_loss
from helpers.workbook.check import expect, refuse, refuse_values
from helpers.workbook.notebook_05_models import BOOK, TEXT, Reciter, Untrained
from helpers.workbook.notebook_05_text import exercise_5_4, exercise_5_5

__all__ = ["exercise_5_1", "exercise_5_2", "exercise_5_3", "exercise_5_4", "exercise_5_5", "exercise_5_6"]


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
        sum(model.losses(0, 4, ahead=0)[0]) / 4: "You score the input itself: the target of token i is token i + 1.",
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
    model, starts = Untrained(), [0, 3, 7, 2, 5]
    rows = torch.tensor([model.losses(s, s + 4)[0] for s in starts])  # (5, 4)
    try:
        found = by_position(model, TEXT, starts, 4)
    except (RuntimeError, ValueError) as error:
        refuse("target size" in str(error), "cross_entropy wants (P, V, T): logits.transpose(1, 2).")
        raise
    model.refuse_slips()
    if isinstance(found, Tensor):
        refuse(found.numel() == 1, "One number is the mean of all: ask cross_entropy for reduction='none'.")
        refuse(found.shape == (3,), "A window of 4 makes 4 predictions, and yours 3: the last token has a target, too.")
        refuse(found.shape == (5,), "You have a number per window: average over the windows, dim 0.")
        refuse(found.shape == (5, 4), "You have all losses, (windows, positions): average over the windows, dim 0.")
    expect(found, torch.zeros(4), "It is a number per position.", float("inf"))
    x, y = (torch.stack([TEXT[s + d : s + d + 4] for s in starts]) for d in (0, 1))  # (5, 4), (5, 4)
    logits = model.gpt(x)[0].detach()  # (5, 4, 10)
    slips = {
        "That is the sum over the windows: divide by their number.": rows.sum(0),
        "You score the input itself: the target at position i is token i + 1.": _mean(logits.transpose(1, 2), x),
        "reshape(P, V, T) mixes the dimensions up: logits.transpose(1, 2).": _mean(logits.reshape(5, 10, 4), y),
        "cross_entropy wants logits: it takes the softmax itself.": _mean(logits.softmax(-1).transpose(1, 2), y),
        "The losses come window by window: reshape to (windows, positions).": rows.reshape(4, 5).mean(1),
        "You return the last window's losses: average over all windows.": rows[-1],
    }
    for message, value in slips.items():
        refuse(torch.allclose(found.double(), value.double(), atol=1e-4), message)
    expect(found, rows.mean(0), "Windows at 0, 3, 7, 2 and 5 give {wanted}, not {found}.", 1e-4)
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
    wide = f"From 0 and from 5, the model got {model.longest} tokens at once: it reads k + n - 1, from the place on."
    refuse(model.longest > 6, wide)
    found = recall(Reciter(4), BOOK, 4, 3, [0])
    refuse_values(found, {1: "One wrong choice among three, and the place counts: all n must be right, not any."})
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


def exercise_5_6(longest: Callable) -> str:
    """How far greedy decoding recites before its first mistake."""
    model = Reciter(9, back=11)  # after its mistake, right again
    found = longest(model, BOOK, 4, 20)
    model.refuse_slips()
    refuse(isinstance(found, Tensor) and found.numel() > 1, "Return a number, not the tokens.")
    refuse(found == 5, "You are one short: the token predicted from the prompt alone counts too.")
    model = Reciter(9, back=11)
    found = longest(model, BOOK, 4, 8)
    refuse(model.longest > 8, f"The model got {model.longest} tokens at once: it reads at most the last `window`.")
    refuse(found == 10, "The prompt's tokens were given, not recited: leave them out of the count.")
    refuse(found == 7, "The mistake itself does not count: stop before it.")
    refuse(found == 15, "One mistake ends the recitation: you go on behind it and count what is right there.")
    refuse(found == 5, "Show the model the last `window` tokens, not the first.")
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
