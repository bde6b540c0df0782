"""Weights in 8 bits, and weights laid out for writing one token at a time."""

import copy
import threading
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from helpers.checkpoint import WEIGHTS, CheckpointError, load_checkpoint, read_meta, save_checkpoint
from helpers.config import GPTConfig
from helpers.model import GPT

FORMATS = ("fp32", "bf16", "int8")  # what weights can be served in
_PACKING = threading.Lock()  # several requests may meet a model that has not been used yet


def round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(…, n) -> int8 (…, n) and float32 scales (…, 1): x is about int8 * scale, each row by its largest entry."""
    scale = torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True, dtype=torch.float32).div_(127).clamp_(1e-30)
    return (x / scale).round_().to(torch.int8), scale


def _integer_product(x: Tensor, packed: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """int8 (M, in) and a packed (out, in) -> float32 (M, out): exact sums of integers, column n times scale[n].

    oneDNN leaves a product of 256 numbers or fewer to its reference code, up to fifty times slower: a few empty rows
    make it larger.
    """
    M = len(x)
    if (lacking := 256 // len(scale) + 1 - M) > 0:
        x = F.pad(x, (0, 0, 0, lacking))
    return torch.ops.onednn.qlinear_pointwise(
        x, 1.0, 0, packed, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )[:M]


@cache
def has_integer_kernel() -> bool:
    """Whether PyTorch's int8 kernel (oneDNN's) is there on this CPU, and exact at the largest values too."""
    x, w = torch.full((2, 256), 127, dtype=torch.int8), torch.full((64, 256), -127, dtype=torch.int8)
    try:
        found = _integer_product(x, torch.ops.onednn.qlinear_prepack(w, None), torch.ones(64), torch.zeros(64).int())
    except (AttributeError, RuntimeError):
        return False
    return bool((found == -127 * 127 * 256).all())


class Int8Linear(nn.Module):
    """y = x W^T + b with W in 8 bits, row by row: about weight * scale, (out, in) int8 times (out, 1) float32.

    On a CPU with an int8 kernel the rows of x are rounded to 8 bits as well and the product is an exact sum of
    integers, so a row's result does not depend on its neighbours. Elsewhere W is multiplied out for each product.
    """

    def __init__(self, shape: torch.Size, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(shape, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(shape[0], 1))
        self.bias = bias
        self._packed: tuple[Tensor, ...] | None = None  # weight (here no longer), scale and zeros, as the kernel wants

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        if x.device.type != "cpu" or not has_integer_kernel():
            self.unpack()
            return F.linear(x, (self.weight * self.scale).to(x.dtype), self.bias)
        if self._packed is None:
            self._pack()
        q, x_scale = round_rows(x.flatten(0, -2))  # (M, in), (M, 1)
        y = _integer_product(q, *self._packed).mul_(x_scale)  # (M, out)
        y = y if self.bias is None else y.add_(self.bias)
        return y.view(*x.shape[:-1], -1)

    def _pack(self) -> None:
        with _PACKING:
            if self._packed is None:  # else another thread was faster
                packed = torch.ops.onednn.qlinear_prepack(self.weight, None)
                self._packed = packed, self.scale.flatten(), torch.zeros(len(self.scale), dtype=torch.int32)
                self._forget()

    def _forget(self) -> None:
        self.weight = self.weight.new_empty(0)  # one copy is enough

    def unpack(self) -> None:
        """Bring `weight` back, to save it or to move it to another device."""
        if self._packed is not None:
            self.weight, self._packed = self._packed[0].to_dense().t().contiguous(), None

    def _apply(self, fn, recurse: bool = True) -> nn.Module:  # what .to(device) calls
        self.unpack()
        return super()._apply(fn, recurse)


class Int8Table(Int8Linear):
    """A table in 8 bits, read by row; `head` multiplies with it, so that a tied head needs no second one."""

    def forward(self, idx: Tensor) -> Tensor:
        """(…,) int64 -> rows, (…, in) float32."""
        return self.weight[idx] * self.scale[idx]

    def head(self, x: Tensor) -> Tensor:
        """(…, in) -> a score for each row, (…, out)."""
        return super().forward(x)

    def _forget(self) -> None:
        """Rows are still to be read from it."""

    def unpack(self) -> None:
        """Let go of the kernel's own order; `weight` is there."""
        self._packed = None


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


def _hollow(config: GPTConfig) -> GPT:
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
            state[name], state[name.removesuffix("weight") + "scale"] = round_rows(p)
        else:
            state[name] = p.clone()
    return _filled(_hollow(model.config), state)


def _filled(model: GPT, state: dict[str, Tensor]) -> GPT:
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


class _OneRowLinear(nn.Linear):
    """A bf16 Linear that multiplies a single row as a vector, which PyTorch's CPU kernels do faster."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() != self.in_features:
            return super().forward(x)
        y = self.weight.mv(x.flatten())  # (out,)
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)


def ready_to_write(model: GPT, weights: str = "fp32") -> GPT:
    """A copy for inference, its weights in one of FORMATS and, on a CPU, laid out for one token at a time.

    Same values (rounded where the format says so), same results; a single row reads each matrix once, and that
    reading is what a token costs. ValueError for another format.
    """
    if weights not in FORMATS:
        raise ValueError(f"weights={weights!r} is none of {', '.join(FORMATS)}")
    if weights == "int8":
        return quantize_int8(model).to(model.transformer.ln_f.weight.device)
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    twin.to(torch.bfloat16 if weights == "bf16" else torch.float32)
    if twin.lm_head.weight.device.type != "cpu":
        return twin
    for module, name, child in _children(twin):
        if isinstance(child, nn.Linear) and weights == "bf16":
            with torch.device("meta"):
                row = _OneRowLinear(child.in_features, child.out_features, bias=child.bias is not None)
            row.weight, row.bias = child.weight, child.bias
            setattr(module, name, row)
        elif isinstance(child, nn.Linear):
            child.weight.data = child.weight.data.t().contiguous().t()  # the same matrix, column after column
    return twin


def save_int8(folder: str | Path, model: GPT, meta: dict[str, Any]) -> Path:
    """Write a model that `quantize_int8` made as a checkpoint: int8, scales and the rest as safetensors."""
    for module in model.modules():
        if isinstance(module, Int8Linear):
            module.unpack()
    return save_checkpoint(folder, model, {**meta, "weights": "int8"})


def load_to_write(folder: str | Path, weights: str = "fp32") -> tuple[GPT, dict[str, Any]]:
    """The model of a checkpoint, ready to write in one of FORMATS, and its meta.json.

    A checkpoint that `save_int8` wrote is served as it is. Raises CheckpointError as `load_checkpoint` does, and
    where 8 bits are asked to be 16 or 32.
    """
    meta = read_meta(folder)
    if meta.get("weights") != "int8":
        model, meta = load_checkpoint(folder, GPT)
        return ready_to_write(model, weights), meta
    if weights != "int8":
        raise CheckpointError(f"{folder} holds 8-bit weights; {weights} needs the checkpoint that they were made of")
    try:
        return _filled(_hollow(GPTConfig(**meta["config"])), load_file(Path(folder) / WEIGHTS)), meta
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}): quantise again") from error
