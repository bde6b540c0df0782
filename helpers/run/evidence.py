"""What speaks for a cause and against it, in sentences with numbers; and which experiment decides."""

import torch
from torch import Tensor

from helpers.run.features import FEATURES
from helpers.run.reference import HEALTHY, Reference

CLEAR = 3.0  # spreads from which on a feature tells two kinds apart
NAMES = tuple(FEATURES)
COLUMNS = {  # how a column is called in a sentence
    "whole_corpus": "The whole-corpus loss",
    "lr": "The learning rate",
    "grad_norm": "The gradient norm",
    "tokens": "The number of tokens per step",
    "vocab_size": "The vocabulary size",
    "floor": "The floor",
    "loss": "A longer log",
}

DECIDES = {  # by kind: the test that finds the fault whatever the curve looks like, and what mends it
    HEALTHY: "Read what the model writes: a curve is no proof.",
    "data not shuffled": "Print where the windows of two epochs begin: the order must differ. Shuffle them.",
    "dropout left on": "Print model.config.dropout: to learn a text by heart it must be 0.",
    "evaluation in train mode": "Evaluate twice: the losses must be equal to the last digit. Call model.eval() first.",
    "fp16 without scaling": "Count the gradients that are exactly 0, in fp16 and in fp32. Use GradScaler, or bf16.",
    "loss averaged wrongly": "Compare the loss of the same windows in one part and in four: it must be the same. "
    "(A run that goes on from trained weights begins low, too.)",
    "mask missing": "Change the last token of a window: no earlier prediction may move. Set is_causal=True.",
    "no warm-up": "Print the rates of the first ten steps: they must rise. Let a few per cent of the steps do so.",
    "rate x 10": "Run 50 steps each with the rate, a third and a tenth of it, and take the one that falls fastest.",
    "stopped on one batch": "Print the first tokens of two batches: they must differ. Mend the loader.",
    "tail dropped": "Count the tokens of an epoch: they must be all of the text but the first. Keep short windows.",
    "targets not shifted": "Compare y[:, :-1] with x[:, 1:]: they must be equal. Move the targets by one.",
    "wrong vocabulary": "Compare the entries of the model's embedding with the tokenizer's: the numbers must be equal.",
}


def speaks_for(kind: str, x: Tensor, use: Tensor, known: Reference) -> str:
    """In which features the curve is unlike healthy runs and like this kind; x (F,), use (F,) bool."""
    away = known.away(x).nan_to_num().abs()  # (K, F)
    healthy, mine = away[0], away[known.kinds.index(kind)]
    if kind == HEALTHY:
        limit = f"at most {float(healthy[use].max()):.1f} spreads from the mean"
        return f"each of {int(use.sum())} features lies {limit} of {len(known.of(HEALTHY))} healthy runs"
    gain = torch.where(use, healthy - mine, torch.zeros(()))
    best = [i for i in gain.argsort(descending=True).tolist()[:2] if gain[i] > 1]
    return "; ".join(_told(i, kind, x, known) for i in best) or "it is no farther from this kind than from any other"


def speaks_against(kind: str, x: Tensor, use: Tensor, known: Reference) -> str:
    """In which features the curve is unlike this kind's runs."""
    mine = torch.where(use, known.away(x)[known.kinds.index(kind)].nan_to_num().abs(), torch.zeros(()))
    worst = [i for i in mine.argsort(descending=True).tolist()[:2] if mine[i] > 2]
    return "; ".join(_told(i, kind, x, known) for i in worst) or "nothing that was logged"


def _told(i: int, kind: str, x: Tensor, known: Reference) -> str:
    """A feature of the curve, beside the healthy runs' and this kind's."""
    feature = list(FEATURES.values())[i]
    beside = [f"{name}: {_range(known.of(name)[:, i], feature.shown)}" for name in dict.fromkeys((HEALTHY, kind))]
    return f"{feature.words} is {feature.shown(float(x[i]))} ({', '.join(beside)})"


def _range(values: Tensor, shown) -> str:
    values = values[values.isfinite()]
    if not len(values):
        return "not recorded"
    low, high = shown(float(values.min())), shown(float(values.max()))
    return low if low == high else f"{low} to {high}"


def told_apart(a: str, b: str, known: Reference) -> Tensor:
    """(F,) bool: the features in which two recorded kinds differ clearly."""
    first, second = known.kinds.index(a), known.kinds.index(b)
    means = torch.stack([known.of(a).nanmean(0), known.of(b).nanmean(0)])
    away = torch.stack([known.away(means[0])[second], known.away(means[1])[first]])
    return (away.abs() > CLEAR).all(0)


def alike(a: str, b: str, use: Tensor, known: Reference) -> bool:
    """Whether no feature to use, (F,) bool, tells two recorded kinds apart."""
    return not bool((told_apart(a, b, known) & use).any())


def hidden_kinds(known: Reference, use: Tensor, limit: float) -> list[str]:
    """The faults of which most recorded runs look healthy, as far as these features tell; or have none of them."""
    faults = (kind for kind in known.kinds[1:] if len(known.of(kind)))
    middle = {kind: float(known.distances(known.of(kind), use)[:, 0].median().nan_to_num()) for kind in faults}
    return sorted(kind for kind, distance in middle.items() if distance <= limit)


def would_decide(pairs: list[tuple[str, str]], use: Tensor, known: Reference) -> list[str]:
    """A sentence per thing that was not told and would tell kinds apart that are alike so far."""
    found: dict[str, list[str]] = {}
    for a, b in pairs:
        clear = told_apart(a, b, known) & known.tolerance.isfinite() & ~use
        for column in dict.fromkeys(FEATURES[NAMES[i]].column for i in clear.nonzero()[:, 0].tolist()):
            found.setdefault(column, []).append(f"{b} from {a}")
    return [f"{COLUMNS[column]} would tell {', '.join(names)}." for column, names in found.items()]
