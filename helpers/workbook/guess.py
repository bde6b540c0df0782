"""A reader's guesses, typed before a result is shown, and what became of them."""

from typing import Any


def review(*guesses: tuple[str, Any, Any]) -> str:
    """A line per guess: what was asked, what the reader had guessed (None: nothing yet), and what it is."""
    width = max(len(what) for what, _, _ in guesses)
    return "\n".join(f"{what:{width}s}  {_judged(guess, result)}" for what, guess, result in guesses)


def _judged(guess: Any, result: Any) -> str:
    shown = f"{result:,.4g}" if isinstance(result, float) else f"{result:,}" if type(result) is int else str(result)
    if guess is None:
        return f"it is {shown}; you have not guessed"
    if isinstance(result, bool | str) or not isinstance(guess, int | float):
        right = str(guess).strip().lower() == str(result).strip().lower()
        return f"{shown}, as you guessed" if right else f"it is {shown}; you guessed {guess}"
    if guess == result:
        return f"{shown}, exactly as you guessed"
    if result and guess and guess / result > 0:
        times = max(guess / result, result / guess)
        if times < 1.05:
            return f"it is {shown}; your {guess:,} is close"
        many = f"{times:,.0f}" if times >= 10 else f"{times:.1f}" if times >= 1.1 else f"{times:.2f}"
        return f"it is {shown}; your {guess:,} is {many} times too {'high' if guess > result else 'low'}"
    return f"it is {shown}; you guessed {guess:,}"
