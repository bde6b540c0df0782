"""What the checks of notebook 7 ask."""

from collections.abc import Callable

import torch
from torch import nn

from helpers.generate import Sampling, sample
from helpers.workbook.check import WrongError, expect, refuse
from helpers.workbook.notebook_07_models import WORDS, Sums, Table
from helpers.workbook.notebook_07_returned import as_ids, has_nan, positive, rounded, same, total, two_stay


def exercise_7_1(at_temperature: Callable) -> str:
    """The softmax at a temperature, 0 and large logits included."""
    logits = torch.tensor([3.0, 2.0, 1.0, 0.0])
    for t, wrong in ((1.0, "divide each by the sum of all"), (2.0, "it is the logits that are divided by T")):
        added = total(at_temperature(logits.clone(), t))
        refuse(abs(added - 1) > 1e-3, f"At T = {t:g} your numbers add up to {added:.3f}, not to 1: {wrong}.")
    found = at_temperature(logits.clone(), 2.0)
    refuse(same(found, logits.softmax(0)), "At T = 2 you return the same as at T = 1: divide the logits before `exp`.")
    refuse(same(found, (logits * 2).softmax(0)), "T = 2 sharpens your probabilities: divide by T, do not multiply.")
    for t in (1.0, 2.0, 0.5):
        wanted, found = (logits / t).softmax(0), at_temperature(logits.clone(), t)
        expect(found, wanted, f"At T = {t:g} the toy's are {rounded(wanted)}, and yours {rounded(found)}.", 1e-4)
    found = at_temperature(torch.tensor([1.0, 3.0, 2.0]), 0)
    refuse(has_nan(found), "At T = 0 you divide by 0, which gives nan: greedy needs lines of its own.")
    expect(found, torch.eye(3)[1], f"At T = 0 [1, 3, 2] gives [0, 1, 0], all to the likeliest, not {rounded(found)}.")
    added = total(at_temperature(torch.tensor([2.0, 2.0, 1.0]), 0))
    refuse(abs(added - 1) > 1e-3, "At T = 0 two equal logits share more than 1 in yours: `argmax` takes one of them.")
    for t in (1.0, 0.5):
        wanted, found = (torch.tensor([1.0, 0.0]) / t).softmax(0), at_temperature(torch.tensor([1000.0, 999.0]), t)
        large = f"At T = {t:g} [1000, 999]"
        refuse(has_nan(found), f"{large} gives nan: `exp(1000)` is inf. Subtract the largest logit before all else.")
        expect(found, wanted, f"{large} must give the same as [1, 0], {rounded(wanted)}, not {rounded(found)}.", 1e-4)
    wanted = torch.tensor([1.0, 0.0]).softmax(0)
    found = at_temperature(torch.tensor([-1000.0, -1001.0]), 1.0)
    far = "[-1000, -1001] must give the same as [1, 0]: let the largest logit become 0 before `exp`, not"
    expect(found, wanted, f"{far} {rounded(found)}.", 1e-4)
    at_temperature(changed := logits.clone(), 0.5)
    expect(changed, logits, "Your function changes the logits it is given: `z - …` makes new ones, `z -= …` does not.")
    return "It sharpens, flattens and decides, and large logits do not hurt it."


def exercise_7_2(keep_top_k: Callable, keep_top_p: Callable) -> str:
    """Top-k, then top-p; all numbers are sums of powers of two, so nothing hangs on rounding."""
    probs = torch.tensor([0.125, 0.5, 0.125, 0.25])
    two_stay("keep_top_k", keep_top_k(probs.clone(), 2))
    two_stay("keep_top_p", keep_top_p(probs.clone(), 0.6))
    found = keep_top_p(probs.clone(), 0.75)
    refuse(positive(found) == 3, "0.5 and 0.25 reach p = 0.75 exactly, that is enough; your nucleus has a third token.")
    expect(found, torch.tensor([0, 2 / 3, 0, 1 / 3]), f"With p = 0.75 two stay; yours are {rounded(found)}.", 1e-4)
    equal = torch.full((4,), 0.25)
    for name, found in (("k = 2", keep_top_k(equal.clone(), 2)), ("p = 0.5", keep_top_p(equal.clone(), 0.5))):
        equals = f"Of four tokens with 0.25 each {name} keeps {positive(found)}, not 2"
        refuse(positive(found) != 2, f"{equals}: do not compare values with the last one that stays, others equal it.")
    try:
        found = keep_top_k(probs.clone(), 9)
    except RuntimeError as error:
        raise WrongError("k = 9 of 4 tokens stops your keep_top_k: `topk` takes at most `len(probs)`.") from error
    expect(found, probs, "With k = 9 all 4 tokens stay as they are; yours are {found}.", 1e-6)
    found = keep_top_p(probs.clone(), 0.05)
    refuse(has_nan(found) or not positive(found), "With p = 0.05 no token is left: the likeliest token always stays.")
    expect(found, torch.tensor([0.0, 1, 0, 0]), f"With p = 0.05 only the likeliest stays, not {rounded(found)}.", 1e-6)
    expect(keep_top_p(probs.clone(), 1.0), probs, "With p = 1 all tokens stay; yours are {found}.", 1e-6)
    for name, cut_off in (("keep_top_k", keep_top_k), ("keep_top_p", keep_top_p)):
        cut_off(changed := probs.clone(), 1)
        expect(changed, probs, f"{name} changes the probabilities it is given: work on a copy.")
    return "Both cut off the tail, keep every token at its place, and share out what is left."


def exercise_7_3(continue_text: Callable) -> str:
    """The generation loop: greedy, with a full context, and sampled."""
    greedy, prompt = Sampling(temperature=0), [1, 2]
    found = continue_text(Sums(), prompt, 1, greedy, 8)
    refuse(isinstance(found, torch.Tensor), "A list of ids is asked for, not a tensor: `.tolist()` makes one.")
    found = as_ids(found)
    refuse(found == [3], "You return only what is new: the prompt's ids belong before it.")
    refuse(found == [1, 2, 1], "You use what the first position predicts: behind the text speaks the last, `[0, -1]`.")
    refuse(found == [1, 2, 2], "Your model reads only the last id: give it the whole text, up to block_size.")
    expect(found, [1, 2, 3], "Behind [1, 2] the test's model wants 3: {wanted}, and yours is {found}.")
    refuse(prompt != [1, 2], "Your function changes the list that it is given: begin with `ids = list(ids)`.")
    found = as_ids(continue_text(Sums(), prompt, 4, greedy, 8))
    refuse(found == [1, 2, 3, 3, 3, 3], "The same token comes again and again: the model must read the new ones, too.")
    expect(found, [1, 2, 3, 6, 2, 4], "Four new tokens behind [1, 2] are {wanted} here, each the sum of all before it "
           "modulo 10; yours are {found}.")  # fmt: skip
    found = as_ids(continue_text(model := Sums(), prompt, 4, greedy, 3))
    refuse(model.longest > 3, f"With block_size 3 the model was given {model.longest} ids: crop the context.")
    refuse(found == [1, 2, 3, 6, 6, 6], "You crop to the oldest ids; the newest are at the end, `ids[-block_size:]`.")
    refuse(len(found) < 6, "The returned text has lost its beginning: crop what the model reads, not what you return.")
    refuse(model.longest < 3, f"With block_size 3 the model was given {model.longest} ids at most: 3 have room.")
    expect(found, [1, 2, 3, 6, 1, 0], "With block_size 3 the text is {wanted}, and yours {found}.")
    for sampling in (Sampling(2.0), Sampling(2.0, top_k=3, top_p=0.8)):
        wanted = _continued(Sums(), prompt, 30, sampling, 8)
        found, again = (as_ids(continue_text(Sums(), prompt, 30, sampling, 8, _seeded())) for _ in range(2))
        likeliest = _continued(Sums(), prompt, 30, greedy, 8)
        refuse(found == likeliest, "At temperature 2 your text is the greedy one: `draw` from the probabilities.")
        refuse(found != again, "With the same seed you write two different texts: hand the generator to `draw`.")
        settings = f"temperature 2, top-k {sampling.top_k} and top-p {sampling.top_p}"
        expect(found, wanted, f"With {settings} your text is not the one of this seed: hand `sampling` to "
               "`next_token_probs`, and draw once per token, by `draw`.")  # fmt: skip
    return "It reads the newest part, draws, appends, and begins again."


_OVERLAP = (
    "Stretches overlap: of [1, 2, 1, 2, 3] the last four stand in [1, 2, 1, 9, 2, 1, 2, 3], as do the first three"
)


def exercise_7_4(longest_stretch: Callable) -> str:
    """The longest contiguous stretch of an answer that a book has."""
    questions = (
        ([7], [5, 7, 9], 1, "The answer [7] stands in [5, 7, 9]"),
        ([1, 2], [3, 4], 0, "[3, 4] has nothing of the answer [1, 2]"),
        ([1, 2, 3], [8, 1, 2, 3, 8], 3, "[8, 1, 2, 3, 8] has the whole answer [1, 2, 3]"),
        ([9, 1, 2], [1, 2], 2, "A stretch may begin anywhere in the answer, as in [9, 1, 2] for the book [1, 2]"),
        ([1, 9, 2, 9, 3], [1, 2, 3], 1, "The answer [1, 9, 2, 9, 3] has gaps that [1, 2, 3] has not: no two in a row"),
        ([1, 2, 3], [1, 0, 2, 3], 2, "The book [1, 0, 2, 3] has a gap that the answer [1, 2, 3] has not"),
        ([3, 2, 1], [1, 2, 3], 1, "The order counts: of [3, 2, 1], [1, 2, 3] has single ids only"),
        ([1, 2], [11, 2], 1, "An id is a number, not a text: of [1, 2] the book [11, 2] has the 2 alone"),
        ([1, 2, 3], [1, 2, 9, 1, 2, 3], 3, "The book [1, 2, 9, 1, 2, 3] has two places for 1: try every place"),
        ([1, 2, 1, 1, 2, 3], [1, 2, 3, 4], 3, "After a mismatch count from 0 again: [1, 2, 1, 1, 2, 3], [1, 2, 3, 4]"),
        ([1, 2, 1, 2, 3], [1, 2, 1, 9, 2, 1, 2, 3], 4, f"{_OVERLAP}: try every beginning"),
        ([5, 5, 5], [5, 5], 2, "The book [5, 5] is shorter than the answer [5, 5, 5]"),
    )
    for ids, book, wanted, why in questions:
        found = longest_stretch(list(ids), list(book))
        refuse(isinstance(found, list), "The number of tokens is asked for, not the tokens.")
        expect(found, wanted, f"{why}: {wanted}, and yours is {{found}}.")
    return "It finds the longest stretch, wherever it begins."


def exercise_7_5(log_chance: Callable) -> str:
    """The log-probability of a stretch, by teacher forcing."""
    ids = torch.tensor([2, 1, 0])
    probs = torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.625, 0.125], [0.05, 0.15, 0.8]])
    logits = probs.log() + 2  # as logits are: nobody has made them add up to anything
    wanted = torch.tensor(0.125).log()
    found = log_chance(logits.clone(), ids.clone(), 1, 1.0)
    refuse(same(found, -wanted), "Your number has the wrong sign: the logarithm of a chance is negative.")
    refuse(same(found, wanted.exp()), "0.125 is the chance itself: its logarithm, a sum, is asked for.")
    refuse(same(found, wanted / 2), "You take the mean; the logarithm of a product is the sum.")
    late = (probs[1, 1] * probs[2, 0]).log()
    refuse(same(found, late), "Each of your rows stands under its own id: row i predicts the id at i + 1.")
    refuse(same(found, wanted + 4), "You sum logits: only after `log_softmax` they are logarithms of probabilities.")
    expect(found, wanted.item(), "Two tokens of 0.5 and 0.25 give {wanted}, and yours is {found}.", 1e-3)
    found = log_chance(logits.clone(), ids.clone(), 2, 1.0)
    refuse(same(found, wanted), "With given = 2 you count the prompt's second token, too, and it is given.")
    left = torch.tensor(0.25).log().item()
    expect(found, left, "With given = 2 one token of 0.25 is left: {wanted}, not {found}.", 1e-3)
    found, at_2 = log_chance(logits.clone(), ids.clone(), 1, 2.0), probs.sqrt() / probs.sqrt().sum(1, keepdim=True)
    refuse(same(found, wanted), "At temperature 2 your number is that of temperature 1.")
    refuse(same(found, wanted / 2), "You divide the logarithms by T: divide the logits, before the softmax.")
    expect(found, (at_2[0, 1] * at_2[1, 0]).log().item(), "At T = 2 the result is {wanted}, and yours {found}.", 1e-3)
    found = log_chance(torch.zeros(400, 3), torch.zeros(400, dtype=torch.long), 1, 1.0)
    refuse(same(found, torch.tensor(-torch.inf)), "The product of 399 thirds is 0 in `float32`: sum logarithms.")
    expect(found, -399 * torch.tensor(3.0).log().item(), "399 tokens of 1/3 give {wanted}, and yours is {found}.", 0.1)
    return "It needs one pass and no draw, and length does not hurt it."


def exercise_7_6(heal_prompt: Callable) -> str:
    """Token healing: one token back, then two whose text comes back in three."""
    prompt, likes = [0, 1], {0: [5, 2, 3, 1], 1: [3, 5]}
    found = as_ids(heal_prompt(Table(likes), prompt, WORDS, 1))
    refuse(found[:2] == [0, 1] and len(found) > 2, "The token ` h` is still there: take it back before you draw.")
    refuse(found[:2] == [0, 5], "You draw `!`, likeliest of all: only what agrees with the missing ` h` may come.")
    refuse(found == [0, 1], "` h` comes back as it was: ` has` begins with it, and is likelier here.")
    refuse(found == [0, 3], "The model still reads what you have taken back: give it only the ids that are left.")
    expect(found, [0, 2], "`the`, ` h` heals to {wanted}, `the has`; yours is {found}.")
    refuse(prompt != [0, 1], "Your function changes the list that it is given: `ids[:-back]` is a new one.")
    found = as_ids(heal_prompt(Table({0: [3, 2]}), [0, 2], WORDS, 1))
    refuse(found == [0, 3], "` hat` begins like ` has` and does not agree: all bytes that both have must be equal.")
    expect(found, [0, 2], "`the`, ` has` heals to itself here, {wanted}; yours is {found}.")
    found = as_ids(heal_prompt(Table({0: [5, 2, 3, 1]}, lowest=-20.0), prompt, WORDS, 1))
    expect(found, [0, 2], "Where all logits are below 0, a 0 is the highest: mask with -torch.inf. Yours is {found}.")
    likes = {0: [5, 6, 2], 6: [8, 7], 7: [5, 8]}
    found = as_ids(heal_prompt(Table(likes), [0, 1, 4], WORDS, 2))
    refuse(
        found == [0, 2],
        "A token that is only the beginning of the missing text agrees, and `·` (a space) was likelier.",
    )
    refuse(found == [0, 6], "You stop after one token, and `has` is still missing: draw until all its bytes are back.")
    spelt = b"".join(WORDS[i] for i in found).decode()
    refuse(not spelt.startswith("the has"), f"`the has`, two tokens back, has become `{spelt}`: every draw must agree "
           "with what is still missing, the bytes of all tokens taken back.")  # fmt: skip
    expect(found, [0, 6, 7, 8], "`the has`, two tokens back, heals to {wanted} here; yours is {found}.")
    found = as_ids(heal_prompt(Table({0: [2], 1: [2, 4]}), [0, 1, 4], WORDS, 1))
    expect(found, [0, 1, 4], "With one token back only `as` is missing, and {wanted} comes back; yours is {found}.")
    return "It takes back, and lets only those tokens come that agree."


def _continued(model: nn.Module, ids: list[int], n: int, sampling: Sampling, block_size: int) -> list[int]:
    generator = _seeded()
    for _ in range(n):
        ids = ids + sample(model(torch.tensor([ids[-block_size:]]))[0][:, -1], sampling, [generator])
    return ids


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)
