"""Slides from tagged cells: `python -m helpers.tools.slides [NOTEBOOK …]`, called by `make slides`; build/slides.

Each cell says in its metadata what it is on the slides (JupyterLab: Property Inspector, Slide Type). reveal.js lies
beside the pages, so they need no network. S opens the speaker's view, F fills the screen, `?print-pdf` prints.
"""

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import SlidesExporter
from nbconvert.preprocessors import Preprocessor

from helpers.base.files import ROOT, atomic_write
from helpers.tools.address import LINKS
from helpers.tools.pages import Page, with_words

FOLDER = ROOT / "build/slides"
SIZE = ("1280", "720")  # of a slide, in pixels


class Projected(Preprocessor):
    """Leaves out what nobody reads on a wall: links to Colab, and the code that draws a figure."""

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:  # noqa: ARG002
        """As nbconvert calls it: the cell, changed in place, and its resources."""
        if cell.cell_type == "markdown":
            cell.source = LINKS.sub("", cell.source)
        elif "show_figure(" in cell.source or "show_roadmap(" in cell.source:
            cell.metadata["transient"] = {"remove_source": True}
        return cell, resources


class Deck(Page, SlidesExporter):
    """nbconvert's slides, with formulas as MathML and reveal.js beside them."""


def write_slides(notebook: Path, folder: Path = FOLDER) -> Path:
    """The slides of a notebook, in `folder`, with reveal.js in a folder beside them."""
    package = Path(importlib.util.find_spec("sphinx_revealjs").origin).parent
    for part in ("dist", "plugin/notes"):
        there = folder / "reveal" / part
        if not there.exists():
            shutil.copytree(package / "_static/revealjs" / part, there, ignore=shutil.ignore_patterns("*.map"))
    deck = Deck(
        template_paths=[str(Path(__file__).parent), *Deck().template_paths],
        template_file="slides.html.j2",
        preprocessors=[Projected],
        reveal_url_prefix="reveal",
        reveal_theme="white",
        reveal_width=SIZE[0],
        reveal_height=SIZE[1],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    content = nbformat.read(notebook, as_version=4)
    content.cells = [cell for cell in content.cells if cell.metadata.get("slideshow", {}).get("slide_type") != "skip"]
    page, _ = deck.from_notebook_node(content)
    return atomic_write(folder / f"{notebook.stem}.html", with_words(page, content))


def main(names: list[str]) -> None:
    for source in [Path(name) for name in names] or sorted((ROOT / "notebooks").glob("*.ipynb")):
        print(write_slides(source).relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
