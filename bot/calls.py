"""Who is on the line: admission at the door, the life of every call, and the way out when Parley stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from loguru import logger


class Refused(Exception):  # noqa: N818 - what happened to the caller, not a fault
    """No call can be taken. The message is for the caller."""

    def __init__(self, code: str, message: str, retry_s: int) -> None:
        """``code`` is for programs; ``retry_s`` says in how many seconds it is worth trying again."""
        super().__init__(message)
        self.code = code
        self.retry_s = retry_s


class Place:
    """A caller's admission, given back once: by whoever holds it, or at the end of the call's task."""

    def __init__(self, calls: Calls) -> None:
        """Made by ``Calls.admit``."""
        self._calls: Calls | None = calls

    def release(self) -> None:
        """Give the place back. Harmless a second time."""
        if self._calls is not None:
            self._calls.taken -= 1
            self._calls = None


class Calls:
    """All live calls of this process. ``taken`` counts callers admitted, connecting ones included."""

    def __init__(self, limit: int) -> None:
        """``limit``: how many callers at once."""
        self.limit = limit
        self.taken = 0
        self._closing = False
        self._live: dict[asyncio.Task[None], Callable[[], Awaitable[None]]] = {}

    @property
    def full(self) -> bool:
        """Whether the next caller would be refused."""
        return self.taken >= self.limit

    def admit(self) -> Place:
        """Take a place. Raises ``Refused`` at once when there is none."""
        if self._closing:
            raise Refused("stopping", "Parley is being stopped. Please call again in a moment.", retry_s=10)
        if self.full:
            raise Refused("full", "All lines are busy right now. Please try again in a moment.", retry_s=10)
        self.taken += 1
        return Place(self)

    def start(
        self,
        place: Place,
        call_id: str,
        run: Callable[[], Awaitable[None]],
        end: Callable[[], Awaitable[None]],
    ) -> asyncio.Task[None]:
        """Let a call live in a task of its own. ``run`` is the whole call; ``end`` asks it to finish.

        When the task is done, the place is free.
        """
        task = asyncio.create_task(self._live_through(place, call_id, run), name=f"call {call_id}")
        self._live[task] = end
        task.add_done_callback(lambda done: self._live.pop(done, None))
        return task

    async def _live_through(self, place: Place, call_id: str, run: Callable[[], Awaitable[None]]) -> None:
        with logger.contextualize(call=call_id):
            logger.info("call begins ({} of {})", self.taken, self.limit)
            try:
                await run()
            except Exception:
                # One call's fault ends that call and no other.
                logger.exception("call failed")
            finally:
                place.release()
                logger.debug("{} of {} places are taken", self.taken, self.limit)

    async def drain(self, seconds: float) -> None:
        """Take no more calls, ask the live ones to end, and after ``seconds`` end them; then all are gone."""
        self._closing = True
        live = dict(self._live)
        if not live:
            return
        logger.info("ending {} call(s)", len(live))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(end() for end in live.values()), return_exceptions=True)
                await asyncio.wait(live)
        for task in live:
            task.cancel()
        await asyncio.gather(*live, return_exceptions=True)
