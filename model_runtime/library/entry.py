"""What is known of a voice: what is stored with one of the library, and what is told of any. No torch."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

import msgspec

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
SUFFIX = ".safetensors"

# Of each file 16 pieces of 64 KiB are read: two trained models differ in all of their weights, and the
# published tokenizer is half a gigabyte, which an engine should not have to read through to start.
_PIECES, _PIECE = 16, 65536
_CODEC_FILES = ("speech_tokenizer_v2_25hz.onnx", "campplus.onnx")


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """What can be measured of a voice; 0 where it could not be."""

    pitch_hz: float = 0.0  # median over voiced frames
    brightness_hz: float = 0.0  # median spectral centroid of speech below 8 kHz
    rate_hz: float = 0.0  # syllable-like peaks of loudness in a second of speech


class About(Measures, frozen=True, kw_only=True):
    """What is stored with a library voice beside its tensors."""

    codec: str  # see ``codec_of``
    checkpoint: str  # the name on the card of the checkpoint it was prepared with
    description: str
    consent: str  # who agreed to what
    added: str  # the day of that: ISO 8601, UTC


class Entry(Measures, frozen=True, kw_only=True):
    """One voice as it is told to the bot. ``fault`` says why it cannot be used, if it cannot."""

    name: str
    origin: Literal["checkpoint", "library", "shared"]  # shared: it is in Redis, and in no folder here
    seconds: float = 0.0
    description: str = ""
    speaker: list[float] = []  # 192 numbers, of length 1 together; empty if there is a fault
    consent: str = ""
    added: str = ""
    checkpoint: str = ""
    licence: str = ""
    fault: str = ""


def told(name: str, seconds: float, speaker: list[float], about: About) -> Entry:
    """What is stored with a library voice, as it is told."""
    return Entry(
        name=name,
        origin="library",
        seconds=seconds,
        description=about.description,
        speaker=speaker,
        consent=about.consent,
        added=about.added,
        checkpoint=about.checkpoint,
        pitch_hz=about.pitch_hz,
        brightness_hz=about.brightness_hz,
        rate_hz=about.rate_hz,
    )


def codec_of(token2wav: Path) -> str:
    """Whose voices a checkpoint can use: 16 hex digits from its two voice models. Raises OSError.

    A voice is made of a tokenizer's codes and a speaker model's embedding, and means nothing to others'.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in _CODEC_FILES:
        path = token2wav / name
        size = path.stat().st_size
        digest.update(f"{name} {size} ".encode())
        with path.open("rb") as file:
            for piece in range(_PIECES):
                file.seek(max(0, size - _PIECE) * piece // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    return digest.hexdigest()
