"""An executed notebook as a page that loads nothing from the network: formulas are MathML, links lead to pages."""

import re
from html import escape, unescape
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import pass_context
from nbconvert import HTMLExporter
from traitlets.config import Config

try:
    from latex2mathml.converter import convert
except ModuleNotFoundError:  # Kaggle without internet: formulas stay as they were written
    convert = None

FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+)\$", re.DOTALL)
CODE = re.compile(r"(<(code|pre)\b.*?</\2>)", re.DOTALL)
NOTEBOOK = re.compile(r'(href="\d\d_\w+)\.ipynb(?=[#"])')
NO_WORDS = "No description has been provided for this image"
NARROW = """<style>
img, svg, math[display="block"] { max-width: 100%; height: auto; }
math[display="block"] { overflow-x: auto; padding: 0.3em 0; }
table { display: block; overflow-x: auto; }
</style>
</head>"""


class Page(HTMLExporter):
    """nbconvert's page, whose formulas a browser shows by itself, and without the code of the set-up cell."""

    @property
    def default_config(self) -> Config:
        config = Config(super().default_config)
        config.TagRemovePreprocessor.update(enabled=True, remove_input_tags={"set-up"})
        return config

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        return with_mathml(super().markdown2html(context, source))


def with_mathml(html: str) -> str:
    """HTML in which LaTeX between dollar signs has become MathML; what stands in code is left as it is."""
    parts = CODE.split(html)  # text, code, the name of its tag, text, …
    text, code = [FORMULA.sub(_mathml, part) for part in parts[::3]], [*parts[1::3], ""]
    return "".join(before + untouched for before, untouched in zip(text, code, strict=True))


def _mathml(found: re.Match[str]) -> str:
    if convert is None:
        return found[0]
    latex, display = (found["block"], "block") if found["block"] else (found["inline"], "inline")
    return convert(unescape(latex.strip()), display=display)


def write_html(notebook: Path) -> Path:
    """The executed notebook as a page beside it."""
    exporter = Page(mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="")
    content = nbformat.read(notebook, as_version=4)
    page, _ = exporter.from_notebook_node(content)
    page = with_words(page, content)
    target = notebook.with_suffix(".html")
    target.write_text(NOTEBOOK.sub(r"\1.html", page).replace("</head>", NARROW, 1), encoding="utf-8")
    return target


def with_words(page: str, notebook: Any) -> str:
    """The page with each picture's own words for those who cannot see it; nbconvert's has the same for all."""
    for words in _alternatives(notebook):
        page = page.replace(f'alt="{NO_WORDS}"', f'alt="{escape(words)}"', 1)
    return page


def _alternatives(notebook: Any) -> list[str]:
    """What each picture of a notebook says, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output.metadata.get("image/png", {}) for output in outputs if "image/png" in output.get("data", {})]
    return [picture.get("alt", "a figure") for picture in pictures]
