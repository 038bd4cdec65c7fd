"""What an operator finds of calls, and what is left of one that is to be forgotten."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.memory import Archive, Memory, MemoryUnavailable
from pipeline.memory.archive import Kept, OnTheLine
from pipeline.memory.callers import is_caller
from pipeline.memory.client import in_words
from pipeline.memory.keys import Keys
from tests.pipeline.memory.redis_server import RedisServer, drop, entry, log, talk, until, writing, written

HERE = Path(__file__).parents[3]
MARK = "parley:{default}:forgotten:a"
SIP = "sip:+4930123456@example.org;user=phone"


async def keep(server: RedisServer, call_id: str, tenant: str = "default", **facts: str) -> None:
    """A call that is over."""
    async with writing(Memory(server.url, tenant=tenant, keep_s=100)) as memory:
        call = memory.call(call_id)
        call.note(agent="Bluebird", **facts)
        call.entry(entry(0))
        call.entry(entry(1))
        call.converse(talk("Hello", "Monday?"))
        call.close(end="hung-up")


async def ids(server: RedisServer, tenant: str = "default") -> set[str]:
    async with Archive(server.url, tenant) as archive:
        return {call.call_id for call in await archive.calls()}


async def test_what_is_kept_of_a_call_is_found(server: RedisServer) -> None:
    await keep(server, "over", caller=SIP)
    async with writing(Memory(server.url)) as memory, Archive(server.url, "default") as archive:
        memory.call("now").note(caller="browser")
        await written(memory)
        found = {call.call_id: call for call in await archive.calls()}
        assert set(found) == {"over", "now"}
        over = found["over"]
        assert over.facts == {"agent": "Bluebird", "caller": SIP, "end": "hung-up"}
        assert (over.conversation, over.entries) == (talk("Hello", "Monday?"), 2)
        assert (over.live, over.set_aside, over.fault) == (False, False, "")
        assert over.expires_s is not None
        assert 90 < over.expires_s <= 100
        assert found["now"].live
        one = await archive.call("over")
        assert one is not None
        assert one.facts == over.facts
        assert await archive.call("nobody") is None


async def test_of_what_is_forgotten_a_mark_is_left_that_says_nothing_and_soon_ends(
    server: RedisServer,
) -> None:
    await keep(server, "a", caller=SIP)
    await keep(server, "b")
    await keep(server, "a", tenant="other")
    await server.do("SET", "parley:{default}:call", "not a call's")
    before = await server.keys()
    async with Archive(server.url, "default") as archive:
        assert await archive.forget("a")
        assert not await archive.forget("a")
    assert await server.keys() == before - {"parley:{default}:call:a"} | {MARK}
    assert await server.do("GET", MARK) == b"1"
    left = await server.do("PTTL", MARK)
    assert isinstance(left, int)
    assert 0 < left <= 300_000


async def test_a_call_on_the_line_is_not_touched(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory, Archive(server.url, "default") as archive:
        call = memory.call("a")
        call.entry(entry(0))
        await written(memory)
        before = await server.keys()
        with pytest.raises(OnTheLine):
            await archive.forget("a")
        assert await server.keys() == before
        call.close()

        async def erased() -> bool:
            try:
                return await archive.forget("a")
            except OnTheLine:
                return False

        await until(erased, "the end of the call")


async def test_a_process_that_still_knows_of_it_does_not_write_it_anew(server: RedisServer) -> None:
    await keep(server, "a")
    async with Archive(server.url, "default") as archive:
        await archive.forget("a")
    async with writing(Memory(server.url)) as memory:
        with log("INFO") as lines:
            call = memory.call("a")  # the caller came back: the ingress remembers them for a minute
            call.entry(entry(0))
            call.converse(talk("Hello"))
            await written(memory)
            call.entry(entry(1))
            call.close()
            await written(memory)
        assert await server.keys() == {MARK}
        assert any("erased" in line for line in lines)
        memory.call("b").entry(entry(0))  # others are kept as ever
        await written(memory)
        assert "b" in await ids(server)


async def test_nor_one_that_could_not_write_it_before(server: RedisServer) -> None:
    memory = Memory(server.url)
    call = memory.call("a")
    call.entry(entry(0))
    call.close()
    async with Archive(server.url, "default") as archive:
        assert not await archive.forget("a")  # nothing is there yet
    async with writing(memory):
        await written(memory)
    assert await server.keys() == {MARK}


async def test_what_cannot_be_read_is_listed_and_forgotten_all_the_same(server: RedisServer) -> None:
    await server.do("SET", "parley:{default}:call:text", "nothing of ours")
    for call_id, conversation in (("broken", b"\xc1"), ("newer", b"\x80")):
        await keep(server, call_id, caller=SIP)
        await server.do("HSET", f"parley:{{default}}:call:{call_id}", "conversation", conversation)
    await server.do("HSET", "parley:{default}:call:newer", "schema", "99")
    await keep(server, "aside", caller=SIP)
    await server.do("RENAME", "parley:{default}:call:aside", "parley:{default}:set-aside:aside")
    await server.do("HSET", "parley:{default}:call:empty", "facts", b"\xc1", "schema", "1")
    async with Archive(server.url, "default") as archive:
        found = {call.call_id: call for call in await archive.calls()}
        assert found["text"] == Kept("text", fault="is nothing that Parley writes")
        assert found["broken"].fault == "has a conversation that cannot be read"
        assert "version 99" in found["newer"].fault
        assert (found["aside"].set_aside, found["aside"].fault) == (True, "")
        assert found["empty"].fault == "has facts that cannot be read"
        for call_id in ("broken", "newer", "aside"):
            assert found[call_id].facts["caller"] == SIP  # so they are found when this caller asks
        for call_id in found:
            assert await archive.forget(call_id)
    assert await ids(server) == set()


async def test_calls_are_found_among_many_other_keys(server: RedisServer) -> None:
    await server.do("DEBUG", "POPULATE", "200000")
    for number in range(3):
        await keep(server, str(number))
    async with Archive(server.url, "default") as archive:
        assert await ids(server) == {"0", "1", "2"}
        looking = asyncio.create_task(archive.calls())
        await asyncio.sleep(0.01)
        looking.cancel()  # as Ctrl-C does
        await asyncio.wait({looking})
        assert await archive.forget("1")
    assert await ids(server) == {"0", "2"}
    assert await server.do("DBSIZE") == 200_003


async def test_more_calls_than_are_read_in_one_go_are_all_found(server: RedisServer) -> None:
    async with writing(Memory(server.url)) as memory:
        for number in range(250):
            memory.call(str(number)).note(agent="Bluebird")
        await written(memory)
    assert await ids(server) == {str(number) for number in range(250)}


async def test_a_redis_that_is_full_forgets(server: RedisServer) -> None:
    await keep(server, "a")
    await server.do("CONFIG", "SET", "maxmemory", "1")
    async with Archive(server.url, "default") as archive:
        assert await archive.forget("a")
    assert await ids(server) == set()


@pytest.mark.parametrize(
    ("command", "password", "said"),
    [
        (("CONFIG", "SET", "requirepass", "secret"), "", "refuses the user or the password"),
        (("CONFIG", "SET", "requirepass", "secret"), ":wrong@", "refuses the user or the password"),
        (("REPLICAOF", "127.0.0.1", "1"), "", "read-only, as a replica is"),
        (("ACL", "SETUSER", "default", "-eval"), "", "does not allow its user to do that"),
    ],
)
async def test_what_stands_in_the_way_is_said_in_a_sentence(
    server: RedisServer, command: tuple[str, ...], password: str, said: str
) -> None:
    await keep(server, "a")
    await server.do(*command)
    async with Archive(server.url.replace("unix://", f"unix://{password}"), "default") as archive:
        with pytest.raises(MemoryUnavailable) as refused:
            await archive.forget("a")
    assert said in in_words(refused.value)
    assert in_words(refused.value).endswith(".")


async def test_so_is_a_redis_that_is_not_there() -> None:
    async with Archive("redis://:secret@127.0.0.1:1", "default") as archive:
        with pytest.raises(MemoryUnavailable) as refused:
            await archive.calls()
    assert "cannot be reached" in in_words(refused.value)
    assert "secret" not in in_words(refused.value)


WRITER = """
import asyncio, sys
from pipeline.memory import Memory, writing
from tests.pipeline.memory.redis_server import entry, talk

async def call():
    writing.LEASE_S = 0.5
    memory = Memory(sys.argv[1], keep_s=float(sys.argv[2]))
    task = asyncio.create_task(memory.run())
    call = memory.call("a")
    call.note(agent="Bluebird")
    call.entry(entry(0))
    call.converse(talk("Hello"))
    while memory.behind:
        await asyncio.sleep(0.005)
    print("written", flush=True)
    await task

asyncio.run(call())
"""


@pytest.mark.parametrize("keep_s", ["1", "0"])
async def test_a_call_whose_process_died_is_kept_no_longer_than_any_other(
    server: RedisServer, keep_s: str
) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
        [sys.executable, "-c", WRITER, server.url, keep_s], stdout=subprocess.PIPE, cwd=HERE, text=True
    ) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "written\n"
        process.send_signal(signal.SIGKILL)
    for key in await server.keys():
        left = await server.do("PTTL", key)
        assert isinstance(left, int)
        assert left != -1, key  # none is there for ever
        assert left <= 1000, key

    async def gone() -> bool:
        return not await server.keys()

    await until(gone, "the end of what was kept")


async def test_what_is_set_aside_ends_when_it_would_have_ended(server: RedisServer) -> None:
    await keep(server, "a")
    await server.do("HSET", "parley:{default}:call:a", "conversation", b"\xc1")
    memory = Memory(server.url, keep_s=1000)
    with log():
        assert await memory.recall("a") is None
    left = await server.do("PTTL", "parley:{default}:set-aside:a")
    assert isinstance(left, int)
    assert 0 < left <= 100_000
    await drop(memory)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (SIP, SIP),
        ("+4930123456", SIP),
        ("tel:+4930123456", SIP),
        ("sips:+4930123456@EXAMPLE.org", SIP),
        ('"Ada" <sip:ada@example.org>;tag=1', "sip:ada@example.org;transport=tcp"),
        ("ada", '"Ada [x]" <sip:Ada@example.org>'),
    ],
)
def test_a_caller_is_known_by_more_than_one_spelling(asked: str, stored: str) -> None:
    assert is_caller(asked, stored)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("", SIP),
        ("sip:", "sip:@example.org"),
        ("+493012345", SIP),
        ("sip:+4930123456@example.com", SIP),
        ("example.org", SIP),
        (SIP, "browser"),
        (SIP, ""),
    ],
)
def test_nobody_else_is_taken_for_them(asked: str, stored: str) -> None:
    assert not is_caller(asked, stored)


@given(st.text(), st.text())
def test_any_text_can_be_asked_for(asked: str, stored: str) -> None:
    if is_caller(asked, stored):
        assert is_caller(asked, f'"Somebody" <sip:{stored}>') or set(stored) & set("<>:;?")


@given(st.text(), st.sampled_from(["default", "a", "a.b_c-d"]))
def test_a_key_names_its_call_and_no_other_tenant_s(call_id: str, tenant: str) -> None:
    keys, other = Keys(tenant), Keys("other")
    for key in keys.kept(call_id):
        assert keys.call_of(key) == call_id
        assert other.call_of(key) is None
    assert keys.call_of(keys.lease(call_id)) is None
    assert keys.call_of(keys.forgotten(call_id)) is None


@given(st.binary())
def test_any_key_may_be_met_with(key: bytes) -> None:
    assert Keys("default").call_of(key) is None
