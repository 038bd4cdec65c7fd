"""What something said over the bot means, by how it sounds: a second opinion for the turn machine.

A back-channel taken for words stops the bot for nothing; words taken for a back-channel are talked over, and
the caller will say them again. While the sound goes on, what is not sure is left open, for more of it to
tell. Once it is over, whoever waits longer learns nothing: the bot goes on after all but what are surely
words. It does not forget what was not surely a back-channel, and is stopped the sooner by what is said next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.turns.events import Meaning

Kinds = Callable[[bytes], Mapping[str, float]]
"""How likely a sound (16 kHz mono s16le) is a "back-channel", "words" or "noise"."""

# Chosen on callers whom the net had not heard (espeak-ng's plain voices, and Kokoro's), so that of a hundred
# back-channels three stop the bot.
WORDS_SURE, REST_SURE, REST_LIKELY = 0.95, 0.9, 0.5
YET_SURE = 0.95  # of no more than a back-channel while it goes on: words begin like one
NOISE_SURE = 0.9  # of it alone
BEFORE = 3200  # samples: 200 ms, since soft onsets and hisses ("stop") are noticed late


def meaning(kinds: Mapping[str, float], over: bool) -> Meaning:
    """What is made of it. ``over``: it has ended."""
    if kinds["words"] >= WORDS_SURE:
        return "barge-in"
    if kinds["noise"] >= NOISE_SURE:
        return "noise"
    rest = kinds["back-channel"] + kinds["noise"]
    if rest >= (REST_SURE if over else YET_SURE):
        return "back-channel"
    return "likely back-channel" if over or rest >= REST_LIKELY else "open"
