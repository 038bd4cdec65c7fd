"""How loudly the bot is heard: lower while the caller may be cutting in, held while they seem to.

It is pipecat's output filter, which gets each chunk (20 ms) when the transport has room for it. A chunk that
it keeps keeps every later one waiting in the output's queue, so a held answer goes on exactly where it was,
and what was heard of it is counted as ever. Of an answer that is over nothing more gets through, though its
last chunks may still be on their way: the queue is emptied a moment after.

Lowering the voice loses nothing, so it can be done later than that: where a transport lets us
(``pipeline.webrtc``), in the moment a sound is taken for the line, a chunk sooner for the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import FilterControlFrame

from model_runtime.protocol import OUTPUT_RATE
from pipeline.volume import DIPPED, DUCKED, FULL, SILENT, Volume

FADE_IN = 4  # times as quick as a chunk is long: 5 ms


@dataclass
class AnswerBegins(FilterControlFrame):
    """Goes before the first audio of every answer: what comes behind it may be heard."""


class Fader(BaseAudioFilter):
    """One call's. Every change of level is a ramp, so none clicks.

    ``played`` is told every chunk that the caller is sent, as it is sent; where the voice is lowered at the
    line it is told the voice at full volume.
    """

    def __init__(self, played: Callable[[bytes], None] | None = None) -> None:
        """Full volume."""
        self._played = played or (lambda _: None)
        self._volume = Volume()
        self.at_line = False  # whether the transport calls ``lower`` itself
        self._open = True  # at the end of the last chunk
        self._released = asyncio.Event()
        self._released.set()
        self._over = False  # what comes is of an answer that is over

    def dip(self) -> None:
        """Lower the voice a little."""
        self._lower(DIPPED)

    def duck(self) -> None:
        """Lower the voice."""
        self._lower(DUCKED)

    def hold(self) -> None:
        """Fall silent with the next chunk; nothing is lost."""
        self._released.clear()

    def resume(self) -> None:
        """Go on at full volume, where it was."""
        self._lower(FULL)

    def discard(self) -> None:
        """Silence what is under way, too, and let nothing through until the next answer begins."""
        self._over = self._open = True
        self._lower(SILENT)

    def _lower(self, level: float) -> None:
        self._volume.wanted = level
        self._released.set()

    async def filter(self, audio: bytes) -> bytes:
        """The chunk, s16le, at its level, once it may be heard. Empty: it may not."""
        if not self._open:
            while not self._released.is_set():  # it may be held again before this wakes
                await self._released.wait()
        if self._over:
            return b""
        samples = self._gated(np.frombuffer(audio, dtype=np.int16))
        if not self.at_line:
            samples = self.lower(samples, OUTPUT_RATE)
        chunk = samples.tobytes()
        self._played(chunk)
        return chunk

    def lower(self, samples: NDArray[np.int16], rate: int) -> NDArray[np.int16]:
        """``samples`` as loud as the voice is to be."""
        return self._volume.apply(samples, rate)

    def _gated(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """Fading out into a hold over the whole chunk, so that words break off softly; in again in 5 ms."""
        before, self._open = self._open, self._released.is_set()
        if before == self._open:
            return samples
        gain = np.linspace(before, self._open, len(samples))
        if self._open:
            gain = np.minimum(gain * FADE_IN, 1)
        faded: NDArray[np.int16] = np.rint(samples * gain).astype(np.int16)
        return faded

    async def start(self, sample_rate: int) -> None:
        """``BaseAudioFilter``: nothing to prepare."""

    async def stop(self) -> None:
        """``BaseAudioFilter``: nothing to free."""

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """``BaseAudioFilter``: a frame from the audio's own queue, in its place among the chunks."""
        if isinstance(frame, AnswerBegins):
            self._over = False
            if self._volume.wanted == SILENT:
                self.resume()
