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
    """The plain kernel: the weights in full precision again, made once; then a product as any other."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        """weight: int8 (out, in); scale: float32 (out, 1)."""
        self.weight = (weight * scale).t().contiguous().t()  # column after column: a single row reads that fastest

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return F.linear(x, self.weight.to(x.dtype))


class Int8Linear(nn.Module):
    """y = x W^T + b with W in 8 bits, row by row: about weight * scale, (out, in) int8 times (out, 1) float32.

    kernel: the class that multiplies; it is given weight and scale with the first x, and lays them out as it wants.
    `Dequantized` is right on every machine; `helpers.serve.kernels` has faster ones.
    """

    kernel: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]] = Dequantized

    def __init__(self, shape: torch.Size, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight, self.scale = _empty_rows(shape)
        self.bias = bias
        self._packed: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        y = (self._packed or self._pack())(x)
        return y if self.bias is None else y.add_(self.bias)

    def _pack(self) -> Callable[[Tensor], Tensor]:
        with _FIRST_USE:
            if self._packed is None:  # else another thread was faster
                self._packed = self.kernel(self.weight, self.scale)
        return self._packed

    def _apply(self, fn, recurse: bool = True) -> nn.Module:  # what .to(device) calls
        self._packed = None
        return super()._apply(fn, recurse)


class Int8Embedding(nn.Module):
    """An embedding matrix in 8 bits, row by row."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.weight, self.scale = _empty_rows(shape)

    def forward(self, idx: Tensor) -> Tensor:
        """(…,) int64 -> (…, in) float32."""
        return self.weight[idx] * self.scale[idx]


def _empty_rows(shape: torch.Size) -> tuple[nn.Parameter, nn.Parameter]:
    """Room for an int8 matrix and its scales: parameters, which can be tied as GPT-2's are, but are not trained."""
    matrix, scale = torch.empty(shape, dtype=torch.int8), torch.empty(shape[0], 1)
    return nn.Parameter(matrix, requires_grad=False), nn.Parameter(scale, requires_grad=False)


def _empty_int8(config: GPTConfig) -> GPT:
    """A GPT with 8-bit matrices and no numbers in them yet."""
    with torch.device("meta"):
        model = GPT(config)
        for module, name, child in [(m, n, c) for m in model.modules() for n, c in m.named_children()]:
            if isinstance(child, nn.Embedding):
                setattr(module, name, Int8Embedding(child.weight.shape))
            elif isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child.weight.shape, child.bias))
    return model


def quantize_int8(model: GPT) -> GPT:
    """A copy for inference, on the CPU, with every matrix in 8 bits, the tied embedding once.

    Each row has a scale of its own; biases and LayerNorms stay in float32.
    """
    state = {}
    for name, p in model.named_parameters():
        p = p.detach().float().cpu()
        if p.ndim == 2:
            state[name], state[name.removesuffix("weight") + "scale"] = quantize_rows(p)
        else:
            state[name] = p.clone()
    return _load(model.config, state)


def _load(config: GPTConfig, state: dict[str, Tensor]) -> GPT:
    """An 8-bit GPT with these numbers; its head is tied to the token embedding."""
    model = _empty_int8(config)
    head = {f"lm_head.{name}": state[f"transformer.wte.{name}"] for name in ("weight", "scale")}
    model.load_state_dict({**state, **head}, strict=True, assign=True)
    wte = model.transformer.wte
    model.lm_head.weight, model.lm_head.scale = wte.weight, wte.scale  # the same parameters: saved and moved once
    return model.eval().requires_grad_(False)


def save_int8(folder: str | Path, model: GPT, meta: dict[str, Any]) -> Path:
    """Write a model that `quantize_int8` made as a checkpoint: int8, scales and the rest as safetensors."""
    return save_checkpoint(folder, model, {**meta, "weights": "int8"})


def load_int8(folder: str | Path) -> tuple[GPT, dict[str, Any]]:
    """The model of a checkpoint that `save_int8` wrote, and its meta.json; CheckpointError if it is damaged."""
    meta = read_meta(folder)
    try:
        return _load(GPTConfig(**meta["config"]), load_file(Path(folder) / WEIGHTS)), meta
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}): quantise again") from error
