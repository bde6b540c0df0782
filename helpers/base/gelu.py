"""GPT-2's activation, also fast where PyTorch computes it one by one: on x86 processors without AVX2."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SCALE, CUBE = math.sqrt(2 / math.pi), 0.044715
# There MKL's exponential has vectors, and F.gelu has none: forward and backward of 8 x 128 x 512 numbers take 9.2 ms,
# in the form below 1.9 (torch 2.13.0, two threads).
ONE_BY_ONE = torch.backends.cpu.get_cpu_capability() == "DEFAULT" and torch.backends.mkl.is_available()


def gelu(x: Tensor) -> Tensor:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), elementwise: GPT-2 was trained with this form."""
    return _GELU.apply(x) if ONE_BY_ONE and x.device.type == "cpu" else F.gelu(x, approximate="tanh")


class _GELU(torch.autograd.Function):
    """x s, the same, with s = 1 / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3). Slope: s + 2 u' x s (1 - s)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        s = (x * x).mul_(-2 * SCALE * CUBE).add_(-2 * SCALE).mul_(x).exp_().add_(1).reciprocal_()
        ctx.save_for_backward(x, s)
        return x * s

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> Tensor:
        x, s = ctx.saved_tensors
        slope = (x * x).mul_(6 * SCALE * CUBE).add_(2 * SCALE).mul_(x).mul_(s)  # 2 u' x s
        return slope.addcmul_(slope, s, value=-1).add_(s).mul_(dy)
