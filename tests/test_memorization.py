"""The measures, against brute force and against what the model really says."""

import math
from collections import Counter

import pytest
import torch

from helpers import memorization
from helpers.base.group import Group
from helpers.generate import generate
from helpers.memorization import corpus_loss, longest_recitation, loss_floor, recall, windows_loss
from helpers.run.evaluation import measure, whole_corpus_loss
from helpers.windows import grid
from tests.conftest import tiny_gpt, tiny_trainer


def entropy(things) -> float:
    counts = Counter(things)
    n = sum(counts.values())
    return -sum(c / n * math.log(c / n) for c in counts.values())


def test_the_floor_of_two_windows_that_begin_alike_is_ln_2():
    floor = loss_floor(torch.tensor([0, 1, 0, 2]), window=1, policy="random")
    assert floor.mean == pytest.approx(2 / 3 * math.log(2))


@pytest.mark.parametrize("policy", ["grid", "offset", "random"])
def test_the_floor_is_the_entropy_of_a_window_given_its_first_token(policy):
    tokens = torch.randint(3, (121,), generator=torch.Generator().manual_seed(2))
    T = 8
    starts = range(0, 120, T) if policy == "grid" else range(121 - T)
    windows = [tuple(tokens[s : s + T + 1].tolist()) for s in starts]
    expected = (entropy(windows) - entropy(w[0] for w in windows)) / T
    floor = loss_floor(tokens, T, policy)
    assert floor.mean == pytest.approx(expected, abs=1e-9)
    for i in range(T):
        step = entropy(w[: i + 2] for w in windows) - entropy(w[: i + 1] for w in windows)
        assert floor.by_position[i].item() == pytest.approx(step, abs=1e-9)


def test_the_short_last_window_counts_with_what_it_has():
    tokens = torch.tensor([0, 1, 2, 0, 3, 4, 0, 5])  # windows 0123, 0340 in part: 012|0, 034|0, 05
    floor = loss_floor(tokens, 3, "grid")
    assert floor.counts.tolist() == [3, 2, 2]
    assert floor.by_position[0].item() == pytest.approx(math.log(3))
    assert floor.mean == pytest.approx(3 * math.log(3) / 7)


def test_published_floors_of_tiny_shakespeare():
    """The figures of the README, where the text is at hand (SHAKESPEARE_PATH or data/input.txt)."""
    import os

    from helpers.base.files import ROOT
    from helpers.data import gpt2_tokenizer, load_corpus

    if not (os.environ.get("SHAKESPEARE_PATH") or (ROOT / "data/input.txt").exists()):
        pytest.skip("tiny Shakespeare is not here: make data")
    tokens = torch.tensor(gpt2_tokenizer().encode(load_corpus("tinyshakespeare").text))
    assert (len(tokens), len(tokens.unique())) == (338_025, 11_706)
    assert round(loss_floor(tokens, 32, "grid").mean, 4) == 0.1014
    assert round(loss_floor(tokens, 128, "random").mean, 4) == 0.0501


def naive_losses(model, tokens, window, shift) -> dict[int, float]:
    """Negative log-likelihood of token i, each from its own window, one at a time."""
    out = {}
    edges = sorted({0, *range(shift, len(tokens) - 1, window)})
    for start, end in zip(edges, [*edges[1:], len(tokens) - 1], strict=True):
        log_probs = model(tokens[None, start:end])[0].log_softmax(dim=-1)[0]
        for i in range(end - start):
            out[start + i + 1] = -log_probs[i, tokens[start + i + 1]].item()
    return out


@pytest.mark.parametrize("shift", [0, 1, 5])
def test_corpus_loss_is_the_mean_over_every_token_once(tokens, shift):
    model, tokens = tiny_gpt(scale=3.0), tokens[:100]
    losses = naive_losses(model, tokens, 12, shift)
    ours = corpus_loss(model, tokens, 12, shift)
    assert sorted(losses) == list(range(1, 100))
    assert ours.mean == pytest.approx(sum(losses.values()) / 99, abs=1e-5)
    assert int(ours.counts.sum()) == 99


def test_corpus_loss_leaves_the_model_as_it_was(tokens):
    model = tiny_gpt(dropout=0.5)
    model.train()
    a, b = (corpus_loss(model, tokens, 16).mean for _ in range(2))
    assert a == b
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_perfect_model_sits_on_the_floor():
    """No model can do better than the floor; one that was trained until it knows the text comes close to it."""
    tokens = torch.randint(5, (65,), generator=torch.Generator().manual_seed(0))
    trainer = tiny_trainer(tokens, policy="grid", steps=300, window=8, batch_size=8)
    for _ in trainer.steps():
        pass
    floor, loss = loss_floor(tokens, 8, "grid"), corpus_loss(trainer.model, tokens, 8)
    assert floor.mean - 1e-6 <= loss.mean <= floor.mean + 0.05
    assert (loss.by_position >= floor.by_position - 1e-6).all()


@pytest.fixture(scope="module")
def reciter():
    """A model that knows 60 tokens fairly, but not perfectly, well."""
    tokens = torch.randint(50, (60,), generator=torch.Generator().manual_seed(4))
    trainer = tiny_trainer(tokens, policy="offset", steps=90, window=16, batch_size=4)
    for _ in trainer.steps():
        pass
    return trainer.model.eval(), tokens


def test_recall_is_what_greedy_generation_says(reciter):
    model, tokens = reciter
    found = recall(model, tokens, k=4, n=8, places=40)
    for start, right in zip(found.starts.tolist(), found.right.tolist(), strict=True):
        said = generate(model, tokens[None, start : start + 4], 8, temperature=0)[0, 4:]
        hits = (said == tokens[start + 4 : start + 12]).tolist()
        assert right == (hits.index(False) if False in hits else 8)
    assert 0.05 < found.verbatim < 1  # neither trivial: the comparison above saw both cases


@pytest.mark.parametrize("prompt", [1, 4, 9])
@pytest.mark.parametrize("window", [10, 16])
def test_the_longest_recitation_is_what_greedy_generation_says(reciter, prompt, window):
    model, tokens = reciter
    said = generate(model, tokens[None, :prompt], 60 - prompt, temperature=0, window=window)[0]
    hits = (said == tokens)[prompt:].tolist()
    expected = hits.index(False) if False in hits else 60 - prompt
    assert longest_recitation(model, tokens, window, prompt) == expected


def test_a_model_that_knows_everything_recites_to_the_end():
    tokens = torch.arange(40)
    trainer = tiny_trainer(tokens, policy="offset", steps=250, window=16, batch_size=4)
    for _ in trainer.steps():
        pass
    assert longest_recitation(trainer.model, tokens, 16) == 39
    assert recall(trainer.model, tokens, 2, 6).verbatim == 1
    assert corpus_loss(trainer.model, tokens, 16).accuracy == 1


def test_measure_reports_what_its_parts_report(reciter):
    model, tokens = reciter
    found = measure(model, tokens, 16, recalls=[(4, 8), (4, 12), (8, 9)], prompt=4)
    assert found["loss_grid"] == corpus_loss(model, tokens, 16).mean
    assert found["loss_shift_half"] == corpus_loss(model, tokens, 16, 8).mean
    assert found["recall_4_8"] == recall(model, tokens, 4, 8).verbatim
    assert found["recall_4_12"] == recall(model, tokens, 4, 12).verbatim
    assert math.isnan(found["recall_8_9"]), "17 tokens do not fit into a window of 16: named, and not measured"
    assert found["longest_recitation"] == longest_recitation(model, tokens, 16, 4)
    assert found["excess_grid"] == found["loss_grid"] - loss_floor(tokens, 16, "grid").mean
    assert found["loss_random"] == pytest.approx(found["loss_grid"], rel=0.2)
    assert found["floor_random"] == loss_floor(tokens, 16, "random").mean


def test_measures_refuse_what_they_cannot_measure(tokens):
    model = tiny_gpt()
    with pytest.raises(ValueError, match="block_size=16"):
        corpus_loss(model, tokens, 17)
    with pytest.raises(ValueError, match="block_size=16"):
        recall(model, tokens, 10, 8)
    with pytest.raises(ValueError, match="more than the text"):
        recall(model, tokens[:10], 8, 8)
    with pytest.raises(ValueError, match="at least one token"):
        recall(model, tokens, 0, 8)
    with pytest.raises(ValueError, match="prompt=17"):
        longest_recitation(model, tokens, 16, 17)
    with pytest.raises(ValueError, match="grid, offset, random"):
        loss_floor(tokens, 8, "pages")
    with pytest.raises(ValueError, match="300 tokens"):
        loss_floor(tokens, 300)


def test_a_wide_vocabulary_is_scored_some_positions_at_a_time_with_the_same_result(reciter, monkeypatch):
    model, tokens = reciter
    whole, seen = measure(model, tokens, 16, recalls=[(4, 8)], prompt=4), []
    hook = model.lm_head.register_forward_hook(lambda _, __, logits: seen.append(logits.numel()))
    monkeypatch.setattr(memorization, "SCORES", 7 * 50)
    found = measure(model, tokens, 16, recalls=[(4, 8)], prompt=4)
    hook.remove()
    assert max(seen) == 7 * 50
    assert found == pytest.approx(whole, abs=1e-6, nan_ok=True)


def test_gpt2s_logits_of_a_measurement_take_a_quarter_of_a_gigabyte():
    assert 4 * memorization.SCORES <= 2**28
    demo_rows, tokens_at_once = 1_932, 4096
    assert demo_rows * tokens_at_once <= memorization.SCORES, "the small profiles are measured whole, to the same bits"


@pytest.mark.parametrize("world", [2, 3])
def test_processes_that_share_the_windows_find_what_one_finds(tokens, world):
    """Each rank's sums are noted, then added up as the group would."""
    model, sums = tiny_gpt(scale=3.0), []

    class Pretended(Group):
        def sum(self, value):
            sums.append(value.clone())
            return sum(sums)

    alone = corpus_loss(model, tokens, 12, 5)
    for rank in range(world):
        shared = corpus_loss(model, tokens, 12, 5, Pretended(rank, world))
    assert all(0 < s[1].sum() < 299 for s in sums), "each has a part"
    assert shared.mean == pytest.approx(alone.mean, abs=1e-9)
    assert torch.equal(shared.counts, alone.counts)
    assert shared.accuracy == alone.accuracy


def test_more_processes_than_windows_leave_some_idle(tokens):
    class Pretended(Group):
        def sum(self, value):
            return value

    found = corpus_loss(tiny_gpt(), tokens[:14], 12, 0, Pretended(1, 2))
    assert found.counts.sum() == 1
    idle = windows_loss(tiny_gpt(), tokens[:9], grid(9, 12), 12, Pretended(0, 2))
    assert idle.counts.sum() == 8


def test_the_second_grid_is_not_measured_where_the_first_is_not_good_enough(tokens):
    model = tiny_gpt(scale=3.0)
    first, both = corpus_loss(model, tokens, 12).mean, whole_corpus_loss(model, tokens, 12)
    assert both == max(first, corpus_loss(model, tokens, 12, 6).mean)
    assert whole_corpus_loss(model, tokens, 12, enough=first) == first
    assert whole_corpus_loss(model, tokens, 12, enough=first + 1e-6) == both
