"""Several processes, one run: what each needs to know of the others. `torchrun` starts them."""

import os
from contextlib import suppress
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from helpers.errors import SettingError
from helpers.runtime import pick_device


@dataclass(frozen=True)
class Group:
    """The processes of a run; a run without torchrun is a group of one."""

    rank: int = 0  # this process
    world: int = 1  # how many there are
    local_rank: int = 0  # this process among those of its machine: the number of its GPU

    @property
    def main(self) -> bool:
        """Whether this is the process that prints, measures and saves."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, in every one of them."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def gather(self, mine: Tensor) -> Tensor:
        """(n, …) of each process, one behind the other, (world * n, …), in every one of them."""
        if self.world == 1:
            return mine
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(parts, mine)
        return torch.cat(parts)

    def any(self, *flags: bool, device: torch.device) -> tuple[bool, ...]:
        """Which of the flags are up in any process; one exchange for all of them."""
        if self.world == 1:
            return flags
        return tuple((self.sum(torch.tensor(flags, dtype=torch.float32, device=device)) > 0).tolist())

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()


def is_main() -> bool:
    """Whether this process prints, measures and saves, joined or not."""
    return int(os.environ.get("RANK", 0)) == 0


def first_to_say(what: str) -> bool:
    """True in one of the processes that ask, whichever died: so that a message is said once."""
    if not dist.is_initialized():
        return is_main()
    with suppress(RuntimeError):  # the store lives in torchrun, or is gone with the process that kept it
        return dist.distributed_c10d._get_default_store().add(what, 1) == 1
    return True


def of_a_lost_process(error: RuntimeError) -> bool:
    """Whether torch.distributed raised it because another process is gone, and not a mistake in this one.

    NCCL's errors have a class of their own, those of gloo a RuntimeError that names its source file.
    """
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def join(device: str | None = None) -> Group:
    """The group that torchrun's environment variables describe, connected: by NCCL on GPUs, else by gloo.

    device: what the user asked for. Raises SettingError if there are more processes than GPUs for them.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        return Group()
    group = Group(int(os.environ["RANK"]), world, int(os.environ["LOCAL_RANK"]))
    cuda = pick_device(device)[0].type == "cuda"
    if cuda:
        if int(os.environ["LOCAL_WORLD_SIZE"]) > (cards := torch.cuda.device_count()):
            raise SettingError(f"there are more processes than the {cards} GPUs here: --nproc-per-node {cards}")
        torch.cuda.set_device(group.local_rank)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return group


def leave() -> None:
    """Close the connections of `join`, all processes together: one that leaves early has been seen to abort."""
    if dist.is_initialized():
        with suppress(RuntimeError):  # another is gone already
            dist.barrier()
        dist.destroy_process_group()
