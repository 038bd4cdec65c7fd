"""The voice library, kept by a process of its own: the bot itself never loads torch."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from bot.archive import archive
from bot.settings import BadSettings, Settings
from bot.voices import shared
from bot.voices.ranking import Known
from model_runtime.library import packed
from model_runtime.library.entry import SUFFIX, Entry
from pipeline.memory import MemoryUnavailable, RedisImpossible
from pipeline.memory.client import in_words

PATIENCE_S = 600.0  # a large checkpoint on a slow disk; nano takes seconds


class LibraryError(Exception):
    """What was asked cannot be done. The message is a sentence that says why."""


class Library:
    """The voices that calls can be given: the checkpoint's and those in the library's folder."""

    def __init__(self, settings: Settings) -> None:
        """Which checkpoint, which folder and which Redis; nothing is opened."""
        self._settings = settings
        self._options = ["--checkpoint", settings.checkpoint, "--voices", str(settings.voices_dir)]

    def entries(self) -> list[Entry]:
        """Every voice; each method raises ``LibraryError``."""
        return msgspec.json.decode(self._run("list"), type=list[Entry])

    def add(self, name: str, file: Path, description: str, consent: str, replace: bool = False) -> Entry:
        """Make a recording a voice, if it is fit for one."""
        options = [f"--description={description}", f"--consent={consent}"]
        options += ["--replace"] if replace else []
        return msgspec.json.decode(self._run("add", *options, "--", name, str(file)), type=Entry)

    def shared(self) -> list[Entry]:
        """What Redis has, whichever machine added it."""

        async def look() -> list[Entry]:
            async with archive(self._settings) as opened:
                return [] if opened is None else await shared.entries(opened.voices)

        try:
            return asyncio.run(look())
        except (MemoryUnavailable, RedisImpossible, BadSettings) as error:
            raise LibraryError(_why(error)) from None

    def share(self, name: str) -> str:
        """Have Redis take a voice that was added, for other machines; a sentence if it does not."""
        path = self._settings.voices_dir / f"{name}{SUFFIX}"

        async def bring() -> None:
            async with archive(self._settings) as opened:
                if opened is not None:  # else a Parley of its own Redis brings it once it runs
                    await shared.put(opened.voices, name, path.read_bytes(), replace=True)

        try:
            asyncio.run(bring())
        except (MemoryUnavailable, RedisImpossible, BadSettings, packed.Unusable, OSError) as error:
            return _why(error)
        return ""

    def remove(self, name: str) -> None:
        """Forget a voice that was added, on this machine or on one that shares our Redis."""
        fault: LibraryError | None = None
        try:
            self._run("remove", "--", name)
        except LibraryError as error:
            fault = error

        async def erase() -> bool:
            async with archive(self._settings) as opened:
                if opened is None:
                    return False
                erased = await opened.voices.remove(name, mark=fault is None)
                if not self._settings.redis.url.get_secret_value():  # on our own's disk it stands until then
                    await opened.tidy_disk()
                return erased

        try:
            if not asyncio.run(erase()) and fault is not None:
                raise fault
        except (MemoryUnavailable, RedisImpossible, BadSettings) as error:
            here = "It is removed here" if fault is None else str(fault).rstrip(".")
            said = f"{here}, but Redis may still have it: {_why(error)} Please try again."
            raise LibraryError(said) from None

    def render(self, name: str, file: Path) -> None:
        """Write how calls will hear the voice: its prompt's words, said by the checkpoint, as WAV."""
        self._run("render", "--", name, str(file))

    def _run(self, *arguments: str) -> bytes:
        """One command of ``model_runtime.library``: the JSON that it prints."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", "model_runtime.library", *self._options, *arguments],
                capture_output=True,
                timeout=PATIENCE_S,
                env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
            )
        except subprocess.TimeoutExpired:
            raise LibraryError(f"The voice library did not answer in {PATIENCE_S:.0f} s.") from None
        said = (done.stdout.splitlines() or [b""])[-1]
        if done.returncode == 0:
            return said
        try:
            fault: str = msgspec.json.decode(said, type=dict[str, str])["error"]
        except (msgspec.MsgspecError, KeyError):
            last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no word of why"])[-1]
            raise LibraryError(f"The voice library failed: {last}") from None
        raise LibraryError(fault.rstrip(".") + ".")


def _why(error: Exception) -> str:
    return in_words(error) if isinstance(error, MemoryUnavailable) else str(error)


def known(entry: Entry) -> Known:
    """An entry as it is searched."""
    return Known(
        entry.name, entry.description, entry.pitch_hz, entry.brightness_hz, entry.rate_hz, entry.speaker
    )
