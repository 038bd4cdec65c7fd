"""What a short word over the bot means, by how it sounds: a second opinion for the turn machine.

It is asked while the sound goes on, and again when it has ended. A back-channel taken for words stops the bot
for nothing; words taken for a back-channel are talked over, and the caller will say them again. What is
neither is left to its length (``pipeline.turns``). What is likelier a back-channel than words the bot goes on
after, too, but does not forget: it is stopped the sooner by what is said next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.turns.events import Meaning

Kinds = Callable[[bytes], Mapping[str, float]]
"""How likely a sound (16 kHz mono s16le) is a "back-channel", "words" or "noise"."""

WORDS_SURE, REST_SURE, REST_LIKELY = 0.97, 0.9, 0.5
NOISE_SURE = 0.9  # of it alone
BEFORE = 3200  # samples: 200 ms, since soft onsets and hisses ("stop") are noticed late


def meaning(kinds: Mapping[str, float]) -> Meaning:
    """What is made of it."""
    if kinds["words"] >= WORDS_SURE:
        return "barge-in"
    if kinds["noise"] >= NOISE_SURE:
        return "noise"
    rest = kinds["back-channel"] + kinds["noise"]
    if rest >= REST_SURE:
        return "back-channel"
    if rest >= REST_LIKELY:
        return "likely back-channel"
    return "open"
