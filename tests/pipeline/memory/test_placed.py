"""Which calls were placed for which requests, in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from pipeline.memory import Memory, MemoryUnavailable
from pipeline.memory.placed import Claim, PlacedStore, hashed
from tests.pipeline.memory.redis_server import RedisServer, drop

KEEP_S = 100.0
FIRST = Claim(hashed("call ada"), "call-1", "2026-01-01T00:00:00+00:00")
SECOND = replace(FIRST, call_id="call-2")


@pytest_asyncio.fixture
async def store(server: RedisServer) -> AsyncIterator[PlacedStore]:
    memory = Memory(server.url)
    yield memory.placed
    await drop(memory)


async def test_the_first_to_claim_a_key_has_it_until_they_give_it_up(store: PlacedStore) -> None:
    assert await store.claim("key", FIRST, KEEP_S) == FIRST
    assert await store.claim("key", SECOND, KEEP_S) == FIRST
    assert await store.claim("another", SECOND, KEEP_S) == SECOND
    await store.give_up("key", SECOND.call_id)  # not theirs
    assert await store.claim("key", SECOND, KEEP_S) == FIRST
    await store.give_up("key", FIRST.call_id)
    assert await store.claim("key", SECOND, KEEP_S) == SECOND


async def test_of_many_at_once_one_is_the_first(store: PlacedStore) -> None:
    wanted = [replace(FIRST, call_id=f"call-{number}") for number in range(20)]
    got = await asyncio.gather(*(store.claim("key", one, KEEP_S) for one in wanted))
    assert len(set(got)) == 1


async def test_a_claim_ends_and_nobody_who_looks_at_redis_learns_the_key(
    server: RedisServer, store: PlacedStore
) -> None:
    await store.claim("order of ada@example.org", FIRST, KEEP_S)
    (key,) = await server.keys()
    assert "ada" not in key
    left = await server.do("PTTL", key)
    assert isinstance(left, int)
    assert 90_000 < left <= 100_000


async def test_what_another_version_wrote_is_left_alone(server: RedisServer, store: PlacedStore) -> None:
    await store.claim("key", FIRST, KEEP_S)
    (key,) = await server.keys()
    await server.do("HSET", key, "schema", "2")
    with pytest.raises(MemoryUnavailable, match="another version"):
        await store.claim("key", SECOND, KEEP_S)


async def test_a_redis_that_is_gone_is_told_of(server: RedisServer, store: PlacedStore) -> None:
    server.kill()
    with pytest.raises(MemoryUnavailable):
        await store.claim("key", FIRST, KEEP_S)
    with pytest.raises(MemoryUnavailable):
        await store.give_up("key", FIRST.call_id)
