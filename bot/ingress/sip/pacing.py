"""A phone line's two streams, brought to the call's pace: pure, the clock is given.

The stack's buffers are polled. What comes from the line is cut into 20 ms frames, and a line that falls
silent without a word (a phone that suppresses silence, a hold) still gives silence, since the turns of a
call are counted in samples. What goes to the line is given back when the line has really sent it.
"""

from __future__ import annotations

from collections import deque

from bot.ingress.sip.messages import FRAME_MS, HEARD_BYTES

FRAME_S = FRAME_MS / 1000
LATE_S = 0.1  # without any audio for so long, the line is silent rather than late
BURST = 10  # frames of silence at once at most: a worker that stood still does not make up for it
SILENCE = bytes(HEARD_BYTES)


class Intake:
    """What the far end says, at 16 kHz."""

    def __init__(self, now: float) -> None:
        """``now``: seconds, monotonic."""
        self.held = False  # then it is silence whatever comes: music is not for the bot
        self._rest = b""
        self._silent_at = now + LATE_S

    def take(self, pcm: bytes, now: float) -> bytes:
        """Whole frames out of ``pcm`` and what was left over; silence if there has been nothing for long."""
        if pcm and not self.held:
            self._rest += pcm
            whole = len(self._rest) // HEARD_BYTES * HEARD_BYTES
            frames, self._rest = self._rest[:whole], self._rest[whole:]
            self._silent_at = now + LATE_S
            return frames
        count = 0
        while self._silent_at <= now:
            self._silent_at += FRAME_S
            count += 1
        if self.held and pcm:
            self._rest = b""
        return SILENCE * min(count, BURST)


class Outbox:
    """What the bot says, from its arrival until the line has sent it; nothing is lost while it cannot."""

    def __init__(self) -> None:
        """Empty."""
        self.taken = 0  # frames sent
        self._waiting: deque[bytes] = deque()
        self._written: deque[tuple[bytes, int]] = deque()  # frames in the line's buffer; bytes of each there
        self._bytes = 0  # of all of them

    def put(self, frame: bytes) -> None:
        """The next frame."""
        self._waiting.append(frame)

    def next(self) -> bytes | None:
        """The frame to write now; it counts as written once ``wrote`` is told."""
        return self._waiting[0] if self._waiting else None

    def wrote(self, size: int) -> None:
        """The frame that ``next`` gave fills ``size`` bytes of the line's buffer."""
        self._written.append((self._waiting.popleft(), size))
        self._bytes += size

    def left(self, size: int) -> None:
        """``size`` bytes are still in the line's buffer: what lay before them has been sent."""
        while self._written and self._bytes - self._written[0][1] >= size:
            self._bytes -= self._written.popleft()[1]
            self.taken += 1

    def again(self) -> None:
        """The line lost its buffer: what was in it waits once more."""
        self._waiting.extendleft(frame for frame, _ in reversed(self._written))
        self._written.clear()
        self._bytes = 0
