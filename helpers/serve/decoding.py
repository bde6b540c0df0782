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
from helpers.serve.bf16 import BF16Linear, fastest_for_many
from helpers.serve.bf16 import fastest as fastest_for_a_row
from helpers.serve.kernels import fastest, packed_kernel

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
                half = BF16Linear(child.in_features, child.out_features, bias=child.bias is not None)
            half.weight, half.bias = child.weight, child.bias
            half.kernel, _ = fastest_for_a_row(child.in_features, child.out_features)
            half.many, _ = fastest_for_many()
            setattr(module, name, half)
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
    """Which kernel multiplies each shape of matrix of an int8 model here, or a row and rows of a bf16 one, and why."""
    shapes = {type(m): set() for m in model.modules() if isinstance(m, (Int8Linear, BF16Linear))}
    for m in model.modules():
        if type(m) in shapes:
            shapes[type(m)].add((*m.weight.shape, m.weight.device.type))
    kernels = [fastest(i, o, device)[1] for o, i, device in sorted(shapes.get(Int8Linear, ()))]
    kernels += [fastest_for_a_row(i, o)[1] for o, i, _ in sorted(shapes.get(BF16Linear, ()))]
    return kernels + [fastest_for_many()[1]] * (BF16Linear in shapes)


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
