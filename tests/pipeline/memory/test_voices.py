"""The library's voices in a real Redis: written once, read whole or not at all, and gone when removed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pipeline.memory import Archive, MemoryUnavailable, VoiceStore
from pipeline.memory.voices import digest_of
from tests.pipeline.memory.redis_server import RedisServer, log

FILE, OTHER = bytes(range(256)) * 900, b"another" * 9
KEY = "parley:{default}:voice:emma"
ASIDE = "parley:{default}:voice-set-aside:emma"


@pytest_asyncio.fixture
async def store(server: RedisServer) -> AsyncIterator[VoiceStore]:
    async with Archive(server.url, "default") as opened:
        yield opened.voices


async def known(store: VoiceStore) -> dict[str, bytes]:
    news = await store.digests()
    assert news is not None
    return dict(news[1])


async def test_a_voice_is_read_as_it_was_written_and_told_of(store: VoiceStore) -> None:
    assert await store.put("emma", b'{"name": "emma"}', FILE)
    assert await store.file("emma") == FILE
    assert await store.file("nobody") is None
    assert await known(store) == {"emma": digest_of(FILE)}
    assert await store.entries(["emma", "nobody"]) == {"emma": b'{"name": "emma"}'}


async def test_what_has_not_changed_is_not_told_again(store: VoiceStore) -> None:
    await store.put("emma", b"{}", FILE)
    news = await store.digests()
    assert news is not None
    assert await store.digests(news[0]) is None
    await store.put("emma", b"{}", OTHER)
    again = await store.digests(news[0])
    assert again is not None
    assert again[1] == {"emma": digest_of(OTHER)}


async def test_it_is_written_once_and_replaced_only_on_purpose(store: VoiceStore) -> None:
    assert await store.put("emma", b"{}", FILE, replace=False)
    assert not await store.put("emma", b"{}", OTHER, replace=False)
    assert await store.file("emma") == FILE
    assert await store.put("emma", b"{}", OTHER)
    assert await store.file("emma") == OTHER


async def test_what_was_removed_is_gone_and_not_brought_again_unless_added(
    server: RedisServer, store: VoiceStore
) -> None:
    await store.put("emma", b"{}", FILE)
    assert await store.remove("emma")
    assert await server.keys() == {"parley:{default}:voices"}
    assert await store.file("emma") is None
    assert await known(store) == {"emma": b""}
    assert not await store.put("emma", b"{}", FILE, replace=False)
    assert not await store.remove("emma")
    assert await store.put("emma", b"{}", FILE)
    assert await store.file("emma") == FILE


async def test_removing_what_is_not_here_is_marked_only_if_asked(store: VoiceStore) -> None:
    assert not await store.remove("emma")
    assert await known(store) == {}
    assert not await store.remove("emma", mark=True)
    assert await known(store) == {"emma": b""}


@pytest.mark.parametrize(
    ("commands", "says"),
    [
        ([("DEL", KEY), ("SET", KEY, "something else")], "nothing that Parley writes"),
        ([("HSET", KEY, "file", FILE[:-1])], "damaged"),
        ([("HDEL", KEY, "file")], "damaged"),
        ([("HDEL", KEY, "digest")], "damaged"),
        ([("HDEL", KEY, "schema")], "of version none"),
        ([("HSET", KEY, "schema", "0")], "of version 0"),
    ],
)
async def test_what_is_damaged_or_older_is_put_aside_and_can_be_brought_again(
    server: RedisServer, store: VoiceStore, commands: list[tuple[object, ...]], says: str
) -> None:
    await store.put("emma", b"{}", FILE)
    for command in commands:
        await server.do(*command)
    with log() as lines:
        assert await store.file("emma") is None
    assert len(lines) == 1
    assert says in lines[0]
    assert ASIDE in lines[0]
    assert await store.file("emma") is None
    assert ASIDE in await server.keys()
    assert await store.put("emma", b"{}", FILE, replace=False)
    assert await store.file("emma") == FILE
    assert ASIDE not in await server.keys()


async def test_removing_takes_what_was_put_aside_along(server: RedisServer, store: VoiceStore) -> None:
    await server.do("SET", KEY, "something else")
    assert await store.file("emma") is None
    assert await store.remove("emma")
    assert await server.keys() == {"parley:{default}:voices"}


async def test_what_a_newer_parley_wrote_is_left_to_it(server: RedisServer, store: VoiceStore) -> None:
    await store.put("emma", b"{}", FILE)
    await server.do("HSET", KEY, "schema", "2")
    with log() as lines:
        assert await store.file("emma") is None
    assert "version 2" in lines[0]
    await server.do("HSET", KEY, "schema", "1")
    assert await store.file("emma") == FILE


async def test_one_that_redis_had_no_room_for_any_more_may_be_brought_again(
    server: RedisServer, store: VoiceStore
) -> None:
    await store.put("emma", b"{}", FILE)
    await server.do("DEL", KEY)
    assert await store.file("emma") is None
    assert await known(store) == {}
    assert await store.put("emma", b"{}", FILE, replace=False)


async def test_many_are_told_of(store: VoiceStore) -> None:
    names = [f"v{number}" for number in range(450)]
    for name in names:
        await store.put(name, name.encode(), OTHER)
    assert await store.entries(names) == {name: name.encode() for name in names}


async def test_the_voices_are_no_calls(server: RedisServer, store: VoiceStore) -> None:
    await store.put("emma", b"{}", FILE)
    await server.do("SET", ASIDE, "something else")
    async with Archive(server.url, "default") as opened:
        assert await opened.calls() == []


async def test_a_redis_that_is_away_is_said_to_be(server: RedisServer, store: VoiceStore) -> None:
    server.kill()
    for asked in (store.file("emma"), store.digests(), store.put("emma", b"{}", FILE), store.remove("emma")):
        with pytest.raises(MemoryUnavailable):
            await asked
