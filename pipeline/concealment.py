"""What is heard in place of lost PCM: the last pitch period, over and over, fading. Pure.

In the manner of ITU-T G.711 Appendix I, with three differences. Nothing is held back to be blended into what
is missing (Appendix I delays the line by 3.75 ms): the step where the repetition begins is smoothed in the
repetition itself. It is one period throughout, not up to three, and it fades more slowly: both come nearer
to what was lost, in log-mels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.segmenter import RATE

LONGEST = 10  # of a longer hole only 200 ms are filled; the rest is cut from the call's clock

LEAST_LAG = RATE // 400  # samples, 2.5 ms: a child's pitch
MOST_LAG = RATE // 66  # 15 ms: a deep man's
TEMPLATE = RATE // 50  # samples that are looked for in what came before them: 20 ms
PAST = TEMPLATE + MOST_LAG + MOST_LAG // 4  # samples remembered
HOLD = RATE // 100  # samples at full volume: in 10 ms speech has hardly changed
FADED = RATE // 10  # ... and silence from here on
# A phone's resampler, 2 ms behind, knows of no hole: into the first 4 ms after one it mixes what came before.
SPOILED = RATE // 250  # samples that are replaced, too
JOIN = RATE // 200  # ... and from the repetition over to the real sound: 5 ms
SETTLE = RATE // 1000  # samples in which the step at the beginning is smoothed: 1 ms
QUIET = 1e3  # energy that counts for nothing, so that silence has no pitch

Sound = NDArray[np.float32]


class Concealer:
    """Goes on with one line's sound where some of it was lost. All sound is 16 kHz mono s16le."""

    def __init__(self) -> None:
        """Nothing heard yet."""
        self._past: Sound = np.zeros(PAST, np.float32)
        self._period = self._past[:1]
        self._step = 0.0  # from the last sample heard to the first of the repetition
        self._filled = 0  # samples of repetition since the hole began; 0: there is none
        self._joined = 0  # ... of which it has ended for so many

    def heard(self, pcm: bytes) -> bytes:
        """The next sound that did come, any even number of bytes.

        Returns as much; after a hole, the first 9 ms are what stood in and lead over to what came.
        """
        sound = np.frombuffer(pcm, np.int16).astype(np.float32)
        if self._filled:
            sound = self._join(sound)
            pcm = _pcm(sound)
        self._past = np.concatenate([self._past, sound])[-PAST:]
        return pcm

    def lost(self, count: int) -> bytes:
        """What is to be heard for the next ``count`` samples, which did not come."""
        if count and not self._filled:
            self._period = period(self._past)
            self._step = float(self._past[-1] - self._past[-len(self._period) - 1])
        self._joined = 0
        return _pcm(self._repeat(count))

    def _repeat(self, count: int) -> Sound:
        at = self._filled + np.arange(count)
        self._filled += count
        repeated = self._period[at % len(self._period)] + self._step * np.clip(1 - at / SETTLE, 0, 1)
        return (repeated * np.clip((FADED - at) / (FADED - HOLD), 0, 1)).astype(np.float32)

    def _join(self, sound: Sound) -> Sound:
        into = np.clip((self._joined + np.arange(len(sound)) + 0.5 - SPOILED) / JOIN, 0, 1)
        joined = (into * sound + (1 - into) * self._repeat(len(sound))).astype(np.float32)
        self._joined += len(sound)
        if self._joined >= SPOILED + JOIN:
            self._filled = self._joined = 0
        return joined


def period(past: Sound) -> Sound:
    """One pitch period to repeat after ``past`` (PAST samples): its end leads over to its beginning.

    The pitch is where the past resembles its last 20 ms most (normalised cross-correlation).
    """
    template, before = past[-TEMPLATE:], past[-TEMPLATE - MOST_LAG : -LEAST_LAG]
    energy = np.convolve(before**2, np.ones(TEMPLATE, np.float32), "valid")
    likeness = np.correlate(before, template, "valid") / np.sqrt(energy + QUIET)
    lag = MOST_LAG - int(np.argmax(likeness))
    over = lag // 4
    into = (np.arange(over, dtype=np.float32) + 0.5) / over
    found = past[-lag:].copy()
    found[-over:] = (1 - into) * found[-over:] + into * past[-lag - over : -lag]
    return found


def _pcm(sound: Sound) -> bytes:
    return np.clip(np.rint(sound), -32768, 32767).astype("<i2").tobytes()
