"""GPT-2's activation, in both forms."""

import pytest
import torch
import torch.nn.functional as F

from helpers.base import gelu as module
from helpers.base.gelu import gelu
from tests.conftest import tiny_gpt

NONE, ALL = range(0), range(1, 2**40)


@pytest.fixture(params=[NONE, ALL], ids=["torch", "written out"])
def form(request, monkeypatch):
    monkeypatch.setattr(module, "WRITTEN_OUT", request.param)


@pytest.mark.usefixtures("form")
def test_both_forms_and_their_slopes_are_those_of_torch():
    found = []
    for function in (gelu, lambda x: F.gelu(x, approximate="tanh")):
        x = torch.linspace(-12, 12, 4001).requires_grad_()
        y = function(x)
        (slope,) = torch.autograd.grad((y * torch.arange(4001) / 4001).sum(), x)
        found += [y, slope]
    assert torch.allclose(found[0], found[2], atol=1e-6)
    assert torch.allclose(found[1], found[3], atol=2e-6)


@pytest.mark.usefixtures("form")
def test_the_slope_is_that_of_differences():
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(gelu, torch.randn(4, 5, dtype=torch.double, requires_grad=True))


def test_the_written_out_form_leaves_its_input_alone_and_half_precision_to_torch(monkeypatch):
    monkeypatch.setattr(module, "WRITTEN_OUT", ALL)
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    assert gelu(x).dtype == torch.float32
    assert torch.equal(x, before)
    half = x.bfloat16()
    assert torch.equal(gelu(half), F.gelu(half, approximate="tanh"))


def test_a_model_says_the_same_with_either(monkeypatch, tokens):
    model, x = tiny_gpt(scale=3), tokens[None, :16]
    logits = []
    for form in (NONE, ALL):
        monkeypatch.setattr(module, "WRITTEN_OUT", form)
        logits.append(model(x)[0])
    assert torch.allclose(*logits, atol=1e-4)
    assert not torch.equal(*logits), "the second is another computation"


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="without MKL torch's own form is taken")
def test_written_out_only_where_torch_has_too_few_vectors():
    """`make test-cpus` runs this as a processor with AVX2, and as one without, too."""
    demo, one_row, full_size = 8 * 128 * 512, 3072, 4 * 1024 * 3072
    taken = [count in module.WRITTEN_OUT for count in (demo, one_row, full_size)]
    expected = {"DEFAULT": [True, True, True], "AVX2": [True, False, False]}
    assert taken == expected.get(torch.backends.cpu.get_cpu_capability(), [False, False, False])
