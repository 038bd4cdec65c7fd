"""Whatever becomes of a cancellation within redis-py, who was cancelled ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipeline.memory import Memory, MemoryUnavailable
from pipeline.memory.cancelling import heeding_cancellation
from pipeline.memory.client import asking
from pipeline.memory.writing import Writer
from tests.pipeline.memory.redis_server import RedisServer, recalled, until, writing, written


async def returns() -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)


def fails(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        await returns()
        raise error

    return fail


SWALLOWING = {
    "returns": returns,
    "connection": fails(RedisConnectionError("broken off")),
    "timeout": fails(RedisTimeoutError("too slow")),
    "builtin": fails(TimeoutError()),
    "os": fails(OSError("gone")),
}


async def cancelled(work: Awaitable[None]) -> bool:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    return task.cancelled()


@pytest.mark.parametrize("how", SWALLOWING)
async def test_who_asks_is_cancelled_though_redis_py_forgets_it(how: str) -> None:
    async def ask() -> None:
        async with asking(30):
            await SWALLOWING[how]()

    assert await cancelled(ask())


@pytest.mark.parametrize("how", SWALLOWING)
async def test_the_writer_is_cancelled_and_writes_what_is_left_before_it_goes(
    how: str, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(server.url)
    right, swallowing = Writer._write, asyncio.Event()

    async def swallow(*_: object) -> None:
        monkeypatch.setattr(Writer, "_write", right)  # once is enough
        swallowing.set()
        await SWALLOWING[how]()

    async with writing(memory):  # which sees to it that it is cancelled
        call = memory.call("a")
        await written(memory)
        monkeypatch.setattr(Writer, "_write", swallow)
        call.note(agent="Bluebird")
        await asyncio.wait_for(swallowing.wait(), 15)
    remembered = await recalled(server, "a")
    assert remembered is not None
    assert remembered.facts == {"agent": "Bluebird"}


async def test_a_limit_of_time_is_none() -> None:
    with pytest.raises(MemoryUnavailable, match="did not answer"):
        async with asking(0.01):
            await asyncio.sleep(60)
    with pytest.raises(RedisConnectionError), heeding_cancellation():
        raise RedisConnectionError


async def test_a_limit_of_somebody_elses_is_kept() -> None:
    async def ask() -> None:
        async with asyncio.timeout(0.01), asking(30):
            await returns()

    with pytest.raises(TimeoutError):
        await ask()


async def test_who_cleans_up_after_a_cancellation_may_ask() -> None:
    asked = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            async with asking(30):
                await asyncio.sleep(0)
            asked.set()

    assert await cancelled(work())

    async def is_set() -> bool:
        return asked.is_set()

    await until(is_set)
