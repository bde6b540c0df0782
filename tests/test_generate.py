"""Generation: the cache changes nothing, the dice are one's own, and the settings do what they say."""

import pytest
import torch

from helpers.generate import generate, next_token_probs
from tests.conftest import tiny_gpt
from tests.reference import hugging_face, naive_greedy


@pytest.mark.parametrize("prompt", [1, 5, 16])
def test_greedy_decoding_is_the_same_with_and_without_cache(tokens, prompt):
    model = tiny_gpt(seed=2, scale=5.0)
    idx = tokens[: 3 * prompt].view(3, prompt)
    with torch.no_grad():
        expected = naive_greedy(model, idx, 60, window=16)  # far past the context
    assert torch.equal(generate(model, idx, 60, temperature=0), expected)


@pytest.mark.parametrize("window", [1, 2, 7, 16])
def test_a_smaller_window_slides_alike(tokens, window):
    model = tiny_gpt(seed=2, scale=5.0)
    with torch.no_grad():
        expected = naive_greedy(model, tokens[None, :1], 40, window)
    assert torch.equal(generate(model, tokens[None, :1], 40, temperature=0, window=window), expected)


def test_greedy_decoding_is_hugging_faces(tokens):
    model = tiny_gpt(seed=2, scale=5.0)
    theirs = hugging_face(model).generate(
        tokens[None, :4], max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    assert torch.equal(generate(model, tokens[None, :4], 12, temperature=0), theirs)


def test_a_batch_says_what_its_rows_say_alone(tokens):
    model, idx = tiny_gpt(seed=2, scale=5.0), tokens[:12].view(3, 4)
    together = generate(model, idx, 30, temperature=0)
    for row, alone in zip(together, idx, strict=True):
        assert torch.equal(row, generate(model, alone[None], 30, temperature=0)[0])


def test_the_same_seed_gives_the_same_text_whatever_else_draws(tokens):
    model, idx = tiny_gpt(scale=3.0), tokens[None, :4].repeat(4, 1)
    first = generate(model, idx, 20, generator=torch.Generator().manual_seed(5))
    torch.rand(100)
    assert torch.equal(first, generate(model, idx, 20, generator=torch.Generator().manual_seed(5)))
    assert not torch.equal(first, generate(model, idx, 20, generator=torch.Generator().manual_seed(6)))
    assert len({tuple(row) for row in first.tolist()}) > 1  # several samples differ among themselves


def test_a_private_generator_leaves_the_global_one_alone(tokens):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    generate(tiny_gpt_state_kept(), tokens[None, :4], 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())


def tiny_gpt_state_kept():
    state = torch.get_rng_state()
    model = tiny_gpt()
    torch.set_rng_state(state)
    return model


LOGITS = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0])


def test_temperature_divides_the_logits():
    assert torch.allclose(next_token_probs(LOGITS, 2.0), (LOGITS / 2).softmax(-1))
    assert next_token_probs(LOGITS, 0).tolist() == [1, 0, 0, 0, 0]


def test_top_k_keeps_the_likeliest_k():
    probs = next_token_probs(LOGITS, top_k=2)
    assert (probs > 0).tolist() == [True, True, False, False, False]
    assert probs.sum().item() == pytest.approx(1)
    assert torch.allclose(next_token_probs(LOGITS, top_k=99), LOGITS.softmax(-1))
    assert int((next_token_probs(torch.ones(5), top_k=2) > 0).sum()) == 2  # of equals, two


@pytest.mark.parametrize(("p", "kept"), [(0.01, 1), (0.63, 1), (0.65, 2), (0.86, 2), (0.88, 3), (1.0, 5)])
def test_top_p_keeps_the_fewest_that_reach_p(p, kept):
    probs = next_token_probs(LOGITS, top_p=p)  # softmax: 0.636 0.234 0.086 0.032 0.012
    assert int((probs > 0).sum()) == kept
    assert probs.sum().item() == pytest.approx(1)


def test_top_p_of_one_keeps_a_whole_vocabulary():
    logits = torch.randn(2, 50_257, generator=torch.Generator().manual_seed(0))
    assert (next_token_probs(logits, top_p=1.0) > 0).all()


def test_a_tiny_temperature_is_nearly_greedy():
    assert torch.equal(next_token_probs(LOGITS, 1e-40), next_token_probs(LOGITS, 0))


def test_sampling_follows_the_probabilities():
    probs = next_token_probs(LOGITS, 1.5, top_k=3)
    draws = torch.multinomial(probs.expand(20_000, -1), 1, generator=torch.Generator().manual_seed(0))
    shares = draws.flatten().bincount(minlength=5) / 20_000
    assert torch.allclose(shares, probs, atol=0.02)


def test_generation_leaves_the_model_as_it_was(tokens):
    model = tiny_gpt(dropout=0.5)
    model.train()
    generate(model, tokens[None, :4], 3)
    assert model.training
