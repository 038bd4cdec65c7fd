"""A tool in a real WebRTC call: an agent's file, the page's signalling, an engine that asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from bot.agents import Agent
from bot.talk import place_call
from model_runtime.protocol import Done, EngineMessage, Open, Respond, ToolCall, ToolResult
from tests.bot.test_talk import parley, voice
from tests.bot.tools.kit import toolbox
from tests.e2e.standstill import steadily
from tests.pipeline.scripted_engine import ScriptedEngine, spoken


def script(respond: Respond) -> Sequence[EngineMessage]:
    if not respond.spans:
        return spoken(respond.turn, "It ", "is ", "today.")
    call = ToolCall(respond.turn, "date_time", {"what": "date"})
    return [*spoken(respond.turn, "One ", "moment.")[:-1], call, Done(respond.turn, "end", 2)]


async def _call() -> None:
    agent = Agent.model_validate({"name": "A", "tools": ["date_time"]})
    async with (
        ScriptedEngine(script) as engine,
        toolbox(tools=["date_time"]) as box,
        parley(engine, agent, toolbox=box) as url,
    ):
        record = await place_call(url, [voice(0.8)], greeting=False, quiet_s=1.5)
    (result,) = engine.all(ToolResult)
    assert str(datetime.now(UTC).year) in result.content
    opened = [message for message in engine.all(Open) if message.tools]
    assert opened[-1].tools[0]["function"]["name"] == "date_time"
    assert [respond.spans == [] for respond in engine.all(Respond)] == [False, True]
    assert "One moment." in record.turns[0].answer


def test_a_caller_asks_for_the_date_and_is_answered() -> None:
    steadily(lambda _: asyncio.run(_call()))
