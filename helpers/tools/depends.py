"""Tell make which helpers a notebook imports: `python -m helpers.tools.depends SOURCE TARGET`.

Beside TARGET, build/demo/04_overfitting.ipynb, it writes build/demo/04_overfitting.mk, which make reads the next time:
when a helper changes, the notebooks run again that import it, directly or through others, and no other.
"""

import sys
from pathlib import Path

from helpers.base.files import ROOT, atomic_write, imported, read_json


def write_dependencies(source: str, target: str) -> Path:
    """Write the rule for the executed notebook `target`, as make names it; the file. PlaceError if it cannot be."""
    cells = read_json(ROOT / source)["cells"]
    program = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    if '"-m", "helpers"' in program:  # it starts the command line in a process of its own
        program += "\nfrom helpers.__main__ import main"
    files = " ".join(file.as_posix() for file in sorted(imported(program)))
    # The second line is for a helper that has been deleted or renamed since: make then goes on, and runs the notebook.
    rules = f"{target}: {files}\n{files}:\n"
    return atomic_write((ROOT / target).with_suffix(".mk"), rules)


if __name__ == "__main__":
    write_dependencies(*sys.argv[1:])
