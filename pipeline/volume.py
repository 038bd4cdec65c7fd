"""How loud the bot's voice is: lower while the caller may be cutting in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FULL, SILENT = 1.0, 0.0
DIPPED = 10 ** (-6 / 20)  # something begins: for a tenth of a second nobody would call it gone
DUCKED = 10 ** (-14 / 20)  # the caller speaks: still understood, and plainly no longer insisting
RAMP_MS = 5  # a change of level: quick, and too slow to click


class Volume:
    """A gain that changes within 5 ms. Pure: the sound comes in pieces of any length, in order."""

    def __init__(self) -> None:
        """Full."""
        self._level = FULL  # at the end of the last piece
        self.wanted = FULL

    def apply(self, samples: NDArray[np.int16], rate: int) -> NDArray[np.int16]:
        """``samples`` (mono, ``rate`` Hz) at the level that is wanted; the same array at full volume."""
        if self._level == self.wanted == FULL:
            return samples
        gain = np.full(len(samples), self.wanted, np.float32)
        ramp = min(rate * RAMP_MS // 1000, len(samples))
        gain[:ramp] = np.linspace(self._level, self.wanted, ramp, dtype=np.float32)
        self._level = self.wanted
        changed: NDArray[np.int16] = np.rint(samples * gain).astype(np.int16)
        return changed
