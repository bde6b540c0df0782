"""Windows: no token is left out, none is seen twice, and a step can be asked for again."""

from collections import Counter

import pytest
import torch

from helpers.config import IGNORE, POLICIES
from helpers.windows import Windows, grid, slice_windows


@pytest.mark.parametrize("n", [2, 3, 9, 10, 16, 17, 300])
@pytest.mark.parametrize("window", [1, 4, 8])
def test_a_grid_predicts_every_token_but_the_first_exactly_once(n, window):
    for offset in range(window):
        _, y = slice_windows(torch.arange(n), *grid(n, window, offset), window)
        assert sorted(y[y != IGNORE].tolist()) == list(range(1, n))


def test_targets_are_the_inputs_moved_by_one(tokens):
    x, y = slice_windows(tokens, *grid(len(tokens), 8, 3), 8)
    seen = y != IGNORE
    following = torch.cat((x[:, 1:], torch.zeros_like(x[:, :1])), dim=1)
    inner = seen[:, :-1] & seen[:, 1:]
    assert torch.equal(y[:, :-1][inner], following[:, :-1][inner])


@pytest.mark.parametrize("policy", ["grid", "offset"])
def test_an_epoch_is_every_token_once(policy):
    tokens = torch.arange(101)
    windows = Windows(tokens, 10, 1, policy, seed=3)
    step = 0
    for _ in range(25):  # epochs
        seen: Counter = Counter()
        while len(seen) < 100:
            _, y = windows.batch(step)
            seen.update(y[y != IGNORE].tolist())
            step += 1
        assert set(seen.values()) == {1}


def test_every_offset_comes_once_before_any_comes_again():
    windows = Windows(torch.arange(100), 8, 1, "offset", seed=5)
    offsets = [windows._offset(epoch) for epoch in range(16)]
    assert sorted(offsets[:8]) == sorted(offsets[8:]) == list(range(8))
    assert offsets[:8] != offsets[8:]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_depends_on_seed_and_step_alone(tokens, policy):
    straight = Windows(tokens, 8, 4, policy, seed=1)
    batches = [straight.batch(step) for step in range(30)]
    jumped = Windows(tokens, 8, 4, policy, seed=1)
    for step in (29, 3, 17):
        assert all(torch.equal(a, b) for a, b in zip(jumped.batch(step), batches[step], strict=True))
    other = Windows(tokens, 8, 4, policy, seed=2).batch(0)[0]
    assert not torch.equal(other, batches[0][0])


@pytest.mark.parametrize("policy", POLICIES)
def test_steps_per_epoch_are_counted(policy):
    windows = Windows(torch.arange(103), 10, 4, policy, seed=0)
    counts = [len(windows._draw(epoch)[0]) for epoch in range(10)]  # each offset once
    assert windows.steps_per_epoch == pytest.approx(sum(counts) / 10 / 4)


def test_random_windows_begin_everywhere_and_are_full():
    windows = Windows(torch.arange(40), 8, 4, "random", seed=0)
    batches = [windows.batch(step) for step in range(300)]
    assert {int(row[0]) for x, _ in batches for row in x} == set(range(32))
    assert all((y != IGNORE).all() for _, y in batches)


def test_the_first_steps_see_halves_and_the_rest_what_a_whole_run_sees_first(tokens):
    windows, short, whole = (
        Windows(tokens, 8, 4, seed=1, halved=5),
        Windows(tokens, 4, 8, seed=1),
        Windows(tokens, 8, 4, seed=1),
    )
    for step in (9, 0, 4, 5):
        wanted = short.batch(step) if step < 5 else whole.batch(step - 5)
        assert all(torch.equal(a, b) for a, b in zip(windows.batch(step), wanted, strict=True))
    assert windows.batch(4)[0].shape == (8, 4)
    assert windows.batch(5)[0].shape == (4, 8)


def test_windows_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="needs 11 tokens"):
        Windows(torch.arange(10), 10, 1)
    with pytest.raises(ValueError, match="grid, offset, random"):
        Windows(torch.arange(10), 2, 1, "shuffled")
    with pytest.raises(ValueError, match="offset=4"):
        grid(10, 4, 4)
    with pytest.raises(ValueError, match="2 tokens"):
        grid(1, 4)
