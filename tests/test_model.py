"""The model is GPT-2: its sizes, its names, its arithmetic."""

import math

import pytest
import torch

from helpers.config import IGNORE, GPTConfig
from helpers.model import GPT
from helpers.run.cost import flops_per_token, n_block_matrices, n_params
from tests.conftest import tiny_gpt
from tests.reference import hugging_face


def test_the_default_is_gpt2_124m():
    with torch.device("meta"):
        model = GPT(GPTConfig())
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(sizes.values()) == 124_439_808
    assert sum(p.numel() for p in model.parameters() if p.ndim == 2) == 124_318_464
    assert sum(n for name, n in sizes.items() if ".ln_" in name or "ln_f" in name) == 38_400
    assert sum(n for name, n in sizes.items() if name.endswith("bias") and "ln_" not in name) == 82_944
    assert sizes["transformer.wte.weight"] + sizes["transformer.wpe.weight"] == 39_383_808


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"n_layer": 3, "n_head": 2, "n_embd": 10, "block_size": 7, "vocab_size": 31}])
def test_the_formulas_count_what_the_model_has(sizes, bias):
    config = GPTConfig(bias=bias, **sizes)
    with torch.device("meta"):
        parameters = dict(GPT(config).named_parameters())
    assert n_params(config) == sum(p.numel() for p in parameters.values())
    assert n_block_matrices(config) == sum(p.numel() for n, p in parameters.items() if ".h." in n and p.ndim == 2)


def test_the_124m_model_costs_798_mflop_a_token_at_512_and_855_at_1024():
    assert flops_per_token(GPTConfig(), 512) == pytest.approx(798e6, rel=1e-3)
    assert flops_per_token(GPTConfig(), 1024) == pytest.approx(855e6, rel=1e-3)


@pytest.mark.parametrize(
    ("shape", "B", "T"),
    [
        ({"n_layer": 1, "n_head": 1, "n_embd": 8}, 1, 1),
        ({"n_layer": 2, "n_head": 2, "n_embd": 16}, 3, 16),
        ({"n_layer": 3, "n_head": 4, "n_embd": 64, "block_size": 40, "vocab_size": 301}, 2, 33),
    ],
)
def test_logits_equal_hugging_faces(shape, B, T):
    model = tiny_gpt(seed=1, scale=3.0, **shape)
    idx = torch.randint(model.config.vocab_size, (B, T), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(model(idx)[0], hugging_face(model)(idx).logits, atol=1e-4)


def test_a_later_token_changes_no_earlier_logit(tokens):
    model, idx = tiny_gpt(scale=5.0), tokens[None, :16]
    for place in range(16):
        other = idx.clone()
        other[0, place] = (other[0, place] + 1) % 50
        changed = (model(other)[0] != model(idx)[0]).any(dim=2)[0]
        assert not changed[:place].any()
        assert changed[place:].all()


def test_logits_do_not_depend_on_targets(tokens):
    model = tiny_gpt(scale=3.0)
    idx, targets = tokens[None, :16], tokens[None, 1:17]
    logits, loss = model(idx, targets)
    assert torch.equal(logits, model(idx)[0])
    expected = -logits.log_softmax(dim=-1).gather(2, targets[..., None]).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert model(idx)[1] is None


def test_padding_has_no_part_in_the_loss(tokens):
    model, idx, targets = tiny_gpt(scale=3.0), tokens[None, :16], tokens[None, 1:17].clone()
    targets[0, 10:] = IGNORE
    assert model(idx, targets)[1].item() == pytest.approx(model(idx[:, :10], targets[:, :10])[1].item(), abs=1e-6)


def test_an_untrained_model_starts_at_ln_v(tokens):
    for zero_residual in (False, True):
        model = tiny_gpt()
        model.init_weights(zero_residual)
        assert model(tokens[None, :16], tokens[None, 1:17])[1].item() == pytest.approx(math.log(50), abs=0.1)


def test_initial_weights_are_gpt2s():
    model = tiny_gpt(n_embd=64, n_layer=4)
    weights = dict(model.named_parameters())
    assert weights["transformer.wte.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    assert weights["transformer.h.0.mlp.c_proj.weight"].std().item() == pytest.approx(0.02 / math.sqrt(8), rel=0.1)
    assert weights["transformer.h.0.mlp.c_proj.bias"].abs().max() == 0
    assert (weights["transformer.ln_f.weight"] == 1).all()
    model.init_weights(zero_residual=True)
    assert weights["transformer.h.0.attn.c_proj.weight"].abs().max() == 0


def test_head_and_table_are_one_tensor():
    model = tiny_gpt()
    assert model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.parametrize("pieces", [[16], [1] * 16, [5, 1, 1, 4, 5]])
def test_reading_in_pieces_with_a_cache_gives_the_same_logits(tokens, pieces):
    model, idx = tiny_gpt(scale=4.0), tokens[:32].view(2, 16)
    cache = model.new_cache(2, 16)
    with torch.no_grad():
        parts = [model(part, cache=cache)[0] for part in idx.split(pieces, dim=1)]
        assert torch.allclose(torch.cat(parts, dim=1), model(idx)[0], atol=1e-5)
    assert (cache.end, cache.starts) == (16, [0, 0])


@pytest.mark.parametrize(("capacity", "says"), [(8, "9 tokens do not fit into a cache of 8"), (64, "block_size=16")])
def test_what_a_cache_refuses_leaves_it_as_it_was(tokens, capacity, says):
    model, idx = tiny_gpt(), tokens[:16].view(1, 16)
    cache = model.new_cache(1, capacity)
    expected = model(idx[:, :8])[0]
    model(idx[:, :4], cache=cache)
    with pytest.raises(ValueError, match=says):
        model(tokens[None, : 5 if capacity == 8 else 13], cache=cache)
    assert cache.end == 4
    torch.testing.assert_close(model(idx[:, 4:8], cache=cache)[0], expected[:, 4:])


def test_rows_of_different_lengths_share_a_cache(tokens):
    model, idx = tiny_gpt(scale=4.0), tokens[:32].view(2, 16)
    cache, first = model.new_cache(2, 16), model.new_cache(1, 9)
    lengths = [9, 0]
    with torch.no_grad():
        model(idx[:1, :9], cache=first)
        cache.end, cache.starts = 9, [9, 9]
        cache.put(0, first)  # row 1 has read nothing
        for T in (1, 3, 2):
            ours = torch.stack([row[n : n + T] for row, n in zip(idx, lengths, strict=True)])
            logits = model(ours, cache=cache)[0]
            lengths = [n + T for n in lengths]
            for row, n in enumerate(lengths):
                assert torch.allclose(logits[row], model(idx[row : row + 1, :n])[0][0, -T:], atol=1e-5)
    assert (cache.end, cache.starts) == (15, [0, 9])
    cache.keep([1])
    cache.drop_padding()
    assert (cache.end, cache.starts) == (6, [0])
    with torch.no_grad():
        assert torch.allclose(model(idx[1:, 6:9], cache=cache)[0], model(idx[1:, :9])[0][:, 6:], atol=1e-5)


def test_a_full_cache_takes_no_more(tokens):
    model = tiny_gpt()
    with pytest.raises(ValueError, match="9 tokens do not fit into a cache of 8"):
        model(tokens[None, :9], cache=model.new_cache(1, 8))
