"""The master dies in the middle of a call: with real Sentinels, and in a real Cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from pydantic import SecretStr

from bot import check
from bot.settings import RedisSettings
from pipeline.memory import Archive, Memory, MemoryUnavailable, Remembered
from tests.pipeline.memory.moving_redis import URL_PASSWORD, Redises, cluster, with_sentinels
from tests.pipeline.memory.redis_server import drop, entry, log, talk, until, writing, written
from tests.ports import free_port

pytestmark = pytest.mark.slow  # some 10 s each: a master has to be missed, and another one voted for


@pytest.fixture(autouse=True)
def patient() -> None:
    """Nobody is: a master that is frozen has to be given up in time."""


@pytest_asyncio.fixture(params=["sentinel", "cluster"])
async def redises(request: pytest.FixtureRequest) -> AsyncIterator[Redises]:
    async with with_sentinels() if request.param == "sentinel" else cluster() as running:
        yield running


async def comes_to_hold(redises: Redises, expected: Remembered) -> None:
    other = Memory(redises.url)

    async def holds() -> bool:
        try:
            return await other.recall(expected.call_id) == expected
        except MemoryUnavailable:
            return False

    try:
        await until(holds, "what was told")
    finally:
        await drop(other)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_live_call_goes_on_through_the_masters_death_and_is_whole_at_the_next(
    redises: Redises, how: str
) -> None:
    master, replica = redises.ports[:2]
    async with writing(Memory(redises.url)) as memory:
        call = memory.call("a")
        call.note(agent="Bluebird")
        for place in range(5):
            call.entry(entry(place))
        await written(memory)
        longest = 0.0
        (redises.kill if how == "killed" else redises.freeze)(master)
        place = 5
        deadline = time.monotonic() + 60
        while not await redises.is_master(replica):
            assert time.monotonic() < deadline
            began = time.monotonic()
            call.entry(entry(place))  # the call tells as ever
            call.converse(talk("Hello", str(place)))
            longest = max(longest, time.monotonic() - began)
            place += 1
            await asyncio.sleep(0.02)
        expected = Remembered(
            "a", {"agent": "Bluebird"}, [entry(n) for n in range(place)], talk("Hello", str(place - 1))
        )
        await comes_to_hold(redises, expected)
        await written(memory)
        assert memory.lost == 0
        assert longest < 0.1  # telling waits for nothing; not a measure of speed
    if how == "frozen":
        redises.thaw(master)


async def test_commands_reach_the_master_and_take_their_password_along(redises: Redises) -> None:
    async with writing(Memory(redises.url)) as memory:
        call = memory.call("a")
        call.entry(entry(0))
        call.close()
        await written(memory)
        await memory.voices.put("emma", b"{}", b"file")
        assert await memory.voices.file("emma") == b"file"
    async with Archive(redises.url, "default") as archive:
        assert [kept.call_id for kept in await archive.calls()] == ["a"]
        assert await archive.forget("a")
        assert await archive.calls() == []


async def test_the_check_says_which_it_is(redises: Redises) -> None:
    found = await asyncio.to_thread(check._redis, RedisSettings(url=SecretStr(redises.url)))
    kind = "mine of Sentinel" if "sentinel" in redises.url else "Cluster"
    assert (found.state, found.said.startswith(kind)) == ("ok", True)
    assert f"its master at 127.0.0.1:{redises.ports[0]}, version" in found.said
    assert "s3cret" not in found.said


async def test_a_wrong_password_is_said_to_be_one(redises: Redises) -> None:
    memory = Memory(redises.url.replace("s3cret", "other"))
    with pytest.raises(MemoryUnavailable, match="password"):
        await memory.recall("a")
    await drop(memory)


async def test_a_cluster_is_spoken_to_in_tls_by_its_nodes_and_with_them() -> None:
    """One node with all slots; its certificate names 127.0.0.1 and is signed by itself."""
    redises = Redises()
    try:
        certificate, key = redises.folder / "certificate.pem", redises.folder / "key.pem"
        name = ("-subj", "/CN=parley-test", "-addext", "subjectAltName=IP:127.0.0.1")
        made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name)
        process = await asyncio.create_subprocess_exec(
            *made, "-out", str(certificate), "-keyout", str(key), stderr=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0
        plain, tls = free_port(), free_port()
        files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
        trust = ("--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no", "--tls-cluster", "yes")
        own = ("--cluster-enabled", "yes", "--cluster-port", str(plain + 1))
        redises.start(plain, *own, "--tls-port", str(tls), *files, *trust)
        await until(lambda: redises.answers(plain), "Redis")
        await redises.do(plain, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await until(lambda: redises.takes_writes(plain), "the Cluster")
        url = f"rediss+cluster://:{URL_PASSWORD}@127.0.0.1:{tls}"
        async with writing(Memory(f"{url}?ssl_ca_certs={certificate}")) as memory:
            memory.call("a").entry(entry(0))
            await written(memory)
            assert await memory.recall("a") == Remembered("a", {}, [entry(0)], talk())
        stranger = Memory(url)  # which does not know the certificate
        with pytest.raises(MemoryUnavailable, match=r"(?i)certificate"):
            await stranger.recall("a")
        await drop(stranger)
    finally:
        redises.close()


async def test_a_call_follows_its_slot_to_another_node() -> None:
    """Nobody dies: a Cluster's slots are shared out anew, and the old master says MOVED."""
    async with cluster() as redises, writing(Memory(redises.url)) as memory:
        call = memory.call("a")
        call.entry(entry(0))
        await written(memory)
        await redises.do(redises.ports[1], "CLUSTER", "FAILOVER")  # the replica takes over, in agreement
        await until(lambda: redises.is_master(redises.ports[1]), "the new master")
        with log() as lines:
            call.entry(entry(1))
            await comes_to_hold(redises, Remembered("a", {}, [entry(0), entry(1)], talk()))
        assert sum("not kept in Redis" in line for line in lines) <= 1
