"""Checkpoints: whole or absent, read back bit for bit, and never somebody else's."""

import json
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file

from helpers.base import files, folders
from helpers.checkpoint import CheckpointError, load_weights, read_meta
from helpers.model import GPT
from helpers.train import load_checkpoint, save_checkpoint
from tests.conftest import tiny_gpt, tiny_trainer


@pytest.fixture
def saved(tmp_path):
    model = tiny_gpt(seed=3)
    return model, save_checkpoint(tmp_path / "run" / "checkpoint", model, {"window": 8}, {"step": 1})


def test_a_checkpoint_is_read_back_bit_for_bit(saved):
    model, folder = saved
    again, meta = load_checkpoint(folder, GPT)
    assert meta["window"] == 8
    assert again.config == model.config
    assert not again.training
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_the_folder_holds_safetensors_json_and_nothing_else_to_share(saved):
    model, folder = saved
    assert sorted(p.name for p in folder.iterdir()) == ["meta.json", "model.safetensors", "training.pt"]
    names = set(load_file(folder / "model.safetensors"))
    assert names == {name for name, _ in model.named_parameters()}  # the tied table once
    assert "lm_head.weight" not in names


def test_saving_again_replaces_the_whole_folder(saved):
    _, folder = saved
    other = tiny_gpt(seed=4)
    save_checkpoint(folder, other, {"window": 16})
    again, meta = load_checkpoint(folder, GPT)
    assert meta["window"] == 16
    assert not (folder / "training.pt").exists()
    assert torch.equal(again.lm_head.weight, other.lm_head.weight)
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("struck", ["while writing", "between the moves"])
def test_a_kill_while_saving_leaves_a_readable_checkpoint(saved, struck):
    model, folder = saved
    aside, previous = (folder.with_name(f"checkpoint.{role}") for role in ("partial", "previous"))
    shutil.copytree(folder, aside)
    (aside / "model.safetensors").write_bytes(b"half")
    if struck == "between the moves":
        folder.rename(previous)
    again, _ = load_checkpoint(folder, GPT)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    save_checkpoint(folder, tiny_gpt(seed=5), {})
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


def test_on_colabs_drive_nothing_with_bytes_in_it_goes_to_the_bin(saved, tmp_path, monkeypatch):
    model, folder = saved
    thrown_away = []
    delete = shutil.rmtree

    def to_the_bin(path, **how):
        thrown_away.extend((file.name, file.stat().st_size) for file in path.glob("*"))
        delete(path, **how)

    monkeypatch.setattr(files, "DRIVE", tmp_path)
    monkeypatch.setattr(folders.shutil, "rmtree", to_the_bin)
    save_checkpoint(folder, model, {"window": 9})
    assert sorted(thrown_away) == [("meta.json", 0), ("model.safetensors", 0), ("training.pt", 0)]
    assert load_checkpoint(folder, GPT)[1]["window"] == 9


def test_a_full_disk_keeps_the_last_checkpoint(saved):
    model, folder = saved
    most, most_possible = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most_possible))
    try:
        with pytest.raises(CheckpointError) as full:
            save_checkpoint(folder, tiny_gpt(seed=9), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most_possible))
    assert str(full.value).startswith("cannot write the checkpoint")
    assert "the last checkpoint is untouched" in str(full.value)
    again, _ = load_checkpoint(folder, GPT)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


def damage(folder, how):
    weights, meta = folder / "model.safetensors", folder / "meta.json"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "not weights":
        weights.write_bytes(b"PK\x03\x04 a zip file of something else")
    elif how == "no weights":
        weights.unlink()
    elif how == "damaged meta":
        meta.write_text(meta.read_text()[:20])
    elif how == "meta of something else":
        meta.write_text("[]")
    elif how == "no meta":
        meta.unlink()
    elif how == "other shape":
        content = json.loads(meta.read_text())
        content["config"]["n_embd"] = 32
        meta.write_text(json.dumps(content))
    elif how == "other kind":
        meta.write_text(json.dumps({"config": {"d_model": 12}}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "is damaged"),
        ("not weights", "is damaged"),
        ("no weights", "no checkpoint of this series"),
        ("damaged meta", "is damaged"),
        ("meta of something else", "is damaged"),
        ("no meta", "no checkpoint of this series"),
        ("other shape", "belongs to another model"),
        ("other kind", "holds no GPT configuration"),
    ],
)
def test_a_wrong_checkpoint_is_refused(saved, how, message):
    _, folder = saved
    damage(folder, how)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder, GPT)


def test_what_a_reader_needs_of_meta_must_be_there(saved):
    _, folder = saved
    assert read_meta(folder, needs=("config",))
    with pytest.raises(CheckpointError, match=r"meta\.json lacks corpus, rows: no run of this series wrote it"):
        read_meta(folder, needs=("corpus", "config", "rows"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", r"training\.pt is damaged"),
        ("something else", r"training\.pt is damaged"),
        ("a list", r"training\.pt is damaged \(no dictionary\)"),
        ("absent", r"cannot be resumed: it has no training\.pt; start over with --fresh"),
        ("without moments", r"training\.pt lacks optimizers: no run of this series wrote it"),
    ],
)
def test_a_wrong_training_state_is_refused(tmp_path, tokens, how, message):
    trainer = tiny_trainer(tokens)
    folder = save_checkpoint(tmp_path / "c", trainer.model, {}, trainer.training_state())
    file = folder / "training.pt"
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-200])
    elif how == "something else":
        file.write_bytes(b"GIF89a")
    elif how == "absent":
        file.unlink()
    else:
        rest = {name: value for name, value in trainer.training_state().items() if name != "optimizers"}
        torch.save([] if how == "a list" else rest, file)
    with pytest.raises(CheckpointError, match=message):
        trainer.resume(folder)


def test_weights_of_another_model_are_refused_by_name(saved):
    _, folder = saved
    with pytest.raises(CheckpointError, match=r"belongs to another model[^$]*h\.2"):
        load_weights(folder, tiny_gpt(n_layer=3))


def test_no_checkpoint_says_which_notebook_makes_one(tmp_path):
    with pytest.raises(CheckpointError, match=r"04_overfitting.*python -m helpers train"):
        load_checkpoint(tmp_path / "nowhere", GPT)
