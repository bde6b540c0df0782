"""What a run is measured by: the loss on the whole corpus in its course, and all that is said of its model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from helpers.base.group import Group
from helpers.memorization import corpus_loss, longest_recitation, loss_floor, recall, windows_loss
from helpers.train import Trainer
from helpers.windows import random_windows

RECALLS = ((32, 32), (50, 50))  # (k, n): tokens given, tokens asked for


def whole_corpus_loss(
    model: nn.Module, tokens: Tensor, window: int, enough: float | None = None, group: Group | None = None
) -> float:
    """The figure to stop by: the mean loss over the whole text, on the grid or the grid moved by half a window.

    The higher of the two counts: a grid that training has just used flatters the model. enough: where the first
    alone is not below it, the second is not measured, and the first is returned.
    """
    loss = corpus_loss(model, tokens, window, group=group).mean
    if window < 2 or (enough is not None and loss >= enough):
        return loss
    return max(loss, corpus_loss(model, tokens, window, window // 2, group).mean)


def measure(
    model: nn.Module, tokens: Tensor, window: int, recalls: Sequence = RECALLS, prompt: int = 16, places: int = 1000
) -> dict[str, float]:
    """Everything this series says of a memory, by name, in nats, shares and tokens; JSON-ready.

    Whole-corpus loss at the grid, at the grid shifted by 1 and by half a window, on as many random windows, and at
    positions >= 32 of all these; the floor of the grid and of random windows, and how much of the loss is above it;
    argmax accuracy; recall k -> n from random places, nan for a (k, n) that the window does not hold; the longest
    recitation from the text's first `prompt` tokens, or as many of them as the window holds.
    """
    n, g = tokens.numel(), torch.Generator().manual_seed(0)
    shifts = {"grid": 0, "shift_1": 1, "shift_half": window // 2}
    losses = {name: corpus_loss(model, tokens, window, shift) for name, shift in shifts.items()}
    losses["random"] = windows_loss(model, tokens, random_windows(n, window, g), window, Group())
    floors = {policy: loss_floor(tokens, window, policy).mean for policy in ("grid", "random")}
    held = {(k, m): recall(model, tokens, k, m, places).verbatim for k, m in recalls if k + m <= min(window, n)}
    return {
        **{f"loss_{name}": loss.mean for name, loss in losses.items()},
        "loss_from_32": max(loss.after(32) for loss in losses.values()),
        **{f"floor_{policy}": floor for policy, floor in floors.items()},
        **{f"excess_{policy}": losses[policy].mean - floor for policy, floor in floors.items()},
        "accuracy": losses["grid"].accuracy,
        **{f"recall_{k}_{m}": held.get((k, m), math.nan) for k, m in recalls},
        "longest_recitation": longest_recitation(model, tokens, window, min(prompt, window)),
        "tokens": n,
    }


@dataclass
class Evaluation:
    """The measurements of one run. A large model's cost so much that they are made sparingly."""

    trainer: Trainer
    tokens: Tensor  # (N,) int64, the whole text
    target: float  # whole-corpus loss to get below, in nats per token
    losses: dict[int, float] = field(default_factory=dict)  # step -> whole-corpus loss, in nats per token

    def every(self) -> int:
        """Steps between measurements: ten per run, or a hundred where the first success ends it.

        A large model's are no more than a tenth of its training pays for: a pass costs a third of training on as many
        tokens, and the last quarter's count twice.
        """
        recipe = self.trainer.recipe
        many = 100 if recipe.stop_at_target else 10
        if not self._large:
            return max(1, recipe.steps // many)
        passes = 0.1 * 3 * recipe.steps * recipe.batch_size * recipe.window / self.tokens.numel()
        return -(-recipe.steps // max(1, min(many, int(passes / 1.25) - 1)))

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
