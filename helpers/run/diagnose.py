"""Is this curve normal? A log held against 20 recorded healthy runs and against runs with one fault each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from helpers.run.evidence import DECIDES, NAMES, alike, hidden_kinds, speaks_against, speaks_for, would_decide
from helpers.run.features import LEAST, features_of, finite_part
from helpers.run.log import RunLog
from helpers.run.read_log import TrainingLog, as_log
from helpers.run.reference import HEALTHY, STEPS, VOCAB_SIZE, Reference, reference

NOTHING, UNKNOWN = "nothing unusual", "I cannot tell"
DIVERGES = math.log(1.5)  # a smoothed loss that rises by so much more than any healthy one
MUCH_LEFT, PUBLISHED = 0.5, "0.26 (2.85, GPT-2 124M) and 0.35 to 0.45 (1.47 to 1.88, characters), says its README"
ROUGHLY = (
    f"The log is not known to be of the demo recipe (vocabulary size {VOCAB_SIZE:,}; {STEPS} steps, each logged): "
    "only what does not depend on size was compared, so this is rough."
)


@dataclass(frozen=True)
class Cause:
    """What a curve may come from, with the reasons for and against."""

    name: str  # a recorded kind
    distance: float  # from that kind's mean, in spreads; nan where no comparison was needed
    speaks_for: str
    speaks_against: str
    next: str  # what decides, and what mends


@dataclass(frozen=True)
class Diagnosis:
    """The answer, the likely causes, best first, and what it rests on. As a string: all of it, to be printed."""

    verdict: str  # NOTHING, UNKNOWN, or the first cause, and with "or" those that nothing in the log tells from it
    causes: tuple[Cause, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.verdict]
        for i, cause in enumerate(self.causes, 1):
            far = "" if math.isnan(cause.distance) else f", {cause.distance:.1f} spreads away"
            lines += [f"{i}. {cause.name}{far}", f"   for: {cause.speaks_for}", f"   against: {cause.speaks_against}"]
            lines += [f"   next: {cause.next}"]
        return "\n".join((*lines, *self.remarks))


def diagnose(
    log: TrainingLog | RunLog | Sequence[float],
    vocab_size: int | None = None,
    floor: float | None = None,
    measured: dict[int, float] | None = None,
) -> Diagnosis:
    """What a log looks like: healthy, one of the recorded faults, or nothing that is known here.

    vocab_size: of the tokenizer; floor: the lowest possible loss, in nats per token; measured: step -> whole-corpus
    loss. Each that is missing takes a reason away. A log that is not of the demo recipe is compared roughly.
    """
    log = as_log(log, measured)
    n, losses = len(finite_part(log)[1]), log.column("loss")
    if n < len(losses):
        return _not_finite(log, n)
    if n < LEAST:
        return Diagnosis(UNKNOWN, (), (f"The log holds {n} losses: at least {LEAST} are needed.",))
    demo = vocab_size == VOCAB_SIZE and log.column("step") == list(range(1, STEPS + 1))
    found = features_of(log, vocab_size, floor)
    diagnosis = compare(found, reference(rough=not demo))
    if not demo and vocab_size and diagnosis.verdict == NOTHING:
        diagnosis = _much_left(diagnosis, math.exp(found["end"]) / math.log(vocab_size))
    return Diagnosis(diagnosis.verdict, diagnosis.causes, (*diagnosis.remarks, *_held_out(log)))


def compare(found: dict[str, float], known: Reference) -> Diagnosis:
    """The nearest kinds to a curve's features, and whether they are near enough to be named."""
    x = torch.tensor([found[name] for name in NAMES], dtype=torch.float64)
    use = x.isfinite() & known.tolerance.isfinite() & known.of(HEALTHY).isfinite().any(0)
    remarks = [ROUGHLY] if known.rough else []
    if known.rough and (cause := _diverging(found["rise"], known)):
        return Diagnosis(cause.name, (cause,), tuple(remarks))
    distances, limit = known.distances(x, use), known.limit(use)  # (K,)
    near = [known.kinds[k] for k in distances.argsort().tolist() if distances[k] <= limit]
    healthy = HEALTHY in near or bool(near and alike(HEALTHY, near[0], use, known))
    names = [HEALTHY] if healthy else near[:3]
    causes = []
    for name in names:
        reasons = (f(name, x, use, known) for f in (speaks_for, speaks_against))
        causes.append(Cause(name, float(distances[known.kinds.index(name)]), *reasons, DECIDES[name]))
    hidden = hidden_kinds(known, use, limit) if healthy else []
    if hidden:
        remarks.append("These faults would look the same in what was compared, and a test finds each:")
        remarks += [f"- {kind}: {DECIDES[kind]}" for kind in hidden]
    if not names:
        k = int(distances.nan_to_num(math.inf).argmin())
        remarks.append(f"Unlike healthy runs: {speaks_against(HEALTHY, x, use, known)}.")
        if not alike(HEALTHY, known.kinds[k], use, known):
            against = speaks_against(known.kinds[k], x, use, known)
            remarks.append(f"The nearest fault is {known.kinds[k]}, {distances[k]:.1f} spreads away: {against}.")
    remarks += would_decide([(names[0], other) for other in (*names[1:], *hidden)] if names else [], use, known)
    twins = sorted(name for name in names if name == names[0] or alike(names[0], name, use, known))
    verdict = NOTHING if healthy else " or ".join(twins) or UNKNOWN
    return Diagnosis(verdict, tuple(causes), tuple(remarks))


def _diverging(rise: float, known: Reference) -> Cause | None:
    """The cause of a rise that is 1.5 times any healthy run's, if it is; rise: that of the logarithm."""
    highest = float(known.of(HEALTHY)[:, NAMES.index("rise")].max())
    if not rise > highest + DIVERGES:
        return None
    reason = f"after its lowest the smoothed loss rises by a factor of {math.exp(rise):.3g}"
    reason += f", in healthy runs by {math.exp(highest):.2g} at most"
    return Cause("rate x 10", math.nan, reason, "damaged data can do it too", DECIDES["rate x 10"])


def _not_finite(log: TrainingLog, n: int) -> Diagnosis:
    """A NaN, infinite or negative loss says more than the curve before it."""
    step, loss = log.column("step")[n], log.column("loss")[n]
    symptom = f"the loss is {loss:g} at step {step:.0f}"
    if n:
        symptom += f", after {log.column('loss')[n - 1]:.4g} at the record before"
    overflow = f"{symptom}; in fp16 all numbers above 65,504 become infinite"
    rate = Cause("rate x 10", math.nan, symptom, "damaged data can do it too", DECIDES["rate x 10"])
    fp16 = Cause("fp16 without scaling", math.nan, overflow, "the log names no dtype", DECIDES["fp16 without scaling"])
    return Diagnosis("rate x 10", (rate, fp16), ("No curve was compared: a NaN, infinite or negative loss decides.",))


def _much_left(diagnosis: Diagnosis, share: float) -> Diagnosis:
    """A curve of another size that ends above half of log V is not called healthy; share: where it ends, of log V."""
    if share <= MUCH_LEFT:
        return diagnosis
    little = f"It ends at {share:.2f} of log V: so far it has learnt little. nanoGPT's runs end at {PUBLISHED}."
    little += " A rate too high or too low does it, or too few steps."
    return Diagnosis(UNKNOWN, (), (little, *diagnosis.remarks))


def _held_out(log: TrainingLog) -> list[str]:
    """Whether a held-out loss has turned while the training loss fell on."""
    if len(log.held_out) < 3:
        return []
    best, last = min(log.held_out, key=log.held_out.__getitem__), max(log.held_out)
    lowest, final = log.held_out[best], log.held_out[last]
    steps, losses = finite_part(log)
    then = losses[(steps - best).abs().argsort()[:5]].median()  # of the batches around it
    if final <= lowest + 0.05 or losses[-5:].median() >= then:
        return []
    turned = f"The held-out loss was lowest at step {best} ({lowest:.3f}) and ends at {final:.3f}"
    return [f"{turned}: the model now learns its text by heart. For new text, keep the model of step {best}."]
