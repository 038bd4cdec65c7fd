"""What is said over the bot: a back-channel, words, or a noise. A small net in ONNX, made by
``model_runtime.training.interjections``, for English.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model_runtime.onnx_session import quiet_session

KINDS = ("back-channel", "words", "noise")
SAMPLES = 19_200  # 16 kHz: 1.2 s, longer than any speech that leaves it open whether it means to cut in
MODEL = Path(__file__).parent / "checkpoints" / "interjections.onnx"


class Interjections:
    """The loaded net; one serves all calls. About 1 ms a question."""

    def __init__(self, path: Path = MODEL) -> None:
        """Load it."""
        self._session = quiet_session(path)

    def kinds(self, pcm: bytes) -> dict[str, float]:
        """How likely the sound is each of ``KINDS``; ``pcm``: 16 kHz mono s16le, of which the last 1.2 s are
        heard.
        """
        wave = np.zeros((1, SAMPLES), np.float32)
        heard = np.frombuffer(pcm, np.int16)[-SAMPLES:]
        wave[0, : len(heard)] = heard / np.float32(32768)
        (told,) = self._session.run(["kind"], {"wave": wave})
        return dict(zip(KINDS, map(float, told[0]), strict=True))
