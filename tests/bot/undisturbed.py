"""Real calls on a machine that may be busy with something else: placed again if it stood still meanwhile.

Caller, Parley and engine share one event loop in these tests. While that stands still nobody speaks, hears or
answers, so the call tells of the machine and not of Parley.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
TICK_S = 0.01
STILL_S = 0.1  # a caller's pause of 160 ms is taken for the end of a thought
TRIES = 4


async def undisturbed(place: Callable[[], Awaitable[T]]) -> T:
    """What ``place()`` gives or raises the first time that the loop never stood still, else the last."""
    for left in reversed(range(TRIES)):
        watching = asyncio.create_task(_longest_standstill())
        try:
            (outcome,) = await asyncio.gather(place(), return_exceptions=True)
        finally:
            watching.cancel()
            (longest,) = await asyncio.gather(watching)
        if longest < STILL_S or not left:
            break
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def _longest_standstill() -> float:
    """Seconds, until cancelled."""
    longest, last = 0.0, time.monotonic()
    while True:
        try:
            await asyncio.sleep(TICK_S)
        except asyncio.CancelledError:
            return max(longest, time.monotonic() - last - TICK_S)
        now = time.monotonic()
        longest, last = max(longest, now - last - TICK_S), now
