"""A step of the T4's path on tensors that hold no numbers: devices, dtypes and sizes need no GPU.

On fake CUDA tensors where PyTorch is built for CUDA (without, autograd aborts over them), on fake CPU tensors always.
"""

import pytest
import torch
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.config import GPTConfig, Recipe
from helpers.memorization import _hits, _nll, _predictions
from helpers.model import GPT
from helpers.runtime import Runtime
from helpers.train import Trainer, _LossOf
from helpers.windows import Windows, grid
from tests.conftest import tiny_gpt

WIDE = GPTConfig(n_layer=2)  # GPT-2's width, vocabulary and context; a block more is more of the same
built = pytest.mark.skipif(torch.version.cuda is None, reason="needs a CUDA build of PyTorch, but no GPU")
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=built)])


class Seen(TorchDispatchMode):
    """The dtypes and devices of the matrix products of a step, and the bytes of its largest tensor of fractions."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.devices, self.largest = set(), set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        found = [t for t in (out if isinstance(out, tuple | list) else [out]) if isinstance(t, torch.Tensor)]
        if any(part in name for part in ("::mm", "::addmm", "::bmm", "::baddbmm", "attention")):
            self.products.add(found[0].dtype)  # attention's other results are sums, in fp32
            self.devices.add(found[0].device.type)
        for t in found:
            if t.is_floating_point():
                self.largest = max(self.largest, t.numel() * t.itemsize)
        return out


@pytest.fixture
def pretended(monkeypatch):
    """CUDA that is there, with a step's numbers made up: what a fake tensor cannot say."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(FakeTensor, "tolist", lambda _: [1.0, 1.0, 1024.0])
    monkeypatch.setattr(torch.Tensor, "item", lambda _: 0.0)


@devices
@pytest.mark.usefixtures("pretended")
def test_a_t4s_step_multiplies_in_fp16_on_the_card_and_keeps_its_states_in_fp32(device):
    recipe = Recipe(steps=3, window=256, batch_size=4, accumulation=2, lr=2e-3, muon_lr=0.02)
    with torch.device("cpu"):
        text = torch.arange(5000) % 50257
        starts = Windows(text, 256, 4, "offset", 0)
        x, y = starts.batch(0)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        with torch.device(device):
            model = GPT(WIDE)
        on_card = (fake.from_tensor(x).to(device), fake.from_tensor(y).to(device))
        starts.batch = lambda _: on_card
        trainer = Trainer(model, starts, recipe, Runtime(torch.device(device), torch.float16, ("pretended",)))
        assert trainer.scaler.is_enabled()
        with Seen() as seen:
            step = next(trainer.steps())
    assert torch.float16 in seen.products
    assert seen.products == {torch.float16} or device == "cpu", "every product on a card, Muon's too"
    assert seen.devices == {device}
    assert seen.largest <= 2048 * WIDE.vocab_size * 4, "no more logits than a part's, in fp32"
    assert (step.number, step.tokens) == (1, 1024)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    states = [v for o in trainer.optimizers for s in o.state.values() for v in s.values() if v.ndim]
    assert {(v.dtype, v.device.type) for v in states} == {(torch.float32, device)}
    assert len(states) == 2 * sum(p.ndim < 2 or "wte" in n or "wpe" in n for n, p in model.named_parameters()) + 8


@devices
@pytest.mark.usefixtures("pretended")
def test_a_measurement_on_the_card_holds_a_part_of_the_logits(device):
    text = torch.arange(4097) % 50257
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device(device):
            model = GPT(WIDE).eval()
        with Seen() as seen, torch.no_grad(), torch.autocast(device, torch.float16):
            for y, losses, hit in _predictions(model, text, *grid(4097, 256), 256, _nll, _hits):
                assert (losses.dtype, hit.dtype, losses.shape) == (torch.float32, torch.bool, y.shape)
                assert losses.device.type == device
    assert seen.products == {torch.float16}
    assert seen.largest <= 2**28, "fp32 logits of all 4,096 tokens are three times as many"


def test_the_model_is_one_graph_for_the_compiler():
    """Whether a GPU is there or not: Dynamo traces forward and backward pass without a break."""
    torch._dynamo.reset()
    model, x = _LossOf(tiny_gpt()), torch.zeros(4, 16, dtype=torch.int64)
    found = torch._dynamo.explain(model)(x, x)
    assert found.graph_break_count == 0
    assert found.graph_count == 1
