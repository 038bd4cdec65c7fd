"""How well nano speaks, by an independent recogniser: pocketsphinx with its own general English model.

Two figures a path: word error rate, and answer-ID, the share of answers that are nearest (edit distance in
letters) to what was recognised, among all that nano can say.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr
from pocketsphinx import Decoder

Hears = Callable[[npt.NDArray[np.float32]], str]


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


class Judge:
    """pocketsphinx on 24 kHz speech."""

    def __init__(self) -> None:
        """Loads the recogniser (its model comes with the package)."""
        self._decoder = Decoder(samprate=16000, loglevel="FATAL")

    def __call__(self, wav24k: npt.NDArray[np.float32]) -> str:
        """What was said, as far as it can tell."""
        wav = np.pad(soxr.resample(wav24k, 24000, 16000), 3200)  # it drops words at a hard edge
        peak = float(np.abs(wav).max()) or 1.0
        pcm = (wav * (0.7 * 32767 / peak)).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return str(found.hypstr) if found else ""


@dataclass
class Tally:
    """Counts over a set of answers."""

    errors: int = 0
    words: int = 0
    right: int = 0
    clips: int = 0
    seconds: float = 0.0
    took: float = 0.0

    def add(self, said: str, heard: str, candidates: Sequence[str]) -> bool:
        """Counts one answer; True where it is recognised as itself."""
        self.errors += distance(words(said), words(heard))
        self.words += len(words(said))
        self.clips += 1
        found = nearest(heard, candidates) == said
        self.right += found
        return found

    def figures(self) -> dict[str, float]:
        """Word error rate, answer-ID and, where something was made, its real-time factor."""
        told = {"wer": self.errors / max(1, self.words), "answer_id": self.right / max(1, self.clips)}
        if self.took:
            told["real_time_factor"] = self.took / self.seconds
        return {key: round(value, 3) for key, value in told.items()} | {"clips": float(self.clips)}


def measure(
    make: Callable[[str], npt.NDArray[np.float32]],
    texts: Sequence[str],
    candidates: Sequence[str],
    judge: Hears,
) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """Figures of `make(text) -> 24 kHz waveform` over the texts, and (said, heard) where it was misheard."""
    tally, misheard = Tally(), []
    for text in texts:
        begun = time.process_time()
        wav = make(text)
        tally.took += time.process_time() - begun
        tally.seconds += len(wav) / 24000
        heard = judge(wav)
        if not tally.add(text, heard, candidates):
            misheard.append((text, heard))
    return tally.figures(), misheard
