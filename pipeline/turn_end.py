"""Whether a caller who pauses has finished, by how it sounds: a second opinion for the turn machine.

Silence alone does not tell: who thinks in mid-sentence is silent for as long as who has asked and waits. How
what was said went up or down, and which words came last, do tell, and so the silence that ends a turn may be
shorter after a question that is whole, and has to be longer after half of one. It is asked for at the first
pause, beside everything else, and counts if it is there while the pause lasts; else silence decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from model_runtime.protocol import INPUT_RATE
from pipeline.turns.events import Opinion

TurnEnd = Callable[[bytes], Awaitable[float | None]]
"""How likely it is that a turn of this sound (16 kHz mono s16le) is over; ``None``: no time to tell."""

BEFORE = INPUT_RATE * 3 // 10  # samples of silence before a turn, in which it is heard to begin
# It is surer of who has finished than of who has not. Of 36 whole questions and interruptions in voices of
# festival's 24 were above .85, but 7 below .3 and 3 below .05, of 12 halves of sentences 3 each. Of recorded
# people's pauses within sentences 3 of 7 were below .05, of what they read to its end 3 of 13 at or below it.
FINISHED, UNFINISHED = 0.85, 0.05


def opinion(likelihood: float | None) -> Opinion:
    """What is made of it."""
    if likelihood is None:
        return "open"
    if likelihood >= FINISHED:
        return "finished"
    return "unfinished" if likelihood <= UNFINISHED else "open"
