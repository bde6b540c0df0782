"""Looks at what a learner's function has returned, whatever that may be."""

from typing import Any

import torch
from torch import Tensor

from helpers.workbook.check import NOTHING, expect, refuse


def as_ids(found: Any) -> list[int]:
    """Ids as a list, from whatever holds them; refuses what holds none."""
    refuse(found is None, NOTHING)
    refuse(not isinstance(found, list | tuple | Tensor), f"A list of ids is wanted, not a {type(found).__name__}.")
    return [int(i) for i in (found.flatten() if isinstance(found, Tensor) else found)]


def same(found: Any, wanted: Tensor) -> bool:
    """Whether it is a number or a tensor of that shape, and as large but for 1e-4."""
    if not isinstance(found, int | float | Tensor):
        return False
    found = torch.as_tensor(found, dtype=torch.float)
    return found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-4)


def rounded(found: Any) -> list[float]:
    """Its numbers to three digits, to be shown; none of what is no tensor."""
    return [round(p, 3) for p in found.flatten().tolist()] if isinstance(found, Tensor) else []


def total(found: Any) -> float:
    """What its numbers add up to; 1 for what is no tensor, which `expect` says better."""
    return found.sum().item() if isinstance(found, Tensor) else 1.0


def positive(found: Any) -> int:
    """How many of its numbers are more than 0."""
    return int((found > 0).sum()) if isinstance(found, Tensor) else 0


def has_nan(found: Any) -> bool:
    """Whether there is a nan among its numbers."""
    return isinstance(found, Tensor) and bool(found.isnan().any())


def two_stay(name: str, found: Any) -> None:
    """Of four tokens the two likeliest: what is left, where, and how much."""
    wanted = torch.tensor([0, 2 / 3, 0, 1 / 3])
    refuse(same(found, torch.tensor([0, 0.5, 0, 0.25])), f"{name} leaves 0.75 in all: divide what stays by its sum.")
    moved = "puts what stays in the first places: every value belongs back at the place of its token (`scatter`)."
    refuse(same(found, wanted.sort(descending=True)[0]), f"{name} {moved}")
    alone = name == "keep_top_p" and same(found, torch.tensor([0.0, 1, 0, 0]))
    refuse(alone, "With p = 0.6 your nucleus is one token of 0.5, not 0.6 yet: the token that reaches p stays, too.")
    unlikely = len(rounded(found)) == 4 and rounded(found)[0] > 0
    refuse(unlikely, f"{name} keeps an unlikely token: go from the likeliest down.")
    expect(found, wanted, f"{name}: two stay here, {rounded(wanted)}; yours are {rounded(found)}.", 1e-4)
