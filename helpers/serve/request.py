"""What may be asked of a served model: a request with its defaults, and the limits that it is held to."""

import math
from dataclasses import dataclass
from typing import Any

from helpers.base.errors import SeriesError
from helpers.generate import Sampling


class RequestError(SeriesError, ValueError):
    """A request that cannot be answered; the message is for the person who made it."""


@dataclass(frozen=True)
class Limits:
    """How much one request, and all of them together, may ask for."""

    prompt: int = 4000  # characters
    new_tokens: int = 512
    samples: int = 4
    at_once: int = 2  # requests being worked on
    waiting: int = 16  # requests in the queue; one more is told so


@dataclass(frozen=True)
class Request:
    """What to write, as a page or a program asks for it; `checked` says whether it makes sense."""

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
        """New tokens, samples, seed, sampling. RequestError for a value that is none, or too large."""
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
