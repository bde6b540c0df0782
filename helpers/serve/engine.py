"""A finished run that answers prompts: what is asked is checked, what is written is marked where it is the book's."""

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from helpers.checkpoint import read_meta
from helpers.data import DataError, gpt2_tokenizer, load_corpus
from helpers.errors import SeriesError
from helpers.files import read_json
from helpers.generate import Decoder, Sampling
from helpers.model import GPT, n_params
from helpers.run.log import read_log
from helpers.serve.decoding import FORMATS, load_for_decoding
from helpers.serve.provenance import Trace, VerbatimIndex
from helpers.serve.stream import stream_text


class RequestError(SeriesError, ValueError):
    """A request that cannot be answered; the message is for the person who made it."""


@dataclass(frozen=True)
class Limits:
    """How much one request, and all of them together, may ask for."""

    prompt: int = 4000  # characters
    new_tokens: int = 512
    samples: int = 4
    at_once: int = 2  # requests being answered
    waiting: int = 16  # requests in the queue; one more is told so


@dataclass(frozen=True)
class Request:
    """What to write, as a page or a program asks for it. `checked` says whether it makes sense."""

    prompt: str
    new_tokens: float = 128
    samples: float = 1
    temperature: float = 0.8
    top_k: float = 50  # 0: all
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: float = 1337
    weights: str = "fp32"
    device: str = "cpu"

    def checked(self, limits: Limits) -> tuple[int, int, int, Sampling]:
        """New tokens, samples, seed, and how to sample. RequestError for a value that is none, or too large."""
        if not isinstance(self.prompt, str) or not self.prompt:
            raise RequestError("The prompt is empty: type the beginning of something.")
        if len(self.prompt) > limits.prompt:
            raise RequestError(f"The prompt has {len(self.prompt):,} characters; {limits.prompt:,} are the limit here.")
        new = _whole("max new tokens", self.new_tokens, 1, limits.new_tokens)
        samples = _whole("number of samples", self.samples, 1, limits.samples)
        seed = _whole("seed", self.seed, 0, 2**53)
        top_k = _whole("top-k", self.top_k, 0, 10**9)
        temperature = _number("temperature", self.temperature, 0, 100)
        penalty = _number("repetition penalty", self.repetition_penalty, 0.01, 100)
        top_p = _number("top-p", self.top_p, 0, 1)
        try:
            return new, samples, seed, Sampling(temperature, top_k or None, top_p, penalty)
        except ValueError as error:
            raise RequestError(f"{error}.") from error


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(f"{name} must be a number from {low:g} to {high:g}, not {str(value)[:40]}.")
    return value


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if (number := _number(name, value, low, high)) != math.floor(number):
        raise RequestError(f"{name} must be a whole number, not {number:g}.")
    return int(number)


@dataclass
class Answer:
    """One text: the prompt, what was written so far, and how much of that is the book's."""

    prompt: str
    trace: Trace
    said: list[str] = field(default_factory=list)  # what each new token added

    @property
    def new(self) -> str:
        """All that was written."""
        return "".join(self.said)


@dataclass
class Answers:
    """All texts of a request, and how fast they came."""

    texts: list[Answer]
    new_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Of all texts together."""
        return self.new_tokens / self.seconds if self.seconds else 0.0


class Served:
    """A run's best checkpoint, with its book, in the formats that are asked for.

    folder: of the run, with best/ and, where there are any, log.csv and metrics.json. book: the text that was learnt;
    found by its name in the checkpoint unless told.
    Raises CheckpointError if there is no checkpoint and DataError if the book cannot be had or is another one.
    """

    def __init__(self, folder: str | Path, limits: Limits = Limits(), book: str | None = None) -> None:
        self.folder, self.limits = Path(folder), limits
        self.meta = read_meta(self.folder / "best")
        self.book = book or read_book(self.meta)
        self.tokenizer = gpt2_tokenizer(self.meta["rows"])
        self.index = VerbatimIndex(self.book, self.tokenizer)
        self.window = self.meta["window"]
        self.formats = ("int8",) if self.meta.get("weights") == "int8" else FORMATS
        self.devices = ("cpu", *(["cuda"] if torch.cuda.is_available() else []))
        self.devices += ("mps",) if torch.backends.mps.is_available() else ()
        self._models: dict[tuple[str, str], GPT] = {}
        self._lock = threading.Lock()
        self.model(self.formats[0], "cpu")  # what is damaged is found now, not with the first request

    def model(self, weights: str, device: str) -> GPT:
        """The model with such weights on such a device, loaded when first asked for."""
        if weights not in self.formats or device not in self.devices:
            offered = f"{', '.join(self.formats)} on {', '.join(self.devices)}"
            raise RequestError(f"{str(weights)[:20]} weights on {str(device)[:20]} are not served here: {offered}.")
        with self._lock:
            if (weights, device) not in self._models:
                model, _ = load_for_decoding(self.folder / "best", weights)
                self._models[weights, device] = model.to(device)
            return self._models[weights, device]

    def answers(self, request: Request, every: float = 0.06) -> Iterator[Answers]:
        """The answers as they grow, about every so many seconds and when they are complete.

        Sample number n draws from the seed + n, so a request gives the same texts whatever else is asked.
        Raises RequestError for a request that makes no sense.
        """
        new_tokens, samples, seed, sampling = request.checked(self.limits)
        ids = self.tokenizer.encode(request.prompt)
        if len(ids) > self.window:
            raise RequestError(
                f"The prompt has {len(ids):,} tokens; this model reads {self.window} at most: shorten it."
            )
        generators = [torch.Generator().manual_seed(seed + n) for n in range(samples)]
        model = self.model(request.weights, request.device)
        nothing = self.index.trace(request.prompt, [])
        now = Answers([Answer(request.prompt, nothing) for _ in range(samples)])
        began = told = time.perf_counter()
        decoder = Decoder(model, [ids] * samples, sampling, generators, self.window, draft=self.index.continuation)
        for pieces in stream_text(decoder, self.tokenizer.token_bytes, new_tokens):
            for text, piece in zip(now.texts, pieces, strict=True):
                text.said.append(piece)
            now.new_tokens, now.seconds = now.new_tokens + samples, time.perf_counter() - began
            if now.new_tokens == new_tokens * samples or time.perf_counter() - told >= every:
                for text in now.texts:
                    text.trace = self.index.trace(text.prompt, text.said)
                yield now
                told = time.perf_counter()

    def log(self) -> list[dict[str, float]]:
        """The run's log, a dictionary a step; empty where there is none."""
        file = self.folder / "log.csv"
        return read_log(file) if file.is_file() else []

    def card(self) -> dict[str, str]:
        """What the model is and what it knows, for people."""
        model = self.model(self.formats[0], "cpu")
        file = self.folder / "metrics.json"
        found = read_json(file) if file.is_file() else {}
        c, known = model.config, {key: value for key, value in found.items() if value is not None}
        card = {
            "parameters": f"{n_params(c):,}",
            "architecture": f"GPT-2: {c.n_layer} layers, {c.n_head} heads, {c.n_embd} wide, {c.vocab_size:,} rows",
            "learnt": f"{self.meta['corpus']}: {len(self.book):,} characters, {len(self.index.tokens):,} tokens",
            "windows": f"{self.window} tokens",
            "recipe": f"{self.meta.get('recipe', 'own')}, seed {self.meta.get('seed')}, {self.meta.get('step')} steps",
        }
        shown = {
            "loss_grid": ("whole-corpus loss, on the grid", "{:.4f} nats a token"),
            "loss_shift_half": ("the same, windows moved by half", "{:.4f} nats a token"),
            "floor_random": ("floor of random windows", "{:.4f} nats a token"),
            "recall_32_32": ("32 tokens given, the next 32 recited", "{:.1%} of 1,000 random places"),
            "recall_50_50": ("50 tokens given, the next 50 recited", "{:.1%} of 1,000 random places"),
            "longest_recitation": ("recited from its opening, without a mistake", "{:,} tokens"),
        }
        return card | {name: how.format(known[key]) for key, (name, how) in shown.items() if key in known}

    def examples(self) -> list[tuple[str, bool]]:
        """Prompts to begin with, and whether they are in the book."""
        speeches = [s for s in self.book.split("\n\n") if "\n" in s.strip()]
        lines = [speeches[len(speeches) * n // 5].strip().split("\n")[1] for n in (0, 2, 4)] if speeches else []
        prompts = [*lines, "To be, or not to be,", "All the world's a stage,"]
        return [(p, p in self.book) for p in dict.fromkeys(prompts) if p]


def read_book(meta: dict[str, Any]) -> str:
    """The text that a checkpoint's meta.json names. DataError where it cannot be had or is another one."""
    corpus = load_corpus(meta["corpus"])
    if corpus.sha256 != meta["sha256"]:
        raise DataError(f"the checkpoint learnt another text than {corpus.source}: bring that back, or train again")
    return corpus.text[: meta["excerpt"]]
