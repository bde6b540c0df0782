"""The folder of a run: what it holds, a run begun or gone on with there, checkpoints, and the report at the end."""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from helpers.base.files import on_drive, write_json, writing
from helpers.checkpoint import CheckpointError, clear_checkpoint, has_checkpoint, load_weights, read_meta
from helpers.data import gpt2_tokenizer
from helpers.run.evaluation import Evaluation, measure
from helpers.run.log import RunLog
from helpers.run.preflight import peak_memory
from helpers.run.report import describe_course, write_samples
from helpers.train import Trainer, save_checkpoint

Say = Callable[[str], None]


@dataclass
class RunFolder:
    """One run in its folder: checkpoint/ to go on, best/ to use, run.json, log.csv; then metrics.json, samples.txt."""

    trainer: Trainer
    tokens: Tensor  # (N,) int64, the whole text
    folder: Path
    meta: dict[str, Any]  # what the checkpoint says of itself: `describe`'s answer
    target: float  # whole-corpus loss, in nats per token
    say: Say  # where its messages go
    log: RunLog = field(default_factory=RunLog, init=False)
    _save_took: float = field(default=0.0, init=False)  # seconds, the last checkpoint

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
        saved, kept_log = read_meta(checkpoint, needs=("whole_corpus",)), self.folder / "log.csv"
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

    def save(self, name: str) -> None:
        """The model now: `best`, to use it, or `checkpoint`, with all that a resumed run needs. One process writes."""
        if not self.trainer.group.main:
            return
        trainer, to_resume = self.trainer, name == "checkpoint"
        now = {**self.meta, "step": trainer.steps_done, "whole_corpus": list(self.measured.items())}
        training, start = trainer.training_state() if to_resume else None, time.perf_counter()
        if to_resume and on_drive(self.folder):  # before the checkpoint: a log that is ahead of it can be cut
            shutil.copyfile(self.log.path, self.folder / "log.csv")
        save_checkpoint(self.folder / name, trainer.model, now, training)
        if to_resume:
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
