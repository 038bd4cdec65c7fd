"""The voice library, kept by a process of its own: the bot itself never loads torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from bot.settings import Settings
from bot.voices.ranking import Known
from model_runtime.library.entry import Entry

PATIENCE_S = 600.0  # a large checkpoint on a slow disk; nano takes seconds


class LibraryError(Exception):
    """What was asked cannot be done. The message is a sentence that says why."""


class Library:
    """The voices that calls can be given: the checkpoint's and those in the library's folder."""

    def __init__(self, settings: Settings) -> None:
        """Which checkpoint and which folder; nothing is opened."""
        self._options = ["--checkpoint", settings.checkpoint, "--voices", str(settings.voices_dir)]

    def entries(self) -> list[Entry]:
        """Every voice; each method raises ``LibraryError``."""
        return msgspec.json.decode(self._run("list"), type=list[Entry])

    def add(self, name: str, file: Path, description: str, consent: str, replace: bool = False) -> Entry:
        """Make a recording a voice, if it is fit for one."""
        options = [f"--description={description}", f"--consent={consent}"]
        options += ["--replace"] if replace else []
        return msgspec.json.decode(self._run("add", *options, "--", name, str(file)), type=Entry)

    def remove(self, name: str) -> None:
        """Forget a voice that was added."""
        self._run("remove", "--", name)

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


def known(entry: Entry) -> Known:
    """An entry as it is searched."""
    return Known(
        entry.name, entry.description, entry.pitch_hz, entry.brightness_hz, entry.rate_hz, entry.speaker
    )
