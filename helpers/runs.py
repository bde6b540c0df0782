"""Where the series is, and where its results go."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from helpers.errors import writing

ROOT = Path(__file__).resolve().parents[1]  # the series' folder
DRIVE = Path("/content/drive/MyDrive")  # Google Drive, where Colab mounts it


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


def write_json(path: str | Path, content: dict[str, Any]) -> Path:
    """Write aside, then move: the file is whole or absent. Missing folders are made; a value of nan becomes null."""
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    text = json.dumps({name: None if value != value else value for name, value in content.items()}, indent=1)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text + "\n", encoding="utf-8")
        return aside.replace(path)


def read_json(path: str | Path) -> dict[str, Any]:
    """A file that `write_json` wrote; FileNotFoundError where there is none."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def verdict(checks: dict[str, bool], reached: Iterable[str] = (), measured: bool = True) -> str:
    """A line a check, to print. Raises RuntimeError, naming them, if any failed (an `assert` would vanish under -O).

    reached: those that depend on what training reached; unless `measured`, no run has shown that they hold, and one
    that fails is said and not raised. ValueError for a name that is no check.
    """
    if unknown := set(reached) - set(checks):
        raise ValueError(f"no such check: {'; '.join(sorted(unknown))}")
    hoped = () if measured else set(reached)
    failed = [name for name, passed in checks.items() if not passed]
    if broken := [name for name in failed if name not in hoped]:
        raise RuntimeError(f"not as promised: {'; '.join(broken)}")
    note = " (a hope: this profile has not been measured before)"
    return "\n".join(f"{name}: {bool(passed)}{note if name in failed else ''}" for name, passed in checks.items())
