"""The loss on the whole corpus in the course of a run: when it is measured, how thoroughly, and which step was best."""

from dataclasses import dataclass, field

from torch import Tensor

from helpers.memorization import whole_corpus_loss
from helpers.train import Trainer


@dataclass
class Evaluation:
    """The measurements of one run. A large model's cost so much that they are made sparingly."""

    trainer: Trainer
    tokens: Tensor  # (N,) int64, the whole text
    target: float  # whole-corpus loss to get below, in nats per token
    losses: dict[int, float] = field(default_factory=dict)  # step -> whole-corpus loss, in nats per token

    def every(self) -> int:
        """Steps between measurements: twenty per run, or a hundred where the first success ends it.

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

    def due(self, step: int) -> bool:
        """Whether this step is followed by a measurement; the last one always is."""
        return step % self.every() == 0 or step >= self.trainer.recipe.steps

    def in_full(self, step: int) -> bool:
        """Whether both grids are measured at a step; a large model's in the last quarter, and at the target."""
        return not self._large or step > 0.75 * self.trainer.recipe.steps

    def measure(self, step: int) -> float:
        """The loss after a step, by all processes together; kept in `losses`."""
        trainer = self.trainer
        enough = None if self.in_full(step) else self.target
        with trainer.runtime.autocast():
            loss = whole_corpus_loss(trainer.model, self.tokens, trainer.recipe.window, enough, trainer.group)
        self.losses[step] = loss
        return loss

    def best(self) -> int | None:
        """The step with the lowest loss: of those measured in full, if any were."""
        steps = [step for step in self.losses if self.in_full(step)] or list(self.losses)
        return min(steps, key=self.losses.get, default=None)

    def at_target(self) -> bool:
        """Whether this run is to end at its target, and has just been measured below it."""
        now = self.losses.get(self.trainer.steps_done)
        return self.trainer.recipe.stop_at_target and now is not None and now < self.target

    def tokens_to_come(self) -> float:
        """What is still to be measured, the report included, in tokens that cost as much as training on them.

        A forward pass costs a third of that; the report is made by one process while the others wait.
        """
        trainer, n_tokens = self.trainer, self.tokens.numel()
        coming = range(trainer.steps_done + 1, trainer.recipe.steps + 1)
        passes = sum(1 + self.in_full(step) for step in coming if step % self.every() == 0)
        report = trainer.group.world * (6 * n_tokens + 1000 * (64 + 100))
        return (passes * n_tokens + report) / 3

    @property
    def _large(self) -> bool:
        return self.trainer.model.config.large
