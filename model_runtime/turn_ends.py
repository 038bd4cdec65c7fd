"""Whether somebody who pauses has finished, by how they sound. A small net in ONNX, made by
``model_runtime.training.turn_ends``, for English.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model_runtime.onnx_session import quiet_session

SAMPLES = 51_200  # 16 kHz: 3.2 s, a sentence's end and what led to it
MODEL = Path(__file__).parent / "checkpoints" / "turn_ends.onnx"


class TurnEnds:
    """The loaded net; one serves all calls."""

    def __init__(self, path: Path = MODEL) -> None:
        """Load it."""
        self._session = quiet_session(path)

    def finished(self, pcm: bytes) -> float:
        """How likely the turn is over, 0 to 1; ``pcm``: 16 kHz mono s16le up to now, of which the last 3.2 s
        are heard.
        """
        wave = np.zeros((1, SAMPLES), np.float32)
        heard = np.frombuffer(pcm, np.int16)[-SAMPLES:]
        wave[0, SAMPLES - len(heard) :] = heard / np.float32(32768)
        (told,) = self._session.run(["kind"], {"wave": wave})
        return float(told[0, 1])
