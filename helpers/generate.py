"""Text from a model: one token after another, from a cache of what has been read."""

import codecs
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from helpers.runtime import evaluating
from helpers.windows import kept_context

Guess = Callable[[Sequence[int]], Sequence[int]]  # a text so far -> the tokens that may come next


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. ValueError on values that make no sense."""

    temperature: float = 1.0  # divides the logits; 0: always the likeliest
    top_k: int | None = None  # only the k likeliest
    top_p: float | None = None  # only the fewest that together reach p (nucleus sampling, Holtzman et al. 2020)
    repetition_penalty: float = 1.0  # takes this factor from what the text already has (Keskar et al. 2019); 1: none

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature={self.temperature} must be 0 (greedy) or more")
        if self.top_k is not None and not self.top_k >= 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie in 0 < top_p <= 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty={self.repetition_penalty} must be more than 0; 1 leaves it out")


def next_token_probs(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """(…, V) logits -> (…, V) probabilities of the next token, as `Sampling` describes them.

    Top-p counts the token with which p is reached. Raises ValueError on values that make no sense.
    """
    Sampling(temperature, top_k, top_p)
    logits = logits.float()
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # the likeliest at 0: a tiny temperature is safe
    if top_k is not None and top_k < logits.size(-1):
        best = logits.topk(top_k)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values)
    probs = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, order = probs.sort(descending=True, stable=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p  # what stands before this token is enough
        probs = probs.masked_fill(beyond.scatter(-1, order, beyond), 0.0)
        probs = probs / probs.sum(-1, keepdim=True)
    return probs


def choose(
    logits: Tensor, said: Sequence[list[int]], how: Sampling, generators: Sequence[torch.Generator | None]
) -> list[int]:
    """(B, V) logits -> B tokens. said: the B texts so far. Each text throws its own die, one number a token."""
    if how.repetition_penalty != 1:
        logits = logits.clone()
        for row, ids in zip(logits, said, strict=True):
            seen = torch.tensor(sorted(set(ids)), device=row.device)
            score = row[seen]
            row[seen] = torch.where(score > 0, score / how.repetition_penalty, score * how.repetition_penalty)
    if how.temperature == 0:
        return logits.argmax(-1).tolist()
    probs = next_token_probs(logits, how.temperature, how.top_k, how.top_p).cpu()
    reached = probs.double().cumsum(-1)  # (B, V); the die says how far to go
    die = torch.stack([torch.rand((), dtype=torch.float64, generator=g) for g in generators])[:, None]  # (B, 1)
    return torch.searchsorted(reached, die * reached[:, -1:], right=True).flatten().tolist()


class Writing:
    """Several texts being continued, one token each at every `step`.

    prompts: ids, of any lengths; the same prompt several times for several samples, which read it once.
    generators: a seeded CPU generator for each text makes it repeatable, whatever else runs beside it.
    window: the context to use, `block_size` unless told; a model trained on shorter windows knows no later
    positions, so pass what it was trained with. When the context is full, its newer half is read again.
    guess: names what may come next, in the model's own vocabulary (`VerbatimIndex.goes_on`). A text that is
    alone reads its guess in the same pass as its last token and keeps as much of it as it chooses itself: the same
    text, up to the rounding of wider products, from fewer passes (speculative decoding, Leviathan et al. 2022; guesses
    looked up in a text: REST, He et al. 2023).
    Raises ValueError for an empty prompt or one longer than the window.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        how: Sampling = Sampling(),
        generators: Sequence[torch.Generator | None] | None = None,
        window: int | None = None,
        guess: Guess | None = None,
    ) -> None:
        longest = model.config.block_size
        self.window = longest if window is None else window
        if not 1 <= self.window <= longest:
            raise ValueError(f"window={window} must lie between 1 and the model's block_size={longest}")
        if not prompts or not all(len(p) for p in prompts):
            raise ValueError("there is nothing to go on from: every prompt needs at least one token")
        if (n := max(len(p) for p in prompts)) > self.window:
            raise ValueError(f"the prompt has {n} tokens, the context holds {self.window}: shorten it")
        self.model, self.how, self.guess = model, how, guess
        self.generators = list(generators or [None] * len(prompts))
        self.texts = [list(p) for p in prompts]
        self.going = list(range(len(prompts)))  # the texts that have not ended; row r of the cache is text going[r]
        self.cache = model.new_cache(len(prompts), self.window)
        self._unread: Mapping[int, Sequence[int]] = dict(enumerate(self.texts))
        self._ahead: deque[tuple[Tensor, int | None]] = deque()  # (B, V) scores still to use, the token guessed there

    @torch.no_grad()
    def step(self) -> dict[int, int]:
        """The next token of every text that has not been ended, by the text's number."""
        if not self._ahead:
            self._read_on()
        logits, guessed = self._ahead.popleft()  # (B, V)
        said, dice = ([of[text] for text in self.going] for of in (self.texts, self.generators))
        new = dict(zip(self.going, choose(logits, said, self.how, dice), strict=True))
        for text, token in new.items():
            self.texts[text].append(token)
        if self._ahead and guessed not in new.values():
            self.cache.lengths[0] -= len(self._ahead)  # what was read behind a wrong guess is forgotten
            self._ahead.clear()
        full = (row for row, n in enumerate(self.cache.lengths) if n == self.window and not self._ahead)
        self._unread = {row: self.texts[self.going[row]][-kept_context(self.window) :] for row in full}
        return new

    def _read_on(self) -> None:
        """Scores of the next token and, behind the guess, of those after it."""
        with evaluating(self.model):
            self._read(self._unread)
            last, guess = [self.texts[text][-1] for text in self.going], []
            if self.guess and len(self.going) == 1:
                guess = list(self.guess(self.texts[self.going[0]]))[: self.window - 1 - self.cache.lengths[0]]
            idx = torch.tensor([[token, *guess] for token in last], device=self.cache.k.device)  # (B, 1 + guessed)
            logits = self.model(idx, cache=self.cache)[0]  # (B, 1 + guessed, V)
        self._ahead.extend(zip(logits.unbind(1), [*guess, None], strict=True))

    def end(self, text: int) -> None:
        """Leave this text out from the next step on, if it has not ended already."""
        if text not in self.going:
            return
        rows = [row for row, other in enumerate(self.going) if other != text]
        self._unread = {new: self._unread[row] for new, row in enumerate(rows) if row in self._unread}
        self.cache.keep(rows)
        self._ahead.clear()
        self.going = [self.going[row] for row in rows]

    def _read(self, contexts: Mapping[int, Sequence[int]]) -> None:
        """Fill rows of the cache, all but the last token; equal contexts are read once, equally long ones together."""
        rows = {row: tuple(ids[:-1]) for row, ids in contexts.items()}
        for length, group in groupby(sorted(set(rows.values()), key=len), key=len):
            different = list(group)
            part = self.model.new_cache(len(different), length)
            if length:
                self.model.hidden(torch.tensor(different, device=part.k.device), part)
            for row, ids in rows.items():
                if len(ids) == length:
                    self.cache.put(row, part, different.index(ids))


def generate(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    window: int | None = None,
    guess: Guess | None = None,
) -> Tensor:
    """idx: (B, T) prompts -> (B, T + max_new_tokens); one row a sample, so repeat a prompt for several.

    temperature 0 is greedy. generator: a seeded CPU generator of your own makes the texts repeatable, together.
    window, guess: as in `Writing`, which does the work, and can give each text its own generator and its own length.
    Raises ValueError for an empty prompt, one longer than the window, or sampling values that make no sense.
    """
    if idx.ndim != 2 or idx.size(1) == 0:
        raise ValueError(f"generate needs a prompt of at least one token, as (B, T); it was given {tuple(idx.shape)}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} must not be negative")
    how, dice = Sampling(temperature, top_k, top_p), [generator] * idx.size(0)
    writing = Writing(model, idx.tolist(), how, dice, window, guess)
    for _ in range(max_new_tokens):
        writing.step()
    return torch.tensor(writing.texts, device=idx.device)


def stream_text(
    writing: Writing, token_bytes: Callable[[int], bytes], max_new_tokens: int, stop: Sequence[str] = ()
) -> Iterator[list[str]]:
    """What each step adds to each text of `writing`, as strings; ends when all texts have, or after max_new_tokens.

    token_bytes: the bytes of a token (`tokenizer.token_bytes`). A character of several tokens comes out whole, with
    the last of them. stop: strings that end a text and are no part of it; what may be the beginning of one is held
    back until that is decided. Raises ValueError for an empty stop string.
    """
    if not all(stop):
        raise ValueError("an empty stop string would stop at once: leave it out")
    voices = [_Voice(stop) for _ in writing.texts]
    for left in reversed(range(max_new_tokens)):
        pieces = [""] * len(voices)
        for text, token in writing.step().items():
            pieces[text] = voices[text].say(token_bytes(token), last=left == 0)
            if voices[text].ended:
                writing.end(text)
        yield pieces
        if not writing.going:
            return


class _Voice:
    """One text on its way out."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop, self.ended, self.held = stop, False, ""
        self.characters = codecs.getincrementaldecoder("utf-8")("replace")

    def say(self, new: bytes, last: bool) -> str:
        """What can be said now that `new` is there."""
        self.held += self.characters.decode(new, last)
        ends = [self.held.index(s) for s in self.stop if s in self.held]
        if ends:
            self.ended = True
            return self.held[: min(ends)]
        begun = (n for s in self.stop for n in range(1, len(s)) if self.held.endswith(s[:n]))
        ready = len(self.held) - (0 if last else max(begun, default=0))
        out, self.held = self.held[:ready], self.held[ready:]
        return out
