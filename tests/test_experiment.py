"""A notebook that is opened alone finds a trained model, or trains one."""

from dataclasses import replace

import pytest
import torch

from helpers.base.files import read_json
from helpers.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from helpers.config import PROFILES, Experiment, GPTConfig, Recipe
from helpers.model import GPT
from helpers.run.experiment import trained
from helpers.run.session import Session
from tests.conftest import same, tiny_gpt

SMALL = GPTConfig(block_size=128, n_layer=1, n_head=2, n_embd=16)
BRIEF = Experiment(SMALL, Recipe(steps=2, window=128, batch_size=2), excerpt=2000, full_vocab=False)
DEMO = replace(PROFILES["demo"], main=BRIEF)


def test_where_there_is_no_model_a_small_one_is_trained_once_and_said_so(tmp_path):
    said = []
    torch.manual_seed(3)
    model, meta = trained(DEMO, tmp_path / "gpt", said.append)
    drawn = torch.rand(4)
    assert said[0] == f"No trained model in {tmp_path / 'gpt'} yet: notebook 04's main run comes first."
    assert (meta["profile"], meta["corpus"], meta["window"], meta["step"]) == ("demo", "sample", 128, 2)
    assert meta["seed"] == 1337, "as notebook 04 has it"
    assert read_json(tmp_path / "gpt/metrics.json")["steps"] == 2
    said.clear()
    torch.manual_seed(3)
    again, _ = trained(DEMO, tmp_path / "gpt", said.append)
    assert said == []
    assert torch.equal(torch.rand(4), drawn), "what a notebook draws afterwards is what it always draws"
    assert same(model.parameters(), again.parameters())


def test_a_training_that_is_stopped_is_not_taken_for_a_trained_model(tmp_path, monkeypatch):
    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "report", stopped)
    with pytest.raises(KeyboardInterrupt):
        trained(DEMO, tmp_path / "gpt", lambda _: None)
    assert not (tmp_path / "gpt").exists()


def test_a_run_without_a_best_model_yet_is_not_thrown_away(tmp_path):
    (tmp_path / "gpt").mkdir()
    checkpoint = save_checkpoint(tmp_path / "gpt/checkpoint", tiny_gpt(), {"step": 1500})
    with pytest.raises(CheckpointError, match=r"has not come as far as a model to use: go on with .* --resume"):
        trained(DEMO, tmp_path / "gpt", pytest.fail)
    assert load_checkpoint(checkpoint, GPT)[1]["step"] == 1500


def test_a_large_model_is_not_trained_by_the_way(tmp_path):
    with pytest.raises(CheckpointError, match=r"04_overfitting.*On Colab every notebook has a machine of its own"):
        trained(PROFILES["t4"], tmp_path / "gpt", pytest.fail)
    assert not (tmp_path / "gpt").exists()
