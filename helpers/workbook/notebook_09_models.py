"""What the checks of notebook 9 ask of a secret's likelihood, and of tokens that a loss leaves out."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers.config import IGNORE
from helpers.workbook.check import NOTHING, expect, refuse, refuse_values


class _Machine(nn.Module):
    """Stands for a GPT: what follows depends on the last two tokens."""

    def __init__(self, n_vocab: int = 12) -> None:
        super().__init__()
        table = torch.randn(n_vocab, n_vocab, n_vocab, generator=torch.Generator().manual_seed(5))
        self.table = nn.Parameter(table)

    def forward(self, idx: Tensor, _: Tensor | None = None) -> tuple[Tensor, None]:
        refuse(not isinstance(idx, Tensor) or idx.ndim != 2, "The model takes ids of the shape (1, T), a tensor.")
        before = torch.cat((torch.zeros_like(idx[:, :1]), idx[:, :-1]), 1)
        return self.table[before, idx], None


def exercise_9_2(log_likelihood) -> str:
    """The log-likelihood of a secret behind its prefix, from a machine whose next token follows from the last two."""
    machine, prefix, secret = _Machine().eval(), [3, 7, 1], [4, 0, 9, 4]
    given = list(prefix), list(secret)
    found = log_likelihood(machine, *given)
    refuse(
        given != (prefix, secret), "Your function changes the lists that it is given: `prefix + secret` is a new one."
    )
    refuse(found is None, NOTHING)
    refuse(isinstance(found, Tensor) and found.numel() > 1, "One number is wanted, the sum over the secret's tokens.")
    graph = isinstance(found, Tensor) and found.requires_grad
    value = float(found.detach() if isinstance(found, Tensor) else found)
    logs, slips = _known_slips(machine, prefix, secret)
    wanted = logs[range(2, 6), secret].sum().item()
    refuse_values(value, slips)
    expect(value, wanted, "The log-likelihood of [4, 0, 9, 4] behind [3, 7, 1] is {wanted}, not {found}.", 1e-4)
    refuse(graph, "The result still holds a graph: decorate with `@torch.no_grad()`, or take `.item()`.")
    short = machine(torch.tensor([[5, *secret]]))[0][0].detach().log_softmax(-1)[range(4), secret].sum().item()
    other = "Behind the prefix [5] the same secret has {wanted}, not {found}: use the length of the prefix."
    expect(float(log_likelihood(machine, [5], secret)), short, other, 1e-4)
    one = logs[2, 4].item()
    expect(float(log_likelihood(machine, prefix, [4])), one, "Of a secret of one token: {wanted}, not {found}.", 1e-4)
    return "The sum of what each of its tokens gets, behind all before it."


def _known_slips(machine: _Machine, prefix: list[int], secret: list[int]) -> tuple[Tensor, dict[float, str]]:
    """The log-probabilities (7, V) behind each token, and what typical slips make of them."""
    idx = torch.tensor([prefix + secret])
    logits = machine(idx)[0][0].detach()  # (7, V)
    logs = logits.log_softmax(-1)
    each = logs[range(2, 6), secret]  # (4,)
    wanted = each.sum().item()
    alone = machine(torch.tensor([secret]))[0][0].detach().log_softmax(-1)
    return logs, {
        logits[range(2, 6), secret]
        .sum()
        .item(): "You add up logits. They are no log-likelihoods yet: `log_softmax(-1)`.",
        logs[range(3, 7), secret].sum().item(): "Off by one: what the model says at a place is about the next token.",
        logs[range(6), [*prefix[1:], *secret]].sum().item(): "The prefix is given: its own tokens do not count.",
        each.mean().item(): "The mean depends less on the length; the likelihood of a whole secret is the sum.",
        each[-1].item(): "That is the last token alone: all four count.",
        each[1:].sum().item(): "The secret's first token is missing: it is predicted at the prefix's last place.",
        each[:-1].sum().item(): "The secret's last token is missing.",
        math.exp(wanted): "That is the probability: leave the logarithm.",
        -wanted: "The sign is turned: a probability below 1 has a logarithm below 0.",
        wanted / math.log(2): "You count in bits. Here nats are wanted, as `log_softmax` gives them.",
        each.exp()
        .sum()
        .item(): "You add up probabilities: those of a sequence are multiplied, their logarithms added.",
        alone[range(3), secret[1:]].sum().item(): "The prefix is not read: the model must see `prefix + secret`.",
    }


def exercise_9_4(goldfish) -> str:
    """Which targets a loss leaves out: those for whose context of two tokens, a and b, k divides 10 a + b."""

    def hashed(contexts: Tensor) -> Tensor:
        h = contexts.size(-1)
        refuse(h != wanted_h, f"`hashed` gets contexts of h = {wanted_h} tokens, not of {h}.")
        return (contexts * torch.tensor([100, 10, 1])[-h:]).sum(-1)

    wanted_h = 2
    x = torch.tensor([[1, 2, 3, 3, 1, 2], [2, 1, 2, 0, 3, 3]])
    y = torch.tensor([[2, 3, 3, 1, 2, 9], [1, 2, 0, 3, 3, 8]])
    given = (x.clone(), y.clone())
    found = goldfish(x, y, 3, 2, hashed)
    refuse(not (torch.equal(x, given[0]) and torch.equal(y, given[1])), "Your function changes x or y: `masked_fill`.")
    wanted, ahead, behind = (_with_holes(x, y, 3, 2, hashed, shift) for shift in (0, 1, -1))
    inverse = torch.where((wanted == IGNORE) | (torch.arange(6) < 1), y, IGNORE)
    for wrong, sentence in (
        (
            ahead,
            "Yours looks at the target itself, which is not known when it is predicted: x's own token is the last.",
        ),
        (behind, "Yours looks one token too far back: the last of the h is x at the target's own place."),
        (torch.where(wanted == IGNORE, IGNORE, x), "These are inputs with holes: it is y's targets that go."),
        (inverse, "You keep what should go, and leave out the rest: where k divides the hash, the target goes."),
    ):
        refuse(isinstance(found, Tensor) and torch.equal(found, wrong), sentence)
    alike = isinstance(found, Tensor) and found.shape == y.shape
    refuse(alike and bool((found[wanted == IGNORE] == 0).all()), ZERO)
    first = alike and not torch.equal(found[:, :1], y[:, :1])
    refuse(first, "The first h - 1 targets of a window have too few tokens before them: they stay.")
    expect(found, wanted, "Of two rows with k = 3 and h = 2 remain {wanted}, not {found}.")
    again = goldfish(x, y, 3, 2, hashed)
    refuse(
        not torch.equal(found, again), "The second time other targets are left out. Chance forgets nothing for good."
    )
    wanted_h = 3
    other, wanted = goldfish(x, y, 2, 3, hashed), _with_holes(x, y, 2, 3, hashed)
    expect(other, wanted, "With k = 2 and h = 3 remain {wanted}, not {found}: use the k and h that are given.")
    return "What is left out depends on the tokens before it alone, so every copy has the same holes."


ZERO = "A target that is left out is `IGNORE` (-100), which the loss skips; 0 is a token."


def _with_holes(x: Tensor, y: Tensor, k: int, h: int, hashed: Callable, shift: int = 0) -> Tensor:
    """y without the targets for whose h tokens, which end `shift` after the target's place, k divides the hash."""
    holes, text = y.clone(), torch.cat((x, y[:, -1:]), 1)
    for b, t in itertools.product(range(len(x)), range(h - 1, x.size(1))):
        first = t - h + 1 + shift
        if first >= 0 and int(hashed(text[b, first : first + h])) % k == 0:
            holes[b, t] = IGNORE
    return holes
