"""What the checks of notebook 9 ask; those of its models and tensors are in `notebook_09_models.py`."""

import math

import torch

from helpers.workbook.check import NOTHING, expect, refuse, refuse_values
from helpers.workbook.notebook_09_models import exercise_9_2, exercise_9_4

__all__ = ["exercise_9_1", "exercise_9_2", "exercise_9_3", "exercise_9_4", "exercise_9_5", "exercise_9_6"]


def exercise_9_1(per_doubling) -> str:
    """The slope of a least-squares line over log2 of the repetitions."""
    found = _number(per_doubling([1, 2, 4, 8], [0.3, 0.4, 0.5, 0.6]))
    slips = {
        0.1 / math.log(2): "That is per e-fold: take the logarithm to base 2, `math.log2`, and a step is a doubling.",
        0.1 / math.log10(2): "That is per tenfold: take the logarithm to base 2, `math.log2`: a step is a doubling.",
        0.04: "Your line is over the repetitions themselves: put their logarithm to base 2 below the shares.",
        0.3: "That is where the line begins, at one repetition. Wanted is its slope.",
        10.0: "You divide by the spread of the shares: divide by that of the logarithms.",
        0.8 / 3.5: "Your line goes through zero. Take both means off first.",
        0.125: "That is the covariance: divide by the sum of the squares of x's deviations, too.",
        0.075: "You divide by n above and by n - 1 below: take sums in both places.",
        0.4 / 3: "You divide by n - 1 above and by n below: take sums in both places.",
    }
    refuse_values(found, slips)
    expect(found, 0.1, "From 0.3 at 1 to 0.6 at 8 it rises by {wanted} per doubling, not {found}.", 1e-6)
    found = _number(per_doubling([1, 2, 16], [0.0, 0.6, 0.6]))
    refuse(math.isclose(found, 0.15, abs_tol=1e-4), "You use the first and the last point only: all of them count.")
    steps = "The mean of the steps is not the slope: from 2 to 16 are three doublings, not one."
    refuse(math.isclose(found, 0.3, abs_tol=1e-4), steps)
    expect(found, 3 / 26, "Shares 0, 0.6, 0.6 at 1, 2, 16 repetitions: {wanted} per doubling, not {found}.", 1e-4)
    found = _number(per_doubling([16, 1, 2], [0.6, 0.0, 0.6]))
    expect(found, 3 / 26, "In another order the points are the same, and so is the line: {wanted}, not {found}.", 1e-4)
    return "Share won per doubling: one number for a law, if the law is a line."


def exercise_9_3(exposure) -> str:
    """Ranks of a secret among eight candidates; the second is the likeliest, the one at place 5 the third."""
    scores = torch.tensor([-9.0, -1.0, -5.0, -2.0, -7.0, -3.0, -8.0, -6.0])
    found = _number(exposure(scores, 5))
    slips = {
        2.0: "The rank counts the secret, too: `>=`, not `>`.",
        math.log(8 / 3): "You take the natural logarithm; exposure counts bits: `math.log2`.",
        math.log2(8 / 6): "The likeliest candidate has the rank 1, not the last one: count those that are likelier.",
        math.log2(8 / 5): "`secret` is the place of the secret, not its rank.",
        -math.log2(8 / 3): "Exposure is log2 N less log2 of the rank, so the likeliest has the most.",
        3.0: "That is the rank. Exposure is log2 of the number of candidates less log2 of it.",
        8 / 3: "You divide the candidates by the rank. Take log2 of that.",
        math.log2(3): "There are 8 candidates, the secret among them: not 9. Or you took log2 of the rank alone.",
    }
    refuse_values(found, slips)
    fewer = "Two candidates are likelier than the one at place 5: its rank is 3 and its exposure {wanted}, not {found}."
    expect(found, math.log2(8 / 3), fewer, 1e-4)
    found = _number(exposure(scores, 1))
    expect(found, 3.0, "The likeliest of eight has the exposure {wanted}, not {found}.", 1e-4)
    found = _number(exposure(scores, 0))
    expect(found, 0.0, "The least likely of all has the exposure {wanted}, not {found}.", 1e-4)
    found = _number(exposure(scores[:4], 1))
    expect(
        found, 2.0, "Of four candidates the likeliest has the exposure {wanted}, not {found}: use their number.", 1e-4
    )
    same = _number(exposure(torch.zeros(8), 3))
    refuse(math.isclose(same, 3.0, abs_tol=1e-4), TIES)
    expect(same, 0.0, "A model that finds all eight equally likely exposes nothing: {wanted} bits, not {found}.", 1e-4)
    return "Bits by which the model narrows down who the secret is; one that finds all alike scores 0."


TIES = "All eight are equally likely, and yours comes first. Rank it behind its equals: count `>=`."


def exercise_9_5(deduplicate) -> str:
    """Documents of letters, with pieces of three."""
    asked = [list(text) for text in ("abcdef", "ghijkl", "abcdef", "xxbcdx", "ghi", "mnopmno", "kl", "kl", "uvkl")]
    given = [list(document) for document in asked]
    found = deduplicate(given, 3)
    refuse(given != asked, "Your function changes the list or the documents that it is given: build a new list.")
    refuse(not isinstance(found, list), "Return a list of the documents that stay.")
    kept = ["".join(document) for document in found]
    refuse("abcdef" not in kept, "The first of several copies stays: abcdef is gone altogether.")
    refuse(kept.count("abcdef") > 1, "abcdef stands there twice: none of its pieces may be new the second time.")
    near = "xxbcdx shares the piece bcd with abcdef: a copy need not be whole, nor begin at the same place."
    refuse("xxbcdx" in kept, near)
    refuse("ghi" in kept, "ghi is a piece of ghijkl, and so a copy: look for single pieces, not for most of them.")
    inside = "mnopmno repeats mno within itself, which is no copy of another document: it stays."
    refuse("mnopmno" not in kept, inside)
    refuse("kl" not in kept, "kl is shorter than a piece; as it stands it counts as one, and the first one stays.")
    refuse(kept.count("kl") > 1, "A document shorter than a piece counts as one piece: the second kl is a copy.")
    refuse("uvkl" not in kept, "uvkl has the pieces uvk and vkl, which are new; kl is a piece of its own, not of them.")
    order = "Those that stay keep their order: {wanted}, not {found}."
    expect(kept, ["abcdef", "ghijkl", "mnopmno", "kl", "uvkl"], order)
    chain = deduplicate([list(text) for text in ("abcd", "bcdefg", "efgh")], 3)
    removed = "efgh shares efg with bcdefg only, which was left out itself: compare with what stays."
    expect(["".join(d) for d in chain], ["abcd", "efgh"], removed)
    joined = "1 12 and 11 2 are other tokens: compare them as tuples, not as text run together."
    expect(deduplicate([[1, 12], [11, 2]], 2), [[1, 12], [11, 2]], joined)
    expect(deduplicate([[1, 2, 3, 4], [4, 3, 2, 1]], 2), [[1, 2, 3, 4], [4, 3, 2, 1]], "Order counts: 1 2 is not 2 1.")
    return "The first copy stays, later ones go, whole or in part."


def exercise_9_6(memorized_bits) -> str:
    """Losses in nats of tokens that are one of 64, equally likely: six bits each."""
    nats = torch.full((3, 5), 2 * math.log(2))  # two bits each
    found = _number(memorized_bits(nats, 64))
    slips = {
        4.0: "That is the mean per token: add up over all tokens.",
        30.0: "You add up what the model still has to be told; memorized is the rest, out of six bits per token.",
        15 * (6 - 2 * math.log(2)): "The losses are in nats and log2 V in bits: divide the losses by log 2.",
        15 * (6 * math.log(2) - 2 * math.log(2)): "That is in nats: a bit is log 2 of them.",
        15 * (6 - 2 * math.log(2) ** 2): "You multiply nats by log 2: divide, as 0.693 nats are one bit.",
        15 * (6 * math.log(2) - 2): "You turn the losses into bits and take the natural logarithm of V: both in bits.",
        12.0: "You add up over one dimension only: `nats` is (M, T).",
        20.0: "You add up over one dimension only: `nats` is (M, T).",
        15 * 62.0: "A token of 64 symbols carries log2 64 bits, six, and not 64.",
        -60.0: "The sign is the other way round: memorized is what the model need not be told.",
    }
    refuse_values(found, slips, 1e-3)
    expect(
        found, 60.0, "15 tokens of six bits, of which two bits each are left: {wanted} memorized, not {found}.", 1e-3
    )
    mixed = torch.tensor([[12 * math.log(2), 0.0]])  # bits: 12 and 0
    found = _number(memorized_bits(mixed, 64))
    clipped = "Of two tokens one costs 12 bits and one none: together {wanted}, not {found}. No token is cut off at 0."
    expect(found, 0.0, clipped, 1e-3)
    found = _number(memorized_bits(nats, 2))
    expect(found, -15.0, "Of two symbols a token has one bit; at a loss of two, that is {wanted}, not {found}.", 1e-3)
    return "What the model need not be told, in bits: a text of its own size less the loss."


def _number(found) -> float:
    """What a function returned, as a number; refused if it is nothing, or several."""
    refuse(found is None, NOTHING)
    several = getattr(found, "shape", ()) and found.numel() > 1
    refuse(bool(several), f"One number is wanted, not a tensor of the shape {tuple(getattr(found, 'shape', ()))}.")
    return float(found)
