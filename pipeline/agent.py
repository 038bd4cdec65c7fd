"""Whom the caller talks to, and how a call is run: what the bot hands to the pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from model_runtime.protocol import Sampling
from pipeline.interjection import Kinds
from pipeline.segmenter import SegmenterSettings
from pipeline.tools.consent import ENGLISH, AgreeingWords
from pipeline.tools.tool import Tool
from pipeline.tools.waiting import WaitingPolicy
from pipeline.turn_end import TurnEnd
from pipeline.turns import TurnSettings


@dataclass(frozen=True)
class SilencePolicy:
    """What is done about a caller who has fallen silent (``TurnSettings.silence_ms``).

    ``words`` are said up to ``times`` times in a row; then the call is ended, if ``hang_up``.
    """

    words: str
    times: int = 2
    hang_up: bool = False


@dataclass(frozen=True)
class CallAgent:
    """One agent as a call needs it."""

    name: str
    instructions: str = ""  # the system turn
    greeting: str = ""  # the words the bot opens with; empty: it waits for the caller
    voice: str = ""  # empty: the checkpoint's own
    tools: Mapping[str, Tool] = field(default_factory=dict)  # by the name in the schema
    sampling: Sampling = field(default_factory=Sampling)
    silence: SilencePolicy | None = None
    waiting: WaitingPolicy | None = None  # what is said while a tool takes its time
    voice_choice: bool = False  # whether callers may choose another voice
    more_voices: Sequence[str] = ()  # beyond the engine's own: it can be given them
    agreeing: AgreeingWords = ENGLISH  # what a caller says who agrees to what they were asked
    turn_end: TurnEnd | None = None  # who tells by its sound whether the caller's turn is over
    examples: Sequence[str] = ()  # things to ask it, for the page; empty: the checkpoint's
    kinds: Kinds | None = None  # who tells what is said over the bot by its sound (``TurnSettings.judge_ms``)


@dataclass(frozen=True)
class CallSettings:
    """Everything about a call that is not the agent's. Times in seconds unless the name says otherwise."""

    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)
    turns: TurnSettings = field(default_factory=TurnSettings)
    tell_decisions: bool = False  # whether the page is told what the turn machine decides
    open_timeout_s: float = 10.0  # for the engine to open a session
    reconnect_s: float = 10.0  # how long a lost engine is waited for
    reconnect_every_s: float = 0.25
    tool_timeout_s: float = 30.0
    transcript_s: float = 5.0  # how long a tool that needs the caller's yes waits for their words
    tool_end_s: float = 5.0  # for tools under way to finish after the end of the call
    max_call_s: float = 1800.0
    connect_timeout_s: float = 30.0  # until the caller's first audio
    # Without any audio from the caller (silence is audio: a peer sends it all the time). Looked at every half
    # second, so that one who is gone is noticed within 5 s.
    dead_peer_s: float = 4.5
