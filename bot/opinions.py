"""Who tells calls by sound what silence and length leave open; each is loaded once, for all calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cache

from bot.agents import Agent
from bot.settings import Settings
from pipeline.interjection import Kinds
from pipeline.turn_end import TurnEnd


@dataclass(frozen=True)
class Opinions:
    """Of one agent's calls."""

    kinds: Kinds | None = None  # what is said over the agent
    turn_end: TurnEnd | None = None  # whether who pauses has finished


async def opinions(settings: Settings, agent: Agent) -> Opinions:
    """Those that the settings want, and that know the agent's language. Takes a moment the first time."""
    turns = settings.turns
    judged = turns.judge_ms > 0 and agent.language.split("-")[0] == "en"  # no other words are learnt
    return Opinions(
        kinds=await asyncio.to_thread(_kinds) if judged else None,
        turn_end=await asyncio.to_thread(_smart_turn) if turns.smart_turn else None,
    )


@cache
def _kinds() -> Kinds:
    from model_runtime.interjections import (
        Interjections,  # onnxruntime: native code that not all have use for
    )

    return Interjections().kinds


@cache
def _smart_turn() -> TurnEnd:
    from bot.smart_turn import SmartTurn  # the same

    return SmartTurn()
