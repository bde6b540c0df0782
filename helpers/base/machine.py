"""What this machine has: its NVIDIA card, driver and compiler, and the cores that are free."""

import importlib.util
import os
import shutil
from pathlib import Path

import torch

DRIVER = Path("/proc/driver/nvidia")  # where Linux shows that NVIDIA's is loaded


def card() -> str:
    """The name of the GPU."""
    return torch.cuda.get_device_name()


def out_of_reach() -> str:
    """Why this PyTorch does not see the NVIDIA card of this machine; empty if there is no sign of one."""
    if shutil.which("nvidia-smi") is None and not DRIVER.exists():
        return ""
    if torch.version.cuda is None:
        return "an NVIDIA driver is there, but this PyTorch is built without CUDA: install torch from its CUDA index"
    newest = "580 or newer" if torch.version.cuda.startswith("13.") else "the newest"
    return (
        f"an NVIDIA driver is there, but this PyTorch is for CUDA {torch.version.cuda} and finds none new enough, "
        f"or no card: update the driver ({newest}), or install torch from PyTorch's index of an older CUDA"
    )


def too_old() -> str:
    """Why this PyTorch cannot use the GPU that is there; empty if it can. A P100 (6.0) is what Kaggle still offers."""
    major, minor = torch.cuda.get_device_capability()
    built_for = (arch for arch in torch.cuda.get_arch_list() if arch.startswith("sm_"))  # compute_120 may be there too
    oldest = min((int(arch.removeprefix("sm_").rstrip("af")) for arch in built_for), default=0)
    if 10 * major + minor >= oldest:
        return ""
    return f"{card()} has compute capability {major}.{minor}, this PyTorch needs {oldest // 10}.{oldest % 10}"


def no_compiler() -> str:
    """What torch.compile needs on a GPU and does not find; empty where nothing is missing."""
    if importlib.util.find_spec("triton") is None:
        return "Triton, which torch.compile needs on a GPU, is not installed"
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "Triton, which torch.compile needs on a GPU, finds no C compiler"
    return ""


def free_cores() -> int:
    """Processor cores that this process may use: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        cores = cores if limit == "max" else min(cores, max(1, int(limit) // int(period)))
    return cores
