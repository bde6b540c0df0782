"""Optimizers and learning-rate schedules."""

import math

import torch
from torch import nn

from helpers.config import Recipe


def build_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2019) for the whole model, or Muon (Jordan et al. 2024) beside it.

    Muon takes the hidden matrices: 2-D weights that are neither an embedding table nor the head. Biases and gains
    are never decayed. Every parameter group remembers its peak rate as `peak_lr`.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    hidden, matrices, vectors = [], [], []
    for name, p in model.named_parameters():
        if p.ndim < 2:
            vectors.append(p)
        elif recipe.optimizer == "muon" and id(p) not in tables and not name.startswith("lm_head"):
            hidden.append(p)
        else:
            matrices.append(p)
    groups = [dict(params=matrices, weight_decay=recipe.weight_decay), dict(params=vectors, weight_decay=0.0)]
    groups = [g for g in groups if g["params"]]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)]
    if hidden:
        optimizers.append(torch.optim.Muon(hidden, lr=recipe.muon_lr, weight_decay=recipe.weight_decay))
    for group in (g for o in optimizers for g in o.param_groups):
        group["peak_lr"] = group["lr"]
    return optimizers


def lr_share(recipe: Recipe, step: int) -> float:
    """The learning rate of optimizer step `step` (0, 1, …), as a share of its peak.

    constant: the peak, after the warm-up. linear, cosine: from the peak down towards `final_lr`.
    onecycle: as torch's OneCycleLR, a cosine up from `initial_lr` during the warm-up and a cosine down.
    """
    onecycle = recipe.schedule == "onecycle"
    peak, end = recipe.warmup * recipe.steps - onecycle, recipe.steps - onecycle  # OneCycleLR counts from 0
    if step < peak:
        risen = 1 - _half_cosine(step / peak) if onecycle else (step + 1) / (peak + 1)
        return recipe.initial_lr + (1 - recipe.initial_lr) * risen
    t = (step - peak) / max(end - peak, 1)
    left = {"constant": 1.0, "linear": 1 - t}.get(recipe.schedule, _half_cosine(t))
    return recipe.final_lr + (1 - recipe.final_lr) * left


def _half_cosine(t: float) -> float:
    """1 at t = 0, 0 at t = 1, level at both."""
    return (1 + math.cos(math.pi * t)) / 2
