"""What the turn machine is told, and what it says must be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.segmenter import SpeechStart, SpeechStop
from pipeline.turns.clock import Span

# --- events -----------------------------------------------------------------------


@dataclass(frozen=True)
class Tick:
    """The caller's audio has come as far as ``now``; ``voiced``: its last 20 ms were speech.

    ``onset``: a sound began in it, whatever it is. ``far``: they were speech, but hardly
    the caller's.
    """

    now: int
    voiced: bool = False
    onset: bool = False
    far: bool = False


@dataclass(frozen=True)
class Prompt:
    """Something other than the caller's voice wants an answer: the call's beginning, a tool's result."""


@dataclass(frozen=True)
class Heard:
    """The caller has heard the first whole group of ``turn``'s answer."""

    turn: int


@dataclass(frozen=True)
class Finished:
    """``turn``'s answer is over: played to its end, or there was nothing to play."""

    turn: int


@dataclass(frozen=True)
class Silence:
    """Somebody else silences the bot: the page, an operator."""


@dataclass(frozen=True)
class Reset:
    """Whatever was being said or made is void: the engine's session is gone."""


Meaning = Literal["noise", "back-channel", "likely back-channel", "barge-in", "open"]
"""Of what was heard over an answer: no speech, no more than a back-channel, perhaps that, a barge-in, or
anything.
"""


@dataclass(frozen=True)
class Judged:
    """What was said over ``turn``'s answer, by its sound. It counts until the caller's voice goes on."""

    turn: int
    meaning: Meaning


Opinion = Literal["finished", "unfinished", "open"]
"""Of a caller who pauses, by how they sound: whether their turn is over."""


@dataclass(frozen=True)
class Sounds:
    """How the speech sounds that ended with sample ``ended_at`` (``Speculate.ended_at``)."""

    ended_at: int
    opinion: Opinion


Event = SpeechStart | SpeechStop | Tick | Prompt | Heard | Finished | Silence | Judged | Sounds | Reset

# --- actions ----------------------------------------------------------------------


@dataclass(frozen=True)
class Speculate:
    """Begin to make the answer to ``spans`` (none: to a prompt), unheard."""

    turn: int
    spans: tuple[Span, ...]
    ended_at: int = 0  # the sample after the caller's last voiced one

    def after(self, earlier: Speculate) -> Speculate:
        """This and an earlier question that stayed unanswered, as one; without spans of its own, that one."""
        spans = list(earlier.spans)
        for start, end in self.spans:
            if start <= spans[-1][1]:  # their margins touch
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((start, end))
        return Speculate(self.turn, tuple(spans), self.ended_at if self.spans else earlier.ended_at)


@dataclass(frozen=True)
class Speak:
    """The turn is over: let its answer be heard, what is made of it and what comes."""

    turn: int


@dataclass(frozen=True)
class Drop:
    """The caller goes on: the answer never was."""

    turn: int


@dataclass(frozen=True)
class Stop:
    """The caller cuts in: silence the answer and keep what was heard of it."""

    turn: int


@dataclass(frozen=True)
class Dip:
    """Something begins that may be the caller's voice: lower the answer's a little."""

    turn: int


@dataclass(frozen=True)
class Duck:
    """The caller may be cutting in: lower the answer's voice."""

    turn: int


@dataclass(frozen=True)
class Hold:
    """The caller seems to cut in: hold the answer where it is."""

    turn: int


@dataclass(frozen=True)
class Resume:
    """The caller did not cut in: the answer goes on where it was, at full volume."""

    turn: int


@dataclass(frozen=True)
class Judge:
    """Say what the sound of ``span`` means, which was said over the answer (``Judged``). It may go on yet."""

    turn: int
    span: Span


@dataclass(frozen=True)
class FallenSilent:
    """Nobody has spoken for ``silence_ms``: for the ``times``-th time since the caller last did."""

    times: int


Action = Speculate | Speak | Drop | Stop | Dip | Duck | Hold | Resume | Judge | FallenSilent
