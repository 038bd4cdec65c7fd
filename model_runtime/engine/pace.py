"""How fast this engine makes speech, and for whom at once: whether what has been made will last.

The first chunk of a reply is small, so that it is heard early. When several calls ask at the same moment, or
the machine is slow, the second chunk may not be ready before the first has been played; a first word a little
later is better than a gap after it. So the first audio is held back until it will last, by what speech has
lately cost here and by what the other replies need before then. One that is well ahead needs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

GUESS = 0.1  # seconds of work for a second of speech, before any has been measured
GUESS_WEIGHT = 1.0  # seconds of speech that the guess counts for
MEMORY = 20.0  # seconds of speech; older costs fade
SAFETY = 1.3  # on top of the expected time


class Reply(Protocol):
    """What has to be known of each reply in the making. Times in seconds of one clock."""

    @property
    def playing_until(self) -> float | None:
        """When what has been given out will have been played; ``None`` before the first."""

    @property
    def following(self) -> float:
        """Seconds of speech that have to be made before more of it can be given out."""


class Pace:
    """Sees all replies that are in the making."""

    def __init__(self) -> None:
        """Nothing measured."""
        self._replies: list[Reply] = []
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
    def one_more(self, reply: Reply) -> Iterator[None]:
        """``reply`` is being made meanwhile."""
        self._replies.append(reply)
        try:
            yield
        finally:
            self._replies.remove(reply)

    def lasts(self, reply: Reply, made: float, now: float) -> bool:
        """Whether ``made`` seconds of ``reply``, begun now, will last until more of it is there."""
        until = now + made
        speech = reply.following + sum(_wanted(one, until) for one in self._replies if one is not reply)
        return made >= SAFETY * self.cost * speech


def _wanted(reply: Reply, until: float) -> float:
    """Seconds of speech that have to be made for ``reply`` before then."""
    if reply.playing_until is None:
        return reply.following
    return max(0.0, until - reply.playing_until)
