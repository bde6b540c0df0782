"""Choices of device and dtype, and the reasons that come with them."""

import pytest
import torch

from helpers import runtime
from helpers.runtime import Runtime, free_cores, pick_device, pick_dtype, pick_runtime, set_up


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


def test_a_cpu_uses_bf16_for_large_models_where_it_has_it(monkeypatch):
    cpu = torch.device("cpu")
    assert pick_dtype(cpu, large=False)[0] == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert pick_dtype(cpu, large=True)[0] == torch.bfloat16
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert pick_dtype(cpu, large=True)[0] == torch.float32


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
