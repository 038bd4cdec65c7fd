"""What the transport has really written: a tap behind ``transport.output()``.

The output transport pushes each chunk (20 ms) on only after the transport took it, so counting here is
counting what left for the caller. ``TTSStartedFrame`` and ``TTSStoppedFrame`` travel the same queue as the
audio between them and say whose it is; an interruption closes the account at once, so that the one chunk
still being written counts for nobody.
"""

from __future__ import annotations

from typing import Protocol

from pipecat.frames.frames import (
    Frame,
    InterruptionFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from model_runtime.protocol import OUTPUT_RATE


class PlaybackListener(Protocol):
    """Who wants to know."""

    async def played(self, turn: int, samples: int) -> None:
        """``samples`` more (at 24 kHz) of ``turn``'s answer were written."""

    async def played_out(self, turn: int) -> None:
        """The end of ``turn``'s answer was reached."""


class PlaybackTap(FrameProcessor):
    """Counts written audio by turn. Frames pass through unchanged."""

    def __init__(self, listener: PlaybackListener) -> None:
        """``listener`` is called from the output's audio task and must not wait."""
        # Direct mode: a task of its own would lag, and an interruption would empty its queue uncounted.
        super().__init__(name="playback-tap", enable_direct_mode=True)
        self._listener = listener
        self._turn: int | None = None
        self._written = 0  # samples of this turn at the transport's rate
        self._reported = 0  # samples of this turn at 24 kHz

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Count, then pass on."""
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            await self._count(frame)
        await self.push_frame(frame, direction)

    async def _count(self, frame: Frame) -> None:
        if isinstance(frame, TTSStartedFrame) and frame.context_id is not None:
            self._turn, self._written, self._reported = int(frame.context_id), 0, 0
        elif isinstance(frame, InterruptionFrame):
            self._turn = None
        elif self._turn is None:
            return
        elif isinstance(frame, TTSAudioRawFrame):
            self._written += len(frame.audio) // (2 * frame.num_channels)
            total = (
                self._written * OUTPUT_RATE // frame.sample_rate
            )  # a running total, so rounding never adds up
            samples, self._reported = total - self._reported, total
            await self._listener.played(self._turn, samples)
        elif isinstance(frame, TTSStoppedFrame) and frame.context_id == str(self._turn):
            turn, self._turn = self._turn, None
            await self._listener.played_out(turn)
