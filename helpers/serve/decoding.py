"""Weights laid out for decoding, one token at a time, in the formats that are served."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from helpers.checkpoint import CheckpointError, load_checkpoint, read_meta
from helpers.model import GPT
from helpers.quantize import Int8Linear, load_int8, quantize_int8
from helpers.serve.kernels import fastest, packed_kernel
from helpers.serve.one_row import OneRowLinear
from helpers.serve.one_row import fastest as fastest_for_a_row

FORMATS = ("fp32", "bf16", "int8")  # what weights can be served in


def for_decoding(model: GPT, weights: str = "fp32", kernel: str | None = None) -> GPT:
    """A copy for inference, its weights in one of FORMATS and, on a CPU, laid out for one token at a time.

    Same values (rounded where the format says so), same results; a single row reads each matrix once, and that
    reading is what a token costs. ValueError for another format.
    """
    if weights not in FORMATS:
        raise ValueError(f"weights={weights!r} is none of {', '.join(FORMATS)}")
    if weights == "int8":
        return with_kernels(quantize_int8(model), kernel).to(model.transformer.ln_f.weight.device)
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    twin.to(torch.bfloat16 if weights == "bf16" else torch.float32)
    if twin.lm_head.weight.device.type != "cpu":
        return twin
    for module, name, child in [(m, n, c) for m in twin.modules() for n, c in m.named_children()]:
        if isinstance(child, nn.Linear) and weights == "bf16":
            with torch.device("meta"):
                row = OneRowLinear(child.in_features, child.out_features, bias=child.bias is not None)
            row.weight, row.bias = child.weight, child.bias
            row.kernel, _ = fastest_for_a_row(child.in_features, child.out_features)
            setattr(module, name, row)
        elif isinstance(child, nn.Linear):
            child.weight.data = child.weight.data.t().contiguous().t()  # the same matrix, column after column
    return twin


def with_kernels(model: GPT, kernel: str | None = None) -> GPT:
    """The same int8 model, multiplying with one of `kernels.KERNELS`, or with the fastest of them here."""
    for module in model.modules():
        if isinstance(module, Int8Linear):
            module.kernel = partial(packed_kernel, kernel=kernel)
    return model


def kernels_of(model: GPT) -> list[str]:
    """Which kernel multiplies each shape of matrix of an int8 model here, or a row of a bf16 one, and why."""
    matrices = [m for m in model.modules() if isinstance(m, (Int8Linear, OneRowLinear))]
    shapes = sorted({(type(m) is OneRowLinear, *m.weight.shape, m.weight.device.type) for m in matrices})
    return [(fastest_for_a_row(i, o) if row else fastest(i, o, device))[1] for row, o, i, device in shapes]


def load_for_decoding(
    folder: str | Path, weights: str = "fp32", kernel: str | None = None, device: str = "cpu"
) -> tuple[GPT, dict[str, Any]]:
    """The model of a checkpoint on a device, laid out for decoding there in one of FORMATS, and its meta.json.

    kernel: as in `with_kernels`. A checkpoint that `save_int8` wrote is served as it is.
    Raises CheckpointError as `load_checkpoint` does, and where 8 bits are asked to be 16 or 32.
    """
    meta = read_meta(folder)
    if meta.get("weights") != "int8":
        model, meta = load_checkpoint(folder, GPT)
        return for_decoding(model.to(device), weights, kernel), meta
    if weights != "int8":
        raise CheckpointError(f"{folder} holds 8-bit weights; {weights} needs the checkpoint that they were made of")
    model, meta = load_int8(folder)
    return with_kernels(model, kernel).to(device), meta
