"""What is remembered of callers, in a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pipeline.memory import Archive, Memory, MemoryUnavailable
from pipeline.memory import callers as callers_module
from pipeline.memory.callers import RECALL_S, CallerStore, is_somebody
from tests.pipeline.memory.redis_server import RedisServer, drop

ADA = "sip:ada@example.org"


@pytest_asyncio.fixture
async def store(server: RedisServer) -> AsyncIterator[CallerStore]:
    memory = Memory(server.url, keep_s=1000)
    yield memory.callers
    await drop(memory)


async def test_a_callers_voice_is_known_again_with_that_agent(store: CallerStore) -> None:
    assert await store.voice(ADA, "Bluebird") == ""
    await store.keep_voice(ADA, "Bluebird", "slt")
    assert await store.voice('"Ada" <sip:ADA@example.org;transport=tcp>', "Bluebird") == "slt"
    assert await store.voice(ADA, "Another") == ""
    assert await store.voice("sip:ada@example.com", "Bluebird") == ""
    await store.keep_voice(ADA, "Another", "rms")
    await store.keep_voice(ADA, "Bluebird", "awb")
    assert (await store.voice(ADA, "Bluebird"), await store.voice(ADA, "Another")) == ("awb", "rms")


async def test_it_ends_when_a_call_would_and_no_key_says_who_it_is(
    server: RedisServer, store: CallerStore
) -> None:
    await store.keep_voice(ADA, "Bluebird", "slt")
    (key,) = await server.keys()
    assert "ada" not in key
    left = await server.do("PTTL", key)
    assert isinstance(left, int)
    assert 900_000 < left <= 1_000_000


async def test_without_any_choice_nothing_is_left(server: RedisServer, store: CallerStore) -> None:
    await store.keep_voice(ADA, "Bluebird", "slt")
    await store.keep_voice(ADA, "Another", "slt")
    await store.keep_voice(ADA, "Bluebird", "")
    assert await store.voice(ADA, "Another") == "slt"
    await store.keep_voice(ADA, "Another", "")
    await store.keep_voice("sip:bob@example.org", "Another", "")
    assert await server.keys() == set()


async def test_they_are_forgotten_as_their_calls_are(server: RedisServer, store: CallerStore) -> None:
    for caller in (ADA, "sip:ada@example.com", "sip:bob@example.org"):
        await store.keep_voice(caller, "Bluebird", "slt")
    await server.do("SET", "parley:{default}:caller:torn", "something else")
    async with Archive(server.url, "default") as archive:
        assert await archive.callers.forget("sip:ada@example.org") == 1
        assert await archive.callers.forget("ada") == 1
        assert await archive.callers.forget("nobody") == 0
    assert await store.voice("sip:bob@example.org", "Bluebird") == "slt"
    assert len(await server.keys()) == 2


async def test_what_another_version_wrote_is_nothing(server: RedisServer, store: CallerStore) -> None:
    await store.keep_voice(ADA, "Bluebird", "slt")
    (key,) = await server.keys()
    await server.do("HSET", key, "schema", "2")
    assert await store.voice(ADA, "Bluebird") == ""


async def test_a_redis_that_does_not_answer_is_not_waited_for(
    server: RedisServer, store: CallerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.keep_voice(ADA, "Bluebird", "slt")
    server.freeze()
    monkeypatch.setattr(callers_module, "RECALL_S", RECALL_S)
    with pytest.raises(MemoryUnavailable, match=f"did not answer in {RECALL_S:g} s"):
        await store.voice(ADA, "Bluebird")
    server.kill()
    with pytest.raises(MemoryUnavailable):
        await store.keep_voice(ADA, "Bluebird", "awb")


@pytest.mark.parametrize(
    ("caller", "somebody"),
    [
        (ADA, True),
        ("sip:+49301234@gateway", True),
        ('"Anonymous" <sip:anonymous@anonymous.invalid>', False),
        ("sip:anonymous@10.0.0.1", False),
        ("sip:c8oqz84zk7z@anonymous.invalid", False),
        ("sip:10.0.0.1", False),
        ("browser", False),
        ("", False),
    ],
)
def test_who_withholds_their_number_could_be_anybody(caller: str, somebody: bool) -> None:
    assert is_somebody(caller) == somebody
