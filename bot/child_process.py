"""What every child process of Parley's needs: to end with us, to be stopped, and a word for how it ended."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from contextlib import suppress

STOP_S = 5.0  # from SIGTERM to SIGKILL


async def stop(child: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
    """End ``child``, by force if it must be; ``ended`` waits for it, and has it when this returns."""
    if not ended.done():
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        await asyncio.wait({ended}, timeout=STOP_S)
    if not ended.done():
        with suppress(ProcessLookupError):
            child.kill()
    with suppress(asyncio.CancelledError):
        await ended


def ending(code: int | None) -> str:
    """How a child ended, from its exit status; None: it was mute and had to be stopped."""
    if code is None:
        return "it did not answer in time"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def die_with_parent() -> None:
    """In the child, before exec: have Linux end it should Parley be killed without a chance to stop it.

    prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
