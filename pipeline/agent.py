"""Whom the caller talks to, and how a call is run: what the bot hands to the pipeline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from model_runtime.protocol import Sampling
from pipeline.segmenter import SegmenterSettings
from pipeline.turns import TurnSettings


@dataclass(frozen=True)
class Tool:
    """Something the agent can do. ``run`` gets the model's arguments and returns what the model will read."""

    schema: dict[str, Any]  # OpenAI-style: {"type": "function", "function": {"name": ..., "parameters": ...}}
    run: Callable[[dict[str, Any]], Awaitable[str]]


@dataclass(frozen=True)
class CallAgent:
    """One agent as a call needs it."""

    name: str
    instructions: str = ""  # the system turn
    greeting: str = ""  # the words the bot opens with; empty: it waits for the caller
    voice: str = ""  # empty: the checkpoint's own
    tools: Mapping[str, Tool] = field(default_factory=dict)  # by the name in the schema
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class CallSettings:
    """Everything about a call that is not the agent's. Times in seconds unless the name says otherwise."""

    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)
    turns: TurnSettings = field(default_factory=TurnSettings)
    open_timeout_s: float = 10.0  # for the engine to open a session
    reconnect_s: float = 10.0  # how long a lost engine is waited for
    reconnect_every_s: float = 0.25
    tool_timeout_s: float = 30.0
    max_call_s: float = 1800.0
    connect_timeout_s: float = 30.0  # until the caller's first audio
    dead_peer_s: float = (
        5.0  # without any audio from the caller (silence is audio: a peer sends it all the time)
    )
