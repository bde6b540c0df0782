"""Optimizers and schedules."""

import pytest
import torch

from helpers.config import Recipe
from helpers.optim import build_optimizers, lr_share
from tests.conftest import tiny_gpt

RECIPE = {"steps": 100, "window": 8, "batch_size": 4}


def shares(**changes) -> list[float]:
    recipe = Recipe(**{**RECIPE, **changes})
    return [lr_share(recipe, step) for step in range(recipe.steps)]


def test_onecycle_is_torchs():
    lrs = shares(schedule="onecycle", warmup=0.1, initial_lr=0.1, final_lr=0.002)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=100, pct_start=0.1, div_factor=10, final_div_factor=50
    )
    for ours in lrs:
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        if theirs.last_epoch < 99:
            theirs.step()


def test_linear_and_cosine_rise_once_and_fall_to_their_end_inside_the_run():
    for schedule in ("linear", "cosine"):
        lrs = shares(schedule=schedule, warmup=0.1, final_lr=0.1)
        top = lrs.index(max(lrs))
        assert lrs[:top] == sorted(lrs[:top])
        assert lrs[top:] == sorted(lrs[top:], reverse=True)
        assert 0 < lrs[0] < 0.2
        assert max(lrs) == 1
        assert lrs[-1] == pytest.approx(0.1, abs=0.01)


def test_constant_is_constant():
    assert shares(schedule="constant", warmup=0.0) == [1.0] * 100


def test_no_step_is_wasted_on_a_rate_of_zero():
    assert min(shares(schedule="linear")) > 0


def test_muon_takes_the_hidden_matrices_and_nothing_else():
    model = tiny_gpt()
    names = {id(p): name for name, p in model.named_parameters()}
    adamw, muon = build_optimizers(model, Recipe(**RECIPE, weight_decay=0.1))
    hidden = {names[id(p)] for g in muon.param_groups for p in g["params"]}
    rest = {names[id(p)] for g in adamw.param_groups for p in g["params"]}
    assert isinstance(muon, torch.optim.Muon)
    assert hidden == {n for n in names.values() if ".h." in n and n.endswith("weight") and "ln_" not in n}
    assert hidden | rest == set(names.values())
    assert not hidden & rest


def test_biases_and_gains_are_not_decayed():
    model = tiny_gpt()
    (adamw,) = build_optimizers(model, Recipe(**RECIPE, optimizer="adamw", weight_decay=0.1))
    decay = {p.ndim: g["weight_decay"] for g in adamw.param_groups for p in g["params"]}
    assert decay == {2: 0.1, 1: 0.0}
