"""Whether a caller who pauses has finished, by how it sounds: a second opinion for the turn machine.

Silence alone does not tell: who thinks in mid-sentence is silent for as long as who has asked and waits. How
what was said went up or down, and which words came last, do tell, and so the silence that ends a turn may be
shorter after a question that is whole, and has to be longer after half of one. It is asked for at the first
pause, beside everything else, and counts if it is there while the pause lasts; else silence decides.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from model_runtime.protocol import INPUT_RATE
from pipeline.turns.events import Opinion

TurnEnd = Callable[[bytes], Awaitable[Opinion]]
"""Whether a turn of this sound (16 kHz mono s16le) is over."""

BEFORE = INPUT_RATE * 3 // 10  # samples of silence before a turn, in which it is heard to begin


@dataclass(frozen=True)
class Bounds:
    """From which likelihood on a turn is over, and up to which it is not."""

    unfinished: float
    finished: float


# Smart Turn is surer of who has finished than of who has not. Of 36 whole questions and interruptions in
# voices of festival's 24 were above .85, but 7 below .3 and 3 below .05, of 12 halves of sentences 3 each. Of
# recorded people's pauses within sentences 3 of 7 were below .05, of what they read to its end 3 of 13.
SMART_TURN = Bounds(0.05, 0.85)
# What is asked first, for English (``model_runtime.turn_ends``), and what it says together with Smart Turn.
# Chosen on the tuning callers of ``tests.bench.duplex.ends``, so that of their whole turns, too, few count as
# unfinished (.07; .23 of their pauses are taken over): with .35 for the lower bound of both it would be .10
# (and .20). Alone, as where Smart Turn has no time, the net takes .03 to .07 of whole ones for such.
NET = Bounds(0.1, 0.9)
BOTH, SHARE = Bounds(0.15, 0.85), 0.8


def opinion(likelihood: float | None, bounds: Bounds) -> Opinion:
    """What is made of a likelihood; ``None``: there was no time to tell."""
    if likelihood is None:
        return "open"
    if likelihood >= bounds.finished:
        return "finished"
    return "unfinished" if likelihood <= bounds.unfinished else "open"


def together(first: float, share: float, second: float) -> float:
    """What two judges make of one turn: the mean of their odds' logarithms, ``share`` of it the first's."""

    def log_odds(likelihood: float) -> float:
        sure = min(max(likelihood, 1e-4), 1 - 1e-4)
        return math.log(sure / (1 - sure))

    return 1 / (1 + math.exp(-(share * log_odds(first) + (1 - share) * log_odds(second))))
