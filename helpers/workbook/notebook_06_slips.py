"""Wrong results that are known from notebook 6's exercise on AdamW, each with the sentence for its slip."""

import math

import torch
from torch import Tensor

from helpers.workbook.check import expect, refuse

NAN = math.nan

FIRST_STEP = [
    ([NAN, NAN], "The first step gives NaN. Is t 1 then? With t = 0 the correction divides by 1 − 1."),
    ([0.826795, NAN], "A negative gradient gives NaN: v is the mean of the squares, so g * g goes into it."),
    ([0.955279, -1.955279], "m and v begin at 0, and are too small at first: divide them by 1 − β₁ᵗ and 1 − β₂ᵗ."),
    ([0.552786, -1.552786], "You correct m and not v: v / (1 − β₂ᵗ) goes under the root."),
    ([0.99, -1.99], "You correct v and not m: the step goes along m / (1 − β₁ᵗ)."),
    ([0.0, -1.0], "The first step is ten times too long: in m the new gradient counts 1 − β₁ = 0.1, not 1."),
    ([0.977639, -1.977639], "In v the new square counts 1 − β₂ = 0.05, not 1."),
    ([0.966667, -1.8], "The steps depend on the size of the gradient: is there a square root over v̂?"),
    ([1.1, -2.1], "Your step goes up the slope: the loss falls along minus the gradient."),
]
SECOND_STEP = [
    ([1.0, -2.0], "The second step knows nothing of the first: put the new m and v back into `state`."),
    ([0.844990, -1.975297], "t is still 1 at the second step: count it in `state`, and let 1 − βᵗ have that t."),
    ([0.856650, -1.952444], "β₁ and β₂ have changed places: m fades at 0.9, v at 0.95."),
    ([0.754300, -1.837884], "You keep the corrected m̂ and v̂: keep m and v, and correct them anew in every step."),
]
DECAY = [
    ([NAN, NAN], "A gradient of 0 gives NaN: epsilon is added below the fraction, so that nothing is divided by 0."),
    ([0.9, -1.9], "The decay has entered the gradient, and so m and v. It is decoupled: multiply w by 1 − ηλ."),
    ([0.5, -1.0], "The decay per step is the rate times λ: the factor is 1 − ηλ, not 1 − λ."),
    ([1.0, -2.0], "With gradient 0 nothing moves: where is the decay?"),
    ([1.05, -2.1], "Your decay makes weights grow: the factor is 1 − ηλ."),
]
EPSILON = [
    ([0.0], "Epsilon is inside your root. It is added to the root, outside."),
    ([-0.1], "A gradient of 1e-8 moves a whole rate: add epsilon (1e-8) to the root."),
]


def compare(found: Tensor, wanted: list | Tensor, slips: list[tuple], otherwise: str) -> None:
    """`expect`, with a sentence of its own for each known wrong result."""
    for wrong, sentence in slips if isinstance(found, Tensor) else []:
        wrong = torch.as_tensor(wrong)
        same = found.shape == wrong.shape and torch.allclose(found, wrong, rtol=1e-5, atol=2e-5, equal_nan=True)
        refuse(same, sentence)
    expect(found, torch.as_tensor(wanted), otherwise, 2e-5)
