"""The loop: what a step reports, what a resumed run repeats, when a run stops."""

import math
import sys
from dataclasses import replace

import pytest
import torch

from helpers import optim, train
from helpers.checkpoint import CheckpointError
from helpers.run import fit
from helpers.run.fit import fit_to_machine
from helpers.run.log import RunLog, read_log, stop_step
from helpers.runtime import Runtime
from helpers.train import Step, save_checkpoint
from tests.conftest import CPU, same, tiny_trainer


def weights(trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.model.parameters()]


def test_a_resumed_run_keeps_the_dtype_that_was_timed_when_it_began(tokens, tmp_path, monkeypatch):
    """A second timing, on a busy minute, might choose another, and the bits would not be the same."""
    monkeypatch.setattr(optim, "_bf16_gain", lambda *_: 9.0)
    first = tiny_trainer(tokens)
    assert first.reasons[-1] == "Muon in bf16: 9.0 times as fast here as in fp32"
    save_checkpoint(tmp_path / "c", first.model, {}, first.training_state())
    monkeypatch.setattr(optim, "_bf16_gain", lambda *_: 0.1)
    on = tiny_trainer(tokens)
    on.resume(tmp_path / "c")
    assert on.optimizers[-1].dtype == torch.bfloat16
    assert on.reasons[-1] == "Muon in bfloat16: as this run began"
    assert fit_to_machine(on) == []


def test_a_step_reports_what_it_did(tokens):
    trainer = tiny_trainer(tokens, policy="grid")
    steps = list(trainer.steps())
    assert [s.number for s in steps] == list(range(1, 13))
    assert steps[0].loss == pytest.approx(math.log(50), abs=0.1)
    assert all(s.grad_norm > 0 and s.seconds > 0 and 0 < s.tokens <= 32 for s in steps)
    per_epoch = len(tokens) - 1
    assert sum(s.tokens for s in steps[:10]) > per_epoch - 32


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns(tokens, optimizer):
    trainer = tiny_trainer(tokens[:33], policy="grid", steps=80, optimizer=optimizer, lr=1e-2, muon_lr=0.05)
    losses = [s.loss for s in trainer.steps()]
    assert losses[-1] < 0.5 * losses[0]


def test_accumulation_gives_the_same_step(tokens):
    for policy in ("random", "offset"):  # offset windows differ in length, so the parts must be weighed
        whole = tiny_trainer(tokens, policy=policy, optimizer="adamw")
        parts = tiny_trainer(tokens, policy=policy, optimizer="adamw", accumulation=4)
        for a, b in zip(whole.steps(), parts.steps(), strict=True):
            assert a.loss == pytest.approx(b.loss, abs=1e-5)
            assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-3)


def test_the_norm_is_measured_before_clipping_and_clipping_holds(tokens):
    trainer, applied = tiny_trainer(tokens, grad_clip=1e-3, optimizer="adamw"), []

    def note(*_):
        applied.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).norm().item())

    trainer.optimizers[0].register_step_pre_hook(note)
    assert next(trainer.steps()).grad_norm > 1e-2
    assert applied == [pytest.approx(1e-3, rel=1e-2)]


def test_bf16_trains_and_keeps_its_weights_in_fp32(tokens):
    trainer = tiny_trainer(tokens, runtime=Runtime(torch.device("cpu"), torch.bfloat16, ()))
    losses = [s.loss for s in trainer.steps()]
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


FP16 = Runtime(torch.device("cpu"), torch.float16, ("cpu: for tests", "fp16: as on a T4"))


def test_fp16_is_unscaled_before_it_is_measured_and_clipped(tokens):
    exact, half = tiny_trainer(tokens), tiny_trainer(tokens, runtime=FP16)
    assert half.scaler.is_enabled()
    assert not exact.scaler.is_enabled()
    for a, b in zip(exact.steps(), half.steps(), strict=True):
        assert b.loss == pytest.approx(a.loss, rel=0.02)
        assert b.grad_norm == pytest.approx(a.grad_norm, rel=0.1)


def test_a_loss_scale_that_is_too_high_costs_a_step_and_no_weights(tokens):
    trainer = tiny_trainer(tokens, runtime=FP16)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    run, before = trainer.steps(), weights(trainer)
    assert not math.isfinite(next(run).grad_norm)
    assert same(before, weights(trainer))
    assert trainer.scaler.get_scale() == 2.0**39


def test_nan_gradients_stop_a_scaled_run_too(tokens):
    trainer = tiny_trainer(tokens, runtime=FP16, steps=200)
    trainer.model.transformer.ln_f.weight.register_hook(lambda grad: grad * math.nan)
    before = weights(trainer)
    with pytest.raises(FloatingPointError, match="gradient norm nan"):
        list(trainer.steps())
    assert trainer.steps_done < 30
    assert same(before, weights(trainer))


def test_a_step_of_halved_windows_predicts_as_many_tokens_in_as_many_passes(tokens, monkeypatch):
    trainer = tiny_trainer(tokens, policy="random", half_windows=0.5, accumulation=2, steps=4)
    shapes, loss = [], trainer.model.loss
    monkeypatch.setattr(trainer.model, "loss", lambda x, y: shapes.append(tuple(x.shape)) or loss(x, y))
    assert [step.tokens for step in trainer.steps()] == [32] * 4
    assert shapes == [(4, 4)] * 4 + [(2, 8)] * 4


def test_muon_has_the_momentum_of_the_recipe(tokens):
    slow, fast = (tiny_trainer(tokens, muon_momentum=momentum, steps=2) for momentum in (0.95, 0.5))
    assert [o.param_groups[0]["momentum"] for o in (slow.optimizers[1], fast.optimizers[1])] == [0.95, 0.5]
    for trainer in (slow, fast):
        list(trainer.steps())
    assert not same(weights(slow), weights(fast))


def test_a_checkpoint_from_before_a_setting_was_known_is_resumed(tokens, tmp_path):
    trainer = tiny_trainer(tokens)
    state = trainer.training_state()
    del state["recipe"]["muon_momentum"], state["recipe"]["half_windows"]
    save_checkpoint(tmp_path / "c", trainer.model, {}, state)
    tiny_trainer(tokens).resume(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"muon_momentum=0\.95 there, 0\.5 here"):
        tiny_trainer(tokens, muon_momentum=0.5).resume(tmp_path / "c")


@pytest.mark.parametrize("policy", ["grid", "offset", "random"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_ends_with_the_same_bits(tokens, tmp_path, policy, optimizer):
    settings = {"policy": policy, "optimizer": optimizer, "dropout": 0.1, "half_windows": 0.5}
    calm = tiny_trainer(tokens, **settings)
    torch.manual_seed(7)
    losses = [s.loss for s in calm.steps()]

    first = tiny_trainer(tokens, **settings)
    torch.manual_seed(7)
    for step in first.steps():
        if step.number == 5:
            save_checkpoint(tmp_path / "c", first.model, {}, first.training_state())
            break
    second = tiny_trainer(tokens, seed=0, **settings)
    torch.manual_seed(99)
    second.resume(tmp_path / "c")
    assert [s.loss for s in second.steps()] == losses[5:]
    assert same(weights(second), weights(calm))


def test_a_run_resumed_on_another_kind_of_machine_goes_on_and_says_so(tokens, tmp_path):
    bf16 = tiny_trainer(tokens, runtime=Runtime(torch.device("cpu"), torch.bfloat16, ()))
    next(bf16.steps())
    folder = save_checkpoint(tmp_path / "c", bf16.model, {}, bf16.training_state())
    again = tiny_trainer(tokens, runtime=FP16)
    again.resume(folder)
    again.micro_batch = 2
    assert sorted(fit_to_machine(again)) == [
        "resumed: dtype was torch.bfloat16 and is torch.float16, equal in kind, not in bits",
        "resumed: windows per pass was 4 and is 2, equal in kind, not in bits",
    ]
    assert [step.number for step in again.steps()] == list(range(2, 13))


def test_muons_dtype_is_that_of_the_card_a_run_goes_on_with(tokens, tmp_path):
    """A checkpoint of a card with bf16, resumed on a T4, which emulates it."""
    state = tiny_trainer(tokens).training_state()
    state["machine"] |= {"device": "cuda", "muon": "bfloat16"}
    again = tiny_trainer(tokens, runtime=FP16)
    again.runtime = Runtime(torch.device("cuda"), torch.float16, ())
    again.optimizers[-1].dtype = torch.float16
    again.resume(save_checkpoint(tmp_path / "c", again.model, {}, state))
    assert again.optimizers[-1].dtype == torch.float16


def test_a_checkpoint_of_another_run_is_not_resumed(tokens, tmp_path):
    trainer = tiny_trainer(tokens)
    save_checkpoint(tmp_path / "c", trainer.model, {}, trainer.training_state())
    with pytest.raises(CheckpointError, match=r"lr=0\.01 there, 0\.5 here"):
        tiny_trainer(tokens, lr=0.5).resume(tmp_path / "c")


def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched(tokens):
    trainer = tiny_trainer(tokens)
    run = trainer.steps()
    for _ in range(3):
        next(run)
    before = weights(trainer)
    with torch.no_grad():
        trainer.model.transformer.ln_f.bias[0] = math.nan
    with pytest.raises(FloatingPointError, match=r"step 4: .* lr"):
        next(run)
    after = weights(trainer)
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) == 1  # the one we broke


def test_the_log_counts_mean_and_best(tmp_path):
    log = RunLog(tmp_path / "log.csv")
    losses = [3.0, 1.0, 2.0] + [1.5] * 120
    for number, loss in enumerate(losses, 1):
        log.append(Step(number, loss, 1e-3, 1.0, 0.5, 100))
    assert log.column("best_loss") == [3.0] + [1.0] * 122
    assert log.rows[2]["avg_loss"] == 2.0
    assert log.rows[-1]["avg_loss"] == 1.5
    assert log.rows[0]["tokens/s"] == 200
    assert read_log(tmp_path / "log.csv") == log.rows


def test_a_log_that_ran_ahead_is_cut_to_the_checkpoint(tmp_path):
    log = RunLog(tmp_path / "log.csv")
    for number in range(1, 11):
        log.append(Step(number, 1.0 / number, 1e-3, 1.0, 0.5, 100))
    with (tmp_path / "log.csv").open("a") as file:
        file.write("11,0.0")  # the line a kill cut off
    again = RunLog.resume(tmp_path / "log.csv", 7)
    assert again.column("step") == list(range(1, 8))
    again.append(Step(8, 0.1, 1e-3, 1.0, 0.5, 100))
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == list(range(1, 9))
    with pytest.raises(CheckpointError, match="steps 1 to 9"):
        RunLog.resume(tmp_path / "log.csv", 9)
    with pytest.raises(CheckpointError, match="--fresh"):
        RunLog.resume(tmp_path / "gone.csv", 1)


WHOLE_LINE = "11,0.5,0.5,0.1,0.01,1.0,0.5,20.0"


@pytest.mark.parametrize("cut", range(1, len(WHOLE_LINE)))
def test_a_line_cut_anywhere_is_left_out(tmp_path, cut):
    log = RunLog(tmp_path / "log.csv")
    for number in range(1, 11):
        log.append(Step(number, 1.0 / number, 1e-3, 1.0, 0.5, 100))
    with (tmp_path / "log.csv").open("a") as file:
        file.write(WHOLE_LINE[:cut])
    assert read_log(tmp_path / "log.csv") == log.rows
    assert RunLog.resume(tmp_path / "log.csv", 10).rows == log.rows


def test_the_three_stop_rules_fire_at_different_steps():
    log = RunLog()
    for number in range(1, 301):
        loss = 0.09 if number == 40 else 2.0 - number / 150
        log.append(Step(number, loss, 1e-3, 1.0, 0.5, 100))
    measured = {100: 0.5, 200: 0.08, 300: 0.01}
    assert stop_step(log, "single batch", 0.1) == 40
    assert stop_step(log, "whole corpus", 0.1, measured) == 200
    mean = stop_step(log, "mean of 100", 0.4)
    assert mean > 200
    assert stop_step(log, "mean of 100", 0.1) is None
    with pytest.raises(ValueError, match="single batch, mean of 100, whole corpus"):
        stop_step(log, "patience", 0.1)


def test_the_mean_of_100_waits_for_a_hundred():
    log = RunLog()
    for number in range(1, 101):
        log.append(Step(number, 0.01, 1e-3, 1.0, 0.5, 100))
    assert stop_step(log, "mean of 100", 0.1) == 100


# --- what is tried out before the first step -----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def compiling_pays(monkeypatch):
    """For runs as short as a test's."""
    monkeypatch.setattr(fit, "COMPILE_PAYS", 1)


def compiling(tokens, **changes):
    return tiny_trainer(tokens, runtime=replace(CPU, compiles=True), **changes)


def test_a_compiled_run_takes_the_steps_of_an_eager_one(tokens):
    trainer, eager = compiling(tokens, steps=3), tiny_trainer(tokens, steps=3)
    rng = torch.get_rng_state()
    assert fit_to_machine(trainer) == []
    assert torch.equal(rng, torch.get_rng_state())
    assert trainer.steps_done == 0
    losses = [[step.loss for step in each.steps()] for each in (trainer, eager)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_a_compiler_that_fails_costs_speed_and_nothing_else(tokens, monkeypatch):
    def no_compiler(*_, **__):
        def broken(*_):
            raise RuntimeError("no C++ compiler")

        return broken

    monkeypatch.setattr(torch, "compile", no_compiler)
    trainer, eager = compiling(tokens, steps=3), tiny_trainer(tokens, steps=3)
    assert fit_to_machine(trainer) == ["not compiled, so slower (RuntimeError: no C++ compiler)"]
    assert [step.loss for step in trainer.steps()] == [step.loss for step in eager.steps()]


def test_windows_that_do_not_fit_into_the_memory_are_taken_fewer_at_a_time(tokens, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    trainer, whole = (make(tokens, steps=3, half_windows=0.4) for make in (compiling, tiny_trainer))
    fits, loss = 1, trainer.model.loss

    def limited(x, y):
        if x.numel() > 8 * fits:
            raise torch.OutOfMemoryError("too much")
        return loss(x, y)

    monkeypatch.setattr(trainer.model, "loss", limited)
    assert fit_to_machine(trainer) == ["micro-batch 1: 4 windows at once did not fit into the memory"]
    losses = [[step.loss for step in each.steps()] for each in (trainer, whole)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    fits, hopeless = 0, compiling(tokens)
    monkeypatch.setattr(hopeless.model, "loss", limited)
    with pytest.raises(torch.OutOfMemoryError):
        fit_to_machine(hopeless)


def test_a_run_with_few_steps_left_is_not_compiled(tokens, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("a minute for nothing"))
    trainer = compiling(tokens, steps=600)
    trainer.steps_done = 101
    assert fit_to_machine(trainer) == ["not compiled: 499 steps are too few for a minute of compiling to pay"]
    assert not trainer.compiled
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    trainer = compiling(tokens, steps=600)
    assert fit_to_machine(trainer) == []
    assert trainer.compiled


def test_an_apple_gpu_that_is_too_small_gets_fewer_windows_at_a_time(tokens, monkeypatch):
    """Metal says so in a plain RuntimeError; the tensors of this test stay on the CPU."""
    trainer = tiny_trainer(tokens, steps=3, runtime=replace(CPU, device=torch.device("mps")))
    fits, loss = 2, trainer.model.loss

    def limited(x, y):
        if len(x) > fits:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 17.81 GB, max allowed: 18.13 GB)")
        return loss(x, y)

    monkeypatch.setattr(trainer.model, "loss", limited)
    assert fit_to_machine(trainer) == ["micro-batch 2: 4 windows at once did not fit into the memory"]
    fits = 0
    with pytest.raises(torch.OutOfMemoryError, match="MPS backend"):
        fit_to_machine(trainer)


def test_the_loss_scale_rises_again_within_a_run(tokens):
    trainer = tiny_trainer(tokens, runtime=FP16, steps=201)
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 1024.0})
    for _ in trainer.steps():
        pass
    assert trainer.scaler.get_scale() == 2048.0


def test_a_step_waits_for_its_device_once(tokens, monkeypatch):
    """What a step asks of the device as a number stops the queue of a fast GPU: loss, norm and count go together."""
    trainer, asked = tiny_trainer(tokens), []
    for name in ("item", "tolist", "__bool__", "__int__", "__float__"):
        plain = getattr(torch.Tensor, name)

        def noted(self, *given, plain=plain, name=name):
            if sys._getframe(1).f_code.co_filename == train.__file__:
                asked.append(name)
            return plain(self, *given)

        monkeypatch.setattr(torch.Tensor, name, noted)
    next(trainer.steps())
    assert asked == ["tolist"]


def test_a_cpu_run_asks_nothing_of_the_gpus_of_its_machine(tokens, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: pytest.fail("a context on each card"))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: pytest.fail("a context"))
    assert tiny_trainer(tokens).training_state()["cuda_rng"] == []
