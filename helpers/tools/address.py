"""Put the repository's address where readers click: `python -m helpers.tools.address OWNER/NAME`, or `--check` it.

It stands in one place, the set-up cell's file. From there it goes into every notebook's set-up cell, into the links at
the head of every notebook that open it in Colab and Kaggle, into the README and CITATION.cff.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PLACEHOLDER = "OWNER/REPO"
NAME = r"[A-Za-z0-9](?:-?[A-Za-z0-9])*/[\w.-]+"  # a GitHub user or organisation, and its repository
HOST = "https://github.com/"
COLAB = "https://colab.research.google.com/github/{address}/blob/main/notebooks/{file}"
KAGGLE = "https://kaggle.com/kernels/welcome?src=https://github.com/{address}/blob/main/notebooks/{file}"
LINKS = re.compile(r"^\[Open in Colab\]\(.*$", re.MULTILINE)
BADGE = re.compile(rf"(colab\.research\.google\.com/github/|github\.com/){NAME}(?=/blob/main/notebooks/)")
CLONE = re.compile(rf"(git clone (?:--depth 1 )?{HOST}){NAME}(?= )")
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}  # in Colab, and in JupyterLab
SET_UP = re.compile(rf'(\\"SERIES_REPOSITORY\\", \\"{HOST}){NAME}(?=\\")')  # in a notebook's file
CITED = re.compile(rf'(repository-code: "{HOST}){NAME}(?=")')


class AddressError(ValueError):
    """An address that no GitHub repository has; the message says what one looks like."""


def current(root: Path = ROOT) -> str:
    """The address that is set: OWNER/NAME."""
    return re.search(rf'"{HOST}({NAME})"', _cell(root))[1]


def links(address: str, file: str) -> str:
    """The line under a notebook's title: words, not pictures, which would have to be fetched to read it."""
    places = {"address": address, "file": file}
    return f"[Open in Colab]({COLAB.format(**places)}) · [Open in Kaggle]({KAGGLE.format(**places)})"


def put(address: str, root: Path = ROOT) -> list[Path]:
    """Write `address` into the set-up cell's file, every notebook, README and CITATION.cff; those that changed.

    Outputs and everything else stay as they are, byte for byte. Raises AddressError for what is no OWNER/NAME.
    """
    address = address.removeprefix(HOST).removesuffix("/").removesuffix(".git")
    if not re.fullmatch(NAME, address) or address.split("/")[1] in (".", ".."):
        raise AddressError(f"{address!r} is no address on GitHub: it must look like owner/name")
    cell = root / "helpers/tools/setup_cell.py"
    new = {cell: re.sub(rf'"{HOST}{NAME}"', f'"{HOST}{address}"', _cell(root))}
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        new[notebook] = _notebook(notebook, address, new[cell].strip())
    others = sorted((root / "notebooks").glob("*/*.ipynb"))  # the student's, and the teacher's
    for path in (root / "README.md", root / "CITATION.cff", *others):
        new[path] = path.read_text(encoding="utf-8")
        for link in (BADGE, CLONE, CITED, SET_UP):
            new[path] = link.sub(rf"\g<1>{address}", new[path])
    changed = [path for path, content in new.items() if path.read_text(encoding="utf-8") != content]
    for path in changed:
        path.write_text(new[path], encoding="utf-8", newline="\n")
    return changed


def _notebook(path: Path, address: str, cell: str) -> str:
    """The notebook's file with its links and its set-up cell as they have to be."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    head = notebook["cells"][0]
    title, _, rest = "".join(head["source"]).partition("\n\n")
    rest = LINKS.sub("", rest).lstrip("\n")
    head["source"] = f"{title}\n\n{links(address, path.name)}\n\n{rest}".splitlines(keepends=True)
    for one in set_up(notebook["cells"], cell):
        one["source"] = one["source"].splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def set_up(cells: list[Any], source: str) -> list[Any]:
    """Put `source` into the set-up cell of a notebook's cells, and fold it; those that were changed."""
    found = [cell for cell in cells if "set-up" in cell["metadata"].get("tags", [])]
    for cell in found:
        cell["source"] = source
        cell["metadata"].update(FOLDED)
    return found


def _cell(root: Path) -> str:
    return (root / "helpers/tools/setup_cell.py").read_text(encoding="utf-8")


def main(arguments: list[str]) -> int | str:
    """What `make address` and `make release-check` do."""
    if arguments == ["--check"]:
        unset = f"error: the address is still {PLACEHOLDER}: `make address REPO=owner/name`, then commit"
        return unset if current() == PLACEHOLDER else 0
    try:
        changed = put("".join(arguments))
    except AddressError as error:
        return f"error: {error}: make address REPO=owner/name"
    print(f"{len(changed)} files now say {current()}" if changed else f"all files say {current()} already")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
