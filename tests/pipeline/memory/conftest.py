"""One Redis a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.pipeline.memory.redis_server import RedisServer


@pytest_asyncio.fixture
async def server() -> AsyncIterator[RedisServer]:
    running = RedisServer()
    try:
        await running.start()
        yield running
    finally:
        running.close()
