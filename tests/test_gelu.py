"""GPT-2's activation, in both forms."""

import pytest
import torch
import torch.nn.functional as F

from helpers.base import gelu as module
from helpers.base.gelu import gelu
from tests.conftest import tiny_gpt


@pytest.fixture(params=[False, True], ids=["torch", "written out"])
def form(request, monkeypatch):
    monkeypatch.setattr(module, "ONE_BY_ONE", request.param)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_written_out_form_keeps_the_dtype_and_its_input(monkeypatch, dtype):
    monkeypatch.setattr(module, "ONE_BY_ONE", True)
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = x.clone()
    assert gelu(x).dtype == dtype
    assert torch.equal(x, before)


def test_a_model_says_the_same_with_either(monkeypatch, tokens):
    model, x = tiny_gpt(scale=3), tokens[None, :16]
    logits = []
    for form in (False, True):
        monkeypatch.setattr(module, "ONE_BY_ONE", form)
        logits.append(model(x)[0])
    assert torch.allclose(*logits, atol=1e-4)
    assert not torch.equal(*logits), "the second is another computation"


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="without MKL torch's own form is taken")
def test_written_out_only_where_torch_has_no_vectors():
    """`make test-cpus` runs this as a processor without AVX2, too."""
    found = torch.backends.cpu.get_cpu_capability()
    assert (found not in ("AVX2", "AVX512")) == module.ONE_BY_ONE
