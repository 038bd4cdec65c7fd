"""Reading a recording of several turns: the stretches of sound in it."""

from __future__ import annotations

import numpy as np

from bot.waveform import LOUD, Pcm

BLOCK_MS = 10


def utterances(pcm: Pcm, rate: int, pause_s: float = 0.7) -> list[tuple[int, int]]:
    """Stretches of sound, [from, to) in samples, joined over silence shorter than ``pause_s``."""
    size = rate * BLOCK_MS // 1000
    loudest = np.abs(pcm[: len(pcm) // size * size]).reshape(-1, size).max(axis=1)
    stretches: list[tuple[int, int]] = []
    for block in np.flatnonzero(loudest > LOUD):
        start, end = int(block) * size, (int(block) + 1) * size
        if stretches and start - stretches[-1][1] < pause_s * rate:
            stretches[-1] = (stretches[-1][0], end)
        else:
            stretches.append((start, end))
    return stretches
