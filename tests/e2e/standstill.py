"""Calls on a machine that may stand still: what failed while it did is made again.

Sound is lost then, and what was to be said in a pause is said over something else, so the call tells of the
machine and not of Parley.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
TICK_S = 0.01
STILL_S = 0.1  # a caller's pause of 160 ms is taken for the end of a thought
TRIES = 3


def steadily(attempt: Callable[[int], T], tries: int = TRIES) -> T:
    """What ``attempt`` gives, or raises: of a try in which this process never stood still, or of the last.

    ``attempt`` is told the number of the try, from 0.
    """
    for number in range(tries):
        with _standstills() as standstills:
            try:
                return attempt(number)
            except Exception:
                if number == tries - 1 or max(standstills, default=0.0) < STILL_S:
                    raise
    raise AssertionError("no try was asked for")


@contextmanager
def _standstills() -> Iterator[list[float]]:
    """Seconds of each, so far."""
    found: list[float] = []
    over = threading.Event()

    def watch() -> None:
        last = time.monotonic()
        while not over.wait(TICK_S):
            now = time.monotonic()
            if now - last > STILL_S:
                found.append(now - last)
            last = now

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        over.set()
        watching.join()
