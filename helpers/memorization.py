"""How much of a text a model knows: the loss over all of it, its floor, and what it can recite."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.base.errors import require
from helpers.base.group import Group
from helpers.config import IGNORE, POLICIES
from helpers.runtime import evaluating
from helpers.windows import grid, kept_context, slice_windows

SCORES = 2**26  # logits that a measurement holds at once: 1,335 tokens at GPT-2's vocabulary, all at a small one


@dataclass(frozen=True)
class ByPosition:
    """Nats per token at each position of a window: a model's loss over a whole text, or its floor."""

    by_position: Tensor  # (window,) float64
    counts: Tensor  # (window,) int64: tokens predicted there
    accuracy: float = float("nan")  # share of tokens whose most likely prediction is the true one; nan for a floor

    @property
    def mean(self) -> float:
        """Over all tokens: positions that a short window lacks count less."""
        return self.after(0)

    def after(self, position: int) -> float:
        """The mean over predictions at `position` and later; nan where there are none."""
        counts = self.counts[position:]
        return float((self.by_position[position:] * counts).sum() / counts.sum())


def loss_floor(tokens: Tensor, window: int, policy: str = "grid") -> ByPosition:
    """The lowest loss that any model can reach on the windows that training draws, in nats per token.

    A window's first token is given and nothing before it is seen, so what follows is uncertain however well the
    text is known: position i costs at least H(x0 … x_i+1) - H(x0 … x_i), the entropies taken over all windows.
    grid: the windows of offset 0, the shorter last one included. offset, random: every start is equally likely.
    Raises ValueError for an unknown policy or a window that the text does not fill.
    """
    require(policy in POLICIES, f"policy={policy!r} is none of {', '.join(POLICIES)}")
    between = f"window={window} does not lie between 1 and the text's {tokens.numel()} tokens less one"
    require(1 <= window < tokens.numel(), between)
    tokens = tokens.cpu()
    if policy == "grid":
        starts, lengths = grid(tokens.numel(), window)
    else:
        starts = torch.arange(tokens.numel() - window)
        lengths = torch.full_like(starts, window)
    counts = lengths.bincount(minlength=window + 1).flip(0).cumsum(0).flip(0)[1:]  # windows with a position i
    by_position = torch.zeros(window, dtype=torch.float64)
    group = tokens[starts]  # windows that look the same so far share a number
    for i in range(window):
        longer = lengths > i
        starts, lengths, group = starts[longer], lengths[longer], group[longer]
        if len(group.unique()) == len(group):
            break  # all windows are told apart: the rest is certain
        pair = group * (int(tokens.max()) + 1) + tokens[starts + i + 1]
        by_position[i] = _entropy(pair) - _entropy(group)
        group = pair.unique(return_inverse=True)[1]
    return ByPosition(by_position, counts)


def _entropy(group: Tensor) -> float:
    """H of the empirical distribution over group numbers, in nats."""
    p = group.unique(return_counts=True)[1].double() / len(group)
    return float(-(p * p.log()).sum())


def corpus_loss(
    model: nn.Module, tokens: Tensor, window: int, shift: int = 0, group: Group | None = None
) -> ByPosition:
    """Negative log-likelihood of every token of the text but the first, each predicted once, in eval mode.

    tokens: (N,) int64. Windows start at shift, shift + window, …; the piece before the shift and the shorter last
    window count too. The model is left in the mode it was in. The processes of a group, which all call this, share
    the windows, and each gets the whole result.
    Raises ValueError if the window exceeds the model's context or the shift is not inside a window.
    """
    return windows_loss(model, tokens, grid(tokens.numel(), window, shift), window, group or Group())


@torch.no_grad()
def windows_loss(model: nn.Module, tokens: Tensor, windows: Sequence[Tensor], window: int, group: Group) -> ByPosition:
    """`corpus_loss` on windows of your own: their starts and lengths, as `windows.grid` gives them."""
    found = torch.zeros(3, window, dtype=torch.float64)  # by position: the sum of losses, how many, how many right
    mine = (t[group.rank :: group.world] for t in windows)  # starts, lengths
    for y, losses, hit in _predictions(model, tokens, *mine, window, _nll, _hits):
        found[0] += losses.cpu().double().sum(0)  # padding adds 0; an Apple GPU has no float64
        found[1] += (y != IGNORE).sum(0).cpu()
        found[2] += hit.sum(0).cpu()
    if group.world > 1:
        found = group.sum(found.to(next(model.parameters()).device)).cpu()
    total, counts, right = found
    return ByPosition(total / counts.clamp(min=1), counts.long(), float(right.sum() / counts.sum()))


@dataclass(frozen=True)
class Recall:
    """What came of asking a model to go on from places in a text."""

    starts: Tensor  # (P,) where each prompt begins in the text
    right: Tensor  # (P,) tokens said right before the first wrong one, at most n
    n: int  # tokens asked for

    @property
    def verbatim(self) -> float:
        """Share of places from which all n tokens came word for word."""
        return float((self.right == self.n).double().mean())


@torch.no_grad()
def recall(model: nn.Module, tokens: Tensor, k: int, n: int, places: int = 1000, seed: int = 0) -> Recall:
    """Greedy recall k -> n: given k tokens from a random place of the text, are the next n said verbatim?

    The protocol of Carlini et al. 2022 (arXiv 2202.07646). The k prompt tokens stand at positions 0 … k - 1. Greedy
    decoding is verbatim exactly as long as the most likely token is the true one, so one pass over the true text
    measures it. Raises ValueError if the text has fewer than k + n tokens or the model's context fewer than k + n - 1.
    """
    require(k >= 1 and n >= 1, f"recall needs a prompt and a continuation of at least one token, not k={k}, n={n}")
    require(k + n <= tokens.numel(), f"k + n = {k + n} tokens are more than the text's {tokens.numel()}")
    starts = torch.randint(tokens.numel() - k - n + 1, (places,), generator=torch.Generator().manual_seed(seed))
    lengths = torch.full_like(starts, k + n - 1)
    found = _predictions(model, tokens, starts, lengths, k + n - 1, _hits)
    right = [_run_of_right(hit[:, k - 1 :].cpu()) for _, hit in found]
    return Recall(starts, torch.cat(right), n)


@torch.no_grad()
def longest_recitation(model: nn.Module, tokens: Tensor, window: int, prompt: int = 1) -> int:
    """How many tokens greedy `generate` recites after the text's first `prompt` tokens, until its first mistake.

    The context slides as in `generate`: when it is full, the newer half is read again. Teacher-forced, as `recall`.
    Raises ValueError if the window exceeds the model's context or the prompt leaves nothing to say.
    """
    room = f"prompt={prompt} must leave room in a window of {window} and a text of {tokens.numel()}"
    require(1 <= prompt < min(tokens.numel(), window + 1), room)
    kept = kept_context(window)
    starts = torch.arange(0, max(tokens.numel() - kept, 1), window + 1 - kept)
    lengths = (tokens.numel() - 1 - starts).clamp(max=window)
    recited = 0
    for y, found in _predictions(model, tokens, starts, lengths, window, _hits):
        for hit, asked in zip(found.cpu(), (y != IGNORE).cpu(), strict=True):
            first = prompt - 1 if recited == 0 else kept - 1
            right = int(_run_of_right(hit[None, first:]))  # padding is never hit
            recited += right
            if right < int(asked[first:].sum()):
                return recited
    return recited


def _run_of_right(hit: Tensor) -> Tensor:
    """(B, n) bool -> (B,): how many are True before the first False."""
    return hit.long().cumprod(1).sum(1)


def _predictions(
    model: nn.Module, tokens: Tensor, starts: Tensor, lengths: Tensor, window: int, *of: Callable
) -> Iterator[tuple[Tensor, ...]]:
    """Targets (B, window) of the windows at `starts`, some 4,096 tokens at a time, and what each function says of
    the logits (R, V) and targets (R,) there, (B, window) too: some positions after the others where V is large.
    """
    tokens = tokens.to(next(model.parameters()).device)
    batch_size = max(1, 4096 // window)
    with evaluating(model):
        for part in zip(starts.split(batch_size), lengths.split(batch_size), strict=True) if len(starts) else ():
            x, y = slice_windows(tokens, *part, window)
            parts = ([f(logits, targets) for f in of] for logits, targets in _scores(model, x, y.flatten()))
            yield y, *(torch.cat(found).view_as(y) for found in zip(*parts, strict=True))


def _scores(model: nn.Module, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (R, V) and targets (R,), some positions after the others: SCORES numbers at a time, if it is a GPT."""
    if not hasattr(model, "hidden"):
        yield model(x)[0].flatten(0, 1), y
        return
    at_once = max(1, SCORES // model.config.vocab_size)
    for hidden, targets in zip(model.hidden(x).flatten(0, 1).split(at_once), y.split(at_once), strict=True):
        yield model.lm_head(hidden), targets


def _nll(logits: Tensor, targets: Tensor) -> Tensor:
    """(R, V), (R,) -> (R,): negative log-likelihoods in nats, fp32; 0 for padding."""
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="none")


def _hits(logits: Tensor, targets: Tensor) -> Tensor:
    """(R, V), (R,) -> (R,) bool: whether the most likely token is the true one; never for padding."""
    return logits.argmax(-1) == targets
