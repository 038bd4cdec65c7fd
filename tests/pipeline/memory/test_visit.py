"""A command reaches the data of our own Redis, whether Parley runs or not, and leaves it as it was."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from pipeline.memory import Archive, Memory, OwnRedis, RedisImpossible, visiting
from pipeline.memory import own_server as pipeline_own_server
from pipeline.memory.own_server import LOCK, running_in
from tests.pipeline.memory.redis_server import entry, talk, until, writing
from tests.pipeline.memory.test_own_server import HERE, OWNER, answers, own_redis, runs, socket_path

WORDS = b"something that nobody else said"


async def keep(url: str, call_id: str = "a", words: bytes = WORDS) -> None:
    """A call that is over."""
    async with writing(Memory(url, keep_s=100)) as memory:
        call = memory.call(call_id)
        call.entry(entry(0))
        call.converse(talk(words.decode()))
        call.close()


async def expire(url: str) -> None:
    """Its time is over."""
    async with Redis.from_url(url, protocol=2) as client:
        assert await client.pexpire("parley:{default}:call:a", 1)


async def ids(url: str | None) -> list[str]:
    assert url is not None
    async with Archive(url, "default") as archive:
        return [call.call_id for call in await archive.calls()]


async def test_the_redis_of_a_parley_that_runs_is_found(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as (server, url):
        await plainly(url)
        await keep(url)
        await comes_to(tmp_path / "appendonly.aof", True)
        async with visiting(tmp_path) as found:
            assert found == url
            assert await ids(found) == ["a"]
        assert await answers(url)  # it is that Parley's, and stays
        assert stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == 0o600
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)  # it is started again where it was
        await until(lambda: answers(url), "the server")
        async with visiting(tmp_path) as found:
            assert await ids(found) == ["a"]
    assert running_in(tmp_path) is None


async def test_without_parley_the_data_is_served_for_as_long_as_asked(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as (_, url):
        await keep(url)
    async with visiting(tmp_path) as found:
        assert await ids(found) == ["a"]
        assert found is not None
    assert not socket_path(found).parent.exists()
    async with own_redis(tmp_path) as (_, url):
        assert await ids(url) == ["a"]


async def test_a_parley_that_starts_meanwhile_waits_for_the_command(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as (_, url):
        await keep(url)
    parley = OwnRedis(tmp_path)
    async with visiting(tmp_path) as found:
        starting = asyncio.create_task(parley.start())
        assert await ids(found) == ["a"]
        assert not starting.done()
    try:
        assert await ids(await starting) == ["a"]
    finally:
        await parley.stop()


async def test_two_commands_at_once_take_turns(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as (_, url):
        await keep(url)

    async def visit() -> list[str]:
        async with visiting(tmp_path) as found:
            return await ids(found)

    for found in await asyncio.gather(visit(), visit()):
        assert found == ["a"]


async def test_where_nothing_was_ever_kept_nothing_is_made(tmp_path: Path) -> None:
    async with visiting(tmp_path / "new") as found:
        assert found is None
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_what_a_parley_that_was_killed_left_is_reached(tmp_path: Path) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, cwd=HERE, text=True
    ) as owner:
        assert owner.stdout is not None
        url, pid = (await asyncio.to_thread(owner.stdout.readline)).split()
        await plainly(url)
        await keep(url)
        await comes_to(tmp_path / "appendonly.aof", True)
        owner.kill()
    async with visiting(tmp_path) as found:
        assert found != url
        assert await ids(found) == ["a"]
        assert not runs(int(pid))
    shutil.rmtree(socket_path(url).parent)


async def test_another_user_s_redis_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with own_redis(tmp_path):
        me = os.geteuid()
        with monkeypatch.context() as patched:
            patched.setattr(os, "geteuid", lambda: me + 1)
            with pytest.raises(RedisImpossible, match="another user's"):
                running_in(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / LOCK).symlink_to(tmp_path / LOCK)
    with pytest.raises(RedisImpossible, match="cannot be opened"):
        running_in(tmp_path / "elsewhere")


async def test_what_is_erased_is_gone_from_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "appendonly.aof"
    async with own_redis(tmp_path) as (_, url):
        await plainly(url)
        await keep(url, "a")
        await keep(url, "b", words=b"else")
        await comes_to(file, True)
        async with Archive(url, "default") as archive:
            assert await archive.forget("a")
            assert await archive.tidy_disk()
        await comes_to(file, False)


async def test_what_has_expired_goes_from_the_disk_now_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_own_server, "TIDY_EVERY_S", 0.2)
    file = tmp_path / "appendonly.aof"
    async with own_redis(tmp_path) as (_, url):
        await plainly(url)
        await keep(url)
        await comes_to(file, True)
        await expire(url)
        await comes_to(file, False)
        assert await ids(url) == []


async def test_nor_is_it_there_after_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "appendonly.aof"
    async with own_redis(tmp_path) as (_, url):
        await plainly(url)
        await keep(url)
        await comes_to(file, True)
        await expire(url)
    await comes_to(file, True)
    async with own_redis(tmp_path):
        await comes_to(file, False)


async def plainly(url: str) -> None:
    """Have it write to the disk what can be searched for words."""
    async with Redis.from_url(url, protocol=2) as client:
        await client.config_set("rdbcompression", "no")


async def comes_to(file: Path, there: bool) -> None:
    """Wait until the words are on the disk, or are not."""

    async def so() -> bool:
        return (WORDS in await asyncio.to_thread(file.read_bytes)) == there

    await until(so, f"the words on the disk: {there}")
