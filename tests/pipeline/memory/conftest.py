"""One Redis a test, which is given the time that it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.pipeline.memory.redis_server import RedisServer, be_patient, redis_with_vectors, running_redis


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with running_redis() as running:
        yield running


@pytest_asyncio.fixture
async def redis8() -> AsyncIterator[RedisServer]:
    async with running_redis(redis_with_vectors()) as running:
        yield running
