"""How loudly the bot is heard: lower while the caller may be cutting in, held while they seem to.

It is pipecat's output filter, which gets each chunk (20 ms) at the moment it is due. A chunk that it keeps
keeps every later one waiting in the output's queue, so a held answer goes on exactly where it was, and what
was heard of it is counted as ever. Of an answer that is over nothing more gets through, though its last
chunks may still be on their way: the queue is emptied a moment after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import FilterControlFrame

DUCKED = 10 ** (-14 / 20)  # 14 dB lower: still understood, and plainly no longer insisting


@dataclass
class AnswerBegins(FilterControlFrame):
    """Goes before the first audio of every answer: what comes behind it may be heard."""


class Fader(BaseAudioFilter):
    """One call's. Every change of level takes one chunk, so none clicks.

    ``played`` is told every chunk that the caller is sent, as it is sent.
    """

    def __init__(self, played: Callable[[bytes], None] | None = None) -> None:
        """Full volume."""
        self._played = played or (lambda _: None)
        self._level = 1.0  # at the end of the last chunk
        self._wanted = 1.0
        self._released = asyncio.Event()
        self._released.set()
        self._over = False  # what comes is of an answer that is over

    def duck(self) -> None:
        """Lower the voice."""
        self._wanted = DUCKED
        self._released.set()

    def hold(self) -> None:
        """Fall silent with the next chunk; nothing is lost."""
        self._wanted = 0.0
        self._released.clear()

    def resume(self) -> None:
        """Go on at full volume, where it was."""
        self._wanted = 1.0
        self._released.set()

    def discard(self) -> None:
        """Let nothing through until the next answer begins, at full volume."""
        self._over = True
        self._level = 1.0
        self.resume()

    async def filter(self, audio: bytes) -> bytes:
        """The chunk, s16le, at its level, once it may be heard. Empty: it may not."""
        if self._level == 0.0:
            while not self._released.is_set():  # it may be held again before this wakes
                await self._released.wait()
        if self._over:
            return b""
        chunk = audio if self._level == self._wanted == 1.0 else self._faded(audio)
        self._played(chunk)
        return chunk

    def _faded(self, audio: bytes) -> bytes:
        samples = np.frombuffer(audio, dtype=np.int16)
        gain = np.linspace(self._level, self._wanted, len(samples), dtype=np.float32)
        self._level = self._wanted
        faded: bytes = np.rint(samples * gain).astype(np.int16).tobytes()
        return faded

    async def start(self, sample_rate: int) -> None:
        """``BaseAudioFilter``: nothing to prepare."""

    async def stop(self) -> None:
        """``BaseAudioFilter``: nothing to free."""

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """``BaseAudioFilter``: a frame from the audio's own queue, in its place among the chunks."""
        if isinstance(frame, AnswerBegins):
            self._over = False
