"""Optimizers and learning-rate schedules."""

import math
from collections.abc import Sequence
from functools import cache, partial

import torch
from torch import Tensor, nn

from helpers.base.group import Group
from helpers.base.timing import seconds_in_turns
from helpers.config import Recipe
from helpers.runtime import WORTH_IT, Runtime

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, Jordan et al. 2024


class Muon(torch.optim.Muon):
    """torch.optim.Muon (Jordan et al. 2024), with matrices of equal shape orthogonalised together.

    GPT-2's 48 hidden matrices have three shapes up to transposition: 15 batched products per shape instead of per
    matrix. dtype: of these products, which need no more than 16 bits; `muon_dtype` knows what is fast. rates: torch's.
    """

    def __init__(self, params, dtype: torch.dtype, group: Group | None = None, **rates: float) -> None:
        super().__init__(params, **rates)
        self.dtype, self.group = dtype, group or Group()

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
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        updates = torch._foreach_lerp(grads, buffers, momentum)  # Nesterov
        wide = [u.T if u.size(0) > u.size(1) else u for u in updates]
        if self.dtype == torch.float16:  # which would lose small numbers before the iteration scales them
            wide = [u / u.norm().clamp(min=group["eps"]) for u in wide]
        orthogonal = self._share(torch.stack([u.to(self.dtype) for u in wide]), group["ns_coefficients"], group["eps"])
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        for p, u in zip(params, orthogonal, strict=True):
            rows, columns = p.shape
            p.add_(u.T if rows > columns else u, alpha=-lr * math.sqrt(max(1, rows / columns)))

    def _share(self, x: Tensor, coefficients: tuple[float, float, float], eps: float) -> Tensor:
        """`orthogonalize`, (n, R, C): each process does its share of the matrices, and gets the others'."""
        if self.group.world == 1:
            return orthogonalize(x, coefficients, eps)
        share = -(-len(x) // self.group.world)
        first = self.group.rank * share
        mine = torch.zeros(share, *x.shape[1:], dtype=x.dtype, device=x.device)  # the last may have fewer
        if count := max(0, min(share, len(x) - first)):
            mine[:count] = orthogonalize(x[first : first + count], coefficients, eps)
        return self.group.gather(mine)[: len(x)]


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


def muon_dtype(matrices: Sequence[Tensor], runtime: Runtime, group: Group | None = None) -> tuple[torch.dtype, str]:
    """The dtype in which Muon orthogonalises `matrices` fastest on this machine, and why.

    On a GPU it is training's. On a CPU one iteration is timed, for the largest shape: processors that lack bf16
    emulate it, many times slower than fp32. In a group the slowest process decides for all.
    """
    if runtime.device.type != "cpu":
        return runtime.dtype, f"Muon in {str(runtime.dtype).removeprefix('torch.')}: as this GPU multiplies"
    rows, columns = max((min(m.shape), max(m.shape)) for m in matrices)
    alike = sum({rows, columns} == set(m.shape) for m in matrices)
    gain = _bf16_gain(max(1, min(alike, int(1e9 / (4 * rows * rows * columns)))), rows, columns)  # about a GFLOP
    slow = (group or Group()).any(gain < WORTH_IT, device=runtime.device)  # one clock may differ from another
    if any(slow):
        return torch.float32, f"Muon in fp32: bf16 takes {1 / gain:.1f} times as long here"
    return torch.bfloat16, f"Muon in bf16: {gain:.1f} times as fast here as in fp32"


@cache
def _bf16_gain(n: int, rows: int, columns: int) -> float:
    stack = torch.randn(n, rows, columns, generator=torch.Generator().manual_seed(0))
    stacks = [stack.to(dtype) for dtype in (torch.float32, torch.bfloat16)]
    fp32, bf16 = seconds_in_turns([partial(orthogonalize, x, COEFFICIENTS, 1e-7, steps=1) for x in stacks])
    return fp32 / bf16


def hidden_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """What Muon takes, by name: 2-D weights that are neither an embedding nor the head."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return {
        name: p
        for name, p in model.named_parameters()
        if p.ndim == 2 and id(p) not in embeddings and not name.startswith("lm_head")
    }


def build_optimizers(
    model: nn.Module, recipe: Recipe, dtype: torch.dtype = torch.float32, group: Group | None = None
) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2019) for the whole model, or Muon, computing in `dtype`, beside it.

    Muon takes the hidden matrices, and a group of processes that step together shares its work. Biases and LayerNorm
    scales are never decayed. Every parameter group remembers its peak rate as `peak_lr`.
    """
    by_muon = hidden_matrices(model) if recipe.optimizer == "muon" else {}
    hidden = list(by_muon.values())
    rest = [p for name, p in model.named_parameters() if name not in by_muon]
    matrices, vectors = [p for p in rest if p.ndim >= 2], [p for p in rest if p.ndim < 2]
    groups = [dict(params=matrices, weight_decay=recipe.weight_decay), dict(params=vectors, weight_decay=0.0)]
    groups = [g for g in groups if g["params"]]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)]
    if hidden:
        rates = {"lr": recipe.muon_lr, "momentum": recipe.muon_momentum, "weight_decay": recipe.weight_decay}
        optimizers.append(Muon(hidden, dtype=dtype, group=group, **rates))
    for group in (g for o in optimizers for g in o.param_groups):
        group["peak_lr"] = group["lr"]
    return optimizers


def set_rates(optimizers: Sequence[torch.optim.Optimizer], recipe: Recipe, step: int) -> float:
    """Set the learning rates and first betas of optimizer step `step`; AdamW's learning rate."""
    factor, beta = lr_factor(recipe, step), beta1(recipe, step)
    for group in (g for o in optimizers for g in o.param_groups):
        group["lr"] = group["peak_lr"] * factor
        if "betas" in group:
            group["betas"] = (beta, recipe.betas[1])
    return recipe.lr * factor


def lr_factor(recipe: Recipe, step: int) -> float:
    """The learning rate of optimizer step `step` (0, 1, …), as a share of its peak.

    constant: the peak, after the warm-up. linear, cosine: from the peak down towards `final_lr`.
    onecycle: as torch's OneCycleLR, a cosine up from `initial_lr` during the warm-up and a cosine down.
    A function of the step, where torch's schedulers count for themselves: a resumed run has no state of it to restore.
    """
    peak, end = recipe.warmup * recipe.steps, recipe.steps  # where the rate is highest and lowest
    if recipe.schedule == "onecycle":
        peak, end = peak - 1, end - 1  # torch counts from 0 to the last step
    if step < peak:
        risen = 1 - _half_cosine(step / peak) if recipe.schedule == "onecycle" else (step + 1) / (peak + 1)
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
    end = recipe.initial_lr if rising else recipe.final_lr  # the share of the peak at which beta1 is highest
    return low + (high - low) * (1 - lr_factor(recipe, step)) / (1 - end) if end < 1 else low


def _half_cosine(t: float) -> float:
    """1 at t = 0, 0 at t = 1, level at both."""
    return (1 + math.cos(math.pi * t)) / 2
