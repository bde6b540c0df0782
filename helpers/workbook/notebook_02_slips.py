"""Notebook 2: what typical slips lead to, each with the sentence that names it, and models that see the future."""

import math

import torch
from torch import Tensor, nn

Slips = list[tuple[str, Tensor]]


def bigram_slips(counts: Tensor, alpha: float) -> Slips:
    """counts: (V, V), how often b (column) follows a (row) in a text whose first and last ids are 0 and V - 1."""
    n, V = counts.sum(dim=1, keepdim=True), counts.size(0)
    around, alone, once = counts.clone(), n.clone(), counts.clamp(max=1)
    around[-1, 0] += 1
    alone[-1] += 1

    def shares(counts: Tensor, n: Tensor | None = None, added: float = alpha * V) -> Tensor:
        return (counts + alpha) / ((counts.sum(dim=1, keepdim=True) if n is None else n) + added)

    swapped = "Row and column are swapped: `counts[a, b]`, so that row a says what follows a."
    below = "Below the line {}. alpha went to each of the V counts of the row."
    return [
        ("A pair counts once in yours, however often it comes. Go through the pairs one by one.", shares(once)),
        (swapped, shares(counts).T),
        (swapped, shares(counts.T)),
        (
            "Sums of rows divide columns in yours: `sum(dim=1, keepdim=True)` keeps them a column.",
            shares(counts, n[:, 0]),
        ),
        ("You divide by each column's sum. What follows a stands in row a: `dim=1`.", shares(counts, counts.sum(0))),
        ("You divide by the number of all pairs. Row a is divided by its own sum.", shares(counts, counts.sum())),
        ("Your first character follows your last one. A text of N characters has N - 1 pairs.", shares(around)),
        (
            "The text's last character has no follower: n is the sum of row a, not how often a occurs.",
            shares(counts, alone),
        ),
        ("You add 1. What is to be added is `alpha`, above the line and below.", (counts + 1) / (n + V)),
        ("Nothing is added to the counts: these are the raw shares.", counts / n),
        (below.format("you add nothing"), shares(counts, n, 0.0)),
        (below.format("alpha is added once"), shares(counts, n, alpha)),
        (below.format("you add V"), shares(counts, n, float(V))),
    ]


def average_slips() -> Slips:
    """What becomes of 2, 6, 4 without fading."""
    hidden = [math.nan, 2.0, 4.0]
    slips = [
        ("Every position averages over all three: what is later has to get the score -inf.", [4.0, 4.0, 4.0]),
        ("Your mask hides a position from itself, so the first one sees nothing (nan). Only j > i is later.", hidden),
        ("Your mask is on the wrong side: a position sees the future and not what came before.", [4.0, 5.0, 4.0]),
        ("The mask comes too late: after the softmax the rest no longer sums to 1. Mask scores.", [2 / 3, 8 / 3, 4.0]),
        ("Your softmax runs down the columns. A position's weights are a row: dim=1.", [2 / 3, 11 / 3, 23 / 3]),
        ("Yours is a sum and no average: the weights of a row have to sum to 1.", [2.0, 8.0, 12.0]),
    ]
    return [(sentence, torch.tensor(numbers)[None, :, None]) for sentence, numbers in slips]


def head_slips(q: Tensor, k: Tensor, v: Tensor, C: int) -> Slips:
    """q, k, v: (B, T, hs), made of C numbers per position."""
    raw, (T, d) = q @ k.mT, q.shape[-2:]
    scores, later = raw / math.sqrt(d), torch.ones(T, T).triu(1).bool()
    hidden = scores.masked_fill(later, -torch.inf)

    def masked(scores: Tensor, mask: Tensor = later, by: float = -torch.inf) -> Tensor:
        return scores.masked_fill(mask, by).softmax(-1) @ v

    products = "You divide by the root of {}. A score is a sum of hs products: the root of hs."
    one = "Your softmax runs over the {}. One query's weights sum to 1: `dim=-1`."
    itself = "Your mask hides a position from itself, the first one sees nothing (nan): `triu(1)`."
    side = "Your mask is on the wrong side: a position sees the future and not what came before."
    late = "The mask comes too late: after the softmax the rest no longer sums to 1. Mask the scores."
    zero = "You mask by 0, which is a score like any other. -inf is what the softmax turns into 0."
    swapped = "Queries and keys are swapped: row i of the scores belongs to query i, `q @ k.transpose(-2, -1)`."
    return [
        ("The scores are not scaled. Divide them by the root of hs, or they grow with it.", masked(raw)),
        ("You divide by hs. A score varies with the root of hs: `math.sqrt`.", masked(raw / d)),
        (
            "You multiply by the root of hs. The larger hs, the more the scores vary: divide.",
            masked(raw * math.sqrt(d)),
        ),
        (products.format("C"), masked(raw / math.sqrt(C))),
        (products.format("T"), masked(raw / math.sqrt(T))),
        ("Every position sees the future: where is the mask?", scores.softmax(-1) @ v),
        (itself, masked(scores, torch.ones(T, T).triu().bool())),
        (side, masked(scores, later.T)),
        (late, scores.softmax(-1).masked_fill(later, 0.0) @ v),
        (zero, masked(scores, by=0.0)),
        (one.format("queries"), hidden.softmax(-2) @ v),
        (one.format("windows"), hidden.softmax(0) @ v),
        (swapped, masked(scores.mT)),
        ("You average the keys. What a position hands over is its value.", hidden.softmax(-1) @ k),
    ]


class Ahead(nn.Module):
    """Position t puts out what stands at t + by, where the window reaches so far."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, self.by :], torch.zeros_like(x[:, : self.by])], dim=1)


class Centred(nn.Module):
    """Every position puts out the mean over all, after each has taken off the mean of its numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(dim=2, keepdim=True)).mean(dim=1, keepdim=True).expand_as(x)


class FromTheEnd(nn.Module):
    """The sum up to each position, as what all have together less what comes later: exact but for rounding."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.sum(dim=1, keepdim=True) - x.flip(1).cumsum(dim=1).flip(1)
