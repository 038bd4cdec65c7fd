"""The caller's last minutes, by the session's sample clock."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_runtime.protocol import INPUT_RATE


class AudioRing:
    """Keeps the newest ``seconds`` of 16 kHz mono s16 audio; every sample has a number, counted from the
    first ever put.

    Memory is ``seconds * 32`` kB, allocated as audio arrives, so that a session that never hears anything
    costs nothing.
    """

    def __init__(self, seconds: float) -> None:
        """Nothing heard."""
        self.capacity = int(seconds * INPUT_RATE)
        self._samples: NDArray[np.int16] = np.zeros(0, np.int16)
        self.end = 0  # number of samples ever put: the clock

    @property
    def start(self) -> int:
        """The oldest sample still held."""
        return max(0, self.end - self.capacity)

    def put(self, pcm: bytes) -> None:
        """Append s16le samples. Raises ``ValueError`` on an odd number of bytes."""
        if len(pcm) % 2:
            raise ValueError("16-bit audio has an even number of bytes")
        new = np.frombuffer(pcm, "<i2")
        if len(new) > self.capacity:
            self.end += len(new) - self.capacity
            new = new[-self.capacity :]
        self._grow(len(new))
        at = self.end % self.capacity
        first = min(len(new), self.capacity - at)
        self._samples[at : at + first] = new[:first]
        self._samples[: len(new) - first] = new[first:]
        self.end += len(new)

    def get(self, start: int, stop: int) -> NDArray[np.int16]:
        """Samples [start, stop) of the clock. Raises ``ValueError`` if any of them is gone or yet to come."""
        if not 0 <= start <= stop:
            raise ValueError(f"[{start}, {stop}) is not a piece of audio")
        if stop > self.end:
            raise ValueError(f"audio has arrived up to sample {self.end}, not {stop}")
        if start < self.start:
            raise ValueError(f"audio before sample {self.start} is no longer held")
        at = start % self.capacity
        piece = self._samples[at : at + (stop - start)]
        return np.concatenate([piece, self._samples[: stop - start - len(piece)]])

    def _grow(self, count: int) -> None:
        """Double the storage until the next ``count`` samples fit, up to the capacity."""
        need = min(self.end + count, self.capacity)
        if need > len(self._samples):
            size = min(self.capacity, max(need, 2 * len(self._samples), INPUT_RATE))
            self._samples = np.concatenate([self._samples, np.zeros(size - len(self._samples), np.int16)])
