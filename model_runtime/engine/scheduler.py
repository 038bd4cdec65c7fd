"""Whose turn it is:

the work whose result is needed soonest goes first. Pure: the time is given, nothing is done here.

A speaking call needs its next chunk before the audio already made has been played; a call that has just been
asked needs its first chunk almost at once. What nobody waits for (reading a settled turn into the cache,
transcribing) has a deadline too, so that it is not put off for ever, but one that always leaves room for
those who speak.

Two things do not wait for their deadline. What takes this thread no time goes first: a chunk is handed over
to be rendered as soon as the other thread is free, a job finds out what it needs. And between two steps of
decoding callers are heard and read, as long as nobody who is being heard comes too late by it (``pace``): a
step takes hardly longer with one more in it, so whoever waits to get in makes speech dear for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

FIRST_AUDIO_S = 0.15  # a response is due this long after it was asked for, until its first audio is out
MARGIN_S = 0.5  # speech that runs out within this (a chunk's time in a crowd) goes before a first word ...
PATIENCE_S = 1.5  # ... which has not been waited for longer than this
SETTLE_S = 0.5  # a settled turn should be in the cache before the caller has finished the next sentence
TRANSCRIBE_S = 3.0  # a transcript is read, not waited for
READS = 4  # units of hearing and reading between two steps, for those who wait for their first chunk's ids
SLACK_S = 1.0  # background work never goes before speech that is due within this

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Candidate(Generic[T]):
    """One piece of work that could be done now.

    ``due`` and ``since`` (when it was asked for) in seconds of the scheduler's clock; ``served``: see
    ``pick``.
    """

    work: T
    due: float
    since: float = 0.0
    served: int = 0


def response_due(asked: float, playing_until: float | None, now: float) -> float:
    """When the next audio of a response is needed.

    ``playing_until`` is when what has been given out will have been played, ``None`` before the first. A late
    first word is no gap: for a while it lets those go before whose audio is about to run out.
    """
    if playing_until is not None:
        return playing_until
    due = asked + FIRST_AUDIO_S
    return due if now > asked + PATIENCE_S else max(due, now + MARGIN_S)


def background_due(since: float, within: float, now: float) -> float:
    """When work that nobody waits for is needed: ``within`` seconds after ``since``, but never soon."""
    return max(since + within, now + SLACK_S)


def ordered(candidates: Iterable[Candidate[T]]) -> list[Candidate[T]]:
    """Earliest deadline first; then who asked first; then whoever was served longest ago (``served`` counts
    up).
    """
    return sorted(candidates, key=_urgency)


def pick(candidates: Iterable[Candidate[T]]) -> T | None:
    """The first of ``ordered``, if there is any."""
    best = min(candidates, key=_urgency, default=None)
    return None if best is None else best.work


def _urgency(one: Candidate[T]) -> tuple[float, float, int]:
    return one.due, one.since, one.served
