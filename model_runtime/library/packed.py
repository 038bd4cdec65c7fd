"""A voice of the library as its file's bytes, wherever they come from: what is said with it. No torch.

The layout is safetensors': eight bytes for the header's length, little-endian, then the header in JSON, whose
``__metadata__`` holds strings, then the tensors.
"""

from __future__ import annotations

import json

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from model_runtime.library.entry import About, Entry, told

ABOUT = "parley_voice"  # the string of the metadata that holds ``About``
TOKENS_A_SECOND = 25


class Unusable(ValueError):  # noqa: N818 - reads as what it is
    """Not the file of a library's voice. The message says why."""


def metadata(data: bytes) -> dict[str, str]:
    """The strings in the header; of what is no such file there are none."""
    end = 8 + int.from_bytes(data[:8], "little")
    if len(data) < end:
        return {}
    try:
        header = json.loads(data[8:end])
        return {str(name): str(value) for name, value in header.get("__metadata__", {}).items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


def about(data: bytes) -> About:
    """What is stored with the voice. Raises ``Unusable``."""
    stored = metadata(data).get(ABOUT)
    if stored is None:
        raise Unusable("it does not say which checkpoint it is for")
    try:
        return msgspec.json.decode(stored, type=About)
    except ValueError as error:  # msgspec's and Unicode's are that
        raise Unusable(f"what is said with it cannot be read: {error}") from None


def entry(name: str, data: bytes) -> Entry:
    """The voice as it is told. Raises ``Unusable``."""
    said = about(data)
    try:
        tensors = load(data)
        tokens, mel = tensors["tokens"], tensors["mel"]
        speaker = tensors["speaker"].astype(np.float64).reshape(-1)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise Unusable(str(error)) from None
    length = float(np.linalg.norm(speaker))
    if not (tokens.ndim == 1 and len(tokens) and len(mel) == 2 * len(tokens) and length > 0):
        raise Unusable("it has no voice in it")
    if not (np.isfinite(length) and np.isfinite(mel).all()):
        raise Unusable("it holds a value that is not a number")
    direction = [round(value, 5) for value in (speaker / length).tolist()]
    return told(name, len(tokens) / TOKENS_A_SECOND, direction, said)
