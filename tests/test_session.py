"""A run from the command line: logged, measured, saved; stopped, killed, refused, and gone on with."""

import json
import os
import random
import re
import shutil
import signal
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from helpers.base import files
from helpers.base.errors import LostError, StoppedError
from helpers.base.files import PlaceError
from helpers.base.group import Group
from helpers.checkpoint import has_checkpoint, read_meta
from helpers.config import PROFILES, GPTConfig
from helpers.model import GPT
from helpers.run.evaluation import Evaluation
from helpers.run.log import read_log
from helpers.run.preflight import RefusedError, forecast
from helpers.run.session import Session
from helpers.run.signals import stopped_by_signals
from helpers.tools.cli import parser
from helpers.train import load_checkpoint
from tests.commands import Done, Process, command
from tests.conftest import same, tiny_trainer

BYTES = list(range(256))  # GPT-2's first ids: a vocabulary that can write anything


def session(folder, tokens, trainer=None, target=0.1, **changes) -> Session:
    meta = {"profile": "tiny", "recipe": "own", "sha256": "of nothing", "excerpt": None, "rows": BYTES}
    said: list[str] = []
    new = Session(trainer or trainer_of_bytes(tokens, steps=40), tokens, folder, meta, target, said.append, **changes)
    new.said = said
    return new


def trainer_of_bytes(tokens, **changes):
    return tiny_trainer(tokens, vocab_size=256, **changes)


# --- the command line, killed --------------------------------------------------------------------------------------


def line(folder, *more: str) -> list[str]:
    """A fifth of the scene, measured every second step; in short windows, of which a report measures no recall."""
    short = ["--excerpt", "4000", "--set", "batch_size=4", "window=48"]
    return ["train", "--device", "cpu", "--steps", "24", "--save-every", "6", *short, "--out", str(folder), *more]


def train(folder, *more: str) -> Done:
    return command(*line(folder, *more))


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    done = train(folder)
    assert done.returncode == 0, done.stderr
    return folder


def rows_in(folder) -> int:
    return len(read_log(folder / "log.csv")) if (folder / "log.csv").exists() else 0


def test_a_finished_run_is_not_overwritten_unasked(calm):
    again = train(calm)
    assert again.returncode != 0
    assert again.stderr.startswith("error: ")
    assert "--resume" in again.stderr
    assert "Traceback" not in again.stderr
    assert rows_in(calm) == 24


def test_a_run_is_whole_corpus_measured_and_reported(calm):
    metrics = json.loads((calm / "metrics.json").read_text())
    assert metrics["steps"] == 24
    assert metrics["tokens"] == 1218
    _, meta = load_checkpoint(calm / "checkpoint", GPT)
    steps = [step for step, _ in meta["whole_corpus"]]
    assert steps == list(range(2, 25, 2))
    losses = [loss for _, loss in meta["whole_corpus"]]
    assert all(b < a for a, b in pairwise(losses))
    assert losses[-1] == max(metrics["loss_grid"], metrics["loss_shift_half"])


def test_a_kill_between_the_two_moves_of_a_save_loses_nothing(calm, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(calm, folder)
    (folder / "checkpoint").rename(folder / "checkpoint.previous")
    unasked = train(folder)
    assert "--resume" in unasked.stderr
    (folder / "checkpoint").rename(folder / "checkpoint.previous")
    resumed = train(folder, "--resume")
    assert "resumed after step 24" in resumed.stdout, resumed.stderr
    assert rows_in(folder) == 24


def test_fresh_replaces_a_run_and_nothing_else(calm, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(calm, folder)
    (folder / "notes.txt").write_text("mine")
    wrong = train(folder, "--fresh", "--corpus", "/no/such")
    assert "no corpus" in wrong.stderr
    assert rows_in(folder) == 24
    fresh = train(folder, "--fresh", "--steps", "2")
    assert fresh.returncode == 0, fresh.stderr
    assert rows_in(folder) == 2
    assert (folder / "notes.txt").read_text() == "mine"


def logged_since(folder, moment: float) -> bool:
    log = folder / "log.csv"
    return log.exists() and log.stat().st_mtime > moment


def test_ten_kills_in_one_run_change_no_bit(calm, tmp_path):
    """SIGKILL or SIGTERM, ten times, each at a random moment after the last start has taken a step."""
    folder, seed = tmp_path / "run", random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)  # of the moments, so that a failure names what to repeat
    kills, struck, steps = [], [], 0
    while len(kills) < 10:
        start = [] if not kills else ["--resume"]
        began = time.time()
        victim = Process(tmp_path / "out.txt", *line(folder, *start, "--save-every", "1"))
        while victim.poll() is None and not (logged_since(folder, began) and rows_in(folder) > min(steps, 22)):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))
        kills.append(rng.choice((signal.SIGKILL, signal.SIGTERM)))
        victim.send_signal(kills[-1])
        code = victim.wait()
        assert code in (-signal.SIGKILL, 128 + signal.SIGTERM, 0), f"seed {seed}: {victim.text()}"
        if code == 128 + signal.SIGTERM:
            assert re.search(r"told to stop after step \d+: saved in .*, --resume goes on", victim.text())
        if has_checkpoint(folder / "checkpoint"):  # else the kill came before the first was finished
            steps = load_checkpoint(folder / "checkpoint", GPT)[1]["step"]
        struck.append(code != 0)
    assert sum(struck) >= 8, f"seed {seed}: a run that has ended cannot be killed"
    done = train(folder, "--resume")
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    ours, theirs = (load_checkpoint(f / "checkpoint", GPT)[0].parameters() for f in (folder, calm))
    assert same(ours, theirs), f"seed {seed}"
    logs = [read_log(f / "log.csv") for f in (folder, calm)]
    assert [row["step"] for row in logs[0]] == list(range(1, 25))
    for column in ("loss", "avg_loss", "best_loss", "lr", "grad_norm"):
        assert [row[column] for row in logs[0]] == [row[column] for row in logs[1]], f"seed {seed}: {column}"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "window=16"], r"loss of 0\.1 cannot be reached with offset windows of 16 tokens.* --force"),
        (["--set", "batch=4"], r"--set batch=4: 'batch' is none of steps, window"),
        (["--set", "lr=-1"], r"lr=-1 must be positive"),
        (["--set", "lr=fast"], r"--set lr=fast: lr is of type float"),
        (["--set", "batch_size=16.0"], r"--set batch_size=16\.0: batch_size is of type int"),
        (["--set", "zero_residual=no"], r"zero_residual is of type bool"),
        (["--set", "policy=pages"], r"policy='pages' is none of grid, offset, random"),
        (["--set", "window=256"], r"window=256 is longer than the model's context, block_size=128"),
        (["--force", "--set", "window=1"], r"window=1 must be at least 2"),
        (["--set", "betas=(5, 9)"], r"betas=\(5, 9\) must be two numbers, 0 <= beta < 1"),
        (["--set", "weight_decay=-1"], r"weight_decay=-1 must not be negative"),
        (["--seed", str(2**70)], r"seed=1180591620717411303424 must lie between 0 and"),
        (["--device", "cuda:7"], r"device 'cuda:7' cannot be used here"),
    ],
)
def test_what_cannot_work_is_refused_before_it_begins(tmp_path, more, says):
    done = train(tmp_path / "run", *more)
    assert done.returncode == 1
    assert re.fullmatch(rf"error: .*{says}.*\n", done.stderr, flags=re.S), done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["train", "--save-seconds", "nan"], "nan must be 0 or above"),
        (["train", "--save-seconds", "-1"], "-1 must be 0 or above"),
        (["train", "--budget", "nan"], "nan must be above 0"),
        (["demo", "--port", "70000"], "70000 is no port: 1 to 65535"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_by_the_parser(capsys, command, says):
    with pytest.raises(SystemExit):
        parser().parse_args(command)
    assert says in capsys.readouterr().err


def test_what_is_refused_can_be_forced(tmp_path):
    done = train(
        tmp_path / "run",
        "--force",
        "--steps",
        "3",
        "--recipe",
        "small",
        "--set",
        "window=8",
        "grad_clip=1",
        "zero_residual=true",
        "beta1_range=none",
        "betas=(0.8, 0.9)",
    )
    assert done.returncode == 0, done.stderr
    assert rows_in(tmp_path / "run") == 3
    text = (tmp_path / "run/metrics.json").read_text()
    assert json.loads(text)["recall_50_50"] is None, "8 tokens hold no recall of 50 -> 50"
    assert "NaN" not in text, "no JSON"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_saves_as_sigterm_does_and_the_second_ends_at_once(tokens, tmp_path, number, code):
    run, before = session(tmp_path, tokens), signal.getsignal(number)
    run.begin()
    told = pytest.raises(StoppedError, match=r"told to stop after step 1: saved in .*, --resume goes on")
    with told as stopped, stopped_by_signals(partial(setattr, run, "told_to_stop"), alone=True):
        signal.raise_signal(number)  # the step is finished first
        assert signal.getsignal(number) == signal.SIG_DFL, "the second time it is not asked"
        run.run()
    assert 128 + stopped.value.told_by == code
    assert read_meta(tmp_path / "checkpoint")["step"] == 1
    assert signal.getsignal(number) == before, "whoever called has Ctrl-C back"


def test_ctrl_c_is_one_message_and_its_exit_code(tmp_path):
    run = Process(tmp_path / "out.txt", *line(tmp_path / "run", "--steps", "5000"))
    while run.poll() is None and not rows_in(tmp_path / "run"):
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    assert run.wait() == 130, run.text()
    assert run.text().count("told to stop after step") == 1
    assert "Traceback" not in run.text()


def test_only_a_lost_process_is_told_as_one(tokens, tmp_path, monkeypatch):
    """With several processes too: what is no error of torch.distributed keeps its own words."""
    lost = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1"
    for error, told in (
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
        (RuntimeError(lost), LostError),
        (dist.DistBackendError("NCCL communicator was aborted"), LostError),
        (dist.DistBackendError("ncclUnhandledCudaError: illegal memory access"), dist.DistBackendError),
        (RuntimeError("[/gloo/transport/tcp/pair.cc:446] op.preamble.length <= op.nbytes. 16 vs 8"), RuntimeError),
    ):
        run = session(tmp_path, tokens)
        run.trainer.group = Group(rank=0, world=2)
        run.begin(fresh=True)

        def fail(error=error):
            raise error

        monkeypatch.setattr(run, "_run", fail)
        with pytest.raises(RuntimeError) as caught:
            run.run()
        assert type(caught.value) is told
        assert caught.value is error or caught.value.__cause__ is error


def test_a_mistake_of_ours_keeps_its_traceback_and_says_so(tmp_path, monkeypatch):
    def broken(*_):
        raise ValueError("too many values to unpack (expected 2)")

    monkeypatch.setattr(Session, "run", broken)
    done = train(tmp_path / "run")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "in broken" in done.stderr
    assert "ValueError: too many values to unpack" in done.stderr
    assert done.stderr.endswith("a mistake in the series, not in what you asked for: please report the lines above\n")


def test_a_disk_that_fills_up_in_a_run_is_one_clear_error(tokens, tmp_path):
    run = session(tmp_path, tokens)
    run.begin()
    run.log.path = Path("/dev/full")
    with pytest.raises(PlaceError, match=r"cannot write /dev/full \(.*No space left.*\): free some space"):
        run.run()


def test_what_the_system_refuses_is_no_mistake_of_ours(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path / "run"))

    monkeypatch.setattr(Session, "begin", refused)
    done = train(tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr == f"error: [Errno 13] Permission denied: '{tmp_path / 'run'}'\n"


# --- the same, without the command line ----------------------------------------------------------------------------


def test_a_run_over_its_budget_stops_after_twenty_steps_and_is_saved(tokens, tmp_path):
    run = session(tmp_path, tokens, budget=1e-6)
    run.begin()
    with pytest.raises(RefusedError, match=r"tokens/s, MFU .*over the budget of 1e-06 minutes"):
        run.run()
    assert read_meta(tmp_path / "checkpoint")["step"] == 20
    on = session(tmp_path, tokens)
    on.begin(resume=True)
    on.run()
    assert on.said == ["resumed after step 20"]
    assert [row["step"] for row in on.log.rows] == list(range(1, 41))


def test_a_run_may_end_at_its_target(tmp_path):
    pattern = torch.arange(12).repeat(10)
    trainer = trainer_of_bytes(pattern, steps=400, stop_at_target=True)
    run = session(tmp_path, pattern, trainer, target=0.5)
    run.begin()
    run.run()
    assert trainer.steps_done < 400
    assert run.measured[trainer.steps_done] < 0.5 < min([*run.measured.values()][:-1])
    assert run.report()["first below 0.5: whole corpus"] == trainer.steps_done

    again = session(tmp_path, pattern, trainer_of_bytes(pattern, steps=400, stop_at_target=True), target=0.5)
    again.begin(resume=True)
    again.run()
    assert again.trainer.steps_done == trainer.steps_done, "what has reached its target goes no further"


def test_a_loop_of_ones_own_does_what_run_does(tmp_path):
    """As notebook 04 writes it: the same log, the same measurements, the same checkpoints, to the last bit."""
    pattern = torch.arange(12).repeat(10)
    runs = {}
    for name in ("run", "loop"):
        trainer = trainer_of_bytes(pattern, steps=400, stop_at_target=True)
        runs[name] = session(tmp_path / name, pattern, trainer, target=0.5)
        runs[name].begin()
    runs["run"].run()
    loop = runs["loop"]
    every = loop.evaluation.every()
    for step in loop.steps():
        loop.record(step)
        if step.number % every == 0 or step.number == loop.trainer.recipe.steps:
            loss = loop.evaluate()
            if loop.evaluation.best() == step.number:
                loop.save("best")
            if loss < 0.5:
                loop.stop()
        loop.save_if_due()
    assert list(loop.measured.items()) == list(runs["run"].measured.items())
    assert loop.trainer.steps_done < 400
    for column in ("step", "loss", "avg_loss", "grad_norm"):
        assert loop.log.column(column) == runs["run"].log.column(column)
    for kind in ("checkpoint", "best"):
        ours, theirs = (load_checkpoint(tmp_path / name / kind, GPT) for name in runs)
        assert same(ours[0].parameters(), theirs[0].parameters())
        assert ours[1] == theirs[1]


def test_the_best_model_is_kept_and_reported(tokens, tmp_path):
    """The rate is thrown up at the end, so that the last model is not the best."""
    trainer = trainer_of_bytes(tokens, steps=40, schedule="constant")
    run = session(tmp_path, tokens, trainer)
    run.begin()
    for optimizer in trainer.optimizers:
        optimizer.register_step_pre_hook(
            lambda optimizer, *_: optimizer.param_groups[0].update(lr=5.0) if trainer.steps_done >= 36 else None
        )
    run.run()
    best = min(run.measured, key=run.measured.get)
    assert best < 40
    assert read_meta(tmp_path / "best")["step"] == best
    assert read_meta(tmp_path / "checkpoint")["step"] == 40
    metrics = run.report()
    assert max(metrics["loss_grid"], metrics["loss_shift_half"]) == pytest.approx(run.measured[best], abs=1e-9)
    assert metrics["steps"] == 40


def test_a_nan_in_the_data_stops_the_run_and_keeps_the_last_good_checkpoint(tokens, tmp_path):
    def trainer_with(step: int | None):
        trainer = trainer_of_bytes(tokens, steps=12)
        embed = trainer.model.transformer.drop

        def poison(_, __, x):
            return x * float("nan") if trainer.model.training and trainer.steps_done == step else x

        embed.register_forward_hook(poison)
        return trainer

    calm, run = (session(tmp_path / f"{at}", tokens, trainer_with(at), save_every=3) for at in (None, 7))
    calm.begin()
    calm.run()
    run.begin()
    with pytest.raises(FloatingPointError, match=r"step 8: loss nan.*last checkpoint is of the steps before"):
        run.run()
    assert read_meta(tmp_path / "7/checkpoint")["step"] == 6
    mended = session(tmp_path / "7", tokens, trainer_with(None))
    mended.begin(resume=True)
    mended.run()
    assert same(mended.trainer.model.parameters(), calm.trainer.model.parameters())


def test_a_checkpoint_is_at_most_so_many_seconds_old(tokens, tmp_path):
    saved = []
    run = session(tmp_path, tokens, trainer_of_bytes(tokens, steps=6), save_seconds=0.0)
    run.save = lambda name: saved.append((name, run.trainer.steps_done)) if name == "checkpoint" else None
    run.begin()
    run.run()
    assert saved == [("checkpoint", step) for step in range(1, 7)]
    saved.clear()
    run = session(tmp_path, tokens, trainer_of_bytes(tokens, steps=6), save_seconds=60.0)
    run.save = lambda name: saved.append((name, run.trainer.steps_done)) if name == "checkpoint" else None
    run.begin()
    run.run()
    assert saved == [("checkpoint", 6)]


@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_damaged_or_foreign_checkpoint_is_refused_clearly(calm, tmp_path, damage):
    folder = tmp_path / "run"
    shutil.copytree(calm, folder)
    weights = folder / "checkpoint/model.safetensors"
    if damage == "truncated":
        os.truncate(weights, weights.stat().st_size // 2)
    else:
        meta = folder / "checkpoint/meta.json"
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"sha256": "of another text"}))
    done = train(folder, "--resume")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert ("is damaged" if damage == "truncated" else "is of another run") in done.stderr
    assert "Traceback" not in done.stderr
    assert rows_in(folder) == 24


def test_a_save_that_takes_long_is_made_seldom(tokens, tmp_path, monkeypatch):
    """Fifteen times what it took lies between two, so that a slow Drive costs a sixteenth of the run at most."""
    clock = iter(range(10**6))
    monkeypatch.setattr("helpers.run.session.time.perf_counter", lambda: float(next(clock)))
    run = session(tmp_path, tokens, save_seconds=2.0)
    assert run._due(3, saved_at=next(clock) - 2.0)
    run._save_took = 10.0
    assert not run._due(3, saved_at=next(clock) - 140.0)
    assert run._due(3, saved_at=next(clock) - 150.0)


def test_on_drive_the_log_grows_elsewhere_and_comes_with_the_checkpoint(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DRIVE", tmp_path / "drive")
    folder = tmp_path / "drive/MyDrive/run"
    run = session(folder, tokens, tiny_trainer(tokens, steps=12), save_every=5)
    run.begin()
    seen = []
    append = run.log.append
    run.log.append = lambda step: (append(step), seen.append(rows_in(folder)))
    run.run()
    assert seen == [0] * 5 + [5] * 5 + [10] * 2, "written with the checkpoint, not line by line"
    assert rows_in(folder) == 12
    assert run.said[-1].startswith("Google Drive is still uploading")
    on = session(folder, tokens, tiny_trainer(tokens, steps=12))
    on.begin(resume=True)
    assert [row["step"] for row in on.log.rows] == list(range(1, 13))
    assert on.log.path != folder / "log.csv"


def large(tokens, monkeypatch, tmp_path, **changes):
    monkeypatch.setattr(GPTConfig, "large", True)
    return session(tmp_path, tokens, tiny_trainer(tokens, **changes))


def test_a_large_models_measurements_cost_a_tenth_of_its_training():
    """Passes over the corpus, forward only, against three times as many operations in a training step."""
    t4 = PROFILES["t4"]
    for name in ("own", "constant", "cosine", "onecycle"):
        recipe = t4.recipe(name)
        fake = SimpleNamespace(recipe=recipe, model=SimpleNamespace(config=t4.main.gpt))
        evaluation = Evaluation(fake, torch.zeros(338_025), 0.1)
        at = [step for step in range(1, recipe.steps + 1) if evaluation.due(step)]
        passes = sum(1 + evaluation.in_full(step) for step in at)
        share = passes * 338_025 / 3 / (recipe.steps * recipe.batch_size * recipe.window)
        assert share <= 0.1, f"{name}: {share:.0%}"
        assert len(at) >= 10
        assert evaluation.in_full(recipe.steps)
        if name == "own":
            assert len(at) == 10


def test_a_large_model_is_measured_on_one_grid_until_the_last_quarter(tokens, monkeypatch, tmp_path):
    run = large(tokens, monkeypatch, tmp_path, steps=40, batch_size=64)
    asked = []
    monkeypatch.setattr(
        "helpers.run.evaluation.whole_corpus_loss", lambda *given: asked.append(given[3]) or 1.0 / len(asked)
    )
    run.begin()
    run.run()
    assert list(run.measured) == list(range(4, 41, 4))
    assert asked == [run.target] * 7 + [None] * 3
    assert read_meta(tmp_path / "best")["step"] == 40


def test_the_best_of_a_large_model_is_one_that_was_measured_in_full(tokens, monkeypatch, tmp_path):
    run = large(tokens, monkeypatch, tmp_path, steps=40)
    run.measured.update({8: 0.2, 24: 0.1})
    assert run.evaluation.best() == 24
    run.measured.update({32: 0.3, 36: 0.2, 40: 0.25})
    assert run.evaluation.best() == 36


def test_the_first_steps_foretell_the_report_and_the_saves_too(tokens, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("helpers.run.session.forecast", lambda *given: told.append(given) or forecast(*given))
    run = session(tmp_path, tokens, tiny_trainer(tokens, steps=40), save_seconds=1.0)
    run.begin()
    run.run()
    (given,) = told
    passes, report = 2 * 5, 6 * 300 + 1000 * (64 + 100)  # steps 24, 28, … 40; then everything else
    assert given[2] == (passes * 300 + report) / 3
    assert 0 < given[-1] <= 1 / 15
    assert read_meta(tmp_path / "checkpoint")["step"] == 40
