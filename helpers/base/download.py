"""Files of others: downloaded in several tries, found in what is attached on Kaggle, known by their hash."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter, Retry
from tqdm import tqdm


def download(url: str, what: str, tries: int = 4) -> bytes:
    """The bytes at `url`: 5 s to connect, 30 s between packets, several tries, a bar where someone watches.

    what: the bar's title. requests.RequestException if it cannot be had.
    """
    retry = Retry(total=tries, backoff_factor=0.3, status_forcelist=(429, 500, 502, 503, 504))
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        for _ in range(tries - 1):  # `retry` covers the answer's head, this loop a body that breaks off or stalls
            response = _head(session, url)
            with suppress(requests.exceptions.ChunkedEncodingError, requests.ConnectionError):
                return _body(response, what)
        return _body(_head(session, url), what)


def _head(session: requests.Session, url: str) -> requests.Response:
    response = session.get(url, stream=True, timeout=(5, 30))
    response.raise_for_status()
    return response


def _body(response: requests.Response, what: str) -> bytes:
    size, content = int(response.headers.get("content-length", 0)) or None, bytearray()
    with tqdm(total=size, unit="B", unit_scale=True, desc=what, disable=None) as bar:
        for part in response.iter_content(65536):
            content += part
            bar.update(len(part))
    return bytes(content)


def kaggle_inputs(file: str) -> Iterator[Path]:
    """Files of that name in the inputs attached to a Kaggle notebook, searched when asked: they may be many."""
    yield from sorted(Path("/kaggle/input").glob(f"**/{file}"))


def has_hash(path: Path, sha256: str) -> bool:
    """Whether there is a file of that content."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
