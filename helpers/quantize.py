"""Weights in 8 bits, and weights laid out for writing one token at a time."""

import copy
import threading
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from helpers.checkpoint import WEIGHTS, CheckpointError, load_checkpoint, read_meta, save_checkpoint
from helpers.config import GPTConfig
from helpers.int8 import Product, fastest, int8_product
from helpers.model import GPT

FORMATS = ("fp32", "bf16", "int8")  # what weights can be served in
_FIRST_USE = threading.Lock()  # several requests may meet a model that has not been used yet


def round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(…, n) -> int8 (…, n) and float32 scales (…, 1): x is about int8 * scale, each row by its largest entry."""
    scale = torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True, dtype=torch.float32).div_(127).clamp_(1e-30)
    return (x / scale).round_().to(torch.int8), scale


class Int8Linear(nn.Module):
    """y = x W^T + b with W in 8 bits, row by row: about weight * scale, (out, in) int8 times (out, 1) float32.

    How it multiplies is found out with the first x, by timing (`int8.fastest`), unless `way` names it.
    """

    way: str | None = None

    def __init__(self, shape: torch.Size, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(shape, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(shape[0], 1))
        self.bias = bias
        self._product: Product | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        y = (self._product or self._packed())(x)
        return y if self.bias is None else y.add_(self.bias)

    def _packed(self) -> Product:
        with _FIRST_USE:
            if self._product is None:  # else another thread was faster
                self._product = int8_product(self.weight, self.scale, self.way)
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


def quantize_int8(model: GPT, way: str | None = None) -> GPT:
    """A copy for inference, on the CPU, with every matrix and table in 8 bits, the tied table once.

    Each row has a scale of its own; biases and LayerNorms stay in float32. way: one of int8.WAYS to multiply by;
    the fastest here unless told.
    """
    state = {}
    for name, p in model.named_parameters():
        p = p.detach().float().cpu()
        if p.ndim == 2:
            state[name], state[name.removesuffix("weight") + "scale"] = round_rows(p)
        else:
            state[name] = p.clone()
    return _filled(_hollow(model.config), state, way)


def products_of(model: GPT) -> list[str]:
    """How each kind of matrix of an int8 model is multiplied here, and why; a sentence each."""
    matrices = [m for m in model.modules() if type(m) is Int8Linear] + [model.transformer.wte]
    shapes = sorted({(*m.weight.shape, m.weight.device.type) for m in matrices})
    return [fastest(n_in, n_out, device)[1] for n_out, n_in, device in shapes]


def _filled(model: GPT, state: dict[str, Tensor], way: str | None) -> GPT:
    model.load_state_dict(state, strict=True, assign=True)
    for module in model.modules():
        if isinstance(module, Int8Linear):
            module.way = way
    return model.eval().requires_grad_(False)


class _OneRowLinear(nn.Linear):
    """A bf16 Linear that multiplies a single row as a vector, which PyTorch's CPU kernels do faster."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() != self.in_features:
            return super().forward(x)
        y = self.weight.mv(x.flatten())  # (out,)
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)


def ready_to_write(model: GPT, weights: str = "fp32", way: str | None = None) -> GPT:
    """A copy for inference, its weights in one of FORMATS and, on a CPU, laid out for one token at a time.

    Same values (rounded where the format says so), same results; a single row reads each matrix once, and that
    reading is what a token costs. ValueError for another format.
    """
    if weights not in FORMATS:
        raise ValueError(f"weights={weights!r} is none of {', '.join(FORMATS)}")
    if weights == "int8":
        return quantize_int8(model, way).to(model.transformer.ln_f.weight.device)
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
    return save_checkpoint(folder, model, {**meta, "weights": "int8"})


def load_to_write(folder: str | Path, weights: str = "fp32", way: str | None = None) -> tuple[GPT, dict[str, Any]]:
    """The model of a checkpoint, ready to write in one of FORMATS, and its meta.json. way: as in `quantize_int8`.

    A checkpoint that `save_int8` wrote is served as it is. Raises CheckpointError as `load_checkpoint` does, and
    where 8 bits are asked to be 16 or 32.
    """
    meta = read_meta(folder)
    if meta.get("weights") != "int8":
        model, meta = load_checkpoint(folder, GPT)
        return ready_to_write(model, weights, way), meta
    if weights != "int8":
        raise CheckpointError(f"{folder} holds 8-bit weights; {weights} needs the checkpoint that they were made of")
    try:
        return _filled(_hollow(GPTConfig(**meta["config"])), load_file(Path(folder) / WEIGHTS), way), meta
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}): quantise again") from error
