"""Choices of device and dtype, and the reasons that come with them."""

import time
from functools import partial

import pytest
import torch

from helpers import runtime
from helpers.base import machine
from helpers.base.machine import free_cores
from helpers.base.timing import seconds_in_turns, seconds_of
from helpers.runtime import Runtime, pick_device, pick_dtype, pick_runtime, set_up


@pytest.mark.parametrize(
    ("capability", "dtype", "says"),
    [
        ((6, 0), torch.float32, "no tensor cores"),
        ((7, 5), torch.float16, "only emulates bf16"),
        ((8, 0), torch.bfloat16, "in hardware"),
        ((9, 0), torch.bfloat16, "in hardware"),
    ],
)
def test_the_compute_capability_decides_the_dtype(monkeypatch, capability, dtype, says):
    """A T4 (7.5) claims bf16, which it emulates."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    chosen, why = pick_dtype(torch.device("cuda"), large=False)
    assert chosen == dtype
    assert says in why


def test_a_cpu_uses_bf16_for_large_models_where_it_is_measured_to_be_faster(monkeypatch):
    cpu = torch.device("cpu")
    assert pick_dtype(cpu, large=False)[0] == torch.float32
    for gain, dtype, says in ((7.0, torch.bfloat16, "1/7.0 of the time"), (0.14, torch.float32, "7.1 times as long")):
        monkeypatch.setattr(runtime, "_bf16_gain", lambda *_, gain=gain: gain)
        chosen, why = pick_dtype(cpu, large=True)
        assert chosen == dtype
        assert says in why
    monkeypatch.setattr(runtime, "_bf16_gain", lambda *_: 1.1)
    assert pick_dtype(cpu, large=True)[0] == torch.float32, "as fast is not worth the rounding"


def test_the_shortest_of_several_calls_counts_and_the_first_does_not():
    waits = [0.2, 0.03, 0.001, 0.03]
    seconds = seconds_of(lambda: time.sleep(waits.pop(0) if waits else 0.03), within=0.2)
    assert 0.001 <= seconds < 0.02
    assert not waits
    assert 0.05 <= seconds_of(lambda: time.sleep(0.05), within=0.0) < 0.2, "a slow one is called twice, and no more"


def test_of_ways_in_turns_a_hopeless_one_is_not_waited_for():
    called = {0.001: 0, 0.002: 0, 0.1: 0}

    def way(seconds):
        called[seconds] += 1
        time.sleep(seconds)

    found = seconds_in_turns([partial(way, seconds) for seconds in called])
    assert all(seconds <= best < seconds + 0.02 for seconds, best in zip(called, found, strict=True))
    assert called.pop(0.1) == 2, "one turn: a call that does not count, and one that does"
    assert all(calls > 6 for calls in called.values())


def test_every_choice_comes_with_its_reason():
    chosen = pick_runtime(device="cpu")
    assert chosen.reasons[0] == "cpu: asked for"
    assert all(": " in reason for reason in chosen.reasons)
    assert pick_device()[1].startswith(pick_device()[0].type)


def test_autocast_does_nothing_at_fp32_and_casts_below():
    x = torch.ones(2, 2)
    with Runtime(torch.device("cpu"), torch.float32, ()).autocast():
        assert (x @ x).dtype == torch.float32
    with Runtime(torch.device("cpu"), torch.bfloat16, ()).autocast():
        assert (x @ x).dtype == torch.bfloat16


def test_no_more_threads_than_free_cores_and_the_same_numbers_after_set_up(monkeypatch):
    before = torch.get_num_threads()
    assert 1 <= set_up(3) <= min(free_cores(), 8)
    first = torch.rand(3)
    set_up(3)
    assert torch.equal(first, torch.rand(3))
    monkeypatch.setattr(runtime, "free_cores", lambda: 1)
    assert set_up(3) == 1
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cuda", "says"),
    [
        ("13.0", "is for CUDA 13.0 and finds none new enough, or no card: update the driver (580 or newer)"),
        ("12.8", "is for CUDA 12.8 and finds none new enough, or no card: update the driver (the newest)"),
        (None, "this PyTorch is built without CUDA: install torch from its CUDA index"),
    ],
)
def test_a_card_that_this_pytorch_cannot_see_is_named(monkeypatch, tmp_path, cuda, says):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "nvidia")
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    assert pick_device() == (torch.device("cpu"), "cpu: no GPU is there")
    (tmp_path / "nvidia").mkdir()
    assert says in pick_device()[1]
    (tmp_path / "nvidia").rmdir()
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert pick_device()[0].type == "cpu"
    assert pick_device()[1].startswith("cpu: an NVIDIA driver is there, but ")
    assert says in pick_device()[1]
