"""Whether a voice is as near as the caller's has been: somebody else in the room is further away.

Pure and clock-free: levels of voiced frames, one after another. Nobody is shut out for long, since whoever
goes on for a few seconds is what the next are compared with.
"""

from __future__ import annotations

from collections import deque

import numpy as np

USUAL_FRAMES = 150  # 3 s of voice: what the caller's is like
NOW_FRAMES = 10  # 0.2 s of it: who speaks now
KNOWN_FRAMES = 40  # 0.8 s, before which nobody is compared with anything
LEAST_FRAMES = 5  # of who speaks now, before which nothing is said of them: words begin softly
FAR_DB = 10.0  # below the usual; a voice from across the room is some 15 dB below
LOUD_PERCENT = 90  # of frames: a voice is as loud as its vowels


class Nearness:
    """Listens to one line."""

    def __init__(self) -> None:
        """Nobody known."""
        self._usual: deque[float] = deque(maxlen=USUAL_FRAMES)
        self._now: deque[float] = deque(maxlen=NOW_FRAMES)

    def begins(self) -> None:
        """Somebody begins to speak: what was said before may have been another."""
        self._now.clear()

    def push(self, pcm: bytes) -> None:
        """The next voiced samples, 16 kHz mono s16le: a frame of 20 ms, or what came in about that time."""
        samples = np.frombuffer(pcm, np.int16).astype(np.float32)
        level = 10 * float(np.log10((samples**2).mean() + 1))
        self._usual.append(level)
        self._now.append(level)

    @property
    def far(self) -> bool:
        """Whether who speaks now is further away than who usually does."""
        return len(self._now) >= LEAST_FRAMES and self.faint

    @property
    def faint(self) -> bool:
        """Whether they are softer than that so far: somebody else, or the soft beginning of a word."""
        if not self._now or len(self._usual) < KNOWN_FRAMES:
            return False
        return _loud(self._now) < _loud(self._usual) - FAR_DB


def _loud(levels: deque[float]) -> float:
    return sorted(levels)[len(levels) * LOUD_PERCENT // 100]
