"""How loudly the bot is heard: lower while the caller may be cutting in, held while they seem to.

It is pipecat's output filter, which gets each chunk (20 ms) at the moment it is due. A chunk that it keeps
keeps every later one waiting in the output's queue, so a held answer goes on exactly where it was, and what
was heard of it is counted as ever.
"""

from __future__ import annotations

import asyncio

import numpy as np
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import FilterControlFrame

DUCKED = 10 ** (-14 / 20)  # 14 dB lower: still understood, and plainly no longer insisting


class Fader(BaseAudioFilter):
    """One call's. Every change of level takes one chunk, so none clicks."""

    def __init__(self) -> None:
        """Full volume."""
        self._level = 1.0  # at the end of the last chunk
        self._wanted = 1.0
        self._released = asyncio.Event()
        self._released.set()
        self._waiting = self._void = False  # whether a chunk is held, and is to be forgotten

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
        """Full volume for what comes next; a chunk that is held is not played any more."""
        self._void = self._waiting
        self._level = 1.0
        self.resume()

    async def filter(self, audio: bytes) -> bytes:
        """The chunk, s16le, at its level, once it may be heard. Empty: it may not."""
        if self._level == 0.0 and not await self._may_go_on():
            return b""
        if self._level == self._wanted == 1.0:
            return audio
        samples = np.frombuffer(audio, dtype=np.int16)
        gain = np.linspace(self._level, self._wanted, len(samples), dtype=np.float32)
        self._level = self._wanted
        faded: bytes = np.rint(samples * gain).astype(np.int16).tobytes()
        return faded

    async def _may_go_on(self) -> bool:
        """Wait while the answer is held. False: it is over."""
        self._waiting = True
        try:
            while not self._released.is_set() and not self._void:  # it may be held again before this wakes
                await self._released.wait()
            return not self._void
        finally:
            self._waiting = self._void = False

    async def start(self, sample_rate: int) -> None:
        """``BaseAudioFilter``: nothing to prepare."""

    async def stop(self) -> None:
        """``BaseAudioFilter``: nothing to free."""

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """``BaseAudioFilter``: its frames queue behind the audio, too late to be of use here."""
