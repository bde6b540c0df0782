"""A folder that is replaced whole: written aside, then moved, so that a kill leaves the old one or the new."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from helpers.base.files import on_drive


def move_in(aside: Path, folder: Path) -> None:
    """Put what was written aside in the place of `folder`, in two moves; `settle` mends a kill between them."""
    previous = beside(folder, "previous")
    settle(folder)
    if folder.exists():
        remove(previous)
        folder.rename(previous)
    aside.rename(folder)
    remove(previous)


def remove(folder: Path) -> None:
    """Delete a folder, if it is there; on Colab's Drive, its files' bytes too, which would go to the bin and count."""
    if on_drive(folder):
        for file in folder.glob("*"):
            with suppress(OSError):
                os.truncate(file, 0)
    shutil.rmtree(folder, ignore_errors=True)


def beside(folder: Path, role: str) -> Path:
    """The folder next to it in which its new or its previous content stands."""
    return folder.with_name(f"{folder.name}.{role}")


def settle(folder: Path) -> Path:
    """Put the previous checkpoint back where a kill struck between the two moves."""
    previous = beside(folder, "previous")
    if previous.exists() and not folder.exists():
        with suppress(FileNotFoundError):  # another process of the run was faster
            previous.rename(folder)
    return folder
