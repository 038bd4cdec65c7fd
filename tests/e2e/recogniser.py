"""An independent judge of what the bot said: pocketsphinx's own English model, nothing of Parley's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np
import soxr
from numpy.typing import NDArray
from pocketsphinx import Decoder


def recognise(pcm: NDArray[np.float32], rate: int) -> str:
    """What a general English recogniser hears in mono float32 ``pcm`` at ``rate`` Hz; lower-case words."""
    at_16k = soxr.resample(pcm, rate, 16_000)
    decoder = Decoder(samprate=16_000, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw((np.clip(at_16k, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    best = decoder.hyp()
    return best.hypstr if best is not None else ""


def likeness(heard: str, meant: str) -> float:
    """How alike two sentences are, 0 to 1, by their letters: the judge mishears words more than sounds."""

    def letters(text: str) -> str:
        return re.sub(r"[^a-z]", "", text.lower())

    return SequenceMatcher(None, letters(heard), letters(meant), autojunk=False).ratio()


def nearest(heard: str, answers: Sequence[str]) -> str:
    """The one of ``answers`` that ``heard`` is most like."""
    return max(answers, key=lambda answer: likeness(heard, answer))
