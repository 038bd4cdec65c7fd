"""What the turn machine is told and decides, as a page that wants to see it is told."""

from __future__ import annotations

from pipeline.page_messages import Decided
from pipeline.turns import (
    Action,
    Dip,
    Drop,
    Duck,
    Event,
    Hold,
    Judged,
    Resume,
    Sounds,
    Speak,
    Speculate,
    Stop,
)


def decided(what: Event | Action, answering: int | None) -> Decided | None:
    """What is told of it, if anything is. An opinion of a pause is of the turn that is being answered."""
    match what:
        case Judged(turn, meaning):
            return Decided(turn, meaning)
        case Sounds(_, opinion) if answering is not None:
            return Decided(answering, opinion)
        case Speculate() | Speak() | Drop() | Stop() | Dip() | Duck() | Hold() | Resume():
            return Decided(what.turn, type(what).__name__.lower())
        case _:
            return None
