"""A training run from its first step to its report: what `python -m helpers train` does once everything is chosen."""

import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from helpers.checkpoint import CheckpointError, clear_checkpoint, has_checkpoint, load_weights, read_meta
from helpers.data import gpt2_tokenizer
from helpers.distributed import of_a_lost_process
from helpers.errors import LostError, SeriesError, StoppedError
from helpers.files import on_drive, write_json, writing
from helpers.memorization import measure, whole_corpus_loss
from helpers.run.log import RunLog, stop_step, tokens_seen
from helpers.run.preflight import (
    PROBE_STEPS,
    RefusedError,
    flops_per_token,
    forecast,
    matrix_rate,
    peak_memory,
    refuse_over_budget,
)
from helpers.run.report import describe_run, write_samples
from helpers.train import Step, Trainer, save_checkpoint

Say = Callable[[str], None]


@dataclass
class Session:
    """One run in its folder: checkpoint/ (to go on), best/ (to use), run.json, log.csv; metrics.json and samples.txt
    when it is reported.
    """

    trainer: Trainer
    tokens: Tensor  # (N,) int64, the whole text
    folder: Path
    meta: dict[str, Any]  # what the checkpoint says of itself: `describe`'s answer
    target: float  # whole-corpus loss, in nats a token
    say: Say  # where its messages go
    save_seconds: float = 60.0  # most that a kill may cost
    save_every: int | None = None  # steps between checkpoints, instead of seconds
    budget: float | None = None  # minutes
    log: RunLog = field(default_factory=RunLog)
    measured: dict[int, float] = field(default_factory=dict)  # step -> whole-corpus loss
    told_to_stop: int = 0  # the signal that did: SIGTERM or, from Ctrl-C, SIGINT
    _save_took: float = 0.0  # seconds, the last time
    _local: Path | None = None  # where the log grows while its folder is on Google Drive

    def begin(self, resume: bool = False, fresh: bool = False) -> None:
        """A new run, or that of the folder. Raises CheckpointError if the folder holds a run and neither is said."""
        checkpoint, log_file, main = self.folder / "checkpoint", self.folder / "log.csv", self.trainer.group.main
        if fresh and main:
            clear_checkpoint(checkpoint)
            clear_checkpoint(self.folder / "best")
        if fresh or not has_checkpoint(checkpoint):
            if resume:
                self.say(f"nothing to resume in {self.folder}: starting at step 1")
            if main:
                for name in ("metrics.json", "samples.txt"):  # of an earlier run
                    with writing(self.folder):
                        (self.folder / name).unlink(missing_ok=True)
            self.log = RunLog(self._log_path() if main else None)
            return
        if not resume:
            raise CheckpointError(f"{self.folder} already holds a run: go on with --resume, or start over with --fresh")
        saved = read_meta(checkpoint)
        other = [f"{k}={saved.get(k)}" for k in ("profile", "sha256", "excerpt") if saved.get(k) != self.meta[k]]
        if other:
            raise CheckpointError(f"{self.folder} is of another run ({', '.join(other)}): choose another --out")
        self.trainer.resume(checkpoint)
        self.say(f"resumed after step {self.trainer.steps_done}")
        self.measured = dict(saved["whole_corpus"])
        if main and self._log_path() != log_file and log_file.is_file():
            shutil.copyfile(log_file, self._log_path())
        self.log = RunLog.resume(self._log_path(), self.trainer.steps_done) if main else RunLog()

    def _log_path(self) -> Path:
        """Where the log grows: in the run's folder, or, line by line too slow for Drive, beside the system's own."""
        if not on_drive(self.folder):
            return self.folder / "log.csv"
        if self._local is None:
            self._local = Path(tempfile.mkdtemp(prefix="gpt2-by-heart-"))
        return self._local / "log.csv"

    def run(self) -> None:
        """All steps that are left: each logged; the corpus measured and the run saved in between.

        Raises RefusedError over the budget and StoppedError when told to stop, both after saving; LostError when
        another process of the run is gone.
        """
        if self.trainer.group.main:  # now, because `fit_to_machine` has settled what it says of the machine
            write_json(self.folder / "run.json", describe_run(self.trainer, self.meta))
        try:
            self._run()
        except SeriesError:
            raise
        except RuntimeError as error:
            if not of_a_lost_process(error):
                raise
            raise LostError(
                f"a process of this run is gone, and the rest cannot go on after step {self.trainer.steps_done} "
                f"({str(error).strip().splitlines()[0][-80:]}). The last checkpoint in {self.folder} is good: start "
                "again with --resume, with any number of processes"
            ) from error

    def _run(self) -> None:
        trainer, group = self.trainer, self.trainer.group
        began, saved_at, refusal = trainer.steps_done, time.perf_counter(), None
        if self._at_target():  # a finished run that is resumed stays finished
            return
        quiet = None if group.main else True  # None: no bar where the output is no terminal
        with tqdm(trainer.steps(), initial=began, total=trainer.recipe.steps, unit="step", disable=quiet) as bar:
            for step in bar:
                if group.main:
                    self.log.append(step)
                self._measure(step, bar)
                if group.main:
                    refusal = self._probe(bar) if step.number - began == PROBE_STEPS else None
                halt = refusal is not None or self.told_to_stop > 0
                done, halt = group.any(self._at_target(), halt, device=trainer.runtime.device)
                if group.main and (done or halt or self._due(step.number, saved_at)):
                    self._save("checkpoint", with_training=True)
                    saved_at = time.perf_counter()
                if done or halt:
                    group.wait()  # torchrun ends the others soon after the first, and this one may still be saving
                    break
        if on_drive(self.folder):
            self.say(
                "Google Drive is still uploading: before you close this runtime, wait until the folder is whole there"
            )
        if refusal:
            raise refusal
        if trainer.steps_done < trainer.recipe.steps and not done:
            raise StoppedError(
                f"told to stop after step {trainer.steps_done}: saved in {self.folder}, --resume goes on",
                self.told_to_stop or signal.SIGTERM,  # of several processes, another may have been told
            )

    def _at_target(self) -> bool:
        """Whether this run is to end at its target, and has just been measured below it."""
        now = self.measured.get(self.trainer.steps_done)
        return self.trainer.recipe.stop_at_target and now is not None and now < self.target

    def _due(self, step: int, saved_at: float) -> bool:
        if step == self.trainer.recipe.steps:
            return True
        if self.save_every:
            return step % self.save_every == 0
        return time.perf_counter() - saved_at >= max(self.save_seconds, 15 * self._save_took)  # a sixteenth at most

    @property
    def _large(self) -> bool:
        """Whether measuring the whole corpus costs so much that it is done sparingly."""
        return self.trainer.model.config.large

    def _measured_every(self) -> int:
        """Steps between measurements: twenty a run, or a hundred where the first success ends it.

        A large model's are ten at most, or what a tenth of its training pays for: a pass costs a third of training on
        as many tokens, and the last quarter's count twice.
        """
        recipe = self.trainer.recipe
        many = 100 if recipe.stop_at_target else 20
        if not self._large:
            return max(1, recipe.steps // many)
        passes = 0.1 * 3 * recipe.steps * recipe.batch_size * recipe.window / self.tokens.numel()
        many = max(1, min(many if recipe.stop_at_target else 10, int(passes / 1.25) - 1))
        return -(-recipe.steps // many)

    def _in_full(self, step: int) -> bool:
        """Whether both grids are measured at a step; a large model's in the last quarter, and at the target."""
        return not self._large or step > 0.75 * self.trainer.recipe.steps

    def _best(self) -> int | None:
        """The step with the lowest loss: of those measured in full, if any were."""
        steps = [step for step in self.measured if self._in_full(step)] or list(self.measured)
        return min(steps, key=self.measured.get, default=None)

    def _measure(self, step: Step, bar: tqdm) -> None:
        """The whole corpus, now and then, by all processes together; the best is kept."""
        recipe, group = self.trainer.recipe, self.trainer.group
        if step.number % self._measured_every() and step.number < recipe.steps:
            return
        enough = None if self._in_full(step.number) else self.target
        with self.trainer.runtime.autocast():
            loss = whole_corpus_loss(self.trainer.model, self.tokens, recipe.window, enough, group)
        self.measured[step.number] = loss
        if not group.main:
            return
        if self._best() == step.number:
            self._save("best", with_training=False)
        mean = self.log.rows[-1]["avg_loss"]
        bar.write(f"step {step.number:6d}  batch {step.loss:8.4f}  mean of 100 {mean:8.4f}  whole corpus {loss:8.4f}")

    def _probe(self, bar: tqdm) -> RefusedError | None:
        """Say what the first steps foretell; the refusal, if that is over the budget."""
        trainer = self.trainer
        left = trainer.recipe.steps - trainer.steps_done
        coming = range(trainer.steps_done + 1, trainer.recipe.steps + 1)
        passes = sum(1 + self._in_full(s) for s in coming if s % self._measured_every() == 0)  # forward only
        report = trainer.group.world * (6 * self.tokens.numel() + 1000 * (64 + 100))  # by one process
        peak = peak_memory(trainer.runtime)  # before `matrix_rate` adds its own
        if self.save_every is None:
            self._save("checkpoint", with_training=True)  # the first is early, and shows what one costs
        expected = forecast(
            self.log.rows[-PROBE_STEPS:],
            left,
            (passes * self.tokens.numel() + report) / 3,
            flops_per_token(trainer.model.config, trainer.recipe.window),
            matrix_rate(trainer.runtime),
            peak,
            trainer.group.world,
            0.0 if self.save_every else self._save_took / max(self.save_seconds, 15 * self._save_took, 1e-9),
        )
        bar.write(f"after {PROBE_STEPS} steps: {expected}")
        try:
            refuse_over_budget(expected, self.budget)
        except RefusedError as refusal:
            return refusal
        return None

    def _save(self, name: str, with_training: bool) -> None:
        trainer = self.trainer
        now = {**self.meta, "step": trainer.steps_done, "whole_corpus": list(self.measured.items())}
        training, start = trainer.training_state() if with_training else None, time.perf_counter()
        if self._local and with_training:  # before the checkpoint: a log that is ahead of it can be cut
            shutil.copyfile(self.log.path, self.folder / "log.csv")
        save_checkpoint(self.folder / name, trainer.model, now, training)
        if with_training:
            self._save_took = time.perf_counter() - start

    def report(self) -> dict[str, Any]:
        """All measures of the best model, written to metrics.json; what it writes to some prompts, to samples.txt."""
        trainer, window = self.trainer, self.trainer.recipe.window
        if self._best() != trainer.steps_done:
            load_weights(self.folder / "best", trainer.model)
        with trainer.runtime.autocast():
            metrics = measure(trainer.model, self.tokens, window)
        rules = {"single batch": None, "mean of 100": None, "whole corpus": self.measured}
        first = {rule: stop_step(self.log, rule, self.target, found) for rule, found in rules.items()}
        metrics |= {f"first below {self.target}: {rule}": step for rule, step in first.items()}
        seconds = sum(self.log.column("dt"))
        tokens = tokens_seen(self.log.rows)[-1]
        metrics |= {"steps": trainer.steps_done, "seconds": seconds, "tokens_seen": tokens}
        metrics |= {"epochs": tokens / (self.tokens.numel() - 1), "peak_bytes": peak_memory(trainer.runtime)}
        write_json(self.folder / "metrics.json", metrics)
        tokenizer = gpt2_tokenizer(self.meta["rows"])
        text = tokenizer.decode(self.tokens.tolist())
        write_samples(self.folder / "samples.txt", trainer.model, tokenizer, text, window)
        return metrics
