"""The headless caller's ears and mouth: what it sends, what it hears, and when, to the sample."""

from __future__ import annotations

import asyncio
import fractions
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamError, MediaStreamTrack, RTCPeerConnection
from numpy.typing import NDArray

from bot.waveform import LOUD, Pcm

RATE = 48_000  # Hz; what Opus carries, and what both recordings have
FRAME = RATE // 50  # 20 ms
_JITTER_BUFFER = "_RTCRtpReceiver__jitter_buffer"  # private in aiortc, which is pinned to 1.16


class Microphone(MediaStreamTrack):
    """Sends silence at the pace of real time, and what it is given to ``say``. Keeps all of it."""

    kind = "audio"

    def __init__(self) -> None:
        """Its clock starts with the first frame asked for."""
        super().__init__()
        self.began: float | None = None
        self.sent: list[NDArray[np.int16]] = []
        self._left = np.zeros(0, np.int16)

    @property
    def position(self) -> int:
        """How many samples have been sent."""
        return len(self.sent) * FRAME

    def passed(self, sample: int) -> bool:
        """Whether ``sample`` has been sent."""
        return self.position >= sample

    def say(self, pcm: Pcm) -> tuple[int, int]:
        """Speak ``pcm`` from the next frame on: where it will lie, [from, to), in samples sent."""
        self._left = (np.clip(pcm, -1, 1) * 32767).astype(np.int16)
        return self.position, self.position + len(pcm)

    def next_samples(self) -> NDArray[np.int16]:
        """The next 20 ms of what is to be said, or silence."""
        samples, self._left = self._left[:FRAME], self._left[FRAME:]
        return np.pad(samples, (0, FRAME - len(samples)))

    async def recv(self) -> av.AudioFrame:
        """The next 20 ms, when they are due."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
        await asyncio.sleep(max(0.0, self.began + len(self.sent) * 0.02 - now))
        samples = self.next_samples()
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.pts = self.position
        frame.time_base = fractions.Fraction(1, RATE)
        self.sent.append(samples)
        return frame


class Listener:
    """Keeps what the bot sends: samples by the sender's clock, and when each packet came in."""

    def __init__(self) -> None:
        """Nothing heard yet."""
        self.last_loud_at = 0.0  # monotonic; 0: nothing heard yet
        self.arrivals: dict[int, float] = {}  # RTP time in samples since the first packet -> monotonic time
        self._first: int | None = None
        self.frames: list[tuple[int, NDArray[np.int16]]] = []
        self._task: asyncio.Task[None] | None = None

    def attach(self, peer: RTCPeerConnection, track: MediaStreamTrack) -> None:
        """Begin to listen to ``track``."""
        self._tap(peer)
        self._task = asyncio.create_task(self._listen(track))

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _tap(self, peer: RTCPeerConnection) -> None:
        """Note when packets come in: aiortc's own buffer holds them 80 ms and has no hook before it."""
        for receiver in peer.getReceivers():
            buffer = getattr(receiver, _JITTER_BUFFER)
            add = buffer.add

            def noted(packet: Any, add: Callable[[Any], Any] = add) -> Any:
                self._first = packet.timestamp if self._first is None else self._first
                # 32 bits wide, beginning anywhere (RFC 3550); aiortc counts its frames from the first, too.
                stamp = (packet.timestamp - self._first + 2**31) % 2**32 - 2**31
                self.arrivals.setdefault(stamp, time.monotonic())
                return add(packet)

            buffer.add = noted

    async def _listen(self, track: MediaStreamTrack) -> None:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if not isinstance(frame, av.AudioFrame) or frame.pts is None:
                    continue
                stamp = frame.pts
                for piece in resampler.resample(frame):
                    samples = piece.to_ndarray()[0]
                    self.frames.append((stamp, samples))
                    stamp += len(samples)
                    if np.abs(samples).max(initial=0) > LOUD * 32767:
                        self.last_loud_at = time.monotonic()

    def recording(self, began: float, length: int) -> Pcm:
        """All that was heard, at least ``length`` samples, on a clock that starts at ``began`` (monotonic).

        The packet that travelled fastest says where the sender's clock lies on ours.
        """
        if not self.frames or not self.arrivals:
            return np.zeros(length, np.float32)
        shift = round((min(at - stamp / RATE for stamp, at in self.arrivals.items()) - began) * RATE)
        end = max(stamp + len(samples) for stamp, samples in self.frames) + shift
        bot = np.zeros(max(length, end), np.float32)
        for stamp, samples in self.frames:
            start = stamp + shift
            samples = samples[max(0, -start) :]
            start = max(0, start)
            bot[start : start + len(samples)] = samples / np.float32(32768)
        return bot
