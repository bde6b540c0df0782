"""A trainer fitted to its machine: compiled where it pays, the micro-batch that fits, its processes connected."""

import torch
from torch import nn

from helpers.train import Trainer

COMPILE_PAYS = 500  # steps: compiling takes 40 to 70 s on a T4, and a step 0.10 to 0.15 s less then (estimates)


def fit_to_machine(trainer: Trainer) -> list[str]:
    """Compile where it pays, fit the micro-batch into the memory, connect the processes; a sentence for each.

    And one for each difference that keeps a resumed run from ending with the very same bits. A first batch is
    tried out and thrown away: what cannot work fails here, and no step is slowed by it.
    """
    recipe, group, runtime = trainer.recipe, trainer.group, trainer.runtime
    sentences, plain = [], trainer.loss_of
    trainer.micro_batch = asked = min(trainer.micro_batch, -(-recipe.batch_size // group.world))
    if runtime.compiles and (left := recipe.steps - trainer.steps_done) >= COMPILE_PAYS:
        trainer.loss_of, trainer.compiled = torch.compile(plain, dynamic=False), True
    elif runtime.compiles:
        sentences.append(f"not compiled: {left:,} steps are too few for a minute of compiling to pay")
    while trainer.compiled or runtime.device.type in ("cuda", "mps"):
        try:
            _try_out(trainer)
            break
        except Exception as error:  # torch.compile fails in as many ways as there are compilers
            full = isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)
            if full and trainer.micro_batch == 1:
                raise torch.OutOfMemoryError(str(error)) from error
            if full:
                trainer.micro_batch = -(-trainer.micro_batch // 2)
            elif trainer.compiled:
                trainer.loss_of, trainer.compiled = plain, False
                sentences.append(f"not compiled, so slower ({type(error).__name__}: {str(error).strip()[:120]})")
            else:
                raise
    if trainer.micro_batch < asked:
        sentences.append(f"micro-batch {trainer.micro_batch}: {asked} windows at once did not fit into the memory")
    return sentences + _connect(trainer) + trainer.changes()


def _try_out(trainer: Trainer) -> None:
    """A forward and backward pass per shape of windows, of which nothing stays."""
    trainer.model.zero_grad(set_to_none=True)  # what an attempt that failed left behind
    windows, step = trainer.windows, trainer.steps_done
    trainer.model.train()
    for at in {step, max(step, windows.halved)}:  # both shapes where windows are halved first: each is compiled
        x, y = windows.batch(at)
        count = trainer.at_once(x)
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            with trainer.runtime.autocast():
                loss = trainer.loss_of(x[:count], y[:count])
            loss.backward()
    trainer.model.zero_grad(set_to_none=True)


def _connect(trainer: Trainer) -> list[str]:
    """Let the processes of a group sum their gradients."""
    group = trainer.group
    if group.world == 1:
        return []
    cards = [group.local_rank] if trainer.runtime.device.type == "cuda" else None
    trainer.loss_of = nn.parallel.DistributedDataParallel(trainer.loss_of, device_ids=cards)
    return [f"{group.world} processes share the {trainer.recipe.batch_size} windows of a step"]
