"""Cancellations that redis-py swallows: what was cancelled would go on as if nothing had been.

redis-py sends commands within ``asyncio.wait_for``, which in Python 3.11 returns the result, and forgets that
it was cancelled, if both come in the same turn of the loop; and it makes errors of its own of whatever breaks
a connection off. The task itself still knows that somebody wants its end (``Task.cancelling``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """Raise the ``CancelledError`` that what is done within should have raised.

    Of a task that cleans up after its cancellation, only another one counts.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    except asyncio.CancelledError:
        raise
    except Exception:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError from None
        raise
    if task and task.cancelling() > before:
        raise asyncio.CancelledError
