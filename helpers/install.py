"""Install what requirements.txt names and this interpreter lacks, and nothing else: `python -m helpers.install`.

For Colab, Kaggle and conda, whose packages are chosen to fit together: what is there stays as it is, torch above all.
"""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

OLDEST_TORCH = (2, 10)  # the first whose Muon and compiler the series was written for
OLDEST_MAJOR = {"gradio": 6}  # where an older one has other arguments


def installed(name: str) -> str | None:
    """The version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def missing(requirements: str) -> list[str]:
    """The lines of a requirements file whose distribution is not installed in any version that would do."""
    lines = (line.split("#")[0].strip() for line in requirements.splitlines())
    names = {line: re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if line}
    return [line for line, name in names.items() if _major(installed(name)) < OLDEST_MAJOR.get(name, 0)]


def _major(version: str | None) -> int:
    """The 6 of "6.31.0"; -1 for what is not there."""
    return -1 if version is None else int(version.split(".")[0])


def main() -> int:
    torch = installed("torch")
    if torch is None:
        print("error: this Python has no torch. Leave PYTHON= out: make then builds .venv with everything in it.")
        return 1
    if tuple(map(int, torch.split(".")[:2])) < OLDEST_TORCH:
        print(f"error: torch {torch} is too old, the series needs {'.'.join(map(str, OLDEST_TORCH))} or newer.")
        return 1
    wanted = missing((Path(__file__).parents[1] / "requirements.txt").read_text(encoding="utf-8"))
    if not wanted:
        return 0
    print(f"installing {', '.join(wanted)}; torch {torch} stays")
    return subprocess.call([sys.executable, "-m", "pip", "install", "--quiet", *wanted, f"torch=={torch}"])


if __name__ == "__main__":
    sys.exit(main())
