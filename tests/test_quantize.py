"""Eight bits: what is stored is small, what is computed is exact, and what was saved comes back."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file

from helpers.checkpoint import CheckpointError, save_checkpoint
from helpers.generate import generate
from helpers.memorization import corpus_loss
from helpers.quantize import quantize_int8, quantize_rows, save_int8
from helpers.serve import bf16, decoding, kernels
from helpers.serve.decoding import FORMATS, for_decoding, kernels_of, load_for_decoding, with_kernels
from tests.conftest import same, tiny_gpt

IDX = torch.tensor([[1, 2, 3, 49, 7], [8, 9, 0, 0, 11]])


HERE = kernels.available_kernels(64, 64, "cpu")
INTEGERS = [name for name in HERE if issubclass(kernels.KERNELS[name], kernels._Integers)]


@pytest.fixture(params=[None, *kernels.KERNELS])
def path(request):
    """What this machine chooses by itself (None), and every kernel that it has."""
    if request.param and request.param not in HERE:
        pytest.skip(f"PyTorch has no {request.param} on this machine")
    return request.param


def test_rounding_is_off_by_half_a_step_at_most():
    x = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 7)[:, None]
    x[3] = 0
    q, scale = quantize_rows(x)
    assert q.dtype == torch.int8
    assert scale.shape == (7, 1)
    assert ((q * scale - x).abs() <= scale * 0.5001).all()
    assert (q.abs().amax(1)[x.abs().amax(1) > 0] == 127).all()


def test_logits_are_near_those_of_full_precision(path):
    model = tiny_gpt(seed=2, scale=3.0, n_embd=64)
    with torch.no_grad():
        exact, rounded = model(IDX)[0], with_kernels(quantize_int8(model), path)(IDX)[0]
    assert not torch.equal(exact, rounded)
    integers = kernels.KERNELS.get(path, kernels.Dequantized)
    levels = integers.exact_levels() if issubclass(integers, kernels._Integers) else 127  # 63 where there is no VNNI
    assert (exact - rounded).std() < 0.03 * 127 / levels * exact.std(), path


def test_a_text_does_not_depend_on_its_neighbours_or_its_cache(path):
    model = with_kernels(quantize_int8(tiny_gpt(seed=2, scale=5.0)), path)
    together = generate(model, IDX, 30, temperature=0)
    for row, alone in zip(together, IDX, strict=True):
        assert torch.equal(row, generate(model, alone[None], 30, temperature=0)[0]), path


def test_the_first_requests_may_come_together(path):
    model = tiny_gpt(seed=2, scale=5.0)
    alone = with_kernels(quantize_int8(model), path)(IDX)[0]
    for _ in range(5):
        fresh = with_kernels(quantize_int8(model), path)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _, fresh=fresh: fresh(IDX)[0], range(8)))
        assert all(torch.equal(logits, alone) for logits in found), path


@pytest.mark.parametrize("name", INTEGERS)
def test_integer_kernels_add_exactly_and_agree_to_the_last_bit(name):
    """For several rows, which of them is the fastest decides about seconds, never about a bit; for one, nearly so."""
    g = torch.Generator().manual_seed(0)
    for rows, n_in, n_out in ((1, 300, 40), (3, 300, 513), (64, 3072, 70)):
        w = torch.randint(-127, 128, (n_out, n_in), generator=g, dtype=torch.int8)
        kernel = kernels.KERNELS[name](w, torch.ones(n_out, 1))
        assert kernel.levels in (127, 63)
        q = torch.randint(-kernel.levels, kernel.levels + 1, (rows, n_in), generator=g)
        assert torch.equal(kernel.product(q.float()).double(), (q @ w.long().t()).float().double())
        x, scale = torch.randn(rows, n_in, generator=g), torch.rand(n_out, 1, generator=g)
        x[0] = 0
        found = [kernels.KERNELS[other](w, scale) for other in INTEGERS]
        alike = [product(x) for product in found if product.levels == kernel.levels]
        assert all(torch.equal(y, kernels.KERNELS[name](w, scale)(x)) for y in alike)
        for product in found:
            many, alone = product(x), product(x[-1:])
            assert rows < 3 or torch.equal(many[-2:], product(x[-2:])), "a row asks no neighbour"
            assert (alone - many[-1:]).norm() <= 0.01 * many[-1:].norm(), "halves may be rounded the other way"


SHAPES = [(768, 3072), (3072, 768), (768, 768), (768, 50257), (128, 384), (128, 1932)]


@pytest.mark.parametrize(("n_in", "n_out"), SHAPES)
def test_the_kernel_that_is_taken_is_no_slower_than_the_plain_one(n_in, n_out):
    """As it was timed, once, here: the first edition took oneDNN's reference code, a thousand times slower."""
    name, why = kernels.fastest(n_in, n_out)
    seconds = kernels.timed(n_in, n_out, "cpu")
    (row, rows), (plain_row, plain_rows) = seconds[name], seconds["dequantized"]
    assert row <= plain_row
    assert rows <= kernels.NOISE * plain_rows
    assert why.startswith(f"{n_in:,} -> {n_out:,}: {name}, ")
    assert kernels.fastest(n_in, n_out) == (name, why), "timed once"


def test_the_choice_follows_the_clock(monkeypatch):
    def seconds(**others):
        monkeypatch.setattr(kernels, "timed", lambda *_: {"dequantized": (2.0, 20.0), **others})
        return kernels.fastest(768, 768)[0]

    assert seconds() == "dequantized"
    assert seconds(fbgemm=(1.0, 10.0), onednn=(1.5, 5.0)) == "fbgemm"
    assert seconds(fbgemm=(1.9, 10.0), onednn=(1.5, 5.0)) == "onednn"
    assert seconds(onednn=(1.0, 3890.0)) == "dequantized", "fast for one row, reference code for many"
    assert seconds(onednn=(39.0, 1.0)) == "dequantized", "and the other way round"


def test_timing_takes_milliseconds():
    kernels.timed.cache_clear()
    start = time.perf_counter()
    kernels.timed(128, 384, "cpu")
    assert time.perf_counter() - start < 3, "the kernels times the rows times 20 ms, and the packing"


def test_every_shape_of_a_model_says_how_it_is_multiplied():
    said = kernels_of(quantize_int8(tiny_gpt(n_embd=64)))
    assert {s.split(":")[0] for s in said} == {"64 -> 192", "64 -> 64", "64 -> 256", "256 -> 64", "64 -> 50"}


@pytest.mark.parametrize(("n_in", "n_out"), SHAPES)
def test_the_kernel_of_a_single_row_is_no_slower_than_the_plain_one(n_in, n_out):
    """As it was timed, once, here: the first edition's took 1.6 times as long as plain on a CPU with AVX-512."""
    name, why = bf16.fastest(n_in, n_out)
    seconds = bf16.timed(n_in, n_out)
    assert seconds[name] <= seconds["plain"]
    assert why.startswith(f"{n_in:,} -> {n_out:,}: {name}, ")
    assert bf16.timed(n_in, n_out) is seconds, "timed once"


def test_the_kernel_of_a_single_row_follows_the_clock(monkeypatch):
    for taken, seconds in {"plain": (1.0, 1.0, 0.95), "as a vector": (2.0, 1.0, 1.1)}.items():
        found = dict(zip(bf16.KERNELS, seconds, strict=True))
        monkeypatch.setattr(bf16, "timed", lambda *_, found=found: found)
        assert bf16.fastest.__wrapped__(768, 768)[0] == taken


@pytest.mark.parametrize("name", bf16.KERNELS)
def test_every_kernel_of_a_single_row_multiplies_right_and_leaves_onednn_as_it_was(name, monkeypatch):
    monkeypatch.setattr(decoding, "fastest_for_a_row", lambda *_: (name, ""))
    model = tiny_gpt(seed=2, scale=3.0, n_embd=64)
    ready, before = for_decoding(model, "bf16"), torch.backends.mkldnn.enabled
    with torch.no_grad(), ThreadPoolExecutor(8) as pool:
        exact = ready.float()(IDX[:1, :1])[0]
        ready.bfloat16()
        found = list(pool.map(lambda _: ready(IDX[:1, :1])[0], range(16)))
    assert all((logits - exact).norm() <= 0.02 * exact.norm() for logits in found)
    assert torch.backends.mkldnn.enabled is before


def test_a_product_of_many_rows_never_sees_onednn_switched_off(monkeypatch):
    """While another thread multiplies single rows without it: several requests are answered at once."""
    matrix, row, rows = torch.ones(64, 64, dtype=torch.bfloat16), torch.ones(1, 64), torch.ones(2, 64)
    layer, seen, linear = bf16.BF16Linear(64, 64, bias=False), [], torch.nn.functional.linear
    layer.weight, layer.kernel = torch.nn.Parameter(matrix, requires_grad=False), "without oneDNN"

    def watched(x, *others):
        if len(x) == 1:
            time.sleep(0.001)  # long enough for the other thread to look
        else:
            seen.append(torch.backends.mkldnn.enabled)
        return linear(x, *others)

    monkeypatch.setattr(bf16.F, "linear", watched)
    monkeypatch.setitem(bf16.MANY, "plain", watched)
    with ThreadPoolExecutor(1) as pool:
        alone = pool.submit(lambda: [(layer(row.bfloat16()), time.sleep(0.001)) for _ in range(100)])
        while not alone.done():
            layer(rows.bfloat16())
    assert seen
    assert all(seen)


def test_every_shape_of_a_bf16_model_says_how_its_rows_are_multiplied():
    *said, many = kernels_of(for_decoding(tiny_gpt(n_embd=64), "bf16"))
    assert {s.split(":")[0] for s in said} == {"64 -> 192", "64 -> 64", "64 -> 256", "256 -> 64", "64 -> 50"}
    assert many.startswith(f"several rows: {bf16.fastest_for_many()[0]}, ")


def test_many_rows_are_multiplied_no_slower_than_the_plain_way():
    """As it was timed, once, here; processors that emulate bf16 took 5 to 13 times what fp32 takes."""
    name, _ = bf16.fastest_for_many()
    seconds = bf16.timed_many()
    assert seconds[name] <= seconds["plain"]
    assert bf16.timed_many() is seconds, "timed once"


def test_the_kernel_of_many_rows_follows_the_clock(monkeypatch):
    for taken, seconds in {"plain": (1.0, 0.95), "in fp32": (1.0, 0.2)}.items():
        monkeypatch.setattr(bf16, "timed_many", lambda seconds=seconds: dict(zip(bf16.MANY, seconds, strict=True)))
        assert bf16.fastest_for_many()[0] == taken


@pytest.mark.parametrize("name", bf16.MANY)
def test_many_rows_are_multiplied_right_by_every_kernel(name, monkeypatch):
    monkeypatch.setattr(decoding, "fastest_for_many", lambda: (name, ""))
    ready = for_decoding(tiny_gpt(seed=2, scale=3.0, n_embd=64), "bf16")
    with torch.no_grad():
        found = ready(IDX)[0]
        assert found.dtype == torch.bfloat16
        exact = ready.float()(IDX)[0]
    assert (found - exact).norm() <= 0.02 * exact.norm()


def test_every_matrix_is_stored_in_8_bits_and_once(tmp_path, path):
    model = tiny_gpt(seed=2, n_embd=64)
    small = with_kernels(quantize_int8(model), path)
    generate(small, IDX, 2)  # which lays matrices out for the kernel
    state = load_file(save_int8(tmp_path / "int8", small, {}) / "model.safetensors")
    matrices = [p for p in model.parameters() if p.ndim == 2]
    assert sum(t.dtype == torch.int8 for t in state.values()) == len(matrices), path
    assert sum(t.numel() for t in state.values() if t.dtype == torch.int8) == sum(p.numel() for p in matrices)
    assert all(
        t.dtype == torch.float32 and min(t.shape[1:], default=1) == 1 for t in state.values() if t.is_floating_point()
    )


def test_what_was_saved_computes_the_same_bits(tmp_path, path):
    small = with_kernels(quantize_int8(tiny_gpt(seed=2, scale=3.0)), path)
    with torch.no_grad():
        before = small(IDX)[0]
        save_int8(tmp_path / "int8", small, {"window": 16})
        again, meta = load_for_decoding(tmp_path / "int8", "int8", path)
        assert torch.equal(again(IDX)[0], before), path
        assert torch.equal(small(IDX)[0], before)
    assert (meta["weights"], meta["window"]) == ("int8", 16)


@pytest.mark.parametrize("weights", FORMATS)
def test_a_model_that_is_ready_to_write_says_the_same(weights, tokens):
    model = tiny_gpt(seed=2, scale=3.0)
    before = [p.clone() for p in model.parameters()]
    ready = for_decoding(model, weights)
    with torch.no_grad():
        near = {"fp32": 1e-5, "bf16": 0.1, "int8": 0.3}[weights]
        assert (ready(IDX)[0].float() - model(IDX)[0]).abs().max() < near
        assert (ready(IDX[:1, :1])[0].float() - model(IDX[:1, :1])[0]).abs().max() < near  # a single row
    assert generate(ready, IDX, 5).shape == (2, 10)
    assert corpus_loss(ready, tokens, 16).mean == pytest.approx(corpus_loss(model, tokens, 16).mean, rel=0.02)
    assert same(before, model.parameters())


def test_the_table_is_still_the_head():
    for weights in ("fp32", "bf16"):
        ready = for_decoding(tiny_gpt(), weights)
        assert ready.lm_head.weight is ready.transformer.wte.weight


def test_formats_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="int4"):
        for_decoding(tiny_gpt(), "int4")
    save_int8(tmp_path / "int8", quantize_int8(tiny_gpt()), {})
    with pytest.raises(CheckpointError, match="holds 8-bit weights; fp32 needs the checkpoint"):
        load_for_decoding(tmp_path / "int8", "fp32")
    content = (tmp_path / "int8/model.safetensors").read_bytes()
    (tmp_path / "int8/model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"damaged .*quantise again"):
        load_for_decoding(tmp_path / "int8", "int8")
    save_checkpoint(tmp_path / "fp32", tiny_gpt(), {"weights": "int8"})  # says what it is not
    with pytest.raises(CheckpointError, match="damaged"):
        load_for_decoding(tmp_path / "fp32", "int8")
