"""A training run from its first step to its report: what `python -m helpers train` does once everything is chosen."""

import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from helpers.checkpoint import CheckpointError, clear_checkpoint, has_checkpoint, load_weights, read_meta
from helpers.data import gpt2_tokenizer
from helpers.distributed import of_a_lost_process
from helpers.errors import LostError, SeriesError, StoppedError
from helpers.files import on_drive, write_json, writing
from helpers.memorization import measure
from helpers.run.cost import flops_per_token
from helpers.run.evaluation import Evaluation
from helpers.run.log import RunLog
from helpers.run.preflight import PROBE_STEPS, RefusedError, forecast, matrix_rate, peak_memory, refuse_over_budget
from helpers.run.report import describe_course, describe_run, write_samples
from helpers.train import Step, Trainer, save_checkpoint

Say = Callable[[str], None]
STILL_UPLOADING = "Google Drive is still uploading: before you close this runtime, wait until the folder is whole there"


@dataclass
class Session:
    """One run in its folder: checkpoint/ to go on, best/ to use, run.json, log.csv; then metrics.json, samples.txt."""

    trainer: Trainer
    tokens: Tensor  # (N,) int64, the whole text
    folder: Path
    meta: dict[str, Any]  # what the checkpoint says of itself: `describe`'s answer
    target: float  # whole-corpus loss, in nats per token
    say: Say  # where its messages go
    save_seconds: float = 60.0  # most that a kill may cost
    save_every: int | None = None  # steps between checkpoints, instead of seconds
    budget: float | None = None  # minutes
    log: RunLog = field(default_factory=RunLog)
    told_to_stop: int = 0  # the signal that did: SIGTERM or, from Ctrl-C, SIGINT
    _save_took: float = 0.0  # seconds, the last time

    def __post_init__(self) -> None:
        self.evaluation = Evaluation(self.trainer, self.tokens, self.target)

    @property
    def measured(self) -> dict[int, float]:
        """The whole-corpus losses so far, in nats per token, by the step after which they were measured."""
        return self.evaluation.losses

    def begin(self, resume: bool = False, fresh: bool = False) -> None:
        """A new run, or that of the folder. Raises CheckpointError if the folder holds a run and neither is said."""
        checkpoint, main = self.folder / "checkpoint", self.trainer.group.main
        if fresh and main:
            clear_checkpoint(checkpoint)
            clear_checkpoint(self.folder / "best")
        there = not fresh and has_checkpoint(checkpoint)
        if there and not resume:
            raise CheckpointError(f"{self.folder} already holds a run: go on with --resume, or start over with --fresh")
        if there:
            self._resume(checkpoint)
            return
        if resume:
            self.say(f"nothing to resume in {self.folder}: starting at step 1")
        if main:
            for name in ("metrics.json", "samples.txt"):  # of an earlier run
                with writing(self.folder):
                    (self.folder / name).unlink(missing_ok=True)
        self.log = RunLog(self._log_file if main else None)

    def _resume(self, checkpoint: Path) -> None:
        saved, kept_log = read_meta(checkpoint), self.folder / "log.csv"
        other = [f"{k}={saved.get(k)}" for k in ("profile", "sha256", "excerpt") if saved.get(k) != self.meta[k]]
        if other:
            raise CheckpointError(f"{self.folder} is of another run ({', '.join(other)}): choose another --out")
        self.trainer.resume(checkpoint)
        self.say(f"resumed after step {self.trainer.steps_done}")
        self.measured.update(saved["whole_corpus"])
        if not self.trainer.group.main:
            return
        if on_drive(self.folder) and kept_log.is_file():
            shutil.copyfile(kept_log, self._log_file)
        self.log = RunLog.resume(self._log_file, self.trainer.steps_done)

    @cached_property
    def _log_file(self) -> Path:
        """Where the log grows: in the run's folder, or, as Drive is too slow for single lines, in a temporary one."""
        grows_in = tempfile.mkdtemp(prefix="gpt2-by-heart-") if on_drive(self.folder) else self.folder
        return Path(grows_in) / "log.csv"

    def run(self) -> None:
        """All steps that are left: each logged; the corpus measured and the run saved in between.

        Raises RefusedError over the budget and StoppedError when told to stop, both after saving; LostError when
        another process of the run is gone.
        """
        if self.trainer.group.main:  # now, because `fit_to_machine` has settled what it says of the machine
            write_json(self.folder / "run.json", describe_run(self.trainer, self.meta))
        try:
            self._run()
        except RuntimeError as error:
            if isinstance(error, SeriesError) or not of_a_lost_process(error):
                raise
            raise LostError(
                f"a process of this run is gone, and the rest cannot go on after step {self.trainer.steps_done} "
                f"({str(error).strip().splitlines()[0][-80:]}). The last checkpoint in {self.folder} is good: start "
                "again with --resume, with any number of processes"
            ) from error

    def _run(self) -> None:
        trainer, group = self.trainer, self.trainer.group
        if self.evaluation.at_target():  # a finished run that is resumed stays finished
            return
        began, saved_at, done, refusal = trainer.steps_done, time.perf_counter(), False, None
        quiet = None if group.main else True  # None: no bar where the output is no terminal
        with tqdm(trainer.steps(), initial=began, total=trainer.recipe.steps, unit="step", disable=quiet) as bar:
            for step in bar:
                if group.main:
                    self.log.append(step)
                if self.evaluation.due(step.number):
                    self._measure(step, bar)
                if group.main and step.number - began == PROBE_STEPS:
                    refusal = self._probe(bar)
                halt = refusal is not None or self.told_to_stop > 0
                done, halt = group.any(self.evaluation.at_target(), halt, device=trainer.runtime.device)
                if group.main and (done or halt or self._due(step.number, saved_at)):
                    self._save("checkpoint", with_training=True)
                    saved_at = time.perf_counter()
                if done or halt:
                    group.wait()  # torchrun ends the others soon after the first, and this one may still be saving
                    break
        if on_drive(self.folder):
            self.say(STILL_UPLOADING)
        if refusal:
            raise refusal
        if trainer.steps_done < trainer.recipe.steps and not done:
            message = f"told to stop after step {trainer.steps_done}: saved in {self.folder}, --resume goes on"
            raise StoppedError(message, self.told_to_stop or signal.SIGTERM)  # another process may have been told

    def _due(self, step: int, saved_at: float) -> bool:
        late = time.perf_counter() - saved_at >= max(self.save_seconds, 15 * self._save_took)  # a sixteenth at most
        return step == self.trainer.recipe.steps or (step % self.save_every == 0 if self.save_every else late)

    def _measure(self, step: Step, bar: tqdm) -> None:
        loss = self.evaluation.measure(step.number)
        if not self.trainer.group.main:
            return
        if self.evaluation.best() == step.number:
            self._save("best", with_training=False)
        mean = self.log.rows[-1]["avg_loss"]
        bar.write(f"step {step.number:6d}  batch {step.loss:8.4f}  mean of 100 {mean:8.4f}  whole corpus {loss:8.4f}")

    def _probe(self, bar: tqdm) -> RefusedError | None:
        """Say what the first steps foretell; the refusal, if that is over the budget."""
        trainer = self.trainer
        left, to_come = trainer.recipe.steps - trainer.steps_done, self.evaluation.tokens_to_come()
        peak, saving = peak_memory(trainer.runtime), 0.0  # before `matrix_rate` adds its own
        if self.save_every is None:
            self._save("checkpoint", with_training=True)  # the first is early, and shows what one costs
            saving = self._save_took / max(self.save_seconds, 15 * self._save_took, 1e-9)
        flops, rate = flops_per_token(trainer.model.config, trainer.recipe.window), matrix_rate(trainer.runtime)
        expected = forecast(self.log.rows[-PROBE_STEPS:], left, to_come, flops, rate, peak, trainer.group.world, saving)
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
        if with_training and on_drive(self.folder):  # before the checkpoint: a log that is ahead of it can be cut
            shutil.copyfile(self.log.path, self.folder / "log.csv")
        save_checkpoint(self.folder / name, trainer.model, now, training)
        if with_training:
            self._save_took = time.perf_counter() - start

    def report(self) -> dict[str, Any]:
        """All measures of the best model, written to metrics.json; what it writes to some prompts, to samples.txt."""
        trainer, window = self.trainer, self.trainer.recipe.window
        if self.evaluation.best() != trainer.steps_done:
            load_weights(self.folder / "best", trainer.model)
        with trainer.runtime.autocast():
            metrics = measure(trainer.model, self.tokens, window)
        course = describe_course(self.log, self.tokens.numel(), self.target, self.measured)
        metrics |= course | {"peak_bytes": peak_memory(trainer.runtime)}
        write_json(self.folder / "metrics.json", metrics)
        tokenizer = gpt2_tokenizer(self.meta["rows"])
        text = tokenizer.decode(self.tokens.tolist())
        write_samples(self.folder / "samples.txt", trainer.model, tokenizer, text, window)
        return metrics
