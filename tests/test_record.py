"""What a run leaves for others to read."""

from dataclasses import replace

import pytest

from helpers.base.files import ROOT, read_json, write_json
from helpers.checkpoint import CheckpointError
from helpers.config import pick_profile
from helpers.data import load_corpus
from helpers.run import report
from helpers.run.experiment import describe, new_trainer, tokenize
from helpers.run.log import RunLog
from helpers.run.report import describe_run, record_run, recorded, write_samples
from helpers.run.session import Session
from helpers.tools import cli as program
from helpers.train import Step
from tests.commands import command
from tests.conftest import tiny_gpt, tiny_trainer


def finished(folder):
    log = RunLog(folder / "log.csv")
    log.append(Step(1, 0.5, 1e-3, 1.0, 0.25, 100))
    write_json(folder / "run.json", {"seed": 1})
    write_json(folder / "metrics.json", {"steps": 1, "loss_grid": 0.25})
    (folder / "samples.txt").write_text("said")
    return folder


def test_a_finished_run_is_copied_without_its_weights_and_read_back(tmp_path, monkeypatch):
    run = finished(tmp_path / "run")
    (run / "checkpoint").mkdir()
    monkeypatch.setattr(report, "ROOT", tmp_path)
    assert record_run(run, tmp_path / "data/runs/mine").endswith("mine: 1 steps, loss on the grid 0.2500")
    assert sorted(p.name for p in (tmp_path / "data/runs/mine").iterdir()) == sorted(report.FILES)
    (found,) = recorded("m*").values()
    assert found["run"] == {"seed": 1}
    assert found["metrics"]["loss_grid"] == 0.25
    assert found["log"][0]["loss"] == 0.5
    assert recorded("other") == {}


def test_a_run_made_as_notebook_04_makes_it_is_recorded(tmp_path, monkeypatch):
    """No command line: `describe`, `Session`, `begin`, `run`, `report`."""
    profile, corpus = pick_profile("demo"), load_corpus("sample")
    main = replace(profile.main, recipe=replace(profile.main.recipe, steps=1, window=48))  # too short for a recall
    data = tokenize(main, corpus)
    trainer = new_trainer(main, data, 1)
    meta = describe(profile, data, trainer)
    session = Session(trainer, data.tokens, tmp_path / "run", meta, profile.target, lambda _: None)
    session.begin(fresh=True)
    session.run()
    session.report()
    monkeypatch.setattr(program, "ROOT", tmp_path)
    done = command("record", tmp_path / "run", "mine.1")
    assert done.stdout.startswith(f"{tmp_path / 'data/runs/mine.1'}: 1 steps, loss on the grid "), done.stderr
    samples = (tmp_path / "data/runs/mine.1/samples.txt").read_text(encoding="utf-8")
    assert samples.startswith(f"=== temperature 0, prompt {data.text.splitlines()[0] + chr(10)!r}\n")
    assert read_json(tmp_path / "data/runs/mine.1/run.json")["recipe"]["steps"] == 1


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", "", "/tmp/x", "-x", "ein mal"])
def test_a_record_has_the_name_of_a_record(tmp_path, monkeypatch, name):
    monkeypatch.setattr(program, "ROOT", tmp_path)
    done = command("record", finished(tmp_path / "run"), "--", name)
    assert done.returncode == 2
    assert "letters, digits, dots and dashes" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_is_not_finished_is_not_recorded(tmp_path):
    run = finished(tmp_path / "run")
    (run / "metrics.json").unlink()
    with pytest.raises(CheckpointError, match=r"no finished run: it has no metrics\.json"):
        record_run(run, tmp_path / "record")
    assert not (tmp_path / "record").exists()


def test_a_run_says_what_it_ran_on_and_how(tokens):
    trainer = tiny_trainer(tokens)
    said = describe_run(trainer, {"recipe": "own", "rows": [3, 1], "seed": 5})
    assert said["rows"] == 2
    assert said["recipe"]["name"] == "own"
    assert said["recipe"]["batch_size"] == trainer.micro_batch == said["environment"]["micro_batch"]
    assert said["config"]["n_embd"] == 16
    assert "threads of " in said["environment"]["hardware"]
    assert said["environment"]["dtype"] == "float32"
    assert describe_run(trainer, {"recipe": "own", "rows": None})["rows"] == "all"


def test_samples_begin_with_the_books_first_line_and_repeat(tmp_path, gpt2):
    model = tiny_gpt(vocab_size=50257)
    for name in ("a", "b"):
        write_samples(tmp_path / name, model, gpt2, "First Citizen:\nBefore we proceed", window=16)
    first = (tmp_path / "a").read_text(encoding="utf-8")
    assert first.startswith("=== temperature 0, prompt 'First Citizen:\\n'\nFirst Citizen:\n")
    assert first == (tmp_path / "b").read_text(encoding="utf-8")
    assert first.count("=== temperature") == 2 * (1 + len(report.PROMPTS))


def test_what_is_recorded_here_is_whole_and_small():
    for folder in (ROOT / "data/runs").iterdir():
        if folder.is_dir() and folder.name != "sick":  # which tests/test_diagnose.py reads
            assert sorted(p.name for p in folder.iterdir()) == sorted(report.FILES), folder
            assert sum(p.stat().st_size for p in folder.iterdir()) < 2**20, folder
    assert recorded()
