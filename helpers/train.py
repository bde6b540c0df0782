"""The training loop: mechanics here, policy (print, measure, stop, save, plot) in the `for` loop that uses it."""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helpers.base.errors import SeriesError, SettingError
from helpers.base.group import Group
from helpers.checkpoint import CheckpointError, load_checkpoint, load_weights, read_training, save_checkpoint
from helpers.config import IGNORE, Recipe
from helpers.optim import Muon, build_optimizers, hidden_matrices, muon_dtype, set_rates
from helpers.runtime import Runtime
from helpers.windows import Windows

__all__ = ["Trainer", "load_checkpoint", "save_checkpoint"]


@dataclass(frozen=True)
class Step:
    """What one optimizer step did."""

    number: int  # 1, 2, …
    loss: float  # mean over the step's tokens, before the update, in nats
    lr: float  # AdamW's learning rate
    grad_norm: float  # before clipping
    seconds: float  # that it took
    tokens: int  # tokens predicted in this step


class DivergedError(SeriesError, FloatingPointError):
    """A loss or gradient that is NaN or infinite; the weights were not touched by it."""


class _LossOf(nn.Module):
    """A model as the function from x, y to its loss: what torch.compile and DistributedDataParallel wrap."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.model.loss(x, y) if hasattr(self.model, "loss") else self.model(x, y)[1]


class Trainer:
    """A model in training, with all that must survive a kill: optimizers, loss scaler, step count, random state.

    model.loss(x, y) is the loss, or model(x, y) returns (logits, loss); the windows say which tokens step s sees.
    In a group of processes each takes its share of every step's windows: the steps are those of one process.
    """

    def __init__(
        self, model: nn.Module, windows: Windows, recipe: Recipe, runtime: Runtime, group: Group | None = None
    ) -> None:
        self.model, self.windows, self.recipe, self.runtime = model, windows, recipe, runtime
        self.group = group or Group()
        if recipe.batch_size < self.group.world:
            raise SettingError(f"{self.group.world} processes cannot share the {recipe.batch_size} windows of a step")
        if windows.halved != recipe.halved_steps:
            raise SettingError(f"the recipe wants {recipe.halved_steps} steps of halved windows, these are others")
        self.micro_batch = recipe.batch_size // recipe.accumulation  # windows in one forward pass
        self.loss_of: nn.Module = _LossOf(model)  # (x, y) -> loss; `run.fit` compiles it and connects the processes
        self.compiled = False
        self.reasons, dtype = runtime.reasons, torch.float32  # for what was chosen by itself; of Muon's products
        if recipe.optimizer == "muon":
            dtype, why = muon_dtype([*hidden_matrices(model).values()], runtime, self.group)
            self.reasons += (why,)
        self.optimizers = build_optimizers(model, recipe, dtype, self.group)
        self.scaler = torch.amp.GradScaler(  # 200: its own 2,000 good steps before the scale rises are half a run
            runtime.device.type, enabled=runtime.dtype == torch.float16, growth_interval=200
        )
        self.steps_done = 0
        self._machine_before: dict[str, Any] = {}  # that of the checkpoint, in a resumed run

    def steps(self) -> Iterator[Step]:
        """One record per optimizer step, until the recipe's last. DivergedError at a NaN or infinite loss."""
        while self.steps_done < self.recipe.steps:
            if not self.model.training:  # the caller may have measured in between; `train` visits every module
                self.model.train()
            yield self._one_step()

    def _one_step(self) -> Step:
        start = time.perf_counter()
        lr = set_rates(self.optimizers, self.recipe, self.steps_done)
        x, y = self.windows.batch(self.steps_done)  # (B, T), the same in every process
        n_tokens = (y != IGNORE).sum()
        mine = (t.tensor_split(self.group.world)[self.group.rank].split(self.at_once(x)) for t in (x, y))
        loss = self.group.sum(self._backward(list(zip(*mine, strict=True)), n_tokens))
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.grad_clip)
        found = torch.stack([loss.float(), grad_norm.float(), n_tokens.float()])  # one wait instead of three
        loss, grad_norm, n_tokens = found.tolist()
        self._check_finite(loss, grad_norm, lr)
        for optimizer in self.optimizers:
            if math.isfinite(grad_norm):  # else the loss scale was too high: the step is left out, the scale falls
                self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        self.steps_done += 1
        return Step(self.steps_done, loss, lr, grad_norm, time.perf_counter() - start, int(n_tokens))

    def at_once(self, x: Tensor) -> int:
        """Windows of x (B, T) in one forward pass: as many tokens where they are halved."""
        return self.micro_batch * self.recipe.window // x.size(1)

    def _backward(self, parts: list[tuple[Tensor, Tensor]], n_tokens: Tensor) -> Tensor:
        """Gradients of this process's parts, summed over the group with the last; the parts' share of the loss."""
        loss = torch.zeros((), device=n_tokens.device)
        for i, (x, y) in enumerate(parts):
            unfinished = self.group.world > 1 and i < len(parts) - 1
            with self.loss_of.no_sync() if unfinished else nullcontext():
                with self.runtime.autocast():
                    part = self.loss_of(x, y) * ((y != IGNORE).sum() / n_tokens)
                self.scaler.scale(part * self.group.world).backward()  # DistributedDataParallel takes the mean
            loss += part.detach()
        return loss

    def _check_finite(self, loss: float, grad_norm: float, lr: float) -> None:
        if math.isfinite(loss) and math.isfinite(grad_norm):
            return
        scale_too_high = self.scaler.is_enabled() and self.scaler.get_scale() >= 1  # below 1 it is not the scale
        if not math.isfinite(loss) or not scale_too_high:
            raise DivergedError(
                f"step {self.steps_done + 1}: loss {loss}, gradient norm {grad_norm} at lr {lr:.2e}. This step was "
                "not taken: the last checkpoint is of the steps before. Likely a learning rate that is too high: start "
                "over with a lower one; or damaged data: check the corpus."
            )

    def training_state(self) -> dict[str, Any]:
        """All but the weights, as `save_checkpoint` stores it."""
        device = self.runtime.device
        return {
            "step": self.steps_done,
            "seed": self.windows.seed,
            "machine": self._machine(),
            "recipe": asdict(self.recipe),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],  # of this process's card
        }

    def _machine(self) -> dict[str, Any]:
        """What must stay the same for a resumed run to end with the same bits."""
        runtime = self.runtime
        return {
            "device": runtime.device.type,
            "dtype": str(runtime.dtype),
            "threads": torch.get_num_threads(),
            "muon": next((str(o.dtype).removeprefix("torch.") for o in self.optimizers if isinstance(o, Muon)), None),
            "compiled": self.compiled,
            "windows per pass": self.micro_batch,
            "processes": self.group.world,
        }

    def resume(self, folder: str | Path) -> None:
        """Go on exactly where the checkpoint in `folder` stopped; CheckpointError if it is of another run.

        `changes`, asked when the trainer is fitted to its machine, says what differs there.
        """
        state = read_training(folder, ("step", "seed", "machine", "recipe", "optimizers", "scaler", "rng", "cuda_rng"))
        mine = asdict(self.recipe) | {"seed": self.windows.seed}
        theirs = {"half_windows": 0.0, "muon_momentum": 0.95} | state["recipe"]  # which a first edition's lacks
        theirs |= {"seed": state["seed"], "accumulation": self.recipe.accumulation}  # the second may differ
        other = [f"{k}={theirs.get(k)} there, {mine[k]} here" for k in mine if theirs.get(k) != mine[k]]
        if other:
            raise CheckpointError(f"{folder} is of another run ({'; '.join(other)}); use another folder with --out")
        load_weights(folder, self.model)
        timed = state["machine"]["device"] == self.runtime.device.type == "cpu"  # on a GPU the card says it
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            if isinstance(optimizer, Muon) and state["machine"].get("muon") and timed:
                optimizer.dtype = getattr(torch, state["machine"]["muon"])  # once a run: bits depend on it
                self.reasons = (*self.runtime.reasons, f"Muon in {state['machine']['muon']}: as this run began")
        if state["scaler"]:  # empty where the run so far needed no loss scaling
            self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and self.runtime.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"][0], self.runtime.device)
        self.steps_done = state["step"]
        self._machine_before = state["machine"]

    def changes(self) -> list[str]:
        """A sentence for each difference that keeps a resumed run from ending with the very same bits."""
        now, before = self._machine(), self._machine_before
        changed = (k for k in now if k in before and before[k] != now[k])
        return [f"resumed: {k} was {before[k]} and is {now[k]}, equal in kind, not in bits" for k in changed]
