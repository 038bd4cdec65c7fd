"""A sound that begins, noticed within the packet that brings it: sooner than anybody can say what it is.

webrtcvad needs 20 to 100 ms of a voice, longest for words that begin with a hiss ("stop", "hold on"). That
something has begun at all is plain from its energy at once, so the bot may lower its voice a little and wait
for the rest. Pure and clock-free, like the segmenter.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from pipeline.segmenter import RATE

BLOCK = RATE // 200  # samples: 5 ms, so that one that begins near a packet's end is seen in that packet
FLOOR_BLOCKS = 200  # the least of one second is the line's own noise
ABOVE_DB = 12.0  # above it; the energy of 5 ms of white noise strays by less than 3
LEAST_DB = -45.0  # of full scale: the bot's own voice leaking from a headset into a microphone is quieter
CALM_BLOCKS = 20  # 100 ms of calm before a sound can begin anew: words have gaps of their own
SILENCE_DB = -90.0  # what digital silence is taken for


class Onset:
    """Watches one line."""

    def __init__(self) -> None:
        """Nothing heard: the first second of a line is silence, or else teaches what its noise is."""
        self._levels: deque[float] = deque([SILENCE_DB], maxlen=FLOOR_BLOCKS)
        self._floor = SILENCE_DB  # the least of them
        self._rest: NDArray[np.int16] = np.zeros(0, np.int16)
        self._calm = CALM_BLOCKS

    def push(self, pcm: bytes) -> bool:
        """Whether a sound begins within these samples (16 kHz mono s16le, any number of them)."""
        heard = np.frombuffer(pcm, np.int16)
        if len(self._rest):
            heard = np.concatenate([self._rest, heard])
        whole = len(heard) // BLOCK * BLOCK
        self._rest = heard[whole:]
        blocks = heard[:whole].reshape(-1, BLOCK).astype(np.float32)
        begins = False
        for energy in np.einsum("bs,bs->b", blocks, blocks).tolist():
            begins |= self._begins(10 * math.log10(energy / (BLOCK << 30) + 10 ** (SILENCE_DB / 10)))
        return begins

    def _begins(self, level: float) -> bool:
        loud = level > max(LEAST_DB, self._floor + ABOVE_DB)
        past = self._levels[0]
        self._levels.append(level)
        if level <= self._floor:
            self._floor = level
        elif past == self._floor:  # looked for only now: it is asked 200 times a second in each call
            self._floor = min(self._levels)
        calm, self._calm = self._calm, 0 if loud else self._calm + 1
        return loud and calm >= CALM_BLOCKS
