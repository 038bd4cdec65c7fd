"""How well nano speaks, by an independent recogniser: pocketsphinx with its own general English model.

Two figures a path: word error rate, and answer-ID, the share of answers that are nearest (edit distance in
letters) to what was recognised, among all that nano can say.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_runtime.training.judge import distance, nearest, words

Hears = Callable[[npt.NDArray[np.float32]], str]


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
