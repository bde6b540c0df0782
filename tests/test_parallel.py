"""Two processes take the steps of one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import torch

from helpers.base.files import ROOT
from helpers.base.group import Group
from helpers.checkpoint import read_meta
from helpers.run import processes
from helpers.run.log import read_log
from tests.commands import Process, Torchrun
from tests.conftest import tiny_trainer

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
TRAIN = ["train", "--device", "cpu", "--excerpt", "4000", "--save-every", "4", "--set", "batch_size=4", "window=48"]


def torchrun(processes: int, folder, *more: str) -> str:
    """What a run prints that is started as a reader starts it."""
    line = [*TORCHRUN, str(processes), "-m", "helpers", *TRAIN, "--out", str(folder), *more]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=ROOT, env=one_thread, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(processes: int, folder, *more: str) -> Torchrun:
    """The same without the seconds of three interpreters that import torch."""
    return Torchrun(folder.with_suffix(".txt"), processes, *TRAIN, "--out", folder, *more)


def one_process(folder, *more: str) -> str:
    """What a run prints that torchrun has no part in."""
    run = Process(folder.with_suffix(".txt"), *TRAIN, "--out", folder, *more, threads=1)
    assert run.wait() == 0, run.text()
    return run.text()


def losses(folder) -> list[float]:
    return [row["loss"] for row in read_log(folder / "log.csv")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, two parts a step."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    one_process(folder, "--steps", "12", "--set", "accumulation=2", "batch_size=4", "window=48")
    return folder


def test_two_processes_have_the_losses_of_one_with_accumulation(alone, tmp_path):
    out = torchrun(2, tmp_path / "run", "--steps", "12")
    assert "2 processes share the 4 windows of a step" in out
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), abs=1e-5)
    measured = [dict(read_meta(folder / "checkpoint")["whole_corpus"]) for folder in (alone, tmp_path / "run")]
    assert measured[1] == pytest.approx(measured[0], abs=1e-5), "both processes measure, each its share of the windows"
    assert json.loads((tmp_path / "run/run.json").read_text())["environment"]["processes"] == 2


def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path):
    folder = tmp_path / "run"
    victim = start(2, folder, "--steps", "12")
    while victim.poll() is None and not (folder / "checkpoint").exists():
        time.sleep(0.01)
    victim.send_signal(signal.SIGTERM)  # torchrun hands it on
    assert victim.wait(timeout=120) != 0, victim.text()
    out = one_process(folder, "--steps", "12", "--resume")
    assert re.search(r"resumed after step \d+.*resumed: processes was 2 and is 1", out, flags=re.S)
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-3), "sums in another order, amplified step by step"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_run_with_one_message_and_a_checkpoint(tmp_path, rank):
    folder = tmp_path / "run"
    run = start(2, folder, "--steps", "30")
    while run.poll() is None and not (folder / "checkpoint").exists():
        time.sleep(0.01)
    os.kill(run.pid(rank), signal.SIGKILL)
    assert run.wait(timeout=180) != 0
    assert run.text().count("error: a process of this run is gone") == 1, run.text()
    rest = one_process(folder, "--steps", "30", "--resume")
    assert "resumed after step" in rest
    assert len(losses(folder)) == 30
    assert [a - b for a, b in pairwise(r["step"] for r in read_log(folder / "log.csv"))] == [-1] * 29


def test_more_processes_than_windows_are_refused(tokens):
    with pytest.raises(ValueError, match="5 processes cannot share the 4 windows"):
        tiny_trainer(tokens, group=Group(rank=0, world=5))


@pytest.mark.parametrize("rank", ["0", "1"])
def test_more_processes_than_gpus_are_refused_in_each(monkeypatch, rank):
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "pick_device", lambda _: (torch.device("cuda"), "cuda: pretended"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="more processes than the 1 GPUs here: --nproc-per-node 1"):
        processes.join()
