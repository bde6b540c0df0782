"""Configurations that cannot be nonsense."""

from dataclasses import FrozenInstanceError, replace

import pytest

from helpers.base.errors import SettingError
from helpers.config import PROFILES, RECIPES, GPTConfig, Recipe, pick_profile
from helpers.data import load_corpus
from helpers.run.experiment import new_trainer, tokenize
from helpers.run.report import recorded

RECIPE = Recipe(steps=10, window=8, batch_size=4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n_embd": 100}, "n_head=12"),
        ({"n_layer": 0}, "n_layer=0"),
        ({"block_size": -1}, "block_size=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": False}, "dropout=False is no share"),
        ({"bias": 0.5}, "bias=0.5 must be True or False"),
        ({"n_layer": 2.5}, "n_layer=2.5 must be a whole number"),
        ({"n_head": True}, "n_head=True must be a whole number"),
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
        ({"steps": 2.5}, "steps=2.5 must be a whole number"),
        ({"batch_size": 4.0}, "batch_size=4.0 must be a whole number"),
        ({"window": 1}, "window=1 must be at least 2"),
        ({"betas": (5, 9)}, r"betas=\(5, 9\) must be two numbers, 0 <= beta < 1"),
        ({"betas": (0.9, 1.0)}, "0 <= beta < 1"),
        ({"betas": (0.9,)}, "two numbers"),
        ({"betas": 0.9}, "two numbers"),
        ({"stop_at_target": "no"}, "stop_at_target='no' must be True or False"),
        ({"beta1_range": (5, 9)}, r"beta1_range=\(5, 9\)"),
        ({"beta1_range": (0.95, 0.85)}, "the lowest and the highest"),
        ({"weight_decay": -1}, "weight_decay=-1 must not be negative"),
        ({"weight_decay": float("nan")}, "weight_decay=nan must be a number"),
        ({"lr": float("inf")}, "lr=inf must be a number"),
        ({"muon_momentum": 1.0}, "muon_momentum=1.0 is no share"),
        ({"half_windows": 1.5}, "half_windows=1.5 is no share"),
        ({"half_windows": 0.4, "window": 9}, "half_windows=0.4 needs an even window from 4 on"),
        ({"half_windows": 0.4, "window": 2}, "half_windows=0.4 needs an even window from 4 on"),
        ({"half_windows": 1.0}, "half_windows=1.0 needs an even window from 4 on, and whole ones at the end"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        replace(RECIPE, **changes)


def test_a_window_longer_than_the_context_is_refused_before_a_model_is_made():
    main = PROFILES["demo"].main
    too_long = "window=256 is longer than the model's context, block_size=128"
    with pytest.raises(SettingError, match=too_long):
        replace(main, recipe=replace(main.recipe, window=256))
    with pytest.raises(SettingError, match=too_long):
        new_trainer(main, tokenize(main, load_corpus("sample")), seed=0, window=256)


def test_a_profile_whose_windows_hold_no_recall_is_refused():
    demo = PROFILES["demo"]
    for name in ("main", "lesson"):
        short = replace(demo.main, recipe=replace(demo.main.recipe, window=48))
        with pytest.raises(SettingError, match="window=48 holds no recall of 32 -> 32"):
            replace(demo, **{name: short})


def test_published_sizes_are_a_profiles_own_wish():
    t4, other = PROFILES["t4"], replace(PROFILES["t4"], published_sizes=False)
    assert t4.recipe("cosine").steps == 14_950
    assert other.recipe("cosine").steps == 10 * t4.main.recipe.steps, "whatever the size of its model"


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
    assert (t4.corpus, t4.main.excerpt, t4.main.full_vocab) == ("tinyshakespeare", None, True)
    recipe = t4.main.recipe
    assert recipe.accumulation == 1, "a T4 holds the step's 8,192 tokens at once"
    assert round(recipe.steps * recipe.batch_size * recipe.window / 338_024) == 80
    exposure = 80 * 64 / recipe.window  # how often a token is read near a window's start: 12.8 gave 96 %, 25.6 98.8 %
    assert exposure >= 20


def test_a_promise_is_kept_by_a_run_that_is_recorded():
    assert PROFILES["demo"].measured
    assert PROFILES["demo"].measured == bool(recorded("demo-*"))
    assert PROFILES["t4"].measured == bool(recorded("t4-*")), "a recorded run makes its figures a promise"
