"""Our own engine: started as a child process, watched, started again when it dies, stopped with us.

The child listens on a socket in a folder that only this user can open. It counts as ready once it has
answered an ``Open`` with an ``Opened``: that is what the next call will need of it, nothing less.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loguru import logger

from bot.child_process import die_with_parent, ending, stop
from bot.engine_probe import EngineFull, EngineUnavailable, ask_engine
from bot.settings import EngineSettings
from model_runtime.protocol import Opened

FIRST_PAUSE_S = 0.5  # before the first restart; doubled at each one that follows soon
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0  # an engine that ran this long was well: the next restart is quick again
PROBE_EVERY_S = 0.2
WATCH_EVERY_S = 10.0  # how often an engine is asked whether it is still there
MUTE = 3  # questions in a row that our own engine leaves unanswered before it is started anew
CANNOT_START = (
    2  # exit status of an engine that will not start however often it is tried: a bad checkpoint or option
)

Ask = Callable[[str], Awaitable[Opened]]


@dataclass(frozen=True)
class EngineStatus:
    """Whether calls can be answered, why not (a sentence), and what the engine said of itself."""

    state: Literal["starting", "ready", "down", "failed"]
    reason: str = ""
    about: Opened | None = None

    @property
    def ready(self) -> bool:
        """Whether a call can be answered now."""
        return self.state == "ready"


class Engine:
    """An engine that somebody else runs. ``status`` is kept true by ``run``."""

    def __init__(self, url: str, ask: Ask = ask_engine) -> None:
        """``ask`` is how its state is found out."""
        self.url = url
        self.status = EngineStatus("starting", "The engine has not answered yet.")
        self.on_change: Callable[[EngineStatus], None] = lambda status: None  # told of every new state
        self._ask = ask

    async def run(self) -> None:
        """Ask now and then whether the engine is there, until cancelled."""
        while True:
            try:
                self._now(EngineStatus("ready", about=await self._ask(self.url)))
            except EngineFull:  # a call that is turned away for that is told so by the engine itself
                self._now(EngineStatus("ready", about=self.status.about))
            except EngineUnavailable as error:
                self._now(EngineStatus("down", str(error), self.status.about))
            await asyncio.sleep(WATCH_EVERY_S if self.status.ready else 1.0)

    def has_voice(self, name: str) -> bool:
        """Whether the engine can speak so; it is believed of an engine that has not named its voices."""
        about = self.status.about
        return not name or about is None or not about.voices or name in about.voices

    def _now(self, status: EngineStatus) -> None:
        before, self.status = self.status.state, status
        if status.state != before:
            level = "WARNING" if status.state == "down" else "INFO"
            logger.log(level, "engine {}{}", status.state, f": {status.reason}" if status.reason else "")
            self.on_change(status)


class EngineProcess(Engine):
    """A child engine under supervision: ``run`` keeps one alive until cancelled, and leaves none behind.

    A child that ends with status 2 before it was ever ready cannot start at all (a bad checkpoint): the state
    is then ``failed`` and ``run`` returns.
    """

    def __init__(
        self,
        command: Sequence[str],
        url: str,
        *,
        start_timeout_s: float = 600.0,
        ask: Ask = ask_engine,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        """``command`` is what to run; ``url`` is where the child will listen."""
        super().__init__(url, ask)
        self.restarts = 0
        self.pid: int | None = None
        self._command = list(command)
        self._start_timeout_s = start_timeout_s
        self._first_pause_s = first_pause_s
        self._last_words = ""

    async def run(self) -> None:
        """Start the engine, and start it again whenever it ends."""
        pause = self._first_pause_s
        while True:
            self._now(EngineStatus("starting", "The speech model is being loaded.", self.status.about))
            born = time.monotonic()
            code = await self._live_once()
            if code == CANNOT_START and self.status.about is None:
                self._now(EngineStatus("failed", self._last_words or "The engine could not start."))
                return
            if time.monotonic() - born > STEADY_S:
                pause = self._first_pause_s
            why = f"The engine stopped ({ending(code)}) and is being started again."
            self._now(EngineStatus("down", why, self.status.about))
            self.restarts += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _live_once(self) -> int | None:
        """One life of the child, start to end. Its exit status; None if it was mute for too long."""
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self.pid = child.pid
        logger.info("engine started as process {}", child.pid)
        pump = asyncio.create_task(self._pass_on(child))
        ended = asyncio.create_task(child.wait())
        try:
            if not await self._until_ready(ended):
                return None if not ended.done() else ended.result()
            await self._while_it_answers(ended)
            return ended.result() if ended.done() else None
        finally:
            await stop(child, ended)
            # What it said last is often why it ended; a grandchild may keep the pipe open, so not for long.
            with suppress(TimeoutError):
                await asyncio.wait_for(pump, 1.0)
            self.pid = None

    async def _until_ready(self, ended: asyncio.Task[int]) -> bool:
        """Wait for the first answer. False if the child ended or took too long."""
        deadline = time.monotonic() + self._start_timeout_s
        while not ended.done():
            try:
                about = await self._ask(self.url)
            except EngineUnavailable:
                if time.monotonic() > deadline:
                    logger.error("engine was not ready after {:g} s", self._start_timeout_s)
                    return False
                await asyncio.wait({ended}, timeout=PROBE_EVERY_S)
            else:
                self._now(EngineStatus("ready", about=about))
                return True
        return False

    async def _while_it_answers(self, ended: asyncio.Task[int]) -> None:
        """Until the child has ended, or has been mute for so long that it never will answer again."""
        mute = 0
        while mute < MUTE:
            await asyncio.wait({ended}, timeout=WATCH_EVERY_S)
            if ended.done():
                return
            try:
                # What it says of itself may be new: voices are added while it runs.
                self._now(EngineStatus("ready", about=await self._ask(self.url)))
                mute = 0
            except EngineFull:
                mute = 0
            except EngineUnavailable:
                mute += 1
        logger.error("engine has not answered {} times", MUTE)

    async def _pass_on(self, child: asyncio.subprocess.Process) -> None:
        """Show what the child prints as it prints it, progress bars included, and remember its last line."""
        assert child.stdout is not None  # a pipe was asked for
        line = b""
        while chunk := await child.stdout.read(4096):
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
            *whole, line = (line + chunk).replace(b"\r", b"\n").split(b"\n")
            line = line[-4096:]
            for text in [part.strip() for part in whole if part.strip()][-1:]:
                self._last_words = text.decode(errors="replace")[-500:]


class OwnEngine(EngineProcess):
    """The engine of ``parley serve``: ``python -m model_runtime.engine`` on a private Unix socket."""

    def __init__(
        self, settings: EngineSettings, checkpoint: str, voices: Path, max_calls: int, log_level: str
    ) -> None:
        """Say how the engine is to be run; nothing starts before ``run``."""
        self._folder = Path(
            tempfile.mkdtemp(prefix="parley-")
        )  # mode 0700: no other user can reach the engine
        socket = self._folder / "engine.sock"
        command = [
            sys.executable,
            "-m",
            "model_runtime.engine",
            "--checkpoint",
            checkpoint,
            "--voices",
            str(voices),
            "--socket",
            str(socket),
            "--device",
            settings.device,
            "--threads",
            str(settings.threads),
            # One place beyond the calls: the question whether it is ready takes one for a moment.
            "--max-sessions",
            str(max_calls + 1),
            "--log-level",
            "DEBUG" if log_level == "TRACE" else log_level,
            *shlex.split(settings.options),
        ]
        super().__init__(command, f"unix:{socket}", start_timeout_s=settings.start_timeout_s)

    async def run(self) -> None:
        """Run the engine until cancelled, then remove its socket."""
        try:
            await super().run()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
