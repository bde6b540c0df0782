"""The teacher's answer key, made from the notebooks: `python -m helpers.tools.answers`, part of `make workbook`.

notebooks/teaching/ANSWERS.md holds each exercise with its minutes, points and solution, and each closing question with
its answer.
"""

import re
from pathlib import Path
from typing import Any

import nbformat

from helpers.base.files import atomic_write
from helpers.tools.workbook import FOLDER, sources

KEY = FOLDER.parent / "teaching/ANSWERS.md"
HEAD = (
    "# Answer key\n\nEvery exercise with its solution, every closing question with its answer. Made from the notebooks "
    "by `make workbook`, so it is changed there. Students have the answers to the questions too, folded; the solutions "
    "stand in the solved notebooks."
)
TASK = re.compile(r"### (Exercise .+)\n\n\*(.+)\*")
QUESTION = re.compile(r"^(\d+\. .+?)\n\n *<details><summary>Answer</summary>\n\n(.+?)\n\n *</details>", re.M | re.S)


def answer_key() -> str:
    """The text of the key."""
    return "\n\n".join([HEAD, *(part for source in sources() for part in _of(source))]) + "\n"


def _of(source: Path) -> list[str]:
    """What one notebook contributes: its title, its exercises, its questions."""
    cells = nbformat.read(source, as_version=4).cells
    parts = ["## " + cells[0].source.partition("\n")[0].removeprefix("# ")]
    for at, cell in enumerate(cells):
        task = TASK.search(cell.source) if cell.cell_type == "markdown" else None
        if task:
            parts += [f"### {task[1]}", f"{task[2]}.", _solution(cells[at + 1])]
    questions = QUESTION.findall(cells[-1].source)
    if questions:
        parts += ["### Questions", *(f"{question}\n\n   {answer.strip()}" for question, answer in questions)]
    return parts


def _solution(cell: Any) -> str:
    """The solution's cell without nbgrader's markers."""
    lines = [line for line in cell.source.splitlines() if "### BEGIN SOLUTION" not in line and "### END" not in line]
    return "\n".join(["```python", *lines, "```"])


if __name__ == "__main__":
    print(atomic_write(KEY, answer_key()).name)
