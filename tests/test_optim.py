"""Optimizers and schedules."""

import pytest
import torch

from helpers import optim
from helpers.base.group import Group
from helpers.base.timing import seconds_of
from helpers.config import Recipe
from helpers.optim import Muon, beta1, build_optimizers, lr_factor, muon_dtype, orthogonalize
from helpers.runtime import Runtime
from tests.conftest import CPU, tiny_gpt

RECIPE = {"steps": 100, "window": 8, "batch_size": 4}


def shares(**changes) -> list[float]:
    recipe = Recipe(**{**RECIPE, **changes})
    return [lr_factor(recipe, step) for step in range(recipe.steps)]


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


def test_biases_and_layernorm_scales_are_not_decayed():
    model = tiny_gpt()
    (adamw,) = build_optimizers(model, Recipe(**RECIPE, optimizer="adamw", weight_decay=0.1))
    decay = {p.ndim: g["weight_decay"] for g in adamw.param_groups for p in g["params"]}
    assert decay == {2: 0.1, 1: 0.0}


def test_beta1_swings_as_onecycle_swings_it():
    recipe = Recipe(**RECIPE, schedule="onecycle", warmup=0.1, initial_lr=0.1, final_lr=0.002, beta1_range=(0.85, 0.95))
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=100, pct_start=0.1, div_factor=10, final_div_factor=50
    )
    for step in range(100):
        assert beta1(recipe, step) == pytest.approx(optimizer.param_groups[0]["betas"][0], abs=1e-9)
        optimizer.step()
        if step < 99:
            theirs.step()
    assert beta1(Recipe(**RECIPE), 50) == 0.9


@pytest.mark.parametrize("flat", [{"final_lr": 1.0}, {"initial_lr": 1.0}, {"initial_lr": 1.0, "final_lr": 1.0}])
def test_beta1_has_somewhere_to_be_where_the_rate_does_not_swing(flat):
    recipe = Recipe(**RECIPE, schedule="onecycle", warmup=0.1, beta1_range=(0.85, 0.95), **flat)
    found = [beta1(recipe, step) for step in range(recipe.steps)]
    assert all(0.85 <= beta <= 0.95 for beta in found)
    assert found[0 if "initial_lr" in flat else -1] == 0.85, "the rate is at its peak there"


def matrices() -> list[torch.nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    shapes = [(24, 8), (8, 8), (32, 8), (8, 32), (24, 8), (32, 8), (8, 32)]
    return [torch.nn.Parameter(torch.randn(shape, generator=g)) for shape in shapes]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_is_torchs_muon_a_shape_at_a_time(weight_decay):
    ours, theirs = matrices(), matrices()
    optimizers = (
        Muon(ours, torch.bfloat16, lr=0.02, weight_decay=weight_decay),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=weight_decay),
    )
    for step in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(step))
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=2e-3)  # bf16, summed in another order
    a, b = (next(iter(o.state_dict()["state"].values()))["momentum_buffer"] for o in optimizers)
    assert torch.equal(a, b), "and its state is torch's, so checkpoints fit either"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_orthogonalizing_evens_out_singular_values_and_keeps_directions(dtype):
    x = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(1))
    orthogonal = orthogonalize(x.to(dtype), (3.4445, -4.7750, 2.0315), 1e-7).float()
    assert torch.linalg.svdvals(x).min() < 0.4 * torch.linalg.svdvals(x).max()
    assert 0.5 < torch.linalg.svdvals(orthogonal).min() <= torch.linalg.svdvals(orthogonal).max() < 1.35
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    middle = u.mT @ orthogonal @ v.mT
    off_diagonal = middle - torch.diag_embed(middle.diagonal(dim1=1, dim2=2))
    assert off_diagonal.abs().max() < 0.1


@pytest.mark.parametrize(
    ("gain", "dtype", "says"),
    [
        (6.0, torch.bfloat16, "6.0 times as fast"),
        (1.0, torch.float32, "1.0 times as long"),
        (0.14, torch.float32, "7.1"),
    ],
)
def test_on_a_cpu_the_clock_chooses_muons_dtype(monkeypatch, gain, dtype, says):
    asked = []
    monkeypatch.setattr(optim, "_bf16_gain", lambda *shape: asked.append(shape) or gain)
    chosen, why = muon_dtype(matrices(), CPU)
    assert chosen == dtype
    assert says in why
    assert asked == [(4, 8, 32)], "the largest of its shapes, as many as are alike, either way round"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_on_a_gpu_muon_has_the_dtype_of_training(dtype):
    """fp32 on a card without tensor cores, and for a small model on an Apple GPU: 16 bits would be emulated."""
    chosen, why = muon_dtype(matrices(), Runtime(torch.device("cuda"), dtype, ()))
    assert chosen == dtype
    assert why == f"Muon in {str(dtype)[6:]}: as this GPU multiplies"


def test_the_dtype_that_is_chosen_is_the_faster_here():
    """Really timed: neither choice may cost more than the margin that decides it."""
    optim._bf16_gain.cache_clear()
    x = [torch.randn(128, 512, generator=torch.Generator().manual_seed(0)) for _ in range(8)]
    chosen, _ = muon_dtype(x, CPU)
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        stack = torch.stack(x).to(dtype)
        seconds[dtype] = seconds_of(lambda s=stack: orthogonalize(s, optim.COEFFICIENTS, 1e-7), within=0.3)
    assert seconds[chosen] < 2 * min(seconds.values())


def test_no_buffer_is_made_anew_at_every_step(monkeypatch):
    params, made, zeros_like = matrices(), [], torch.zeros_like
    optimizer = Muon(params, torch.float32, lr=0.02, weight_decay=0.0)
    monkeypatch.setattr(torch, "zeros_like", lambda t, **kw: made.append(t.shape) or zeros_like(t, **kw))
    for step in range(3):
        for p in params:
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()
    assert len(made) == len(params), "one momentum per matrix, with the first step"


def test_a_matrix_without_a_gradient_is_left_alone():
    first, second = matrices()[:2]
    first.grad = torch.ones_like(first)
    before = second.clone()
    Muon([first, second], torch.float32, lr=0.02, weight_decay=0.1).step()
    assert torch.equal(second, before)


def test_muon_in_fp16_does_not_lose_small_gradients():
    """A clipped gradient of the 124M model has elements around 1e-4, and smaller ones: fp16 is coarse there."""
    small, large = matrices(), matrices()
    for a, b in zip(small, large, strict=True):
        b.grad = torch.randn(b.shape, generator=torch.Generator().manual_seed(4))
        a.grad = 1e-8 * b.grad
    for params in (small, large):
        Muon(params, torch.float16, lr=0.02, weight_decay=0.0).step()
    for a, b in zip(small, large, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_that_share_muons_matrices_get_what_one_computes(world):
    """Four matrices among more or fewer processes; each one's share is noted, then put together as the group would."""
    shares = []

    class Pretended(Group):
        def gather(self, mine):
            shares.append(mine)
            return torch.cat(shares)

    x = torch.randn(4, 6, 10, generator=torch.Generator().manual_seed(0))
    coefficients = (3.4445, -4.775, 2.0315)
    for rank in range(world):
        muon = Muon(
            [torch.nn.Parameter(x[0])], lr=1.0, weight_decay=0.0, dtype=torch.bfloat16, group=Pretended(rank, world)
        )
        shared = muon._share(x, coefficients, 1e-7)
    assert {len(share) for share in shares} == {-(-4 // world)}
    torch.testing.assert_close(shared, orthogonalize(x, coefficients, 1e-7), rtol=1e-6, atol=1e-6)
