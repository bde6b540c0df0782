"""Configurations that cannot be nonsense."""

from dataclasses import FrozenInstanceError, replace

import pytest

from helpers.config import PROFILES, RECIPES, GPTConfig, Recipe, pick_profile
from helpers.record import recorded

RECIPE = Recipe(steps=10, window=8, batch_size=4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n_embd": 100}, "n_head=12"),
        ({"n_layer": 0}, "n_layer=0"),
        ({"block_size": -1}, "block_size=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_a_model_that_cannot_be_is_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        GPTConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"policy": "shuffle"}, "grid, offset, random"),
        ({"schedule": "step"}, "constant, linear, cosine, onecycle"),
        ({"optimizer": "sgd"}, "adamw, muon"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"steps": 0}, "steps=0"),
        ({"warmup": 2}, "warmup=2"),
        ({"accumulation": 3}, "accumulation=3"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        replace(RECIPE, **changes)


def test_configurations_do_not_change_under_your_feet():
    with pytest.raises(FrozenInstanceError):
        GPTConfig().n_layer = 6


def test_an_unknown_profile_or_recipe_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="demo, laptop, t4"):
        pick_profile("huge")
    with pytest.raises(ValueError, match=", ".join(RECIPES)):
        PROFILES["demo"].recipe("best")


@pytest.mark.parametrize("name", PROFILES)
def test_every_recipe_runs_at_every_profile_inside_its_context(name):
    profile = PROFILES[name]
    for recipe in RECIPES:
        assert profile.recipe(recipe).window <= profile.main.gpt.block_size
    assert profile.lesson.recipe.window <= profile.lesson.gpt.block_size
    assert profile.char_recipe.window == profile.char_gpt.block_size


def test_the_t4_profile_trains_the_real_model_on_the_real_text():
    t4 = PROFILES["t4"]
    assert t4.main.gpt == GPTConfig()
    assert (t4.corpus, t4.main.excerpt, t4.main.all_rows) == ("tinyshakespeare", None, True)
    recipe = t4.main.recipe
    assert recipe.accumulation == 1, "a T4 holds the step's 8,192 tokens at once"
    assert round(recipe.steps * recipe.batch_size * recipe.window / 338_024) == 80
    exposure = 80 * 64 / recipe.window  # how often a token is read near a window's start: 12.8 gave 96 %, 25.6 98.8 %
    assert exposure >= 20


def test_a_promise_is_kept_by_a_run_that_is_recorded():
    assert PROFILES["demo"].measured
    assert PROFILES["demo"].measured == bool(recorded("demo-*"))
    assert PROFILES["t4"].measured == bool(recorded("t4-*")), "a recorded run makes its figures a promise"
