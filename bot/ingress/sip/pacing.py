"""A phone line's two streams, brought to the call's pace: pure, the clock is given.

The stack's buffers are polled. What comes from the line is cut into 20 ms frames, and a line that falls
silent without a word (a phone that suppresses silence, a hold) still gives silence, since the turns of a
call are counted in samples. What goes to the line is given back when the line has really sent it.

The stack decodes each packet when its time to be played has come and leaves a lost one out, so a hole shows
in the clock alone: what follows comes as much later as was lost before it.
"""

from __future__ import annotations

from collections import deque

from bot.ingress.sip.messages import FRAME_MS, HEARD_BYTES
from pipeline.concealment import LONGEST, Concealer

FRAME_S = FRAME_MS / 1000
LATE_S = 0.1  # without any audio for so long, the line is silent rather than late
BURST = LONGEST  # frames of silence at once at most: a worker that stood still does not make up for it
SILENCE = bytes(HEARD_BYTES)
# A lost frame makes the next one 20 ms later than the earliest come, polling every 10 ms any frame up to 10.
LOST_S = 0.015
# The pace that frames are measured by follows the earliest: quickly, so that a sender that is put through
# anew sets it within half a second, and a sender with a faster clock always; to the late ones slowly.
EARLIER_S = 0.001  # a reading at most
LATER_S = 0.0001


class Intake:
    """What the far end says, at 16 kHz, with stand-ins for what was lost on the way."""

    def __init__(self, now: float) -> None:
        """``now``: seconds, monotonic."""
        self.held = False  # then it is silence whatever comes: music is not for the bot
        self.concealed = 0  # frames
        self._rest = b""
        self._concealer = Concealer()
        self._silent = True  # nothing came before what comes next, or too long ago to be gone on with
        self._due: float | None = None  # when what was read last should have come; None: nobody knows yet
        self._silent_at = now + LATE_S

    def take(self, pcm: bytes, now: float) -> bytes:
        """Whole frames out of ``pcm`` and what was left over; silence if there has been nothing for long."""
        if pcm and not self.held:
            self._silent_at = now + LATE_S
            lost = self._lost(len(pcm) / HEARD_BYTES * FRAME_S, now)
            self._rest += self._stand_ins(lost) + self._concealer.heard(pcm)
            self._silent = False
            whole = len(self._rest) // HEARD_BYTES * HEARD_BYTES
            frames, self._rest = self._rest[:whole], self._rest[whole:]
            return frames
        return self._silence(now, heard=bool(pcm))

    def _stand_ins(self, lost: int) -> bytes:
        """For so many frames."""
        if self._silent:
            return SILENCE * lost
        self.concealed += lost
        return self._concealer.lost(lost * HEARD_BYTES // 2)

    def _lost(self, lasts: float, now: float) -> int:
        """Frames to fill before audio that ``lasts`` so many seconds and is read ``now``."""
        due = now if self._due is None else self._due + lasts
        late = now - due
        missing = int((late + FRAME_S - LOST_S) / FRAME_S) if late > 0 else 0
        due = now if missing > LONGEST else due + missing * FRAME_S
        self._due = due + max(-EARLIER_S, min(LATER_S, now - due))
        return min(missing, LONGEST)

    def _silence(self, now: float, heard: bool) -> bytes:
        count = 0
        while self._silent_at <= now:
            self._silent_at += FRAME_S
            count += 1
        count = min(count, BURST)
        if count:
            self._silent = True
            self._concealer = Concealer()
        if self._due is not None:
            self._due += count * FRAME_S
        if self.held and heard:
            self._rest, self._due = b"", None
        return SILENCE * count


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
