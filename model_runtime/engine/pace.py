"""How fast this engine makes speech, and for whom at once: whether what has been made will last.

The first chunk of a reply is small, so that it is heard early. When several calls ask at the same moment, or
the machine is slow, the second chunk may not be ready before the first has been played; a first word a little
later is better than a gap after it. So the first audio is held back until it will last, by what speech has
lately cost here and by what the other replies need before then. One that is well ahead needs nothing.

How long one reply's next chunk takes is another question: all replies are written in the same steps, so with
many of them speech is cheap and yet each waits long. That is known from how long units of work take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, TypeAlias

GUESS = 0.1  # seconds of work for a second of speech, before any has been measured
GUESS_WEIGHT = 1.0  # seconds of speech that the guess counts for
MEMORY = 20.0  # seconds of speech; older costs fade
SAFETY = 1.3  # on top of the expected time
CLOSE = 1.1  # the same where it is known unit by unit
LATEST = 0.1  # of what is known of a unit's time comes from the last one
STEPS_PER_CODE = 1.25  # four codes and a word
LOST = 1.0  # seconds: who has had nothing to hear for longer is not saved by a unit of work
PASSES = 2  # of token2wav until a chunk is there: its own, and the one that has just begun

Unit: TypeAlias = Literal["step", "read", "pass"]
"""One more id for everybody, one caller heard or read, one pass of token2wav."""


class Reply(Protocol):
    """What has to be known of each reply in the making. Times in seconds of one clock."""

    @property
    def playing_until(self) -> float | None:
        """When what has been given out will have been played; ``None`` before the first."""

    @property
    def to_write(self) -> int:
        """Codes that have to be written for that."""

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
        self._units: dict[Unit, float] = {"step": 0.0, "read": 0.0, "pass": 0.0}
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

    def took(self, unit: Unit, seconds: float) -> None:
        """A unit of work took so long."""
        self._units[unit] += LATEST * (seconds - self._units[unit])

    def needs(self, reply: Reply) -> float:
        """Seconds until there can be more of ``reply``, if only speech is made until then."""
        steps = STEPS_PER_CODE * reply.to_write
        return CLOSE * (steps * self._units["step"] + PASSES * self._units["pass"])

    def spare(self, now: float) -> float:
        """Seconds for which other work could be done after one more unit of reading before somebody who is
        being heard has to wait. Below 0: that unit should not be done now.
        """
        least = math.inf
        for one in self._replies:
            if one.following and one.playing_until is not None and one.playing_until > now - LOST:
                least = min(least, one.playing_until - self.needs(one))
        return least - now - self._units["read"]

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
        return made >= max(SAFETY * self.cost * speech, self.needs(reply))


def _wanted(reply: Reply, until: float) -> float:
    """Seconds of speech that have to be made for ``reply`` before then."""
    if reply.playing_until is None:
        return reply.following
    return max(0.0, until - reply.playing_until)
