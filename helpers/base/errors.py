"""What keeps a run or a request from going on, told so that its message is enough; what a setting or a file must be."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any


class SeriesError(Exception):
    """An error whose message says what to do: a program prints it and no traceback."""


class SettingError(SeriesError, ValueError):
    """A setting that cannot be: of a model, a recipe, a profile, a device."""


class CheckpointError(SeriesError, RuntimeError):
    """A checkpoint or weights that cannot be written, found or read; the message says what to do."""


class StoppedError(SeriesError, RuntimeError):
    """A run that was told to stop, and has saved what it had; told_by: the signal."""

    def __init__(self, message: str, told_by: int) -> None:
        super().__init__(message)
        self.told_by = told_by


class LostError(SeriesError, RuntimeError):
    """A run that cannot go on because another of its processes is gone."""


def require(condition: bool, message: str) -> None:
    """SettingError with the message, unless the condition holds."""
    if not condition:
        raise SettingError(message)


def require_each(settings: Any, names: str, holds: Callable[[Any], bool], says: str) -> None:
    """SettingError for the first of the named settings that does not hold; `{name}` in the message is its name."""
    for name in names.split():
        value = getattr(settings, name)
        require(holds(value), f"{name}={value!r} {says.format(name=name)}")


def require_counts(settings: Any, names: str, least: int = 1) -> None:
    """SettingError for the first of the named settings that is not a whole number of at least `least`."""
    require_each(settings, names, lambda value: type(value) is int, "must be a whole number")
    require_each(settings, names, lambda value: value >= least, f"must be at least {least}")


def with_entries(file: Path, found: Any, needs: tuple[str, ...]) -> dict[str, Any]:
    """What was read from a file of a checkpoint. CheckpointError unless it is a dictionary with these entries."""
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} is damaged (no dictionary); delete {file.parent} and train again")
    if absent := [name for name in needs if name not in found]:
        raise CheckpointError(f"{file} lacks {', '.join(absent)}: no run of this series wrote it; train again")
    return found


def is_number(value: Any) -> bool:
    """Whether a setting is a number that can be calculated with: no bool, not infinite, not NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_share_pair(value: Any) -> bool:
    """Whether a setting is two numbers, each at least 0 and below 1."""
    return isinstance(value, tuple | list) and len(value) == 2 and all(is_number(v) and 0 <= v < 1 for v in value)
