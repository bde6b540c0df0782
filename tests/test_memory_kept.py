"""A short training, and whether what it learnt survives eight bits, whichever kernel multiplies."""

import pytest

from helpers.config import PROFILES
from helpers.data import load_corpus
from helpers.generate import generate
from helpers.memorization import corpus_loss, recall
from helpers.quantize import quantize_int8
from helpers.run.experiment import new_trainer, tokenize
from helpers.serve import kernels
from helpers.serve.decoding import with_kernels

PASSAGE = 300  # tokens


@pytest.fixture(scope="module")
def learnt():
    """The demo model, some seconds old: it knows the scene's first tokens by heart."""
    demo = PROFILES["demo"]
    data = tokenize(demo.main, load_corpus(demo.corpus))
    tokens = data.tokens[:PASSAGE]
    trainer = new_trainer(demo.main, data, 1337, "cpu", tokens=tokens, steps=200, batch_size=4, window=64)
    losses = [step.loss for step in trainer.steps()]
    assert losses[-1] < 0.2 < 6 < losses[0], "it has learnt something"
    return trainer.model.eval(), tokens


def test_muon_learns_in_the_dtype_that_was_chosen(learnt):
    model, tokens = learnt
    assert recall(model, tokens, 16, 16, places=200).verbatim > 0.9


@pytest.mark.parametrize("kernel", kernels.KERNELS)
def test_eight_bits_keep_the_memory(learnt, kernel):
    """Recall within a point, loss within 0.01 nats per token, of fp32."""
    if kernel not in kernels.available_kernels(64, 64, "cpu"):
        pytest.skip(f"PyTorch has no {kernel} on this machine")
    model, tokens = learnt
    small = with_kernels(quantize_int8(model), kernel)
    assert corpus_loss(small, tokens, 64).mean == pytest.approx(corpus_loss(model, tokens, 64).mean, abs=0.01)
    before, after = (recall(m, tokens, 16, 16, places=500).verbatim for m in (model, small))
    assert after >= before - 0.01
    idx = tokens[None, :16]
    exact, rounded = (generate(m, idx, 48, temperature=0) for m in (model, small))
    assert (exact == rounded).float().mean() > 0.9
