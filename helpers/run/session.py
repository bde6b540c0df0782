"""A training run from its first step to its report: what `python -m helpers train` does once everything is chosen."""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tqdm import tqdm

from helpers.base.errors import LostError, SeriesError, StoppedError
from helpers.base.files import on_drive, write_json
from helpers.run.cost import flops_per_token
from helpers.run.folder import RunFolder
from helpers.run.preflight import PROBE_STEPS, RefusedError, forecast, matrix_rate, peak_memory, refuse_over_budget
from helpers.run.processes import of_a_lost_process
from helpers.run.report import describe_run
from helpers.train import Step

STILL_UPLOADING = "Google Drive is still uploading: before you close this runtime, wait until the folder is whole there"


@dataclass
class Session(RunFolder):
    """A run and its folder; `run` is the whole loop, and what it is made of can be called from another one."""

    save_seconds: float = 60.0  # most that a kill may cost
    save_every: int | None = None  # steps between checkpoints, instead of seconds
    budget: float | None = None  # minutes
    told_to_stop: int = 0  # the signal that did: SIGTERM or, from Ctrl-C, SIGINT
    _stop: bool = field(default=False, init=False)  # the loop has had enough
    _saved: tuple[int, float] = field(default=(0, 0.0), init=False)  # the step of the last checkpoint, and when

    def run(self) -> None:
        """All steps that are left: the loop that notebook 04 writes out.

        Raises what `steps` raises, and LostError when another process of the run is gone.
        """
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
        for step in self.steps():
            self.record(step)
            if self.evaluation.due(step.number):
                loss = self.evaluate()
                if self.evaluation.best() == step.number:
                    self.save("best")
                if self.trainer.group.main:
                    mean = f"mean of 100 {self.log.rows[-1]['avg_loss']:8.4f}"
                    tqdm.write(f"step {step.number:6d}  batch {step.loss:8.4f}  {mean}  whole corpus {loss:8.4f}")
                if self.trainer.recipe.stop_at_target and loss < self.target:
                    self.stop()
            self.save_if_due()

    def steps(self) -> Iterator[Step]:
        """The optimizer steps that are left, for a loop that records, evaluates and saves, as `run` does.

        They end, and the run is saved, when `stop` was called; a run that has reached its target has none left.
        Raises RefusedError over the budget and StoppedError when told to stop, both after saving.
        """
        trainer, group, refusal, done, halt = self.trainer, self.trainer.group, None, False, False
        if group.main:  # now, because `fit_to_machine` has settled what it says of the machine
            write_json(self.folder / "run.json", describe_run(trainer, self.meta))
        if self.evaluation.at_target():  # a finished run that is resumed stays finished
            return
        began, self._saved, self._stop = trainer.steps_done, (trainer.steps_done, time.perf_counter()), False
        quiet = None if group.main else True  # None: no bar where the output is no terminal
        with tqdm(trainer.steps(), initial=began, total=trainer.recipe.steps, unit="step", disable=quiet) as bar:
            for step in bar:
                yield step
                if group.main and step.number - began == PROBE_STEPS:
                    refusal = self._probe()
                halt = refusal is not None or self.told_to_stop > 0
                done, halt = group.any(self._stop, halt, device=trainer.runtime.device)
                if done or halt:
                    if self._saved[0] != step.number:
                        self.save("checkpoint")
                    group.wait()  # torchrun ends the others soon after the first, and this one may still be saving
                    break
        if on_drive(self.folder):
            self.say(STILL_UPLOADING)
        if refusal:
            raise refusal
        if halt and trainer.steps_done < trainer.recipe.steps and not done:
            message = f"told to stop after step {trainer.steps_done}: saved in {self.folder}, --resume goes on"
            raise StoppedError(message, self.told_to_stop or signal.SIGTERM)  # another process may have been told

    def record(self, step: Step) -> None:
        """A row of the log for this step."""
        if self.trainer.group.main:
            self.log.append(step)

    def evaluate(self) -> float:
        """The whole-corpus loss now, in nats per token, by all processes together; kept in `measured`."""
        return self.evaluation.measure(self.trainer.steps_done)

    def stop(self) -> None:
        """End the run with this step."""
        self._stop = True

    def save_if_due(self) -> None:
        """The checkpoint, if the last is as old as a kill may cost, or this is the last step."""
        step = self.trainer.steps_done
        if self._stop or self.told_to_stop or self._due(step, self._saved[1]):
            self.save("checkpoint")
            self._saved = step, time.perf_counter()

    def _due(self, step: int, saved_at: float) -> bool:
        late = time.perf_counter() - saved_at >= max(self.save_seconds, 15 * self._save_took)  # a sixteenth at most
        return step == self.trainer.recipe.steps or (step % self.save_every == 0 if self.save_every else late)

    def _probe(self) -> RefusedError | None:
        """Say what the first steps foretell; the refusal, if that is over the budget."""
        trainer = self.trainer
        left, to_come = trainer.recipe.steps - trainer.steps_done, self.evaluation.tokens_to_come()
        peak, saving = peak_memory(trainer.runtime), 0.0  # before `matrix_rate` adds its own
        if self.save_every is None:
            self.save("checkpoint")  # the first is early, and shows what one costs
            saving = self._save_took / max(self.save_seconds, 15 * self._save_took, 1e-9)
        flops, rate = flops_per_token(trainer.model.config, trainer.recipe.window), matrix_rate(trainer.runtime)
        expected = forecast(self.log.rows[-PROBE_STEPS:], left, to_come, flops, rate, peak, trainer.group.world, saving)
        tqdm.write(f"after {PROBE_STEPS} steps: {expected}")
        try:
            refuse_over_budget(expected, self.budget)
        except RefusedError as refusal:
            return refusal
        return None
