"""Reaching the data of our own Redis from a command: through the Parley that runs, or without any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pipeline.memory.own_server import (
    PROBE_EVERY_S,
    START_S,
    FolderInUse,
    OwnRedis,
    RedisImpossible,
    running_in,
)

DATA = ("appendonly.aof", "appendonlydir")  # of Redis before 7, and since


@asynccontextmanager
async def visiting(folder: Path) -> AsyncIterator[str | None]:
    """The URL of the Redis that has its data in ``folder``; ``None`` if none has ever had.

    If no Parley has it running, it runs while the context lasts. Raises ``RedisImpossible``.
    """
    deadline = time.monotonic() + START_S
    while True:
        if (url := running_in(folder)) is not None:
            yield url
            return
        if not _has_data(folder):
            yield None
            return
        own = OwnRedis(folder, briefly=True)
        try:
            url = await own.start()
            break
        except FolderInUse:  # by a Parley that has just begun
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(PROBE_EVERY_S)
    try:
        yield url
    finally:
        await own.stop()


def _has_data(folder: Path) -> bool:
    try:
        return any((folder / name).exists() for name in DATA)
    except OSError as error:
        raise RedisImpossible(f"{folder} cannot be looked into: {error.strerror}.") from None
