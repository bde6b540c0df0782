"""Eight bits: what is stored is small, what is computed is exact, and what was saved comes back."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file

from helpers import quantize
from helpers.checkpoint import CheckpointError, save_checkpoint
from helpers.generate import generate
from helpers.memorization import corpus_loss
from helpers.quantize import FORMATS, load_to_write, quantize_int8, ready_to_write, round_rows, save_int8
from tests.conftest import same, tiny_gpt

IDX = torch.tensor([[1, 2, 3, 49, 7], [8, 9, 0, 0, 11]])


@pytest.fixture(params=["integer kernel", "multiplied out"])
def path(request, monkeypatch):
    """Both ways to multiply with 8-bit weights; the first only where this CPU has it."""
    if request.param == "multiplied out":
        monkeypatch.setattr(quantize, "has_integer_kernel", lambda: False)
    elif not quantize.has_integer_kernel():
        pytest.skip("this CPU has no exact int8 kernel in PyTorch")
    return request.param


def test_rounding_is_off_by_half_a_step_at_most():
    x = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 7)[:, None]
    x[3] = 0
    q, scale = round_rows(x)
    assert q.dtype == torch.int8
    assert scale.shape == (7, 1)
    assert ((q * scale - x).abs() <= scale * 0.5001).all()
    assert (q.abs().amax(1)[x.abs().amax(1) > 0] == 127).all()


def test_logits_are_near_those_of_full_precision(path):
    model = tiny_gpt(seed=2, scale=3.0, n_embd=64)
    with torch.no_grad():
        exact, rounded = model(IDX)[0], quantize_int8(model)(IDX)[0]
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).std() < 0.03 * exact.std(), path


def test_a_text_does_not_depend_on_its_neighbours_or_its_cache(path):
    model = quantize_int8(tiny_gpt(seed=2, scale=5.0))
    together = generate(model, IDX, 30, temperature=0)
    for row, alone in zip(together, IDX, strict=True):
        assert torch.equal(row, generate(model, alone[None], 30, temperature=0)[0]), path


def test_the_first_requests_may_come_together(path):
    model = tiny_gpt(seed=2, scale=5.0)
    alone = quantize_int8(model)(IDX)[0]
    for _ in range(5):
        fresh = quantize_int8(model)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _, fresh=fresh: fresh(IDX)[0], range(8)))
        assert all(torch.equal(logits, alone) for logits in found), path


def test_the_integer_kernel_adds_exactly():
    if not quantize.has_integer_kernel():
        pytest.skip("this CPU has no exact int8 kernel in PyTorch")
    g = torch.Generator().manual_seed(0)
    w = torch.randint(-127, 128, (40, 300), generator=g, dtype=torch.int8)
    for rows in (1, 3, 64):
        x = torch.randint(-127, 128, (rows, 300), generator=g, dtype=torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(w, None)
        found = quantize._integer_product(x, packed, torch.ones(40), torch.zeros(40).int())
        assert torch.equal(found.long(), x.long() @ w.long().t())


def test_every_matrix_is_stored_in_8_bits_and_once(tmp_path, path):
    model = tiny_gpt(seed=2, n_embd=64)
    small = quantize_int8(model)
    generate(small, IDX, 2)  # which lays matrices out for the kernel
    state = load_file(save_int8(tmp_path / "int8", small, {}) / "model.safetensors")
    matrices = [p for p in model.parameters() if p.ndim == 2]
    assert sum(t.dtype == torch.int8 for t in state.values()) == len(matrices), path
    assert sum(t.numel() for t in state.values() if t.dtype == torch.int8) == sum(p.numel() for p in matrices)
    assert all(
        t.dtype == torch.float32 and min(t.shape[1:], default=1) == 1 for t in state.values() if t.is_floating_point()
    )


def test_what_was_saved_computes_the_same_bits(tmp_path, path):
    small = quantize_int8(tiny_gpt(seed=2, scale=3.0))
    with torch.no_grad():
        before = small(IDX)[0]
        save_int8(tmp_path / "int8", small, {"window": 16})
        again, meta = load_to_write(tmp_path / "int8", "int8")
        assert torch.equal(again(IDX)[0], before), path
        assert torch.equal(small(IDX)[0], before)
    assert (meta["weights"], meta["window"]) == ("int8", 16)


@pytest.mark.parametrize("weights", FORMATS)
def test_a_model_that_is_ready_to_write_says_the_same(weights, tokens):
    model = tiny_gpt(seed=2, scale=3.0)
    before = [p.clone() for p in model.parameters()]
    ready = ready_to_write(model, weights)
    with torch.no_grad():
        near = {"fp32": 1e-5, "bf16": 0.1, "int8": 0.3}[weights]
        assert (ready(IDX)[0].float() - model(IDX)[0]).abs().max() < near
        assert (ready(IDX[:1, :1])[0].float() - model(IDX[:1, :1])[0]).abs().max() < near  # a single row
    assert generate(ready, IDX, 5).shape == (2, 10)
    assert corpus_loss(ready, tokens, 16).mean == pytest.approx(corpus_loss(model, tokens, 16).mean, rel=0.02)
    assert same(before, model.parameters())


def test_the_table_is_still_the_head():
    for weights in ("fp32", "bf16"):
        ready = ready_to_write(tiny_gpt(), weights)
        assert ready.lm_head.weight is ready.transformer.wte.weight


def test_formats_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="int4"):
        ready_to_write(tiny_gpt(), "int4")
    save_int8(tmp_path / "int8", quantize_int8(tiny_gpt()), {})
    with pytest.raises(CheckpointError, match="holds 8-bit weights; fp32 needs the checkpoint"):
        load_to_write(tmp_path / "int8", "fp32")
    content = (tmp_path / "int8/model.safetensors").read_bytes()
    (tmp_path / "int8/model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"damaged .*quantise again"):
        load_to_write(tmp_path / "int8", "int8")
    save_checkpoint(tmp_path / "fp32", tiny_gpt(), {"weights": "int8"})  # says what it is not
    with pytest.raises(CheckpointError, match="damaged"):
        load_to_write(tmp_path / "fp32", "int8")
