"""Who tells calls by sound what silence and length leave open; each is loaded once, for all calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from bot.agents import Agent
from bot.settings import Settings
from pipeline.interjection import Kinds
from pipeline.turn_end import TurnEnd

if TYPE_CHECKING:
    from bot.smart_turn import SmartTurn


@dataclass(frozen=True)
class Opinions:
    """Of one agent's calls."""

    kinds: Kinds | None = None  # what is said over the agent
    turn_end: TurnEnd | None = None  # whether who pauses has finished


async def opinions(settings: Settings, agent: Agent) -> Opinions:
    """Those that the settings want, and that know the agent's language. Takes a moment the first time."""
    turns = settings.turns
    english = agent.language.split("-")[0] == "en"  # no other words are learnt
    net = turns.judge_ends and english
    return Opinions(
        kinds=await asyncio.to_thread(_kinds) if turns.judge_ms > 0 and english else None,
        turn_end=await asyncio.to_thread(_turn_ends, net, turns.smart_turn)
        if net or turns.smart_turn
        else None,
    )


@cache
def _kinds() -> Kinds:
    from model_runtime.interjections import (
        Interjections,  # onnxruntime: native code that not all have use for
    )

    return Interjections().kinds


@cache
def _turn_ends(net: bool, smart_turn: bool) -> TurnEnd:
    from bot.turn_end_judges import TurnEndJudges  # the same

    return TurnEndJudges(_net() if net else None, _smart_turn() if smart_turn else None)


@cache
def _net() -> Callable[[bytes], float]:
    from model_runtime.turn_ends import TurnEnds

    return TurnEnds().finished


@cache
def _smart_turn() -> SmartTurn:
    from bot.smart_turn import SmartTurn

    return SmartTurn()
