"""An independent judge of speech: pocketsphinx's own general English model, which knows nothing of nano.

What was said is told from what else could have been said by the letters, because the judge mishears words
more than sounds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import soxr
from numpy.typing import NDArray

RATE = 16_000  # Hz, what pocketsphinx's model hears
EDGE = 3200  # samples of silence at either end: it drops words at a hard edge


def recognise(pcm: NDArray[np.float32], rate: int) -> str:
    """What a general English recogniser hears in mono float32 ``pcm`` at ``rate`` Hz; lower-case words."""
    from pocketsphinx import Decoder  # of the extra dev: what only trains does not need it

    wave = np.pad(soxr.resample(pcm, rate, RATE), EDGE)
    peak = float(np.abs(wave).max()) or 1.0
    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw((wave * (0.7 * 32767 / peak)).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    best = decoder.hyp()
    return best.hypstr if best is not None else ""


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.sub(r"[^a-z' ]", " ", text.lower()).split()


def distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Edit distance: insertions, deletions and substitutions."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def nearest(heard: str, candidates: Sequence[str]) -> str:
    """The candidate whose letters are nearest to what was heard, in proportion to the longer of the two."""
    got = " ".join(words(heard))

    def apart(text: str) -> float:
        wanted = " ".join(words(text))
        return distance(got, wanted) / max(1, len(got), len(wanted))

    return min(candidates, key=apart)
