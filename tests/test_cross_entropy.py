"""The chunked loss is torch's cross-entropy, gradients included."""

import pytest
import torch
import torch.nn.functional as F

from helpers.base import cross_entropy
from helpers.base.cross_entropy import linear_cross_entropy
from helpers.config import IGNORE
from tests.conftest import tiny_gpt


def problem(n: int = 150, width: int = 24, vocab: int = 90) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    targets = torch.randint(vocab, (n,), generator=g)
    targets[::7] = IGNORE
    return torch.randn(n, width, generator=g), torch.randn(vocab, width, generator=g), targets


def gradients(loss_of, x, weight, targets) -> tuple[float, torch.Tensor, torch.Tensor]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = loss_of(x, weight, targets)
    (3 * loss).backward()
    return loss.item(), x.grad, weight.grad


def plain(x, weight, targets):
    return F.cross_entropy(F.linear(x, weight), targets, ignore_index=IGNORE)


@pytest.mark.parametrize("chunk", [1, 64, 100, 150, 4096])
def test_loss_and_gradients_are_those_of_torch_whatever_the_parts(chunk):
    ours = gradients(lambda *given: linear_cross_entropy(*given, chunk=chunk), *problem())
    theirs = gradients(plain, *problem())
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    for mine, torchs in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-5, atol=1e-6)


def test_rows_that_only_round_off_the_table_change_nothing(monkeypatch):
    """As on a GPU: up to a multiple of 64."""
    monkeypatch.setattr(cross_entropy, "_widened", lambda table: F.pad(table, (0, 0, 0, 38)))
    ours = gradients(lambda *given: linear_cross_entropy(*given, chunk=64), *problem())
    for mine, torchs in zip(ours, gradients(plain, *problem()), strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch has it from 2.13 on")
def test_it_is_torchs_own_chunked_loss():
    """F.linear_cross_entropy came with torch 2.13; ours serves older ones, and multiplies in bf16 on a CPU too."""
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=64)
    ours = gradients(lambda *given: linear_cross_entropy(*given, chunk=64), *problem())
    theirs = gradients(lambda x, w, y: F.linear_cross_entropy(x, w, y, options=options), *problem())
    for mine, torchs in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_is_as_close_to_fp32_as_torch_is(dtype):
    exact = gradients(plain, *problem())

    def cast(loss_of):
        def under(*given):
            with torch.autocast("cpu", dtype):
                return loss_of(*given)

        return gradients(under, *problem())

    def far(found):
        return [float((a - b).norm() / b.norm()) for a, b in zip(found[1:], exact[1:], strict=True)]

    ours, theirs = cast(linear_cross_entropy), cast(plain)
    assert ours[1].dtype == ours[2].dtype == torch.float32
    assert ours[0] == pytest.approx(exact[0], rel=0.01)
    assert all(mine < 1.5 * torchs + 1e-4 for mine, torchs in zip(far(ours), far(theirs), strict=True))


def test_a_second_backward_raises_instead_of_giving_other_numbers():
    x, weight, targets = problem()
    loss = linear_cross_entropy(x.requires_grad_(), weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_model_trains_with_it_as_with_its_logits(tokens):
    model, x, y = tiny_gpt(), tokens[:64].view(4, 16), tokens[1:65].view(4, 16)
    model(x, y)[1].backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    loss = model.loss(x, y)
    loss.backward()
    assert loss.item() == pytest.approx(model(x, y)[1].item(), rel=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-7, msg=name)
    with torch.no_grad():
        assert model.loss(x, y).item() == pytest.approx(loss.item(), rel=1e-6)
