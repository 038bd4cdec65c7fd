"""Tools in a call: run once, after their turn, and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from model_runtime.protocol import (
    GROUP_MS,
    Commit,
    Done,
    EngineMessage,
    Open,
    Respond,
    ToolCall,
    ToolResult,
)
from pipeline import page_messages as page
from pipeline.call import CallAgent, Tool
from tests.pipeline.scene import echo, scene
from tests.pipeline.scripted_engine import eventually, spoken


def tool(results: list[dict[str, Any]], content: str = "sunny") -> Tool:
    async def run(arguments: dict[str, Any]) -> str:
        results.append(arguments)
        return content

    return Tool({"type": "function", "function": {"name": "weather"}}, run)


def tool_script(respond: Respond) -> Sequence[EngineMessage]:
    if respond.spans:
        call = ToolCall(respond.turn, "weather", {"city": "Rome"})
        return [*spoken(respond.turn, "One moment.")[:-1], call, Done(respond.turn, "end", 1)]
    return spoken(respond.turn, "It is sunny.")


async def test_tool_runs_once_after_its_turn_and_its_result_is_answered() -> None:
    ran: list[dict[str, Any]] = []
    async with scene(tool_script, CallAgent("A", tools={"weather": tool(ran)})) as call:
        await call.ready()
        assert call.engine.all(Open)[0].tools == [{"type": "function", "function": {"name": "weather"}}]
        await call.caller(voice=600, silence=500)
        await call.hear(GROUP_MS - 20)
        assert not ran  # the turn is not settled yet
        call.line.let_play(400)
        assert await call.engine.wait_for(ToolResult) == ToolResult("weather", "sunny")
        await call.caller(silence=40)
        follow_up = await call.engine.wait_for(Respond, 2)
        assert follow_up == Respond(1)
        await eventually(lambda: call.bot_text(1) == "It is sunny.", "the answer")
        assert ran == [{"city": "Rome"}]
        order = [type(m) for m in call.engine.told if isinstance(m, Commit | ToolResult | Respond)]
        assert order[:4] == [Respond, Commit, ToolResult, Respond]
        assert [(m.name, m.state) for m in call.seen(page.ToolUsed)] == [
            ("weather", "running"),
            ("weather", "done"),
        ]


async def test_tool_of_a_dropped_answer_never_runs() -> None:
    ran: list[dict[str, Any]] = []
    async with scene(tool_script, CallAgent("A", tools={"weather": tool(ran)})) as call:
        await call.ready()
        call.line.let_play(5000)
        await call.caller(voice=600, silence=260)
        await call.engine.wait_for(Respond)
        await call.caller(voice=600, silence=600)
        await call.engine.wait_for(ToolResult)
        await call.caller(silence=40)
        await call.engine.wait_for(Respond, 3)
        assert len(ran) == 1


async def test_tool_result_that_comes_while_the_caller_speaks_is_answered_with_them() -> None:
    go = asyncio.Event()

    async def slow(_: dict[str, Any]) -> str:
        await go.wait()
        return "sunny"

    agent = CallAgent("A", tools={"weather": Tool({"function": {"name": "weather"}}, slow)})
    async with scene(tool_script, agent) as call:
        await call.ready()
        call.line.let_play(5000)
        await call.caller(voice=600, silence=500)
        await eventually(lambda: bool(call.seen(page.ToolUsed)), "the tool")
        call.engine.script = echo("Both.")
        await call.caller(voice=300)
        go.set()
        await call.engine.wait_for(ToolResult)
        await call.caller(voice=300, silence=500)
        await eventually(lambda: call.bot_text(1) == "Both.", "the answer")
        await call.caller(silence=300)
        assert len(call.engine.all(Respond)) == 2
