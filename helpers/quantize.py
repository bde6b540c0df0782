"""Weights in 8 bits: each row of a matrix with a scale of its own, and products with what is left of it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from helpers.checkpoint import WEIGHTS, CheckpointError, read_meta, save_checkpoint
from helpers.config import GPTConfig
from helpers.model import GPT

_FIRST_USE = threading.Lock()  # several requests may meet a model that has not been used yet


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(…, n) -> int8 (…, n) and float32 scales (…, 1): x is about int8 * scale, each row by its largest entry."""
    scale = torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True, dtype=torch.float32).div_(127).clamp_(1e-30)
    return (x / scale).round_().to(torch.int8), scale


class Dequantized:
    """The plain way to multiply: the weights in full precision again, made once; then a product as any other."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        """weight: int8 (out, in); scale: float32 (out, 1)."""
        self.weight = (weight * scale).t().contiguous().t()  # column after column: a single row reads that fastest

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return F.linear(x, self.weight.to(x.dtype))


class Int8Linear(nn.Module):
    """y = x W^T + b with W in 8 bits, row by row: about weight * scale, (out, in) int8 times (out, 1) float32.

    product_of: what makes the product of weight and scale, when the first x comes. `Dequantized` is right on every
    machine; `helpers.serve.kernels` has faster ones.
    """

    product_of: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]] = Dequantized

    def __init__(self, shape: torch.Size, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(shape, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(shape[0], 1))
        self.bias = bias
        self._product: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        y = (self._product or self._packed())(x)
        return y if self.bias is None else y.add_(self.bias)

    def _packed(self) -> Callable[[Tensor], Tensor]:
        with _FIRST_USE:
            if self._product is None:  # else another thread was faster
                self._product = self.product_of(self.weight, self.scale)
        return self._product

    def _apply(self, fn, recurse: bool = True) -> nn.Module:  # what .to(device) calls
        self._product = None
        return super()._apply(fn, recurse)


class Int8Table(Int8Linear):
    """A table in 8 bits, read by row; `head` multiplies with it, so that a tied head needs no second one."""

    def forward(self, idx: Tensor) -> Tensor:
        """(…,) int64 -> rows, (…, in) float32."""
        return self.weight[idx] * self.scale[idx]

    def head(self, x: Tensor) -> Tensor:
        """(…, in) -> a score for each row, (…, out)."""
        return super().forward(x)


class TiedHead(nn.Module):
    """The head of a model whose token table is in 8 bits."""

    def __init__(self, table: Int8Table) -> None:
        super().__init__()
        self._table = (table,)  # a tuple hides it: it is the table's to save and to move

    def forward(self, x: Tensor) -> Tensor:
        return self._table[0].head(x)


def _children(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Every module of a module, with its parent and its name there; a list, so that they can be replaced."""
    return [(module, name, child) for module in model.modules() for name, child in module.named_children()]


def _empty(config: GPTConfig) -> GPT:
    """A GPT with 8-bit matrices and no numbers in them yet."""
    with torch.device("meta"):
        model = GPT(config)
        for module, name, child in _children(model):
            if isinstance(child, nn.Embedding):
                setattr(module, name, Int8Table(child.weight.shape, None))
            elif isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child.weight.shape, child.bias))
    model.lm_head = TiedHead(model.transformer.wte)
    return model


def quantize_int8(model: GPT) -> GPT:
    """A copy for inference, on the CPU, with every matrix and table in 8 bits, the tied table once.

    Each row has a scale of its own; biases and LayerNorms stay in float32.
    """
    state = {}
    for name, p in model.named_parameters():
        p = p.detach().float().cpu()
        if p.ndim == 2:
            state[name], state[name.removesuffix("weight") + "scale"] = quantize_rows(p)
        else:
            state[name] = p.clone()
    return _filled(_empty(model.config), state)


def _filled(model: GPT, state: dict[str, Tensor]) -> GPT:
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def save_int8(folder: str | Path, model: GPT, meta: dict[str, Any]) -> Path:
    """Write a model that `quantize_int8` made as a checkpoint: int8, scales and the rest as safetensors."""
    return save_checkpoint(folder, model, {**meta, "weights": "int8"})


def load_int8(folder: str | Path) -> tuple[GPT, dict[str, Any]]:
    """The model of a checkpoint that `save_int8` wrote, and its meta.json; CheckpointError if it is damaged."""
    meta = read_meta(folder)
    try:
        return _filled(_empty(GPTConfig(**meta["config"])), load_file(Path(folder) / WEIGHTS)), meta
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}): quantise again") from error
