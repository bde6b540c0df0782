"""The glossary of the series, made from its notebooks: `python -m helpers.tools.glossary` writes notebooks/GLOSSARY.md.

A notebook introduces a term in bold, in a sentence that defines it. Bold text that ends in a sign (**Predict:**) is a
label and no term.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.base.files import ROOT, atomic_write, read_json

NOTEBOOKS = ROOT / "notebooks"
GLOSSARY = NOTEBOOKS / "GLOSSARY.md"
BOLD = re.compile(r"\*\*([^*\n]+?[^*\n:.?!,])\*\*")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`$“*\[])")
HEADING = re.compile(r"^#{1,4} +(.+)$", re.MULTILINE)
HEAD = """# Glossary

Each term with the sentence that introduces it, and where that stands. Made from the notebooks by `make refresh`.

"""


@dataclass(frozen=True)
class Term:
    """A term as it stands in bold, and the sentence around it."""

    name: str
    sentence: str
    notebook: Path
    heading: str  # the last one above it
    cell: int  # its number among all cells of the notebook


def prose(notebook: Path) -> Iterator[tuple[int, str]]:
    """The Markdown cells of a notebook's lesson, numbered among all cells: not its title cell and not its last one."""
    cells = read_json(notebook)["cells"]
    for number, cell in enumerate(cells[1:-1], 1):
        if cell["cell_type"] == "markdown":
            yield number, "".join(cell["source"])


def terms(notebook: Path) -> list[Term]:
    """What a notebook introduces, in its order."""
    found, heading = [], ""
    for number, text in prose(notebook):
        for paragraph in re.split(r"\n\s*\n|\n(?=[-*] |\d+\. )", text):
            if (titles := HEADING.findall(paragraph)) and not titles[-1].startswith("Exercise "):
                heading = titles[-1]
            for sentence in SENTENCE.split(HEADING.sub("", paragraph).strip()):
                plain = re.sub(r":$", ".", " ".join(BOLD.sub(r"\1", sentence).lstrip("-* ").split()))
                found += [Term(name, plain, notebook, heading, number) for name in BOLD.findall(sentence)]
    return found


def all_terms() -> list[Term]:
    """What the series introduces, in its order."""
    return [term for notebook in sorted(NOTEBOOKS.glob("*.ipynb")) for term in terms(notebook)]


def as_markdown(found: list[Term]) -> str:
    """The page, sorted by name, a line per term."""
    lines = []
    for term in sorted(found, key=lambda term: term.name.lower()):
        anchor = re.sub(r"\s+", "-", term.heading).replace("(", "%28").replace(")", "%29")
        place = f"[{term.notebook.stem[:2]}, {term.heading}]({term.notebook.name}#{anchor})"
        lines.append(f"- **{term.name}**: {term.sentence} ({place})\n")
    return HEAD + "".join(lines)


if __name__ == "__main__":
    atomic_write(GLOSSARY, as_markdown(all_terms()))
