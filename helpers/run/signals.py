"""SIGTERM and Ctrl-C, as a run takes them."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stopped_by_signals(stop: Callable[[int], None], alone: bool) -> Iterator[None]:
    """Hands SIGTERM and Ctrl-C to `stop`, which ends the run after the step it is in, saved; the same again ends it
    at once.

    Of several processes (not alone) none is ended at once: torchrun tells those that are left, while they save or
    say why.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def tell(number: int, _: object) -> None:
        stop(number)
        if alone:
            signal.signal(number, signal.SIG_DFL)

    for number in before:
        signal.signal(number, tell)
    try:
        yield
    finally:
        for number, handler in before.items() if alone else ():
            signal.signal(number, handler)
