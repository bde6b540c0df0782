"""Optimizers and learning-rate schedules."""

import math

import torch
from torch import Tensor, nn

from helpers.config import Recipe


class Muon(torch.optim.Muon):
    """torch.optim.Muon (Jordan et al. 2024), with matrices of equal shape orthogonalised together.

    GPT-2's 48 hidden matrices have three shapes up to transposition: 15 batched products a shape instead of 15 a
    matrix. dtype: of these products; bf16 unless told, fp16 where a card only emulates bf16 (T4).
    """

    def __init__(self, params, lr: float, weight_decay: float, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault((min(p.shape), max(p.shape)), []).append(p)
            for params in by_shape.values():
                self._step_alike(params, group)

    def _step_alike(self, params: list[nn.Parameter], group: dict) -> None:
        lr, momentum = group["lr"], group["momentum"]
        grads = [p.grad for p in params]
        for p in params:
            self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        updates = torch._foreach_lerp(grads, buffers, momentum)  # Nesterov
        lying = [u.T if u.size(0) > u.size(1) else u for u in updates]
        if self.dtype == torch.float16:  # which would lose small numbers before the iteration scales them
            lying = [u / u.norm().clamp(min=group["eps"]) for u in lying]
        even = orthogonalize(torch.stack([u.to(self.dtype) for u in lying]), group["ns_coefficients"], group["eps"])
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        for p, u in zip(params, even, strict=True):
            rows, columns = p.shape
            p.add_(u.T if rows > columns else u, alpha=-lr * math.sqrt(max(1, rows / columns)))


def orthogonalize(x: Tensor, coefficients: tuple[float, float, float], eps: float, steps: int = 5) -> Tensor:
    """(n, R, C), R <= C: about U V^T of each matrix's U S V^T: the same directions, each about equally strong.

    Newton-Schulz iteration with the quintic of Jordan et al. 2024.
    """
    a, b, c = coefficients
    x = x / x.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT  # (n, R, R)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def build_optimizers(
    model: nn.Module, recipe: Recipe, dtype: torch.dtype = torch.bfloat16
) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2019) for the whole model, or Muon, computing in `dtype`, beside it.

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
        optimizers.append(Muon(hidden, lr=recipe.muon_lr, weight_decay=recipe.weight_decay, dtype=dtype))
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


def beta1(recipe: Recipe, step: int) -> float:
    """AdamW's first beta at optimizer step `step`: lowest where the rate peaks, if the recipe cycles it."""
    if recipe.beta1_range is None:
        return recipe.betas[0]
    low, high = recipe.beta1_range
    rising = step < recipe.warmup * recipe.steps - 1
    end = recipe.initial_lr if rising else recipe.final_lr  # the rate's share at which beta1 is highest
    return low + (high - low) * (1 - lr_share(recipe, step)) / (1 - end) if end < 1 else low


def _half_cosine(t: float) -> float:
    """1 at t = 0, 0 at t = 1, level at both."""
    return (1 + math.cos(math.pi * t)) / 2
