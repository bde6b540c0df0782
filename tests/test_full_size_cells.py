"""Cells of the notebooks that do something else at full size, run with a stand-in for what they need."""

import math
from types import SimpleNamespace

import nbformat
import pytest
import torch
from transformers import GPT2LMHeadModel

from helpers.base.files import ROOT
from helpers.config import PROFILES, GPTConfig
from helpers.data import gpt2_tokenizer
from helpers.interop import to_huggingface
from helpers.model import GPT
from helpers.runtime import Runtime
from helpers.serve.decoding import FORMATS


def cell(name: str) -> str:
    """The source of a cell, by its id."""
    (path,) = (ROOT / "notebooks").glob(f"{name[:2]}_*.ipynb")
    return next(c.source for c in nbformat.read(path, as_version=4).cells if c.id == name)


@pytest.mark.parametrize(
    ("large", "device", "length", "places", "where"),
    [
        (False, "cpu", 90_000, 200, "as served"),
        (True, "cpu", 4096, 100, "as served"),
        (True, "cuda", 90_000, 200, "cuda"),
        (True, "cuda of a T4", 32_768, 200, "cuda"),
    ],
)
def test_notebook_08_measures_a_large_model_where_it_takes_no_hours(capsys, large, device, length, places, where):
    picked = Runtime(torch.device(device.split()[0]), torch.float16 if "T4" in device else torch.bfloat16, ())
    asked = []
    model = SimpleNamespace(config=SimpleNamespace(large=large), to=lambda device: str(device))
    names = {
        "model": model,
        "FORMATS": FORMATS,
        "torch": torch,
        "tokens": torch.zeros(90_000),
        "window": 256,
        "for_decoding": lambda m, _: "as served" if m is model else m,
        "pick_runtime": lambda **_: picked,
        "measure": lambda m, tokens, _, places: asked.append((m, len(tokens), places)),
    }
    exec(cell("08-22"), names)
    assert asked == [(where, length, places)] * 3
    said = capsys.readouterr().out
    assert (f"the first {length:,} of 90,000 tokens" in said) == (length < 90_000)


def real_gpt2(capsys) -> str:
    """What notebook 03's optional cell says."""
    names = {"torch": torch, "gpt2_tokenizer": gpt2_tokenizer, "GPT2LMHeadModel": GPT2LMHeadModel}
    exec(cell("03-55"), names)
    exec(cell("03-56"), names)
    return capsys.readouterr().out


def test_notebook_03_lets_a_gpt2_of_a_folder_speak(tmp_path, monkeypatch, capsys):
    model = GPT(GPTConfig(block_size=64, n_layer=2, n_head=2, n_embd=32))
    monkeypatch.setenv("GPT2_FOLDER", str(to_huggingface(model, tmp_path)))
    parity, text = real_gpt2(capsys).split("\n", 1)
    assert float(parity.split()[-3]) < 1e-5
    assert text.startswith("The book fell into the river")


def test_notebook_03_goes_on_without_gpt2s_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GPT2_FOLDER", str(tmp_path))
    assert real_gpt2(capsys).startswith("These weights cannot be used: ")
    monkeypatch.delenv("GPT2_FOLDER")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "set GPT2_FOLDER to a folder that has them" in real_gpt2(capsys)


def test_notebook_02_goes_on_with_the_best_of_its_ten_measurements():
    model, losses = torch.nn.Linear(1, 1), iter([3.0, 2.0, 1.7, 1.5, 1.4, 1.3, 1.35, 1.5, 1.6, 1.7, 1.3])

    def steps():
        for number in range(1, 21):
            torch.nn.init.constant_(model.weight, number)
            yield SimpleNamespace(number=number)

    def corpus_loss(_, part, __):
        return SimpleNamespace(mean=next(losses) if part == "val" else 1.0)

    class Text(str):
        def __getitem__(self, _):
            return self

    names = {
        "model": model,
        "trainer": SimpleNamespace(steps=steps),
        "recipe": SimpleNamespace(steps=20, window=8),
        "corpus_loss": corpus_loss,
        "train": Text("train"),
        "val": Text("val"),
        "stretch": 5,
        "log": [],
        "curve": [],
        "best": float("inf"),
        "math": math,
    }
    exec(cell("02-52"), names)
    assert model.weight.item() == 12, "the sixth measurement was the best"
    assert len(names["curve"]) == 10


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("07-58", "the opening is recited"),
        ("08-58", "bf16 and int8 keep the memory"),
        ("06-58", "Muon in 100 steps is below"),
        ("05-58", "recall 32 -> 32 from at least"),
        ("05-58", "the share found is that of order 4"),
        ("04-58", "whole-corpus loss below"),
        ("04-58", "one batch goes to zero"),
        ("02-58", "validation loss at or below"),
    ],
)
def test_what_training_reached_is_promised_only_where_it_was_measured(name, reached):
    source = cell(name)
    call = source[source.rindex("verdict(") :]
    assert call.endswith("profile.measured))")
    assert reached in (source[source.index("reached = ") :] if "reached = " in source else call)
    assert not PROFILES["t4"].measured
