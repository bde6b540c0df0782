"""Install what requirements.txt names and this interpreter lacks, and nothing else: `python -m helpers.install`.

For Colab, Kaggle and conda, whose packages are chosen to fit together: what is there stays as it is, torch above all.
"""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path


def installed(name: str) -> str | None:
    """The version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def missing(requirements: str) -> list[str]:
    """The lines of a requirements file whose distribution is not installed in any version."""
    lines = (line.split("#")[0].strip() for line in requirements.splitlines())
    return [line for line in lines if line and not installed(re.split(r"[^\w.-]", line, maxsplit=1)[0])]


def main() -> int:
    torch = installed("torch")
    if torch is None:
        print("error: this Python has no torch. Leave PYTHON= out: make then builds .venv with everything in it.")
        return 1
    wanted = missing((Path(__file__).parents[1] / "requirements.txt").read_text(encoding="utf-8"))
    if not wanted:
        return 0
    print(f"installing {', '.join(wanted)}; torch {torch} stays")
    return subprocess.call([sys.executable, "-m", "pip", "install", "--quiet", *wanted, f"torch=={torch}"])


if __name__ == "__main__":
    sys.exit(main())
