"""Several processes, one run: how they find each other, and how one that is lost is told. `torchrun` starts them."""

import os
import re
from contextlib import suppress

import torch
import torch.distributed as dist

from helpers.base.errors import SettingError
from helpers.base.group import Group
from helpers.runtime import pick_device

LOST = re.compile(r"connection|abort|broken pipe|timed? ?out|remote (process|error)|remoteerror|socket", re.IGNORECASE)


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

    NCCL's errors have a class of their own, those of gloo a RuntimeError that names its source file; both say of a lost
    process that a connection or the time ended, and of a mistake (an illegal memory access, tensors that do not fit)
    something else.
    """
    from_there = isinstance(error, dist.DistError) or "/gloo/" in str(error)
    return from_there and (isinstance(error, dist.DistNetworkError) or LOST.search(str(error)) is not None)


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
