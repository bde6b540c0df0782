"""A finished run that completes prompts: what is asked is checked, what is the book's in the new text is traced."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from helpers.base.files import read_json
from helpers.checkpoint import read_meta
from helpers.data import DataError, gpt2_tokenizer, load_corpus
from helpers.generate import Decoder, Sampling
from helpers.model import GPT
from helpers.run.log import read_log
from helpers.serve.decoding import FORMATS, load_for_decoding
from helpers.serve.healing import heal
from helpers.serve.provenance import Trace, VerbatimIndex
from helpers.serve.request import Limits, Request, RequestError
from helpers.serve.stream import stream_text


@dataclass
class Completion:
    """One text: the prompt, what was written so far, and how much of that is the book's."""

    prompt: str
    trace: Trace
    new: list[str] = field(default_factory=list)  # what each new token added

    @property
    def text(self) -> str:
        """All that is new."""
        return "".join(self.new)


@dataclass
class Completions:
    """All texts of a request, and their speed."""

    texts: list[Completion]
    new_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Of all texts together."""
        return self.new_tokens / self.seconds if self.seconds else 0.0


class Engine:
    """A run's best checkpoint, with its book, in the formats that are asked for.

    folder: of the run, with best/ and, where there are any, log.csv and metrics.json. book: the text that was learnt;
    found by its name in the checkpoint unless told.
    Raises CheckpointError if there is no checkpoint and DataError if the book cannot be had or is another one.
    """

    def __init__(self, folder: str | Path, limits: Limits | None = None, book: str | None = None) -> None:
        self.folder, self.limits = Path(folder), limits or Limits()
        self.meta = read_meta(self.folder / "best", needs=("corpus", "sha256", "excerpt", "rows", "window"))
        self.book = book or read_book(self.meta)
        self.tokenizer = gpt2_tokenizer(self.meta["rows"])
        self.index = VerbatimIndex(self.book, self.tokenizer)
        self.vocabulary = [self.tokenizer.token_bytes(i) for i in range(self.tokenizer.n_vocab)]
        self.window = self.meta["window"]
        self.formats = ("int8",) if self.meta.get("weights") == "int8" else FORMATS
        self.default = Request("", weights=self.formats[0])  # what a page shows, and a program need not say
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
                self._models[weights, device], _ = load_for_decoding(self.folder / "best", weights, device=device)
            return self._models[weights, device]

    def completions(self, request: Request, every: float = 0.06) -> Iterator[Completions]:
        """The completions as they grow, about every so many seconds and when they are complete.

        A prompt may end inside a token: it is healed, and what that adds to its text comes with the first new token.
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
        now = Completions([Completion(request.prompt, nothing) for _ in range(samples)])
        began = told = time.perf_counter()
        prompts = [self._healed(model, ids, sampling, g) for g in generators]
        added = [self._text(prompt)[len(self._text(ids)) :].decode() for prompt in prompts]
        decoder = Decoder(model, prompts, sampling, generators, self.window, draft=self.index.continuation)
        for pieces in stream_text(decoder, self.tokenizer.token_bytes, new_tokens):
            for text, before, piece in zip(now.texts, added, pieces, strict=True):
                text.new.append(before + piece)
            added = [""] * samples
            now.new_tokens, now.seconds = now.new_tokens + samples, time.perf_counter() - began
            if now.new_tokens == new_tokens * samples or time.perf_counter() - told >= every:
                for text in now.texts:
                    text.trace = self.index.trace(text.prompt, text.new)
                yield now
                told = time.perf_counter()

    def _healed(self, model: GPT, ids: list[int], sampling: Sampling, generator: torch.Generator | None) -> list[int]:
        """The prompt's tokens, healed, where the window has room for what that makes of them."""
        healed = heal(model, ids, self.vocabulary, sampling, generator)
        return healed if len(healed) <= self.window else ids

    def _text(self, ids: list[int]) -> bytes:
        return b"".join(self.vocabulary[i] for i in ids)

    def log(self) -> list[dict[str, float]]:
        """The run's log, a dictionary per step; empty where there is none."""
        file = self.folder / "log.csv"
        return read_log(file) if file.is_file() else []

    def card(self) -> dict[str, str]:
        """What the model is and what it knows, for people."""
        model = self.model(self.formats[0], "cpu")
        file = self.folder / "metrics.json"
        found = read_json(file) if file.is_file() else {}
        c, known = model.config, {key: value for key, value in found.items() if value is not None}
        count = sum(p.numel() for name, p in model.named_parameters() if not name.endswith("scale"))  # int8 has scales
        card = {
            "parameters": f"{count:,}",
            "GPT-2": f"{c.n_layer} layers, {c.n_head} heads, {c.n_embd} wide, vocabulary {c.vocab_size:,}",
            "learnt": f"{self.meta['corpus']}: {len(self.book):,} characters, {len(self.index.tokens):,} tokens",
            "windows": f"{self.window} tokens",
            "recipe": f"{self.meta.get('recipe', 'own')}, seed {self.meta.get('seed')}, {self.meta.get('step')} steps",
        }
        shown = {
            "loss_grid": ("whole-corpus loss, on the grid", "{:.4f} nats per token"),
            "loss_shift_half": ("the same, windows moved by half", "{:.4f} nats per token"),
            "floor_random": ("floor of random windows", "{:.4f} nats per token"),
            "recall_32_32": ("32 tokens given, the next 32 recited", "{:.1%} of 1,000 random places"),
            "recall_50_50": ("50 tokens given, the next 50 recited", "{:.1%} of 1,000 random places"),
            "longest_recitation": ("recited from its opening, without a mistake", "{:,} tokens"),
        }
        return card | {name: fmt.format(known[key]) for key, (name, fmt) in shown.items() if key in known}

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
