"""Logs of four kinds are read, and what is said of a curve is held against runs of which the truth is known."""

import csv
import json
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import PrinterCallback, TrainerControl

from helpers.base.files import ROOT, write_json
from helpers.config import PROFILES, GPTConfig
from helpers.data import load_corpus
from helpers.memorization import loss_floor
from helpers.run import reference
from helpers.run.diagnose import NOTHING, UNKNOWN, diagnose
from helpers.run.evidence import DECIDES
from helpers.run.experiment import tokenize
from helpers.run.features import FEATURES, features_of, repetition
from helpers.run.log import RunLog
from helpers.run.read_log import LogError, as_log, beside, read_log
from helpers.run.reference import FLOOR, HEALTHY, STEPS, VOCAB_SIZE, recorded_kinds
from helpers.train import Step
from tests.benchmarks import sick_runs
from tests.benchmarks.sick_runs import COLUMNS, JUDGED, KINDS, judged, score, told, trainer_of
from tests.commands import command

# ---- reading


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def our_log(path, losses):
    log = RunLog(path)
    for i, loss in enumerate(losses, 1):
        log.append(Step(i, loss, 1e-3, 2.0, 0.5, 100 + i))
    return log


def test_a_log_of_the_series_is_read_as_it_is_in_memory(tmp_path):
    log = our_log(tmp_path / "log.csv", [7.5, 6.25, 5.0])
    with (tmp_path / "log.csv").open("a") as file:
        file.write("4,3.1")  # a kill cut this line off
    read = read_log(tmp_path / "log.csv")
    assert read == as_log(log)
    assert read.columns["loss"] == [7.5, 6.25, 5.0]
    assert read.columns["tokens"] == [101, 102, 103]
    assert as_log(log, {2: 6.0}).measured == {2: 6.0}


def test_a_plain_list_is_losses_of_steps_in_a_row(tmp_path):
    read = read_log(written(tmp_path / "losses.txt", "4.5\n\n3.5e0\nnan\n"))
    assert read.source == "losses"
    assert read.columns["step"] == [1, 2, 3]
    assert read.columns["loss"][:2] == [4.5, 3.5]
    assert math.isnan(read.columns["loss"][2])
    assert all(math.isnan(rate) for rate in read.column("lr"))


def test_nanogpts_console_is_read_with_or_without_dates(tmp_path):
    text = """number of parameters: 123.59M
    step 0: train loss 10.9876, val loss 10.9912
    iter 0: loss 10.9801, time 41200.13ms, mfu -100.00%
    2023-03-22 09:30:39 iter 10: loss 9.4012, time 1099.34ms, mfu 15.34%
    iter 20: loss nan, time 1099.34ms, mfu 15.34%
    step 20: train loss 9.0000, val loss 9.5000
    """
    read = read_log(written(tmp_path / "out.txt", text))
    assert read.source == "nanoGPT"
    assert read.columns["step"] == [0, 10, 20]
    assert read.columns["loss"][:2] == [10.9801, 9.4012]
    assert math.isnan(read.columns["loss"][2])
    assert read.measured == {0: 10.9876, 20: 9.0}
    assert read.held_out == {0: 10.9912, 20: 9.5}


RECORDS = [
    {"loss": 3.25, "grad_norm": 1.5, "learning_rate": 5e-05, "epoch": 0.5},
    {"eval_loss": 3.5, "eval_runtime": 1.25, "epoch": 0.5},
    {"loss": 3.0, "grad_norm": float("nan"), "learning_rate": 2.5e-05, "epoch": 1.0},
    {"train_runtime": 60.5, "train_loss": 3.125, "epoch": 1.0},
]


def test_transformers_state_and_console_say_the_same(tmp_path, capsys):
    history = [record | {"step": 10 * int(2 * record["epoch"])} for record in RECORDS]
    state = written(tmp_path / "trainer_state.json", json.dumps({"best_metric": None, "log_history": history}))
    for record in RECORDS:  # as the installed version prints them
        PrinterCallback().on_log(
            None, SimpleNamespace(is_local_process_zero=True), TrainerControl(), logs=record.copy()
        )
    new = written(tmp_path / "new.txt", capsys.readouterr().out)
    old = written(tmp_path / "old.txt", "".join(f" 10%|█  | 1/10 [00:01<00:09]{record}\n" for record in RECORDS))
    of_state, *consoles = [read_log(path) for path in (state, new, old)]
    assert of_state.columns["step"] == [10, 20]
    assert of_state.held_out == {10: 3.5}
    for read in (of_state, *consoles):
        assert read.columns["loss"] == [3.25, 3.0]
        assert read.columns["lr"] == [5e-05, 2.5e-05]
        assert read.columns["grad_norm"][0] == 1.5
        assert math.isnan(read.columns["grad_norm"][1])
        assert list(read.held_out.values()) == [3.5]


def test_what_a_run_says_beside_its_log_is_read_too(tmp_path):
    assert beside(tmp_path / "log.csv") == (None, None, {})
    write_json(tmp_path / "run.json", {"config": {"vocab_size": 65}, "recipe": {"policy": "offset"}})
    write_json(tmp_path / "metrics.json", {"floor_grid": 0.25, "floor_random": 0.5})
    write_json(tmp_path / "checkpoint/meta.json", {"whole_corpus": [[17, 4.0], [34, 2.5]]})
    assert beside(tmp_path / "log.csv") == (65, 0.5, {17: 4.0, 34: 2.5})
    write_json(tmp_path / "run.json", {"config": {"vocab_size": 65}, "recipe": {"policy": "grid"}})
    assert beside(tmp_path / "log.csv")[1] == 0.25
    for text in ("[1, 2]", "no JSON", '{"config": 3}'):  # somebody else's
        written(tmp_path / "run.json", text)
        assert beside(tmp_path / "log.csv") == (None, None, {})


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "Epoch 1 done\nEpoch 2 done\n", '{"loss": 3.2}', "step,accuracy\n1,0.5\n", "step,loss\n", "a\n1.5\n"],
)
def test_what_is_no_log_is_told_which_four_are(tmp_path, text):
    with pytest.raises(LogError) as error:
        read_log(written(tmp_path / "what.txt", text))
    for words in ("what.txt", "log.csv", "one per line", "nanoGPT", "trainer_state.json"):
        assert words in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "step,loss\n1,7.5\n2,soon\n",
        "step,loss\n1,7.5\n2\n3,4,5,6\n4,x\n",
        '{"log_history": [{"loss": [1]}]}',
        '{"log_history": 3}',
    ],
)
def test_a_damaged_log_is_said_to_be_damaged(tmp_path, text):
    with pytest.raises(LogError, match=r"what\.txt is damaged"):
        read_log(written(tmp_path / "what.txt", text))


def test_a_place_without_a_log_is_named(tmp_path):
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for path, says in (("no.csv", "No such file"), (".", "Is a directory"), ("binary", "that is no log")):
        with pytest.raises(LogError, match=says):
            read_log(tmp_path / path)


# ---- a stranger's log


def nanogpt_log(path, loss, estimate=None, every=10, last=6000):
    """A console as nanoGPT prints it, of a run with the loss of `loss(step)`; 2 % noise from batch to batch.

    estimate: the loss that nanoGPT measures now and then, in evaluation mode; `loss` unless told.
    """
    noise, lines, estimate = random.Random(0), [], estimate or loss
    for step in range(0, last + 1, every):
        if step % 1000 == 0:
            lines.append(f"step {step}: train loss {estimate(step):.4f}, val loss {estimate(step) + 0.01:.4f}")
        lines.append(f"iter {step}: loss {loss(step) * (1 + noise.gauss(0, 0.02)):.4f}, time 250.00ms, mfu 37.00%")
    return written(path, "\n".join(lines) + "\n")


def gpt2_run(step):
    """The shape of nanoGPT's GPT-2 run: from log 50,304 and a little more to about 3.3 in some thousands of steps."""
    return 2.85 + 8.1 * (1 + step / 40) ** -0.55


def diverging(step):
    return gpt2_run(step) if step < 3000 else min(9.5, gpt2_run(3000) + (step - 3000) / 400)


STRANGERS = {  # the curve, what nanoGPT measures, what is answered
    "healthy": (gpt2_run, None, NOTHING),
    "diverging": (diverging, None, "rate x 10"),
    "nan": (lambda step: gpt2_run(step) if step < 3010 else math.nan, None, "rate x 10"),  # as in its issue 215
    "learns little": (lambda step: 7.4 + 3.5 * math.exp(-step / 100), None, UNKNOWN),
    "batches divided by 8": (lambda step: gpt2_run(step) / 8, gpt2_run, "loss averaged wrongly"),
    "all divided by 8": (lambda step: gpt2_run(step) / 8, None, UNKNOWN),  # no recorded run does that
    "one batch": (lambda step: 10.8 * 0.997**step + 1e-3, lambda step: 9 + step / 3000, "stopped on one batch"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_strangers_log_is_compared_roughly(tmp_path, name):
    loss, estimate, answer = STRANGERS[name]
    found = diagnose(read_log(nanogpt_log(tmp_path / "out.txt", loss, estimate)), vocab_size=50304)
    assert answer in found.verdict.split(" or "), str(found)
    assert "rough" in str(found) or name == "nan"
    scale_bound = [feature.words for feature in FEATURES.values() if feature.rough is None]
    assert not any(words in str(found) for words in scale_bound)


def test_a_vocabulary_of_another_size_is_seen_in_the_first_loss(tmp_path):
    log = nanogpt_log(tmp_path / "out.txt", lambda step: 1.4 + 9.5 * (1 + step / 40) ** -0.9)
    assert diagnose(read_log(log), vocab_size=65).verdict == "wrong vocabulary"  # nanoGPT's default is 50,304
    assert diagnose(read_log(log), vocab_size=50304).verdict == NOTHING
    assert diagnose(read_log(log)).verdict == NOTHING
    assert "The vocabulary size would tell " in str(diagnose(read_log(log)))


def test_a_nan_is_named_with_its_step_and_fp16_is_the_second_guess(tmp_path):
    found = diagnose(read_log(nanogpt_log(tmp_path / "out.txt", STRANGERS["nan"][0])))
    assert [cause.name for cause in found.causes] == ["rate x 10", "fp16 without scaling"]
    assert "nan at step 3010" in found.causes[0].speaks_for


def test_a_held_out_loss_that_turns_is_told():
    text = {step: 3.0 - step / 100 for step in range(0, 50, 10)}
    log = replace(as_log([4.0 - step / 50 for step in range(100)]), held_out=text | {50: 1.5, 99: 2.75})
    assert "lowest at step 50 (1.500) and ends at 2.750" in str(diagnose(log))
    assert "held-out" not in str(diagnose(replace(log, held_out=text)))


# ---- what a curve looks like


def test_features_say_what_their_words_say():
    falling = [math.exp(2 - step / 50) for step in range(200)]
    found = features_of(as_log(falling, {190: 10 * falling[189]}), vocab_size=1000, floor=2 * falling[-1])
    assert found["start"] == pytest.approx(2 - math.log(math.log(1000)))
    assert found["at 0.5"] == pytest.approx(2 - 99 / 50, abs=0.03)
    assert found["below floor"] == pytest.approx(-math.log(2), abs=0.2)
    assert found["noise"] == pytest.approx(1 / 50)
    assert found["rise"] == 0
    assert found["gap"] == pytest.approx(math.log(10), abs=0.05)
    assert math.isnan(found["first rate"])
    rising = falling + [falling[-1] * 3] * 40
    assert features_of(as_log(rising), None, None)["rise"] == pytest.approx(math.log(3), abs=0.2)


def test_a_period_is_found_and_noise_has_none():
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alike, lag = repetition(torch.randn(7, generator=torch.Generator().manual_seed(1)).double().repeat(60)[:400])
    assert lag % 7 == 0
    assert alike > 0.9
    assert repetition(noise)[0] < 0.4


def test_too_few_losses_are_no_curve():
    assert diagnose([3.0, 2.0, 1.0], VOCAB_SIZE).verdict == UNKNOWN
    assert diagnose([3.0, 2.0, -1.0] * 5).verdict == "rate x 10"  # no cross-entropy is negative


def test_a_loss_that_is_printed_as_0_is_a_small_one():
    log = [max(0.0, 8 - step / 10) for step in range(100)]
    found = diagnose(log, floor=0.01)
    assert found.verdict == "data not shuffled or stopped on one batch or targets not shifted"  # they end below it
    assert "the loss at the end, as a share of the floor, at most 1 is 0.001 " in found.causes[0].speaks_for


# ---- the recorded runs


def test_the_reference_is_of_the_demo_recipe():
    main, recipe = PROFILES["demo"].main, PROFILES["demo"].main.recipe
    data = tokenize(main, load_corpus("sample"))
    assert data.tokenizer.n_vocab == VOCAB_SIZE
    assert recipe.steps == STEPS
    assert loss_floor(data.tokens, recipe.window, recipe.policy).mean == pytest.approx(FLOOR, abs=5e-5)


def test_every_fault_is_recorded_and_small():
    kinds = recorded_kinds()
    assert set(KINDS) == set(DECIDES) == set(reference.KINDS)
    assert list(kinds) == list(reference.KINDS)
    assert list(kinds[HEALTHY]) == list(sick_runs.HEALTHY_SEEDS)
    for kind, runs in kinds.items():
        assert len(runs) >= 3, kind
        for log in runs.values():
            assert log.column("step") == list(range(1, (KINDS[kind].steps or STEPS) + 1)), kind
            assert log.source == "series"
    assert sum(path.stat().st_size for path in sick_runs.FOLDER.iterdir()) < 2**20
    assert all(path.read_text().startswith(",".join(COLUMNS) + "\n") for path in sick_runs.FOLDER.iterdir())


@pytest.mark.parametrize(("title", "columns", "unknown"), JUDGED)
def test_the_confusion_matrix_is_the_recorded_one(title, columns, unknown):
    assert told(title, judged(columns, unknown)) + "\n" in sick_runs.README.read_text(encoding="utf-8")


def test_with_all_columns_no_healthy_run_is_called_sick_and_hardly_a_fault_by_another_name():
    counts = score(judged(sick_runs.ALL))
    assert counts["named wrongly"] <= counts["runs"] / 20
    assert counts["named rightly"] >= counts["runs"] * 0.7
    for found in (judged(sick_runs.ALL), judged(sick_runs.LOSSES)):
        assert set(found[HEALTHY]) <= {NOTHING, UNKNOWN}


def test_what_is_near_no_kind_is_told_in_what_it_is_unlike_healthy_runs():
    two = (recorded_kinds()[kind][1].column("loss") for kind in ("dropout left on", HEALTHY))
    halfway = [math.sqrt(a * b) for a, b in zip(*two, strict=True)]
    found = diagnose(halfway, VOCAB_SIZE, FLOOR)
    assert found.verdict == UNKNOWN
    assert found.remarks[0].startswith("Unlike healthy runs: the loss ")
    assert "The nearest fault is " in found.remarks[1]


def test_two_faults_that_losses_do_not_tell_apart_are_named_together_with_what_would():
    losses = recorded_kinds()["dropout left on"][1].column("loss")
    found = diagnose(losses, VOCAB_SIZE, FLOOR)
    assert found.verdict == "dropout left on or evaluation in train mode"
    assert "The whole-corpus loss would tell " in found.remarks[-1]


def test_a_fault_that_no_curve_shows_looks_healthy_and_its_test_is_named():
    log = recorded_kinds()["no warm-up"][1]
    assert diagnose(log, VOCAB_SIZE, FLOOR).verdict == "no warm-up"  # the column of learning rates
    found = diagnose(log.column("loss"), VOCAB_SIZE, FLOOR)
    assert found.verdict == NOTHING
    for kind in ("no warm-up", "tail dropped", "fp16 without scaling"):
        assert f"- {kind}: {DECIDES[kind]}" in found.remarks
    assert "The learning rate would tell no warm-up from healthy." in found.remarks
    assert "The number of tokens per step would tell tail dropped from healthy." in found.remarks


def test_runs_recorded_long_ago_by_the_series_are_healthy():
    for seed in (1, 2, 3):
        done = command("diagnose", ROOT / f"data/runs/demo-seed-{seed}/log.csv")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("nothing unusual\n1. healthy"), done.stdout
        assert "rough" not in done.stdout


# ---- the faults


@pytest.fixture(scope="module")
def small():
    """The demo's experiment with a smaller model, and its text."""
    main = replace(PROFILES["demo"].main, gpt=GPTConfig(block_size=128, n_layer=1, n_head=2, n_embd=32))
    return main, tokenize(main, load_corpus("sample"))


def with_fault(small, kind, **recipe):
    main, data = small
    found = KINDS[kind]
    return trainer_of(replace(found, recipe=found.recipe | recipe), main, data, seed=1)


def test_settings_of_the_faults_are_what_they_say(small):
    own, rate = with_fault(small, HEALTHY).recipe, with_fault(small, "rate x 10").recipe
    assert (rate.lr, rate.muon_lr) == (10 * own.lr, 10 * own.muon_lr)
    assert own == replace(rate, lr=own.lr, muon_lr=own.muon_lr)
    assert next(with_fault(small, HEALTHY).steps()).lr < own.lr / 5
    assert next(with_fault(small, "no warm-up").steps()).lr == own.lr
    assert with_fault(small, "wrong vocabulary").model.transformer.wte.weight.shape[0] == 50257
    assert next(with_fault(small, "wrong vocabulary").steps()).loss == pytest.approx(math.log(50257), abs=0.1)


def test_targets_that_are_not_shifted_are_the_inputs(small):
    right, broken = with_fault(small, HEALTHY), with_fault(small, "targets not shifted")
    for step in range(8):
        (x, y), (x_broken, y_broken) = right.windows.batch(step), broken.windows.batch(step)
        assert torch.equal(x, x_broken)
        assert torch.equal(y_broken[y >= 0], x[y >= 0])
        assert torch.equal(y_broken < 0, y < 0)
        assert not torch.equal(y_broken, y)


@pytest.mark.parametrize(("kind", "moves"), [(HEALTHY, False), ("mask missing", True)])
def test_without_the_mask_earlier_predictions_move_with_the_last_token(small, kind, moves):
    trainer = with_fault(small, kind)
    for _, _step in zip(range(3), trainer.steps(), strict=False):
        pass  # zero-initialised projections: before the first step attention has no effect
    x = small[1].tokens[None, :64].clone()
    with torch.no_grad():
        before = trainer.model(x)[0][0, :-1]
        x[0, -1] = (x[0, -1] + 1) % VOCAB_SIZE
        after = trainer.model(x)[0][0, :-1]
    assert torch.allclose(before, after, atol=1e-5) is not moves


def test_a_dropped_tail_leaves_full_windows_only(small):
    def padding(kind):
        windows = with_fault(small, kind).windows
        return [int((windows.batch(step)[1] < 0).sum()) for step in range(30)]

    assert sum(padding(HEALTHY)) > 0
    assert sum(padding("tail dropped")) == 0


def test_dropout_is_on_in_measurement_only_where_evaluation_is_in_train_mode(small):
    def measured_twice(kind):
        trainer = with_fault(small, kind, steps=3)
        list(trainer.steps())
        return [sick_runs.whole_corpus_loss(trainer.model, small[1].tokens, 128) for _ in range(2)]

    for kind, same in ((HEALTHY, True), ("dropout left on", True), ("evaluation in train mode", False)):
        first, second = measured_twice(kind)
        assert (first == second) is same, kind
    assert with_fault(small, "dropout left on").model.config.dropout == 0.2


def test_a_loss_divided_once_too_often_is_logged_and_followed_so(small):
    right, broken = next(with_fault(small, HEALTHY).steps()), next(with_fault(small, "loss averaged wrongly").steps())
    assert broken.loss == pytest.approx(right.loss / 4, rel=1e-4)
    assert broken.grad_norm == pytest.approx(right.grad_norm / 4, rel=1e-3)


def test_in_fp16_without_scaling_small_gradients_become_zero(small):
    def zeros(kind):
        trainer = with_fault(small, kind)
        next(trainer.steps())  # zero-initialised projections: before it, the others' gradients are 0 anyhow
        x, y = trainer.windows.batch(1)
        with trainer.runtime.autocast():
            trainer.loss_of(x, y).backward()
        assert not trainer.scaler.is_enabled()
        return int((trainer.model.transformer.h[0].attn.c_attn.weight.grad == 0).sum())  # of 3,072

    assert zeros(HEALTHY) == 0
    assert zeros("fp16 without scaling") > 30


def test_one_batch_comes_again_and_again(small):
    windows = with_fault(small, "stopped on one batch").windows
    assert all(torch.equal(windows.batch(step)[0], windows.batch(0)[0]) for step in (1, 7, 100))


def test_windows_that_are_not_shuffled_are_the_text_in_order(small):
    windows, tokens = with_fault(small, "data not shuffled").windows, small[1].tokens
    for step in range(5):
        assert torch.equal(windows.batch(step)[0].flatten(), tokens[step * 1024 : (step + 1) * 1024])


# ---- recording


def test_a_run_that_is_recorded_is_not_trained_again(tmp_path, monkeypatch):
    trained = []

    def rows(*given):
        _, _, seed, steps = given
        assert steps is None
        trained.append(seed)
        if seed == 3:
            raise KeyboardInterrupt
        return [(seed, 1, 7.56789, 1e-3, 4.0, 1024, math.nan), (seed, 2, 7.4, 2e-3, 4.0, 1000, 7.123456)]

    monkeypatch.setattr(sick_runs, "rows_of", rows)
    monkeypatch.setattr(sick_runs, "plan", lambda: [("no warm-up", seed) for seed in (1, 2, 3)])
    monkeypatch.setattr(sick_runs, "FOLDER", tmp_path)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sick_runs.record()
    assert trained == [1, 2, 3, 3]
    lines = (tmp_path / "no-warm-up.csv").read_text().splitlines()
    assert lines[:3] == [",".join(COLUMNS), "1,1,7.568,0.001,4,1024,", "1,2,7.4,0.002,4,1000,7.123"]
    assert list(recorded_kinds(tmp_path)["no warm-up"]) == [1, 2]


def test_a_run_that_diverges_ends_with_a_row_that_says_so(small):
    rows = list(sick_runs.rows_of(with_fault(small, HEALTHY, lr=1e30, optimizer="adamw"), small[1].tokens, 7))
    assert rows[-1][:2] == (7, 2)
    assert math.isnan(rows[-1][2])


# ---- the command


def recorded_log(kind, seed):
    with sick_runs.file_of(kind).open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["seed"] == str(seed)]


def test_the_command_names_a_fault_with_reasons_and_the_next_step(tmp_path):
    losses = "\n".join(row["loss"] for row in recorded_log("targets not shifted", 1))
    log = written(tmp_path / "losses.txt", losses)
    done = command("diagnose", log, "--vocab-size", VOCAB_SIZE, "--floor", FLOOR)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("targets not shifted\n1. targets not shifted, ")
    for words in ("   for: the loss", "   against: ", f"   next: {DECIDES['targets not shifted']}"):
        assert words in done.stdout
    assert "rough" in command("diagnose", log).stdout


def test_the_command_tells_what_is_no_log_without_a_traceback(tmp_path):
    done = command("diagnose", written(tmp_path / "what.txt", "hello\n"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert command("diagnose", tmp_path / "no.csv").returncode == 1
    for wrong in ("0", "-1", "nan", "x"):
        assert command("diagnose", tmp_path / "no.csv", f"--floor={wrong}").returncode == 2
