"""The recorded runs that a log is compared with: 20 healthy ones, and some of each fault."""

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from helpers.base.files import ROOT
from helpers.run.features import FEATURES, features_of
from helpers.run.read_log import TrainingLog, read_rows

HEALTHY = "healthy"
KINDS = (
    HEALTHY,
    *("rate x 10", "no warm-up", "targets not shifted", "mask missing", "tail dropped", "evaluation in train mode"),
    *("dropout left on", "loss averaged wrongly", "fp16 without scaling", "stopped on one batch", "data not shuffled"),
    "wrong vocabulary",
)
# Of the demo profile's main run, which all recorded runs repeat; a test holds them against the profile.
VOCAB_SIZE, STEPS, FLOOR = 1932, 340, 0.025
FARTHEST = 20.0  # spreads: a feature that is farther away counts as this far
FARTHEST_ROUGH = 4.0
SYMPTOMS = torch.tensor([name in ("rise", "repeats") for name in FEATURES])  # which a run of another size may lack
MARGIN = 1.25  # of twenty runs none may be the most unusual that there is


def recorded_kinds(folder: str | Path = ROOT / "data/runs/sick") -> dict[str, dict[int, TrainingLog]]:
    """The recorded runs by kind, in the order of KINDS, and by seed; a file per kind, with - for a space."""
    found = {}
    paths = {kind: Path(folder) / f"{kind.replace(' ', '-')}.csv" for kind in KINDS}
    for kind, path in paths.items():
        if not path.is_file():
            continue
        header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        by_seed = defaultdict(list)
        for line in lines:
            by_seed[int(line.split(",", 1)[0])].append(line)
        found[kind] = {seed: read_rows(header + "".join(of_seed)) for seed, of_seed in by_seed.items()}
    return found


@dataclass(frozen=True)
class Reference:
    """Runs as points, a row each of the values of FEATURES."""

    kinds: tuple[str, ...]  # their names, the healthy one first
    runs: Tensor  # (R, F) float64
    kind: Tensor  # (R,) int64: which of the kinds
    seed: Tensor  # (R,) int64
    rough: bool = False  # compared with a run of another size: only what is free of scale, and with wide tolerance

    def only(self, chosen: Tensor) -> "Reference":
        """Some of the runs; (R,) bool."""
        return Reference(self.kinds, self.runs[chosen], self.kind[chosen], self.seed[chosen], self.rough)

    def of(self, kind: str) -> Tensor:
        """The runs of a kind, (R', F)."""
        return self.runs[self.kind == self.kinds.index(kind)]

    @property
    def tolerance(self) -> Tensor:
        """(F,): a difference that means nothing: the healthy runs' spread, or a least one. nan: not to be used."""
        if self.rough:
            return torch.tensor([math.nan if f.rough is None else f.rough for f in FEATURES.values()])
        least = torch.tensor([f.least for f in FEATURES.values()], dtype=torch.float64)
        squares, count = _squares(self.of(HEALTHY))
        return torch.maximum(least, (squares / (count - 1).clamp(min=1) * (1 + 1 / count)).sqrt())

    def away(self, x: Tensor) -> Tensor:
        """How many spreads x (…, F) lies from each kind's mean: (…, K, F), nan where one of them has no value."""
        tolerance, center = self.tolerance, self.of(HEALTHY).nanmean(0)
        groups = [self.of(kind) for kind in self.kinds]
        means = torch.stack([group.nanmean(0) for group in groups])  # (K, F)
        if self.rough:
            low, high = center - FARTHEST_ROUGH * tolerance, center + FARTHEST_ROUGH * tolerance
            away = (x.clamp(low, high)[..., None, :] - means.clamp(low, high)) / tolerance
            return torch.where(SYMPTOMS, away.clamp(min=0), away)
        return ((x[..., None, :] - means) / self._spreads(groups)).clamp(-FARTHEST, FARTHEST)

    def _spreads(self, groups: list[Tensor]) -> Tensor:
        """(K, F): the standard deviation of a further run of each kind from its mean, the tolerance at least.

        A fault has few runs: its variance is drawn towards the faults' median, as if two more runs had had that.
        """
        squares, counts = (torch.stack(found) for found in zip(*map(_squares, groups), strict=True))  # (K, F) each
        free = (counts - 1).clamp(min=0)
        faults = (squares / free)[1:]  # 0 / 0 is nan: a kind with a single run
        usual = faults.nanmedian(0).values.nan_to_num() if len(faults) else 0.0
        variance = (squares + 2 * usual) / (free + 2) * (1 + 1 / counts.clamp(min=1))
        spreads = torch.maximum(self.tolerance, variance.sqrt())
        spreads[0] = self.tolerance  # there are enough healthy runs
        return spreads

    def distances(self, x: Tensor, use: Tensor) -> Tensor:
        """(…, K): the root mean square of `away` over the features to use, (F,) bool; nan for a kind without runs."""
        return self.away(x)[..., use].square().nanmean(-1).sqrt()

    def limit(self, use: Tensor) -> float:
        """Within which distance a curve is near to a kind, learnt from the healthy runs.

        The farthest that one of them lies from the mean of the others, and a margin; 1 at least.
        """
        runs, kind = self.of(HEALTHY), torch.zeros(len(self.of(HEALTHY)), dtype=torch.int64)
        healthy = Reference((HEALTHY,), runs, kind, torch.arange(len(runs)), self.rough)
        alone = [healthy.only(healthy.seed != i).distances(run, use)[0] for i, run in enumerate(runs)]
        return MARGIN * max(1.0, *map(float, alone))


def _squares(group: Tensor) -> tuple[Tensor, Tensor]:
    """(R, F) -> (F,), (F,): the sum of squared distances from the mean, and how many runs have a value."""
    return (group - group.nanmean(0)).square().nansum(0), group.isfinite().sum(0)


@cache
def reference(rough: bool = False) -> Reference:
    """All recorded runs."""
    kinds = recorded_kinds()
    points = [
        (k, seed, list(features_of(log, VOCAB_SIZE, FLOOR, STEPS).values()))
        for k, runs in enumerate(kinds.values())
        for seed, log in runs.items()
    ]
    kind, seed, runs = zip(*points, strict=True)
    values = torch.tensor(runs, dtype=torch.float64)
    return Reference(tuple(kinds), values, torch.tensor(kind), torch.tensor(seed), rough)
