"""What a call tells is what is recalled of it, by this process and by another."""

from __future__ import annotations

import time

import pytest

from pipeline.conversation import Conversation
from pipeline.memory import Memory, Remembered
from tests.pipeline.memory.redis_server import (
    RedisServer,
    comes_to_hold,
    drop,
    entry,
    log,
    recalled,
    talk,
    until,
    writing,
    written,
)


async def test_everything_told_is_recalled_by_another_process(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        call.note(agent="Bluebird", voice="rms")
        call.entry(entry(0))
        call.entry(entry(1))
        call.converse(talk("Hello", "Grüße, 你好"))
        call.note(voice="slt")
        await written(memory)
        expected = Remembered(
            "a", {"agent": "Bluebird", "voice": "slt"}, [entry(0), entry(1)], talk("Hello", "Grüße, 你好")
        )
        assert await recalled(server, "a") == expected
        assert await memory.recall("a") == expected


async def test_what_is_told_bit_by_bit_comes_together(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        said: list[str] = []
        for place in range(5):
            call.entry(entry(place))
            said.append(str(place))
            call.converse(talk(*said))
            await written(memory)
        assert await recalled(server, "a") == Remembered("a", {}, [entry(n) for n in range(5)], talk(*said))


async def test_a_call_of_many_megabytes_is_written_whole(server: RedisServer) -> None:
    history = [entry(place, size=300_000) for place in range(30)]
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        for one in history:
            call.entry(one)
        call.close()
        await written(memory)
    assert await recalled(server, "a") == Remembered("a", {}, history, Conversation())


async def test_of_what_was_cut_nothing_is_left(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        for place in range(10):
            call.entry(entry(place))
        await written(memory)
        call.entry(entry(4, mark=1))
        await written(memory)
        remembered = await recalled(server, "a")
        assert remembered is not None
        assert remembered.history == [*(entry(place) for place in range(4)), entry(4, mark=1)]
        fields = await server.do("HKEYS", "parley:{default}:call:a")
        assert isinstance(fields, list)
        assert {int(field) for field in fields if field.isdigit()} == set(range(5))


async def test_an_entry_that_would_leave_a_gap_is_not_kept_and_does_no_harm(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        with log() as lines:
            call.entry(entry(3))
        assert "place 3" in lines[0]
        call.entry(entry(0))
        await comes_to_hold(server, Remembered("a", {}, [entry(0)], Conversation()))


async def test_what_cannot_be_packed_is_logged_and_not_raised(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a\ud800")  # half a surrogate pair, as JSON from outside can hold
        call.note(agent="Bluebird")
        with log() as lines:
            call.note(voice="\ud800")
            call.converse(talk("\ud800"))
        assert len(lines) == 2
        await written(memory)
        remembered = await memory.recall("a\ud800")
        assert remembered is not None
        assert remembered.facts == {"agent": "Bluebird"}


async def test_calls_and_tenants_are_kept_apart(server: RedisServer) -> None:
    async with writing(Memory(server.url, tenant="one")) as one, writing(Memory(server.url)) as default:
        one.call("a").note(who="one's a")
        one.call("b").note(who="one's b")
        default.call("a").note(who="default's a")
        await written(one)
        await written(default)
        for tenant, call_id, who in (("one", "a", "one's a"), ("one", "b", "one's b")):
            remembered = await recalled(server, call_id, tenant)
            assert remembered is not None
            assert remembered.facts == {"who": who}
        assert await default.recall("b") is None
        assert {key for key in await server.keys() if "one" in key} == {
            "parley:{one}:call:a",
            "parley:{one}:call:b",
            "parley:{one}:lease:a",
            "parley:{one}:lease:b",
        }


async def test_what_is_not_written_yet_is_recalled_by_the_process_that_has_it(server: RedisServer) -> None:
    memory = Memory(server.url)  # nobody runs it
    call = memory.call("a")
    call.entry(entry(0))
    call.converse(talk("Hello"))
    call.close()
    assert await memory.recall("a") == Remembered("a", {}, [entry(0)], talk("Hello"))
    assert await recalled(server, "a") is None
    await drop(memory)


async def test_the_record_is_kept_as_it_was_when_told(server: RedisServer) -> None:
    memory = Memory(server.url)
    said = talk("Hello")
    memory.call("a").converse(said)
    said.transcribe(0, "something else")
    remembered = await memory.recall("a")
    assert remembered is not None
    assert remembered.conversation == talk("Hello")
    await drop(memory)


async def test_what_was_told_last_is_written_when_the_memory_is_stopped(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory:
        await written(memory)
        call = memory.call("a")
        call.entry(entry(0))
        open_still = memory.call("b")
        open_still.entry(entry(0))
        call.close()
    for call_id in ("a", "b"):
        assert await recalled(server, call_id) == Remembered(call_id, {}, [entry(0)], Conversation())


async def test_a_call_is_kept_for_as_long_as_set_after_its_end(server: RedisServer) -> None:
    async with writing(Memory(server.url, keep_s=100)) as memory:
        call = memory.call("a")
        call.note(agent="Bluebird")
        await written(memory)
        first = await server.do("PTTL", "parley:{default}:call:a")
        assert isinstance(first, int)
        assert 90_000 < first <= 100_000
        await server.do("PEXPIRE", "parley:{default}:call:a", 50_000)
        call.close()

        async def longer_again() -> bool:
            left = await server.do("PTTL", "parley:{default}:call:a")
            return isinstance(left, int) and left > 90_000

        await until(longer_again)


async def test_a_call_that_is_not_to_be_kept_is_there_while_it_goes_on(server: RedisServer) -> None:
    async with writing(Memory(server.url, keep_s=0)) as memory:
        call = memory.call("a")
        call.note(agent="Bluebird")
        await written(memory)
        assert await recalled(server, "a") is not None
        call.close()

        async def gone() -> bool:
            return not await server.keys()

        await until(gone)


async def test_a_call_begun_again_replaces_what_was_kept_under_its_id(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory:
        former = memory.call("a")
        for place in range(3):
            former.entry(entry(place))
        former.note(agent="Bluebird")
        await written(memory)
        again = memory.call("a")
        again.entry(entry(0, mark=1))
        former.entry(entry(3))  # its call is just ending
        former.close()
        expected = Remembered("a", {}, [entry(0, mark=1)], Conversation())
        await comes_to_hold(server, expected)
        again.note(agent="Finch")
        await comes_to_hold(server, Remembered("a", {"agent": "Finch"}, expected.history, Conversation()))


async def test_a_call_that_was_recalled_goes_on_in_another_process(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as first:
        call = first.call("a")
        for place in range(3):
            call.entry(entry(place))
        call.close()
        await written(first)
    async with writing(Memory(server.url)) as second:
        assert await second.own("a")
        remembered = await second.recall("a")
        assert remembered is not None
        goes_on = second.call("a")
        for one in remembered.history:
            goes_on.entry(one)
        goes_on.entry(entry(3))
        await comes_to_hold(server, Remembered("a", {}, [entry(n) for n in range(4)], Conversation()))


async def test_what_is_forgotten_is_gone_and_stays_so(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory:
        call = memory.call("a")
        call.entry(entry(0))
        await written(memory)
        call.entry(entry(1))  # not written yet
        await memory.forget("a")
        call.entry(entry(2))
        call.converse(talk("Hello"))
        assert memory.behind == 0
        assert await memory.recall("a") is None
        memory.call("b").note(agent="Bluebird")
        await written(memory)
        assert {key for key in await server.keys() if key.endswith(":a")} == set()


async def test_nothing_is_remembered_of_a_call_that_never_was(server: RedisServer) -> None:
    memory = Memory(server.url)
    assert await memory.recall("a") is None
    await memory.forget("a")
    await drop(memory)


async def test_telling_takes_no_time_worth_speaking_of(server: RedisServer) -> None:
    memory = Memory(server.url)
    call = memory.call("a")
    said = talk(*map(str, range(300)))  # half an hour of talk
    big = entry(0, size=1_000_000)
    took = []
    for _ in range(20):
        began = time.perf_counter()
        call.entry(big)
        call.converse(said)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.005  # a quarter of one frame of audio
    await memory.forget("a")
    await drop(memory)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://host",
        "redis://:se#cret@host:6379",
        "redis://:se/cret@host",
        "redis://:secret@host/?what=1",
    ],
)
def test_a_url_that_cannot_be_one_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="cannot be used") as refused:
        Memory(url)
    assert not url or url not in str(refused.value)
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize("tenant", ["", "a}b", "a b", "x" * 65])
def test_a_tenant_that_would_blur_keys_is_refused(tenant: str) -> None:
    with pytest.raises(ValueError, match="tenant"):
        Memory("redis://host", tenant=tenant)
