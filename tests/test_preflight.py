"""What a run costs, and what is refused before it costs anything."""

import re
from dataclasses import replace

import pytest
import torch

from helpers import runtime
from helpers.base import machine
from helpers.config import PROFILES, GPTConfig
from helpers.run import preflight
from helpers.run.preflight import (
    RefusedError,
    first_micro_batch,
    forecast,
    matrix_rate,
    memory_needed,
    peak_memory,
    refuse_hopeless,
    refuse_over_budget,
    refuse_without_gpu,
)
from helpers.runtime import Runtime
from helpers.tools import execute
from tests.conftest import CPU

GPT2 = GPTConfig()
T4 = PROFILES["t4"].main.recipe
CUDA = Runtime(torch.device("cuda"), torch.float16, ())


def test_a_machine_multiplies_at_some_rate():
    assert 1e8 < matrix_rate(CPU, n=256) < 1e16
    assert peak_memory(CPU) > 50 * 2**20


def test_weights_and_optimizer_alone_are_counted_and_windows_add():
    adamw = replace(T4, optimizer="adamw")
    assert memory_needed(GPT2, adamw, 1, 2) > 16 * 124_439_808
    assert memory_needed(GPT2, T4, 1, 2) == pytest.approx(memory_needed(GPT2, adamw, 1, 2) - 4 * 84_934_656)
    assert memory_needed(GPT2, T4, 16, 2) > memory_needed(GPT2, T4, 8, 2) > memory_needed(GPT2, T4, 1, 2)
    assert memory_needed(GPT2, T4, 8, 2) < 12 * 2**30, "the t4 profile's pass fits a T4"
    assert memory_needed(GPT2, T4, T4.batch_size, 2) < 0.9 * 14.6 * 2**30, "all of a step's windows do, at once"


@pytest.fixture
def gpu(monkeypatch):
    """Pretend to a GPU: its name, compute capability and free GiB."""

    def pretend(name="Tesla T4", capability=(7, 5), free=14.6):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90a", "sm_120", "compute_120"])
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (int(free * 2**30), 16 * 2**30))

    return pretend


def test_windows_whose_floor_is_above_the_target_are_refused():
    with pytest.raises(RefusedError, match=r"0\.1 cannot be reached with grid windows of 32 tokens.* 0\.1014.*--force"):
        refuse_hopeless(GPT2, PROFILES["t4"].recipe("small"), CPU, floor=0.1014, target=0.1)


def test_what_can_work_is_not_refused(gpu):
    gpu()
    refuse_hopeless(GPT2, T4, CUDA, floor=0.0125, target=0.1)
    refuse_hopeless(PROFILES["demo"].main.gpt, T4, CPU, floor=0.02, target=0.1, asked_for="cpu")


def test_a_card_that_is_too_small_is_refused_with_numbers(gpu):
    gpu("GeForce GTX 1050", free=1.5)
    with pytest.raises(RefusedError, match=r"about \d\.\d GiB even with one window.*GTX 1050 has 1\.5 GiB free"):
        refuse_hopeless(GPT2, T4, CUDA, floor=0.0125, target=0.1)


def test_a_card_that_is_too_old_is_left_alone_by_notebooks_and_refused_by_a_long_run(gpu):
    gpu("Tesla P100-PCIE-16GB", (6, 0))
    device, why = runtime.pick_device()
    assert device.type == "cpu"
    assert why == "cpu: Tesla P100-PCIE-16GB has compute capability 6.0, this PyTorch needs 7.5"
    with pytest.raises(RefusedError, match=r"compute capability 6\.0.*T4 x2"):
        refuse_hopeless(GPT2, T4, CPU, floor=0.0125, target=0.1)
    refuse_hopeless(PROFILES["demo"].main.gpt, T4, CPU, floor=0.02, target=0.1)  # half a minute, without a card


@pytest.mark.parametrize("lacks", ["Triton", "a C compiler", "nothing"])
def test_nothing_is_compiled_where_the_compiler_lacks_a_part(gpu, monkeypatch, lacks):
    gpu()
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda _: None if lacks == "Triton" else "there")
    monkeypatch.setattr(machine.shutil, "which", lambda name: None if lacks == "a C compiler" else f"/usr/bin/{name}")
    compiles, why = runtime.pick_compile(torch.device("cuda"), large=True)
    assert compiles == (lacks == "nothing")
    assert {"Triton": "is not installed", "a C compiler": "finds no C compiler", "nothing": "if the"}[lacks] in why


@pytest.mark.parametrize(("free", "windows"), [(140, 32), (14.6, 32), (7.5, 16), (5.5, 8), (3.0, 2)])
def test_the_first_micro_batch_is_what_the_free_memory_holds(gpu, free, windows):
    gpu(free=free)
    assert first_micro_batch(GPT2, replace(T4, accumulation=1), CUDA) == windows


def test_on_a_cpu_the_recipe_says_what_a_pass_holds():
    assert first_micro_batch(GPT2, replace(T4, accumulation=4), CPU) == T4.batch_size // 4


def test_a_forecast_is_what_the_log_says():
    rows = [{"seconds": 9.0, "tokens/s": 111.0}] + 19 * [{"seconds": 2.0, "tokens/s": 500.0}]
    expected = forecast(rows, steps_left=60, other_tokens=30_000, flops=800e6, rate=1e12, peak_bytes=3 * 2**30)
    assert str(expected) == "500 tokens/s, MFU 40%, 3:00 min to the end, peak memory 3.0 GiB"
    assert forecast(rows, 90, 0, 800e6, 1e12, 0, world=2).mfu == 0.2
    assert forecast(rows, 60, 30_000, 800e6, 1e12, 0, saving=1 / 15).seconds_left == pytest.approx(192)
    refuse_over_budget(expected, None)
    refuse_over_budget(expected, 3.0)
    with pytest.raises(RefusedError, match=re.escape("over the budget of 2.5 minutes")):
        refuse_over_budget(expected, 2.5)


@pytest.fixture
def slow(monkeypatch):
    """A CPU of 0.35 TFLOP/s (two cores with bf16), and no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(preflight, "matrix_rate", lambda _: 0.35e12)
    for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("COLAB_RELEASE_TAG", r"In Colab: Runtime > Change runtime type > T4 GPU"),
        ("KAGGLE_KERNEL_RUN_TYPE", r"On Kaggle: Settings > Accelerator > GPU T4 x2"),
        ("NOTHING", r"Use a machine with a GPU"),
    ],
)
@pytest.mark.usefixtures("slow")
def test_a_full_size_run_without_a_gpu_is_refused_with_what_to_click(monkeypatch, variable, says):
    monkeypatch.setenv(variable, "here")
    with pytest.raises(RefusedError, match=rf"27,033,600 tokens of this run take at least 1\d hours\. {says}"):
        refuse_hopeless(GPT2, T4, CPU, floor=0.025, target=0.1)


@pytest.mark.usefixtures("slow")
def test_a_cpu_that_is_meant_or_fast_enough_is_not_refused():
    refuse_hopeless(GPT2, T4, CPU, floor=0.025, target=0.1, asked_for="cpu")
    refuse_without_gpu(GPT2, replace(T4, steps=1000, batch_size=8), CPU)  # the README's hour on a CPU
    refuse_without_gpu(GPT2, T4, CPU, steps_done=T4.steps - 100)
    refuse_without_gpu(PROFILES["demo"].main.gpt, replace(T4, steps=10**9), CPU)


@pytest.mark.usefixtures("slow")
def test_a_small_model_is_not_held_up_by_a_measurement(monkeypatch):
    monkeypatch.setattr(preflight, "matrix_rate", lambda _: pytest.fail("seconds, on a slow machine"))
    refuse_without_gpu(PROFILES["demo"].main.gpt, T4, CPU)
    refuse_without_gpu(GPT2, T4, CPU, steps_done=T4.steps)


@pytest.mark.usefixtures("slow")
def test_the_series_at_full_size_is_refused_before_its_first_notebook(monkeypatch, tmp_path):
    monkeypatch.setenv("RUNS_DIR", str(tmp_path))
    with pytest.raises(execute.NotebookError, match=r"take at least 1\d hours"):
        execute.refuse_hours(PROFILES["t4"])
    execute.refuse_hours(PROFILES["laptop"])
    (tmp_path / "t4/gpt/checkpoint").mkdir(parents=True)
    execute.refuse_hours(PROFILES["t4"])  # a run from elsewhere: notebook 04 asks what is left of it
