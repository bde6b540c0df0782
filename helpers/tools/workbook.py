"""The student's notebooks: `python -m helpers.tools.workbook`, called by `make workbook` and `make refresh`.

nbgrader's own preprocessors put a stub in the place of each solution, exactly as they do when a teacher hands the
notebooks out by nbgrader. What an exercise printed is left out, what tells the result of a guess is folded; all else
stays, the numbers of the cells too. The graded assignment has no outputs and no link to its solution.
"""

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbconvert.preprocessors import Preprocessor
from nbgrader.preprocessors import CheckCellMetadata, ClearSolutions, ComputeChecksums, LockCells
from traitlets.config import Config

from helpers.base.files import ROOT, atomic_write

FOLDER = ROOT / "notebooks/workbook"
SOLVED = "/blob/main/notebooks/"
HEAD = (
    "> This is the student's notebook. Where it says `YOUR CODE HERE` your lines are missing, and the cell below asks "
    "whether they are right. Nothing else depends on them: an exercise may be left out. (Where *Run all* stops at one, "
    "go on with *Run selected cell and all below*.)"
)
LINK = " [The same notebook, solved]({solved})"
OPEN, CLOSE = "<details><summary>After you have seen it</summary>\n\n", "\n\n</details>"


class ForStudents(Preprocessor):
    """Folds what tells the result of a guess, and lets a notebook run on over exercises that are not solved."""

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        """As nbconvert calls it: the notebook, changed in place, and its resources."""
        guessed = shown = False
        for cell in nb.cells:
            tags = cell.metadata.setdefault("tags", [])
            if "guess" in tags:
                guessed, shown = True, False
            elif "exercise" in tags:
                if cell.cell_type == "code":
                    cell.metadata["tags"], cell.outputs = ["exercise", "raises-exception"], []
            elif guessed and cell.cell_type == "code":
                cell.metadata["collapsed"] = True  # Jupyter's older notebook
                cell.metadata["jupyter"] = {"outputs_hidden": True}  # JupyterLab
                shown = True
            elif shown:
                cell.source, guessed, shown = folded(cell.source), False, False
        return nb, resources


def folded(text: str) -> str:
    """Markdown whose part before the first heading has to be opened to be read."""
    before, heading, after = re.match(r"(.*?)(^#|\Z)(.*)", text, flags=re.S | re.M).groups()
    return OPEN + before.rstrip() + CLOSE + ("\n\n" + heading + after if heading else "") if before.strip() else text


def sources() -> list[Path]:
    """The solved notebooks: those of the series, and the graded assignment."""
    return [*sorted(FOLDER.parent.glob("*.ipynb")), *sorted(FOLDER.parent.glob("teaching/*.ipynb"))]


def student_version(source: Path) -> str:
    """The text of the student's notebook that is made from `source`."""
    config, graded = Config(), source.parent != FOLDER.parent
    makers = [LockCells, ClearSolutions, CheckCellMetadata, ComputeChecksums, ForStudents]
    config.NotebookExporter.preprocessors = makers
    notebook = nbformat.read(source, as_version=4)
    for cell in (cell for cell in notebook.cells if graded and cell.cell_type == "code"):
        cell.outputs = []
        cell.metadata["tags"] = [tag for tag in cell.metadata.get("tags", []) if not tag.startswith("nbval-")]
    head = notebook.cells[0]
    title, links, rest = head.source.replace(SOLVED, f"{SOLVED}workbook/").split("\n\n", 2)
    hint = HEAD if graded else HEAD + LINK.format(solved=f"../{source.name}")
    head.source = "\n\n".join([title, head.source.split("\n\n")[1] if graded else links, hint, rest])
    text, _ = NotebookExporter(config=config).from_notebook_node(notebook)
    return text.rstrip("\n") + "\n"


def main() -> None:
    for source in sources():
        text = student_version(source)
        atomic_write(FOLDER / source.name, text)
        print(f"notebooks/workbook/{source.name}  {text.count('raise NotImplementedError')} functions to write")


if __name__ == "__main__":
    sys.exit(main())
