"""`print(check("1.2", merge))`: an exercise is looked at, and the answer is a sentence.

The questions of notebook 1 stand in `notebook_01.py`, in a function per exercise: `exercise_1_2(merge)` gets what the
learner wrote, compares what it returns by `expect`, and returns the sentence that praises it.
"""

import contextlib
import importlib
import inspect
import linecache
import numbers
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from helpers.base.errors import SeriesError

NOTHING = "Your function returns nothing: is there a `return`, at the right depth?"
FLOAT = re.compile(r"\d+\.\d{4,}(?:e[+-]?\d+)?")
LIMIT = 20.0  # seconds of work that a check may take: a loop without end is a common slip


class NotYetError(SeriesError, AssertionError):
    """An exercise that is not solved yet: a grader sees an error, a reader one sentence and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class WrongError(Exception):
    """What a check has found wrong, in a sentence."""


class EndlessError(BaseException):
    """The time is up: no `except Exception` of the learner's catches it."""


def check(number: str, *answers: Any) -> str:
    """Ask all questions about the answers to an exercise; the sentence to print. Raises NotYetError.

    number: as in the exercise's heading, "1.2"; answers: the functions that it asks for, in its order. Warnings are
    left out and stderr goes to stdout, because a grader takes anything on stderr for a failure.
    """
    ask = _questions(number)
    quiet = warnings.catch_warnings(action="ignore")
    try:
        with quiet, contextlib.redirect_stderr(sys.stdout), _time_limit(LIMIT), torch.random.fork_rng(devices=[]):
            praise = ask(*answers)
    except WrongError as wrong:
        message = f"not yet. {wrong}"
    except EndlessError:
        message = f"not yet. Your code has not come to an end after {LIMIT:g} seconds of work. Does every loop end?"
    except (Exception, SystemExit) as error:
        message = _what_stopped(error, answers)
    else:
        return f"Exercise {number}: right. {praise}"
    raise NotYetError(f"Exercise {number}: {message}")


def _questions(number: str) -> Callable[..., str]:
    """The function that asks, from a module that is read anew: an earlier answer may have changed its tensors."""
    notebook, _, _ = number.partition(".")
    file = f"notebook_{int(notebook):02d}" if notebook.isdigit() else "assignment"
    for name in [name for name in sys.modules if name.startswith(f"{__package__}.{file}")]:
        del sys.modules[name]
    questions = importlib.import_module(f"{__package__}.{file}")
    return getattr(questions, "exercise_" + number.lower().replace(".", "_"))


def _what_stopped(error: BaseException, answers: tuple[Any, ...]) -> str:
    """A stub, an error in a line of the learner's, or one in the check, which could not use what it got."""
    if type(error) is NotImplementedError and not error.args:
        return "not written yet. Put your lines in place of `raise NotImplementedError()`, run that cell, then this."
    place, what = _place(error, answers), f"{type(error).__name__}: {error}"
    if place:
        return f"not yet. Your code stops with {what}{place}"
    return f"not yet. The check cannot use what it got: {what}. Are arguments and result of the kind that is asked for?"


def expect(found: Any, wanted: Any, otherwise: str, tolerance: float = 0.0) -> None:
    """Go on if `found` equals `wanted`; else say what kind of thing it is, or `otherwise`. Raises WrongError.

    Tensors are equal if their shapes are and no number differs by more than `tolerance`; so are floats. `otherwise`
    names the likely slip; `{found}` and `{wanted}` in it are replaced.
    """
    if found is None and wanted is not None:
        raise WrongError(NOTHING)
    if isinstance(wanted, torch.Tensor):
        if not isinstance(found, torch.Tensor):
            raise WrongError(f"A tensor of the shape {tuple(wanted.shape)} is wanted, not a {type(found).__name__}.")
        if found.shape != wanted.shape:
            raise WrongError(f"The shape is {tuple(found.shape)}, and should be {tuple(wanted.shape)}. {otherwise}")
    if not _equal(found, wanted, tolerance):
        raise WrongError(otherwise.replace("{found}", _short(found)).replace("{wanted}", _short(wanted)))


def refuse(condition: bool, message: str) -> None:
    """Raise WrongError with the message if the condition holds."""
    if condition:
        raise WrongError(message)


def refuse_values(found: Any, slips: dict[float, str], tolerance: float = 1e-4) -> None:
    """Raises WrongError with the sentence of the slip that leads to the number found."""
    if isinstance(found, int | float) or (isinstance(found, torch.Tensor) and found.numel() == 1):
        for value, sentence in slips.items():
            refuse(abs(float(found) - value) < tolerance, sentence)


def _equal(found: Any, wanted: Any, tolerance: float) -> bool:
    if isinstance(wanted, torch.Tensor):
        return torch.allclose(found.double(), wanted.double(), rtol=0, atol=tolerance)
    if isinstance(wanted, float):
        number = isinstance(found, numbers.Real) or (isinstance(found, torch.Tensor) and found.numel() == 1)
        return number and abs(float(found) - wanted) <= tolerance
    if isinstance(wanted, list | tuple) and not isinstance(found, torch.Tensor):
        same_kind = isinstance(found, list | tuple) and len(found) == len(wanted)
        return same_kind and all(_equal(a, b, tolerance) for a, b in zip(found, wanted, strict=True))
    return bool(found == wanted) if not isinstance(found, torch.Tensor) else found.tolist() == wanted


def _short(value: Any) -> str:
    """A value in a sentence: floats with four digits, and no more than fits."""
    value = value.tolist() if isinstance(value, torch.Tensor) else value
    text = FLOAT.sub(lambda found: f"{float(found[0]):.4g}", str(value))
    return text if len(text) <= 80 else text[:77] + "…"


def _place(error: BaseException, answers: tuple[Any, ...]) -> str:
    """The learner's own line in which an error arose, if it was there."""
    codes = [getattr(inspect.unwrap(answer), "__code__", None) for answer in answers if callable(answer)]
    files = {code.co_filename for code in codes if code}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in files:
            line = linecache.getline(frame.filename, frame.lineno or 0).strip()
            return f" (line {frame.lineno} of your cell{': ' + line if line else ''})"
    return ""


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """EndlessError after `seconds` of the processor's time, where there is such a clock and this is the main thread."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise EndlessError

    before: Callable | int | None = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.5)  # and again: a bare `except:` catches the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
