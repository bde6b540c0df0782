"""What notebook 4's checks look with: results of known slips, and models whose gradients can be read off."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from helpers.config import IGNORE
from helpers.workbook.check import refuse


def name_the_slip(found: Any, slips: Iterable[tuple[Any, str]]) -> None:
    """Say what is wrong where `found` is one of the known results of a slip. Raises WrongError."""
    for slip, message in slips:
        refuse(near(found, slip), message)


def near(found: Any, wanted: Any) -> bool:
    """Whether two numbers, or two lists of numbers, differ by a thousandth at most."""
    if isinstance(wanted, list):
        return all(near(a, b) for a, b in zip(found, wanted, strict=True))
    number = isinstance(found, int | float) or (isinstance(found, Tensor) and found.numel() == 1)
    return number and math.isclose(float(found), wanted, abs_tol=1e-3)


def numbers(*tensors: Tensor) -> list[float]:
    """What stands in tensors, one after the other, rounded as a sentence has it."""
    return [round(number, 4) for tensor in tensors for number in tensor.flatten().tolist()]


class SumsLoss(nn.Module):
    """Weights a = 1 and b = 2; the loss is a times the sum of x, and b times the sum of y."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(2.0))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a * x.sum() + self.b * y.sum()

    def forward(self, x: Tensor, y: Tensor) -> tuple[None, Tensor]:
        return None, self.loss(x, y)


class MeanLoss(nn.Module):
    """A weight w = 1; the loss is w times the mean of x where y is a target.

    calls: how many forward passes there were; waiting: whether one began before the first had its backward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.w, self.calls, self.waiting = nn.Parameter(torch.tensor(1.0)), 0, False

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.waiting |= self.calls > 0 and self.w.grad is None
        self.calls += 1
        return self.w * x[y != IGNORE].mean()

    def forward(self, x: Tensor, y: Tensor) -> tuple[None, Tensor]:
        return None, self.loss(x, y)


def with_gradients(*gradients: list[float]) -> list[nn.Parameter]:
    """A parameter of ones for each gradient, which stands in its `grad`."""
    parameters = [nn.Parameter(torch.ones(len(gradient))) for gradient in gradients]
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = torch.tensor(gradient)
    return parameters
