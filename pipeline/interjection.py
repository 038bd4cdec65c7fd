"""What a short word over the bot means, by how it sounds: a second opinion for the turn machine.

A back-channel taken for words stops the bot for nothing; words taken for a back-channel are talked over, and
the caller will say them again. So the first needs more certainty than the second, and what is neither is left
to its length (``pipeline.turns``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.turns.events import Meaning

Kinds = Callable[[bytes], Mapping[str, float]]
"""How likely a sound (16 kHz mono s16le) is a "back-channel", "words" or "noise"."""

WORDS_SURE, REST_SURE = 0.97, 0.9
BEFORE = 1600  # samples: 100 ms, since soft onsets are noticed late


def meaning(kinds: Mapping[str, float]) -> Meaning:
    """What is made of it."""
    if kinds["words"] >= WORDS_SURE:
        return "barge-in"
    if kinds["back-channel"] + kinds["noise"] >= REST_SURE:
        return "back-channel"
    return "open"
