"""What the checks of notebook 3 compare with: attention with typical slips, weights as transformers has them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.model import GPT
from helpers.workbook.check import expect, refuse


def same(found: Tensor, wanted: Tensor | list, tolerance: float = 1e-3) -> bool:
    """Whether shape and numbers agree."""
    wanted = torch.as_tensor(wanted, dtype=found.dtype)
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=0, atol=tolerance)


def of_shape(found: Tensor, shape: tuple[int, ...], why: str) -> Tensor:
    """`found`, if it is a tensor of this shape without a NaN; else WrongError."""
    numbers = found.nan_to_num() if isinstance(found, Tensor) else found
    expect(numbers, torch.zeros(shape), why, math.inf)
    refuse(found.isnan().any().item(), "Your result holds a NaN.")
    return found


# --- attention --------------------------------------------------------------------------------------------------------


def split_heads(qkv: Tensor, n_head: int) -> list[Tensor]:
    """(B, T, 3C) -> queries, keys and values, each (B, nh, T, d)."""
    return [t.unflatten(2, (n_head, -1)).transpose(1, 2) for t in qkv.chunk(3, dim=2)]


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Three of (B, nh, T, d) -> (B, T, C); seen: (T, T), which positions are visible, the past unless told."""
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None, scale=scale)
    return y.transpose(1, 2).flatten(2)


def wrong_heads(qkv: Tensor, n_head: int) -> list[tuple[Tensor, str]]:
    """What typical slips compute, and what to say about each."""
    B, T, C = qkv.size(0), qkv.size(1), qkv.size(2) // 3
    d, thirds = C // n_head, qkv.chunk(3, dim=2)
    q, k, v = split_heads(qkv, n_head)
    sliced = [t.reshape(B, n_head, T, d) for t in thirds]
    strided = attend(*(t.reshape(B, T, d, n_head).permute(0, 3, 1, 2) for t in thirds))
    everything = torch.ones(T, T, dtype=torch.bool)

    def masked(future: float, dim: int) -> Tensor:
        scores = (q @ k.mT / d**0.5).masked_fill(everything.triu(1), future)
        return (scores.softmax(dim).nan_to_num() @ v).transpose(1, 2).flatten(2)

    mixed = "`view(B, n_head, T, d)` mixes positions: view as (B, T, n_head, d), then swap T and n_head."
    return [
        (attend(*sliced), mixed),
        (F.scaled_dot_product_attention(*sliced, is_causal=True).reshape(B, T, C), mixed),
        (
            F.scaled_dot_product_attention(q, k, v, is_causal=True).reshape(B, T, C),
            "On the way back positions and heads are mixed: swap nh and T again before the reshape.",
        ),
        (strided, "A head owns neighbouring columns: view as (…, n_head, d), not as (…, d, n_head)."),
        (strided.view(B, T, n_head, d).mT.flatten(2), "A head owns neighbouring columns: view as (…, n_head, d)."),
        (attend(q, k, v, everything), "A position sees its future: `is_causal=True`."),
        (masked(0.0, -1), "A score of 0 hides nothing: the future has minus infinity, before the softmax."),
        (masked(-torch.inf, -2), "Your softmax runs over the queries: over the keys, the last dimension."),
        (attend(q, k, v, everything.triu()), "Your mask is upside down: a position sees its future, not its past."),
        (attend(k, q, v), "Queries and keys have changed places: the first third of the columns is the queries."),
        (attend(q, k, v, scale=1.0), "Your scores are not divided by the root of d."),
        (attend(q, k, v, scale=1 / d), "Your scores are divided by d: divide by its square root."),
        (attend(q, k, v, scale=C**-0.5), "Your scores are divided by the root of C: take d, the width of one head."),
        (attend(*split_heads(qkv, 1)), "You compute one head as wide as the stream: `n_head` is not used."),
    ]


# --- weights ----------------------------------------------------------------------------------------------------------


def as_transformers_stores(model: GPT) -> dict[str, Tensor]:
    """A state dict as transformers' GPT-2 has it: a block's matrices are (in, out)."""
    turned = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    theirs = {name: p.detach().clone() for name, p in model.named_parameters()}
    theirs = {name: w.T.contiguous() if name.endswith(turned) else w for name, w in theirs.items()}
    return {**theirs, "lm_head.weight": theirs["transformer.wte.weight"].clone()}


def compare_parameters(model: GPT, source: GPT, before: list[Tensor]) -> None:
    """Go on if all parameters agree; else say which was not loaded, or wrongly. before: what they were."""
    wanted = dict(source.named_parameters())
    untouched = all(same(p, q, 0) for p, q in zip(model.parameters(), before, strict=True))
    refuse(untouched, "The model is as it was: `p = w` only gives `w` another name, `p.copy_(w)` writes into `p`.")
    for name, p in model.named_parameters():
        if p.ndim == 2 and same(p, wanted[name].T, 0):
            only = f"`{name}` must not be transposed: only the four matrices of a block are (in, out)."
            refuse("c_" not in name, only)
            refuse(True, f"`{name}` must be transposed. It is square, so no error warned you: let the name decide.")
        reread = p.ndim == 2 and same(p, wanted[name].T.contiguous().view(p.shape), 0)
        refuse(reread, f"`{name}` has the right numbers in a wrong order: `view` is no transpose, `.T` is.")
        expect(p.detach(), wanted[name].detach(), f"`{name}` of the model is not what the state dict holds.")


def first_load(load_by_name, model: GPT, theirs: dict[str, Tensor]) -> None:
    """Call the learner's function; what PyTorch says of two common slips, in plainer words."""
    try:
        load_by_name(model, theirs)
    except RuntimeError as error:
        says = next((line for line in str(error).splitlines() if "size" in line), "").strip()
        sizes = f"Two shapes differ: c_attn, c_proj and c_fc are (in, out) there, (out, in) here. PyTorch: {says}"
        refuse(bool(says), sizes)
        tied = "`load_state_dict` wants `lm_head.weight`, too, wte's second name: `strict=False`, or copy one by one."
        refuse("Missing key" in str(error) and "lm_head" in str(error), tied)
        refuse("leaf" in str(error), "PyTorch refuses to overwrite a parameter: copy inside `with torch.no_grad():`.")
        raise
    except KeyError as error:
        refuse("lm_head" in str(error), "`lm_head.weight` is in the state dict only. That is no error: skip it.")
        raise


def refuse_gaps(load_by_name, model: GPT, theirs: dict[str, Tensor]) -> None:
    """Go on if a state dict with missing names is refused, all of them named, before anything is copied."""
    first, second = "transformer.wpe.weight", "transformer.h.1.mlp.c_fc.bias"
    before = [p.detach().clone() for p in model.parameters()]
    message = _refusal(load_by_name, model, {name: w for name, w in theirs.items() if name != second})
    refuse(not message, f"`{second}` is missing, and your function says nothing: those numbers stay random.")
    kind = message.partition(":")[0]
    refuse(kind != "KeyError", f"Names are missing, and you raise {kind}: a `KeyError` is asked for.")
    refuse(second not in message, f"`{second}` is missing, and your error does not name it. It says: {message}")
    touched = not all(same(p, q, 0) for p, q in zip(model.parameters(), before, strict=True))
    refuse(touched, "A name is missing, and half of the model is overwritten already: look for all names first.")
    message = _refusal(load_by_name, model, {name: w for name, w in theirs.items() if name not in (first, second)})
    listed = first in message and second in message
    refuse(not listed, f"Two names are missing; your error should list both. It says: {message}")


def _refusal(load_by_name, model: GPT, theirs: dict[str, Tensor]) -> str:
    """What the learner's function raises, as a text; empty if nothing."""
    try:
        load_by_name(model, theirs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
