"""Where the series is, where its results go, and how they are written: whole or not at all."""

import ast
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.base.errors import SeriesError

ROOT = Path(__file__).resolve().parents[2]  # the series' folder
DRIVE = Path("/content/drive/MyDrive")  # Google Drive, where Colab mounts it


class PlaceError(SeriesError, OSError):
    """A place that cannot be written: a full disk, a read-only folder, a file in the way."""


def workspace() -> Path:
    """Where results go: Google Drive where Colab has mounted it (a Colab machine keeps nothing else), else the series'
    folder, else the current one where the series lies in a read-only place (Kaggle's input; /kaggle/working is kept).
    """
    if os.access(DRIVE, os.W_OK):
        return DRIVE / ROOT.name
    return ROOT if os.access(ROOT, os.W_OK) else Path.cwd()


def runs_folder(profile: str) -> Path:
    """The folder of a profile's checkpoints, metrics and figures; RUNS_DIR moves it."""
    folder = workspace() / (os.environ.get("RUNS_DIR") or "runs") / profile
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def on_drive(folder: str | Path) -> bool:
    """Whether a folder lies on Google Drive, which takes what is written and uploads it later, slowly."""
    return Path(folder).resolve().is_relative_to(DRIVE)


@contextmanager
def writing(place: str | Path) -> Iterator[None]:
    """Turns the operating system's refusal to write `place` into a PlaceError that names it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, SeriesError):
            raise
        raise PlaceError(
            f"cannot write {place} ({error}): free some space there, or choose another folder with --out or RUNS_DIR"
        ) from error


def atomic_write(path: str | Path, content: str | bytes) -> Path:
    """Write a file aside, then move it: it is whole or absent. Missing folders are made; PlaceError if it cannot be."""
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
            return aside.replace(path)
        finally:
            if aside.parent.is_dir():
                aside.unlink(missing_ok=True)


def write_json(path: str | Path, content: dict[str, Any]) -> Path:
    """`atomic_write` of a dictionary; a value of nan becomes null."""
    text = json.dumps({name: None if value != value else value for name, value in content.items()}, indent=1)
    return atomic_write(path, text + "\n")


def imported(program: str) -> set[Path]:
    """The helpers' files that a program imports, directly or through others, and their packages; relative to ROOT.

    program: Python source. Only imports at the top level of a file count, not those in a function.
    """
    found: set[Path] = set()
    sources = [program]
    while sources:
        froms = (node for node in ast.parse(sources.pop()).body if isinstance(node, ast.ImportFrom))
        for module in (node.module or "" for node in froms):
            file = Path(f"{module.replace('.', '/')}.py")
            if module.startswith("helpers.") and file not in found:
                found |= {file, file.parent / "__init__.py", Path("helpers/__init__.py")}
                sources.append((ROOT / file).read_text(encoding="utf-8"))
    return found


def read_json(path: str | Path) -> dict[str, Any]:
    """A file that `write_json` wrote; FileNotFoundError where there is none."""
    return json.loads(Path(path).read_text(encoding="utf-8"))
