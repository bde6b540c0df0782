"""The processes of a run, as its parts see them."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


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
