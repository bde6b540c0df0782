"""What only a GPU can show: skipped without CUDA, run by `make gpu-proof`."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from helpers.base.cross_entropy import linear_cross_entropy
from helpers.base.group import Group
from helpers.config import GPTConfig, Recipe
from helpers.generate import generate
from helpers.model import GPT
from helpers.optim import Muon, orthogonalize
from helpers.run import fit
from helpers.run.evaluation import measure
from helpers.run.fit import fit_to_machine
from helpers.runtime import Runtime, pick_runtime
from helpers.serve.decoding import FORMATS, for_decoding
from helpers.train import Trainer, save_checkpoint
from helpers.windows import Windows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

CUDA = torch.device("cuda")
SIZES = GPTConfig(block_size=128, vocab_size=1999, n_layer=3, n_head=4, n_embd=256)
MIB = 2**20


def runtime(dtype: torch.dtype, compiles: bool = False) -> Runtime:
    return Runtime(CUDA, dtype, ("cuda: for tests",), compiles)


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    return torch.randint(1999, (4000,), generator=torch.Generator().manual_seed(0))


def trainer_on(text: torch.Tensor, where: Runtime, group: Group | None = None, **changes) -> Trainer:
    recipe = Recipe(**{"steps": 20, "window": 128, "batch_size": 8, "lr": 3e-3, "muon_lr": 0.02, **changes})
    torch.manual_seed(0)
    model = GPT(SIZES)
    model.init_weights(recipe.zero_residual)
    model.to(where.device)
    windows = Windows(text.to(where.device), recipe.window, recipe.batch_size, recipe.policy, 0)
    return Trainer(model, windows, recipe, where, group)


def losses(trainer: Trainer) -> list[float]:
    return [step.loss for step in trainer.steps()]


def test_the_steps_of_a_cpu_in_fp32(text):
    cpu = losses(trainer_on(text, Runtime(torch.device("cpu"), torch.float32, ()), steps=6))
    assert losses(trainer_on(text, runtime(torch.float32), steps=6)) == pytest.approx(cpu, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_follow_fp32(text, dtype):
    exact, half = trainer_on(text, runtime(torch.float32)), trainer_on(text, runtime(dtype))
    assert half.scaler.is_enabled() == (dtype == torch.float16)
    assert losses(half) == pytest.approx(losses(exact), rel=0.05)
    assert all(p.dtype == torch.float32 for p in half.model.parameters())


def test_an_inf_in_fp16_costs_a_step_and_no_weights(text):
    trainer = trainer_on(text, runtime(torch.float16))
    trainer.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**60)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    assert not torch.tensor(next(trainer.steps()).grad_norm).isfinite()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert trainer.scaler.get_scale() == 2.0**59


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_compiled_steps_are_eager_ones(text, dtype, monkeypatch):
    monkeypatch.setattr(fit, "COMPILE_PAYS", 1)
    compiled, eager = trainer_on(text, runtime(dtype, compiles=True)), trainer_on(text, runtime(dtype))
    said = fit_to_machine(compiled)
    assert compiled.compiled, said
    assert losses(compiled) == pytest.approx(losses(eager), rel=0.05)


def test_a_resumed_run_goes_on_as_one_that_was_not_stopped(text, tmp_path):
    calm = losses(trainer_on(text, runtime(torch.float16)))
    first = trainer_on(text, runtime(torch.float16))
    for step in first.steps():
        if step.number == 9:
            save_checkpoint(tmp_path / "c", first.model, {}, first.training_state())
            break
    second = trainer_on(text, runtime(torch.float16))
    second.resume(tmp_path / "c")
    assert losses(second) == pytest.approx(calm[9:], rel=0.02)
    other = trainer_on(text, Runtime(torch.device("cpu"), torch.float32, ()))
    other.resume(tmp_path / "c")
    assert next(other.steps()).loss == pytest.approx(calm[9], rel=0.02), "a GPU's checkpoint goes on on a CPU"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_chunked_loss_and_its_gradients_are_torchs(dtype):
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(300, 64, generator=g).to(CUDA), torch.randn(999, 64, generator=g).to(CUDA)
    y = torch.randint(999, (300,), generator=g).to(CUDA)
    found = []
    for loss_of in (linear_cross_entropy, lambda x, w, y: torch.nn.functional.cross_entropy(x @ w.T, y)):
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            loss = loss_of(a, b, y)
        loss.backward()
        found.append((loss.item(), a.grad, b.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=0.01)
    for ours, theirs in zip(found[0][1:], found[1][1:], strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_muon_makes_directions_equally_strong(dtype):
    x = torch.randn(3, 64, 96, generator=torch.Generator().manual_seed(0)).to(CUDA, dtype)
    strengths = torch.linalg.svdvals(orthogonalize(x, (3.4445, -4.775, 2.0315), 1e-7).float())
    assert 0.3 < strengths.min() < strengths.max() < 1.4


def test_muon_steps_on_the_card_as_on_the_cpu():
    start, grad = torch.randn(2, 32, 48, generator=torch.Generator().manual_seed(0))
    moved = []
    for device in ("cpu", "cuda"):
        p = torch.nn.Parameter(start.to(device))
        p.grad = grad.to(device)
        Muon([p], lr=0.1, weight_decay=0.1, dtype=torch.float32).step()
        moved.append(p.detach().cpu())
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("weights", FORMATS)
def test_each_format_measures_and_writes_as_fp32_does(text, weights):
    trainer = trainer_on(text[:600], runtime(torch.float32), steps=80)
    losses(trainer)
    exact, twin = trainer.model.eval(), for_decoding(trainer.model, weights)
    assert next(twin.parameters()).is_cuda
    ours, theirs = (measure(m, text[:600], 128, recalls=[(32, 32)], places=50) for m in (twin, exact))
    assert ours["loss_grid"] == pytest.approx(theirs["loss_grid"], rel=0.05, abs=0.01)
    said = generate(twin, text[None, :16].to(CUDA), 32, temperature=0, window=128)
    assert said.is_cuda
    assert torch.equal(said, generate(twin, text[None, :16].to(CUDA), 32, temperature=0, window=128))
    assert torch.equal(said[:, :16].cpu(), text[None, :16])


def test_the_full_models_step_takes_what_a_t4_has():
    config, recipe = GPTConfig(), Recipe(steps=3, window=256, batch_size=32, lr=1e-3, muon_lr=0.01)
    text = torch.randint(50257, (20_000,), generator=torch.Generator().manual_seed(0))
    torch.cuda.reset_peak_memory_stats()
    model = GPT(config).to(CUDA)
    trainer = Trainer(model, Windows(text.to(CUDA), 256, 32, "offset", 0), recipe, runtime(torch.float16))
    losses(trainer)
    trained = torch.cuda.max_memory_allocated()
    assert trained < 8000 * MIB, "fake tensors say 4.7 GiB"
    del trainer
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with runtime(torch.float16).autocast():
        measure(model, text[:9000], 256, places=50)
    assert torch.cuda.max_memory_allocated() < 2500 * MIB, "a measurement takes less than training, on a small card too"


def test_a_world_of_one_steps_over_nccl(text, tmp_path):
    alone = losses(trainer_on(text, runtime(torch.float32)))
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        trainer = trainer_on(text, runtime(torch.float32))
        trainer.loss_of = torch.nn.parallel.DistributedDataParallel(trainer.loss_of, device_ids=[0])
        assert losses(trainer) == pytest.approx(alone, rel=1e-2)  # sums in another order
        mine = torch.arange(6.0, device=CUDA).to(torch.float16).view(2, 3)
        parts = [torch.empty_like(mine)]
        dist.all_gather(parts, mine)
        assert torch.equal(parts[0], mine)
    finally:
        dist.destroy_process_group()


def test_what_is_picked_here_trains(text):
    picked = pick_runtime(large=True)
    assert picked.device.type == "cuda"
    trainer = trainer_on(text, replace(picked, compiles=False))
    found = losses(trainer)
    assert found[-1] < found[0]
