"""Text from a model: one token after another, with a KV cache of what has been read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from helpers.runtime import evaluating
from helpers.windows import kept_context

Draft = Callable[[Sequence[int]], Sequence[int]]  # a text so far -> the tokens that may come next


@dataclass(frozen=True)
class Sampling:
    """How the next token is sampled. ValueError on values that make no sense."""

    temperature: float = 1.0  # divides the logits; 0: greedy, always the likeliest
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


def next_token_probs(logits: Tensor, sampling: Sampling = Sampling()) -> Tensor:
    """(…, V) logits -> (…, V) probabilities of the next token; a repetition penalty has no part in it.

    Top-p counts the token with which p is reached.
    """
    logits, top_k, top_p = logits.float(), sampling.top_k, sampling.top_p
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = (
        logits - logits.amax(-1, keepdim=True)
    ) / sampling.temperature  # the likeliest at 0: a tiny temperature is safe
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


def sample(
    logits: Tensor,
    sampling: Sampling,
    generators: Sequence[torch.Generator | None],
    history: Sequence[Sequence[int]] = (),
) -> list[int]:
    """(B, V) logits -> B tokens, each drawn with its text's own generator; history: the texts so far, to penalize."""
    if sampling.repetition_penalty != 1:
        logits = logits.clone()
        for row, ids in zip(logits, history, strict=True):
            seen = torch.tensor(sorted(set(ids)), device=row.device)
            score, penalty = row[seen], sampling.repetition_penalty
            row[seen] = torch.where(score > 0, score / penalty, score * penalty)
    if sampling.temperature == 0:
        return logits.argmax(-1).tolist()
    probs = next_token_probs(logits, sampling).cpu()
    cumulative = probs.double().cumsum(-1)  # (B, V)
    u = torch.stack([torch.rand((), dtype=torch.float64, generator=g) for g in generators])[:, None]  # (B, 1)
    return torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True).flatten().tolist()


class Decoder:
    """Several texts being continued at once, by one forward pass for every `step`.

    prompts: ids, of any lengths; the same prompt several times for several samples, which read it once.
    generators: a seeded CPU generator for each text makes it repeatable, whatever else runs beside it.
    window: the context to use, `block_size` unless told; a model trained on shorter windows knows no later
    positions, so pass what it was trained with. When the context is full, its newer half is read again.
    draft: proposes tokens that may come next (`VerbatimIndex.continuation`). A text that is alone has them scored in
    the same pass as its last token and accepts as many as it would have sampled itself: the same text, up to the
    rounding of wider products, from fewer passes (speculative decoding, Leviathan et al. 2022, with drafts looked up
    in a text: REST, He et al. 2023).
    Raises ValueError for an empty prompt or one longer than the window.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling = Sampling(),
        generators: Sequence[torch.Generator | None] | None = None,
        window: int | None = None,
        draft: Draft | None = None,
    ) -> None:
        longest = model.config.block_size
        self.window = longest if window is None else window
        if not 1 <= self.window <= longest:
            raise ValueError(f"window={window} must lie between 1 and the model's block_size={longest}")
        if not prompts or not all(len(p) for p in prompts):
            raise ValueError("there is nothing to go on from: every prompt needs at least one token")
        if (n := max(len(p) for p in prompts)) > self.window:
            raise ValueError(f"the prompt has {n} tokens, the context holds {self.window}: shorten it")
        self.model, self.sampling, self.draft = model, sampling, draft
        self.generators = list(generators or [None] * len(prompts))
        self.texts = [list(p) for p in prompts]
        self.running = list(range(len(prompts)))  # texts that have not ended; row r of the cache is text running[r]
        self.cache = model.new_cache(len(prompts), self.window)
        self._prefill(dict(enumerate(self.texts)))

    @torch.inference_mode()
    def step(self, most: int | None = None) -> dict[int, list[int]]:
        """The next tokens, by text: one; of a text that is alone, the draft tokens that it accepts and one more.

        most: so many tokens at most.
        """
        self._make_room()
        draft = self._draft(most)
        idx = torch.tensor([[self.texts[text][-1], *draft] for text in self.running])  # (B, 1 + drafted)
        with evaluating(self.model):
            logits, _ = self.model(idx.to(self.cache.k.device), cache=self.cache)  # (B, 1 + drafted, V)
        new: dict[int, list[int]] = {text: [] for text in self.running}
        generators, history = [self.generators[t] for t in new], [self.texts[t] for t in new]
        for scores, proposed in zip(logits.unbind(1), [*draft, None], strict=True):
            tokens = sample(scores, self.sampling, generators, history)
            for text, token in zip(new, tokens, strict=True):
                self.texts[text].append(token)
                new[text].append(token)
            if tokens[0] != proposed:
                break
        self.cache.end -= 1 + len(draft) - len(new[self.running[0]])  # forget the draft tokens behind a rejected one
        return new

    def end(self, text: int) -> None:
        """Leave this text out from the next step on, if it has not ended already."""
        if text in self.running:
            self.cache.keep([row for row, other in enumerate(self.running) if other != text])
            self.running.remove(text)

    def _draft(self, most: int | None) -> list[int]:
        """Draft tokens for a text that is alone, as many as the context and `most` have room for."""
        room = min(self.window - self.cache.end, most or self.window) - 1
        if self.draft is None or len(self.running) > 1 or room < 1:
            return []
        return list(self.draft(self.texts[self.running[0]]))[:room]

    def _make_room(self) -> None:
        """Where the last column is filled, a text that fills them all reads the newer half of its context again."""
        if self.cache.end == self.window:
            full = [row for row, start in enumerate(self.cache.starts) if start == 0]
            self._prefill({row: self.texts[self.running[row]][-kept_context(self.window) :] for row in full})
            self.cache.drop_padding()

    @torch.inference_mode()
    def _prefill(self, contexts: Mapping[int, Sequence[int]]) -> None:
        """Fill rows of the cache with all but the last token of their contexts; equal ones are read once."""
        self.cache.end = max([self.cache.end, *(len(ids) - 1 for ids in contexts.values())])
        for ids in {tuple(ids[:-1]) for ids in contexts.values()}:
            one = self.model.new_cache(1, len(ids))
            if ids:
                with evaluating(self.model):
                    self.model.hidden(torch.tensor([ids], device=one.k.device), one)
            for row, context in contexts.items():
                if tuple(context[:-1]) == ids:
                    self.cache.put(row, one)


def generate(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    window: int | None = None,
    draft: Draft | None = None,
) -> Tensor:
    """idx: (B, T) prompts -> (B, T + max_new_tokens); one row a sample, so repeat a prompt for several.

    temperature 0 is greedy. generator: a seeded CPU generator of your own makes the texts repeatable, together.
    window, draft: as in `Decoder`, which does the work, and can give each text its own generator and its own length.
    Raises ValueError for an empty prompt, one longer than the window, or sampling values that make no sense.
    """
    if idx.ndim != 2 or idx.size(1) == 0:
        raise ValueError(f"generate needs a prompt of at least one token, as (B, T); it was given {tuple(idx.shape)}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} must not be negative")
    sampling, generators = Sampling(temperature, top_k, top_p), [generator] * idx.size(0)
    decoder = Decoder(model, idx.tolist(), sampling, generators, window, draft)
    end = idx.size(1) + max_new_tokens
    while len(decoder.texts[0]) < end:
        decoder.step(most=end - len(decoder.texts[0]))
    return torch.tensor(decoder.texts, device=idx.device)
