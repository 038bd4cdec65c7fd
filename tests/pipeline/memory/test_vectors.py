"""Editions of knowledge in a real Redis 8, and in Redises that are none, or not well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from pipeline.memory import Memory, MemoryUnavailable, VectorStore
from pipeline.memory import vectors as vectors_module
from pipeline.memory.vectors import KEEP_S, NEAR_S, NoVectorSets
from tests.pipeline.memory.redis_server import LONG_S, RedisServer, drop, log

WIDTH = 48
NAME = "parley:{default}:vectors:new"
ASIDE = "parley:{default}:vectors-set-aside:new"
MAKING = "parley:{default}:vectors-making:new"
LEASE = "parley:{default}:vectors-lease:new"


def directions(count: int, seed: int = 1) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).standard_normal((count, WIDTH), dtype=np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def named(vectors: NDArray[np.float32], begin: int = 0) -> list[tuple[bytes, bytes]]:
    return [(b"d:%d" % place, row.astype("<f4").tobytes()) for place, row in enumerate(vectors, begin)]


async def write(store: VectorStore, edition: str, vectors: NDArray[np.float32]) -> None:
    async with store.writing(edition) as ours:
        assert ours
        await store.begin(edition)
        assert await store.add(edition, named(vectors))
        assert await store.finish(edition, len(vectors))


@pytest_asyncio.fixture
async def store(redis8: RedisServer) -> AsyncIterator[VectorStore]:
    memory = Memory(redis8.url)
    yield memory.vectors
    await drop(memory)


async def test_the_nearest_are_found_with_their_cosines_best_first(
    store: VectorStore, redis8: RedisServer
) -> None:
    vectors = directions(1_000)
    await write(store, "new", vectors)
    hits = 0
    for query in directions(20, seed=2):
        found = await store.nearest("new", (3 * query).tobytes(), 10)  # its length is of no account
        assert list(found.values()) == sorted(found.values(), reverse=True)
        exact = vectors @ query
        for element, cosine in found.items():
            assert cosine == pytest.approx(exact[int(element[2:])], abs=0.01)
        hits += len({b"d:%d" % one for one in np.argsort(-exact)[:10]} & set(found))
    assert hits >= 0.97 * 200
    assert await redis8.keys() == {NAME}


async def test_an_edition_is_there_when_it_is_whole(store: VectorStore, redis8: RedisServer) -> None:
    vectors = directions(40)
    query = vectors[0].tobytes()
    async with store.writing("new") as ours:
        assert ours
        assert not await store.begin("new")
        assert await store.add("new", named(vectors[:30]))
        assert not await store.look("new", 30)
        assert await store.nearest("new", query, 5) == {}
        assert not await store.finish("new", 40)  # ten are missing: all was for nothing
        assert await redis8.keys() == {LEASE}
    await write(store, "new", vectors)
    assert await store.look("new", 40)
    assert next(iter(await store.nearest("new", query, 5))) == b"d:0"


async def test_one_edition_is_made_of_another(store: VectorStore, redis8: RedisServer) -> None:
    vectors = directions(40)
    await write(store, "old", vectors)
    async with store.writing("new"):
        assert await store.begin("new", "old")
        assert await store.remove("new", [b"d:0", b"d:1"])
        assert await store.add("new", named(directions(3, seed=2), 40))
        assert await store.finish("new", 41)
    assert not await store.look("old", 40)
    found = await store.nearest("new", vectors[0].tobytes(), 41)
    assert set(found) == {b"d:%d" % place for place in range(2, 43)}
    assert await redis8.keys() == {NAME}


async def test_one_process_writes_at_a_time(store: VectorStore, redis8: RedisServer) -> None:
    other = Memory(redis8.url)
    async with store.writing("new") as ours:
        assert ours
        async with other.vectors.writing("new") as theirs:
            assert not theirs
        await store.begin("new")
        assert await store.add("new", named(directions(2)))
        await redis8.do("DEL", LEASE)  # it took too long over something
        async with other.vectors.writing("new") as theirs:
            assert theirs
            assert not await store.add("new", named(directions(2)))
        assert not await redis8.do("EXISTS", LEASE)
    await drop(other)


async def test_what_nobody_asks_for_expires_also_if_its_writer_died(
    store: VectorStore, redis8: RedisServer
) -> None:
    await write(store, "new", directions(3))
    await redis8.do("PEXPIRE", NAME, 5_000)
    assert await store.look("new", 3)
    left = await redis8.do("PTTL", NAME)
    assert isinstance(left, int)
    assert KEEP_S - LONG_S < left / 1000 <= KEEP_S
    async with store.writing("new"):
        await store.begin("new")
        await store.add("new", named(directions(2)))
        for key in (MAKING, LEASE):
            assert 0 < int(str(await redis8.do("PTTL", key))) <= 30_000


@pytest.mark.parametrize("what", ["text", "another width", "another number"])
async def test_what_is_no_edition_is_put_aside_and_told_once(
    store: VectorStore, redis8: RedisServer, what: str
) -> None:
    query = directions(1)[0].tobytes()
    if what == "text":
        await redis8.do("SET", NAME, "x")
    else:
        await redis8.do("VADD", NAME, "VALUES", 2, 1, 1, "a")
    with log() as lines:
        if what == "another number":
            assert not await store.look("new", 3)
        else:
            assert await store.nearest("new", query, 5) == {}
        assert await store.nearest("new", query, 5) == {}
        assert not await store.look("new", 3)
    assert await redis8.keys() == {ASIDE}
    assert [line for line in lines if f"it is at {ASIDE} now" in line] == lines
    assert len(lines) == 1
    if what == "text":
        await redis8.do("SET", NAME, "x")
        assert not await store.look("new", 3)
        assert await redis8.keys() == {ASIDE}


async def test_two_who_find_what_is_no_edition_at_once_put_it_aside_once(
    store: VectorStore, redis8: RedisServer
) -> None:
    await redis8.do("SET", NAME, "x")
    query = directions(1)[0].tobytes()
    with log() as lines:
        found = await asyncio.gather(
            *(store.nearest("new", query, 5) for _ in range(5)), store.look("new", 3)
        )
    assert found == [{}] * 5 + [False]
    assert await redis8.keys() == {ASIDE}
    assert len(lines) == 1


async def test_a_redis_without_vector_sets_says_so(server: RedisServer) -> None:
    memory = Memory(server.url)
    with pytest.raises(NoVectorSets):
        await memory.vectors.look("new", 3)
    await drop(memory)


async def test_a_redis_that_does_not_answer_is_not_waited_for(
    store: VectorStore, redis8: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(store, "new", directions(3))
    query = directions(1)[0].tobytes()
    redis8.freeze()
    monkeypatch.setattr(vectors_module, "NEAR_S", NEAR_S)
    with pytest.raises(MemoryUnavailable, match=f"did not answer in {NEAR_S:g} s"):
        await store.nearest("new", query, 3)
    redis8.kill()
    with pytest.raises(MemoryUnavailable):
        await store.nearest("new", query, 3)


async def test_a_full_redis_says_so_without_repeating_what_it_was_given(
    store: VectorStore, redis8: RedisServer
) -> None:
    await store.begin("new")
    await redis8.do("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(MemoryUnavailable, match="used memory > 'maxmemory'") as told:
        await store.add("new", named(directions(2)))
    assert "d:0" not in str(told.value)
