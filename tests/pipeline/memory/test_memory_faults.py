"""Whatever becomes of Redis: no call notices, and what can be kept is kept."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from model_runtime.protocol import Audio, encode
from pipeline.conversation import Conversation
from pipeline.memory import CallMemory, Memory, MemoryUnavailable, Remembered
from pipeline.memory import memory as memory_module
from pipeline.memory import writing as pipeline_writing
from pipeline.memory.memory import READ_S
from tests.pipeline.memory.redis_server import (
    RedisServer,
    comes_to_hold,
    drop,
    entry,
    log,
    recalled,
    talk,
    writing,
    written,
)

KEY = "parley:{default}:call:a"
ASIDE = "parley:{default}:set-aside:a"


def tell_everything(call: CallMemory) -> Remembered:
    """Some of all there is to tell."""
    call.note(agent="Bluebird")
    for place in range(3):
        call.entry(entry(place))
    call.converse(talk("Hello", "Monday?"))
    return Remembered("a", {"agent": "Bluebird"}, [entry(n) for n in range(3)], talk("Hello", "Monday?"))


async def test_a_live_call_is_whole_again_in_a_redis_that_was_killed_and_came_back_empty(
    server: RedisServer,
) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        expected = tell_everything(call)
        await written(memory)
        server.kill()
        call.entry(entry(3))
        await asyncio.sleep(0.1)  # it is tried, in vain
        assert memory.behind
        await server.start()
        await comes_to_hold(
            server, Remembered("a", expected.facts, [*expected.history, entry(3)], expected.conversation)
        )
        assert memory.lost == 0


async def test_so_is_one_that_told_nothing_meanwhile(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_writing, "RENEW_S", 0.05)
    async with writing(Memory(server.url)) as memory:
        expected = tell_everything(memory.call("a"))
        await written(memory)
        server.kill()
        await server.start()
        await comes_to_hold(server, expected)


async def test_so_is_one_that_redis_lost_while_the_connection_held(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_writing, "RENEW_S", 0.05)
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        expected = tell_everything(call)
        await written(memory)
        await server.do("FLUSHALL")  # as eviction would, or a fail-over to an older replica
        await comes_to_hold(server, expected)


async def test_a_change_is_not_written_into_what_redis_has_lost_the_rest_of(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        expected = tell_everything(call)
        await written(memory)
        await server.do("DEL", KEY)
        call.note(voice="slt")
        await comes_to_hold(
            server,
            Remembered("a", expected.facts | {"voice": "slt"}, expected.history, expected.conversation),
        )


async def test_a_call_that_ended_while_redis_was_away_is_written_when_it_is_back(server: RedisServer) -> None:
    server.kill()
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        expected = tell_everything(call)
        call.close()
        await asyncio.sleep(0.1)
        await server.start()
        await comes_to_hold(server, expected)
        await written(memory)


async def test_an_outage_is_told_in_one_line_and_so_is_its_end(server: RedisServer) -> None:
    server.kill()
    with log("INFO") as lines:
        async with writing(Memory(server.url)) as memory:
            calls = [memory.call(str(number)) for number in range(10)]
            for place in range(20):
                for call in calls:
                    call.entry(entry(place))
                await asyncio.sleep(0.01)
            assert len(lines) == 1
            assert "not kept in Redis" in lines[0]
            await server.start()
            await written(memory)
    assert lines[1:] == ["what is said is kept in Redis again"]


async def test_while_redis_is_mute_telling_goes_on_and_asking_fails_soon(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        await written(memory)
        server.freeze()
        monkeypatch.setattr(memory_module, "READ_S", READ_S)
        expected = tell_everything(call)
        soon = f"did not answer in {READ_S:g} s"
        with pytest.raises(MemoryUnavailable, match=soon):
            await memory.recall("b")
        with pytest.raises(MemoryUnavailable, match=soon):
            await memory.forget("b")
        assert await memory.own("b")
        assert memory.behind
        server.thaw()
        await comes_to_hold(server, expected)


async def test_a_redis_that_is_not_there_cannot_be_asked_but_calls_may_begin() -> None:
    async with writing(Memory("unix:///nowhere/redis.sock")) as memory:
        with pytest.raises(MemoryUnavailable):
            await memory.recall("a")
        with pytest.raises(MemoryUnavailable):
            await memory.forget("a")
        assert await memory.own("a")
        expected = tell_everything(memory.call("a"))
        assert await memory.recall("a") == expected


@pytest.mark.parametrize(
    ("refuse", "relent"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        (("ACL", "SETUSER", "default", "-eval"), ("ACL", "SETUSER", "default", "+eval")),
    ],
    ids=["full", "read-only", "forbidden"],
)
async def test_a_redis_that_refuses_writes_harms_no_call_and_gets_it_all_later(
    server: RedisServer, refuse: tuple[str, ...], relent: tuple[str, ...]
) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        expected = tell_everything(call)
        await written(memory)
        await server.do(*refuse)
        with log() as lines:
            for mark in range(30):
                call.entry(entry(2, mark))
                await asyncio.sleep(0.005)
            assert await memory.own("b")
        assert memory.behind
        assert sum("not kept in Redis" in line for line in lines) == 1
        assert not any("Monday" in line for line in lines)  # what callers say is not for the log
        await server.do(*relent)
        await comes_to_hold(
            server,
            Remembered("a", expected.facts, [entry(0), entry(1), entry(2, 29)], expected.conversation),
        )


async def test_a_call_that_redis_never_takes_does_not_keep_the_others_from_it(server: RedisServer) -> None:
    await server.do("ACL", "SETUSER", "default", "resetkeys", "~*:b", "~*:c")
    async with writing(Memory(server.url)) as memory:
        refused = memory.call("a")
        tell_everything(refused)
        for call_id in ("b", "c"):
            memory.call(call_id).note(agent="Bluebird")
        expected = Remembered("b", {"agent": "Bluebird"}, [], Conversation())
        await comes_to_hold(server, expected)
        for place in range(5):
            refused.entry(entry(place))
            other = memory.call("c")
            other.entry(entry(0, place))
            await comes_to_hold(server, Remembered("c", {}, [entry(0, place)], Conversation()))


async def test_what_stands_in_the_way_of_a_call_is_replaced(server: RedisServer) -> None:
    await server.do("SET", KEY, "something else")
    await server.do("RPUSH", "parley:{default}:lease:a", "something else")
    async with writing(Memory(server.url)) as memory:
        expected = tell_everything(memory.call("a"))
        await comes_to_hold(server, expected)


# --- what waits has a bound ------------------------------------------------------------------------------


async def test_calls_that_are_over_and_cannot_be_written_are_given_up_oldest_first(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_writing, "MOST_BYTES", 50_000)
    server.kill()
    with log() as lines:
        async with writing(Memory(server.url)) as memory:
            live = memory.call("live")
            for place in range(10):
                live.entry(entry(place, size=20_000))  # held by the call itself in any case
            for number in range(30):
                call = memory.call(f"over {number}")
                for place in range(2):
                    call.entry(entry(place, size=10_000))
                call.close()
                await asyncio.sleep(0)
            assert memory.behind == 10 + 2 * 2
            assert memory.lost == 28 * 2
            assert sum("too much waits" in line for line in lines) == 1
            await server.start()
            await comes_to_hold(
                server,
                Remembered("live", {}, [entry(place, size=20_000) for place in range(10)], Conversation()),
            )
            await written(memory)
            assert await recalled(server, "over 29") is not None
            assert await recalled(server, "over 0") is None


async def test_many_calls_that_are_over_and_small_are_bounded_by_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline_writing, "MOST_CALLS", 5)
    async with writing(Memory("unix:///nowhere/redis.sock")) as memory:
        for number in range(20):
            call = memory.call(str(number))
            call.note(agent="Bluebird")
            call.close()
        assert (memory.behind, memory.lost) == (5, 15)


# --- what cannot be read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "commands",
    [
        [("SET", KEY, "something else")],
        [("DEL", KEY), ("HSET", KEY, "what", "else")],
        [("HSET", KEY, "schema", "one")],
        [("HSET", KEY, "schema", "0")],
        [("HSET", KEY, "facts", b"\x81\xa1a\x01")],
        [("HSET", KEY, "conversation", b"\xc1")],
        [("HSET", KEY, "conversation", msgspec.msgpack.encode({"exchanges": [{"turn": "one"}]}))],
        [("HSET", KEY, "count", "many")],
        [("HSET", KEY, "count", "9" * 30)],
        [("HDEL", KEY, "1")],
        [("HSET", KEY, "1", encode(entry(1))[:-9])],
        [("HSET", KEY, "1", encode(entry(2)))],
        [("HSET", KEY, "1", encode(Audio(b"\x00\x00")))],
    ],
    ids=lambda commands: " ".join(map(str, commands[-1]))[:60],
)
async def test_what_cannot_be_read_is_put_aside_and_the_call_begins_anew(
    server: RedisServer, commands: list[tuple[object, ...]]
) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        tell_everything(call)
        call.close()
        await written(memory)
        for command in commands:
            await server.do(*command)
        with log() as lines:
            assert await memory.recall("a") is None
        assert ASIDE in lines[0]
        assert await memory.recall("a") is None
        assert {key for key in await server.keys() if "lease" not in key} == {ASIDE}
        assert await server.do("PTTL", ASIDE) not in (-1, -2)
        await comes_to_hold(server, tell_everything(memory.call("a")))


async def test_what_a_later_version_wrote_is_left_to_it(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        expected = tell_everything(call)
        call.close()
        await written(memory)
        await server.do("HSET", KEY, "schema", "2")
        with log() as lines:
            assert await memory.recall("a") is None
        assert "version 2" in lines[0]
        await server.do("HSET", KEY, "schema", "1")
        assert await memory.recall("a") == expected


async def test_forgetting_takes_what_was_put_aside_along(server: RedisServer) -> None:
    await server.do("SET", KEY, "something else")
    memory = Memory(server.url)
    assert await memory.recall("a") is None
    await memory.forget("a")
    assert await server.keys() == set()
    await drop(memory)
