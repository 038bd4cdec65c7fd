"""How fast this engine makes speech, and for how many at once: whether what has been made will last.

The first chunk of a reply is small, so that it is heard early. When several calls ask at the same moment, or
the machine is slow, the second chunk may not be ready before the first has been played; a first word a little
later is better than a gap after it. So the first audio is held back until it will last, by what speech has
lately cost here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

GUESS = 0.1  # seconds of work for a second of speech, before any has been measured
GUESS_WEIGHT = 1.0  # seconds of speech that the guess counts for
MEMORY = 20.0  # seconds of speech; older costs fade
SAFETY = 1.3  # on top of the expected time


class Pace:
    """``active``: responses being made now."""

    def __init__(self) -> None:
        """Nothing measured."""
        self.active = 0
        self._work = GUESS * GUESS_WEIGHT
        self._speech = GUESS_WEIGHT
        self._at_work = 0
        self._marked = 0.0

    @property
    def cost(self) -> float:
        """Seconds of work for a second of speech, of late."""
        return self._work / self._speech

    def begin(self, now: float) -> None:
        """Work on a response begins, perhaps beside other such work: that time counts once."""
        self._mark(now)
        self._at_work += 1

    def end(self, now: float) -> None:
        """It has ended."""
        self._mark(now)
        self._at_work -= 1

    def _mark(self, now: float) -> None:
        if self._at_work:
            self._work += now - self._marked
        self._marked = now

    def made(self, seconds: float) -> None:
        """Speech that came of it."""
        self._speech += seconds
        if self._speech > MEMORY:
            self._work, self._speech = self._work / 2, self._speech / 2

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """A response is being made meanwhile."""
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    def lasts(self, made: float, following: float) -> bool:
        """Whether ``made`` seconds will not have been played before ``following`` more are there."""
        return made >= SAFETY * self.active * self.cost * following
