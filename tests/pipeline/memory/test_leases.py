"""A call is one process's at a time."""

from __future__ import annotations

import pytest

from pipeline.conversation import Conversation
from pipeline.memory import Memory, Remembered
from pipeline.memory import writing as pipeline_writing
from tests.pipeline.memory.redis_server import (
    RedisServer,
    comes_to_hold,
    drop,
    entry,
    log,
    recalled,
    until,
    writing,
    written,
)

LEASE = "parley:{default}:lease:a"


async def owned(memory: Memory, call_id: str) -> None:
    """Wait until it can be had."""
    await until(lambda: memory.own(call_id), "the lease")


async def test_a_call_that_goes_on_is_its_processs_alone_until_it_ends(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as first, writing(Memory(server.url)) as second:
        assert await first.own("a")
        assert await first.own("a")
        assert not await second.own("a")
        assert await second.own("b")
        call = first.call("a")
        call.note(agent="Bluebird")
        await written(first)
        assert not await second.own("a")
        call.close()
        await owned(second, "a")
        assert not await first.own("a")


async def test_a_call_that_nobody_asked_for_is_held_too(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as first:
        first.call("a")
        second = Memory(server.url)

        async def taken() -> bool:
            return LEASE in await server.keys()

        await until(taken)
        assert not await second.own("a")
        await drop(second)


async def test_a_lease_lasts_as_long_as_the_call(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_writing, "RENEW_S", 0.02)
    async with writing(Memory(server.url)) as memory:
        memory.call("a").note(agent="Bluebird")
        for _ in range(3):
            await written(memory)
            await server.do("PEXPIRE", LEASE, 500)

            async def renewed() -> bool:
                left = await server.do("PTTL", LEASE)
                return isinstance(left, int) and left > 5_000

            await until(renewed, "a longer lease")


async def test_the_calls_of_a_process_that_died_are_anybodys_soon(server: RedisServer) -> None:
    dead = Memory(server.url)  # nobody renews what it took
    assert await dead.own("a")
    left = await server.do("PTTL", LEASE)
    assert isinstance(left, int)
    assert 0 < left <= pipeline_writing.LEASE_S * 1000
    async with writing(Memory(server.url)) as memory:
        assert not await memory.own("a")
        await server.do("PEXPIRE", LEASE, 1)
        await owned(memory, "a")
    await drop(dead)


@pytest.mark.parametrize("over", [False, True])
async def test_a_call_begun_while_a_dead_process_seems_to_hold_it_is_written_once_it_does_not(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, over: bool
) -> None:
    monkeypatch.setattr(pipeline_writing, "RENEW_S", 0.02)
    await server.do("SET", LEASE, "a process that died", "PX", 60_000)
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        with log() as lines:

            async def refused() -> bool:
                return bool(lines)

            call.entry(entry(0))
            if over:
                call.close()
            await until(refused, "the refusal")
            await server.do("PEXPIRE", LEASE, 1)
            await comes_to_hold(server, Remembered("a", {}, [entry(0)], Conversation()))
        assert len(lines) == 1
        assert "another process" in lines[0]


async def test_a_call_that_ended_while_another_process_goes_on_with_it_is_not_kept(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_writing, "RENEW_S", 0.02)
    monkeypatch.setattr(pipeline_writing, "LEASE_S", 0.1)
    await server.do("SET", LEASE, "a process that lives")
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        call.entry(entry(0))
        call.close()
        await written(memory)  # it gives that up
        assert await server.keys() == {LEASE}


async def test_who_has_lost_a_call_to_another_process_writes_no_more_into_it(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as first, writing(Memory(server.url)) as second:
        old = first.call("a")
        old.entry(entry(0))
        await written(first)
        await server.do("DEL", LEASE)  # the first was cut off for as long as a lease lasts
        assert await second.own("a")
        new = second.call("a")
        new.entry(entry(0))
        new.entry(entry(1, mark=2))
        await written(second)
        old.entry(entry(1, mark=1))
        old.close()
        await written(first)  # it gives that up
        expected = Remembered("a", {}, [entry(0), entry(1, mark=2)], Conversation())
        assert await recalled(server, "a") == expected
        new.close()
        await owned(first, "a")
        assert await recalled(server, "a") == expected


async def test_nor_does_it_when_the_other_has_ended_as_well(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as second:
        async with writing(Memory(server.url)) as first:
            old = first.call("a")
            old.entry(entry(0))
            await written(first)
            await server.do("ACL", "SETUSER", "default", "-eval")  # it is as if Redis were away
            old.entry(entry(1, mark=1))
            old.close()
            await server.do("DEL", LEASE)
            await server.do("ACL", "SETUSER", "default", "+eval")
            new = second.call("a")
            new.entry(entry(0, mark=2))
            new.close()
            await written(second)
            await written(first)
        assert await recalled(server, "a") == Remembered("a", {}, [entry(0, mark=2)], Conversation())


async def test_the_calls_of_a_redis_that_cannot_be_reached_are_ours() -> None:
    memory = Memory("unix:///nowhere/redis.sock")
    with log() as lines:
        assert await memory.own("a")
    assert len(lines) == 1
    await drop(memory)
