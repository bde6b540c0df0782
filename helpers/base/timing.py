"""How long something takes on this machine: what an automatic choice goes by."""

import time
from collections.abc import Callable, Sequence

import torch


def seconds_in_turns(ways: Sequence[Callable[[], object]], device: str = "cpu") -> list[float]:
    """`seconds_of` each way, the shortest of three turns: what holds the machine up for a moment hits one of many.

    What takes 20 times as long as the fastest has no further turn: emulated bf16, 50 times slower, is not waited for.
    """
    seconds = [seconds_of(way, device) for way in ways]
    for _ in range(2):
        hopeless = 20 * min(seconds)
        seconds = [min(s, seconds_of(way, device)) if s < hopeless else s for s, way in zip(seconds, ways, strict=True)]
    return seconds


def seconds_of(way: Callable[[], object], device: str = "cpu", within: float = 0.02) -> float:
    """What one call takes: the shortest of a few, after one that is not counted, in about `within` seconds."""
    way()
    best, end = float("inf"), time.perf_counter() + within
    while best == float("inf") or time.perf_counter() < end:
        synchronize(device)
        start = time.perf_counter()
        way()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was told; a CPU has."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
