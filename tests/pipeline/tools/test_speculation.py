"""Looking up before the turn is over: sooner, never twice, and never anything that somebody would notice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from model_runtime.protocol import GROUP_MS, Done, EngineMessage, Respond, ToolCall, ToolResult
from pipeline import page_messages as page
from pipeline.call import CallAgent
from pipeline.tools.tool import Line, Tool, ToolError
from tests.pipeline.scene import scene
from tests.pipeline.scripted_engine import eventually, spoken


class Catalogue:
    """A tool that notes what it was asked, and answers when it is let."""

    def __init__(self, *, speculative: bool = True) -> None:
        self.asked: list[dict[str, Any]] = []
        self.given_up = 0
        self.open = asyncio.Event()
        self.open.set()
        self.tool = Tool({"function": {"name": "find"}}, self._find, speculative=speculative)
        self.agent = CallAgent("A", tools={"find": self.tool})

    async def _find(self, arguments: dict[str, Any], _: Line) -> str:
        self.asked.append(arguments)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if arguments["what"] == "nothing":
            raise ToolError("there is no such thing.")
        return f"found {arguments['what']}"


def asks(*things: str) -> Any:
    """An engine that says "One moment." and asks for these, a different one at each answer to the caller."""
    left = list(things)

    def script(respond: Respond) -> Sequence[EngineMessage]:
        if not respond.spans:
            return spoken(respond.turn, "There.")
        call = ToolCall(respond.turn, "find", {"what": left.pop(0)})
        return [*spoken(respond.turn, "One moment.")[:-1], call, Done(respond.turn, "end", 1)]

    return script


async def test_it_is_found_before_the_first_words_are_over_and_looked_for_once() -> None:
    shop = Catalogue()
    async with scene(asks("tents"), shop.agent) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(GROUP_MS - 20)
        await eventually(lambda: bool(shop.asked), "the look")
        assert not call.seen(page.ToolUsed)  # nobody is told, the turn is not settled
        assert not call.engine.all(ToolResult)
        call.line.let_play(400)
        assert (await call.engine.wait_for(ToolResult)).content == "found tents"
        await call.caller(silence=40)
        await eventually(lambda: call.bot_text(1) == "There.", "the answer")
        assert shop.asked == [{"what": "tents"}]


async def test_what_a_caller_who_goes_on_did_not_mean_is_given_up() -> None:
    shop = Catalogue()
    shop.open.clear()
    async with scene(asks("tents", "stoves"), shop.agent) as call:
        await call.ready()
        call.line.let_play(5000)
        await call.caller(voice=600, silence=260)
        await eventually(lambda: len(shop.asked) == 1, "the look")
        await call.caller(voice=600, silence=600)
        await eventually(lambda: len(shop.asked) == 2, "the other look")
        shop.open.set()
        assert (await call.engine.wait_for(ToolResult)).content == "found stoves"
        assert shop.given_up == 1
        assert len(call.engine.all(ToolResult)) == 1


async def test_what_is_not_there_is_said_when_its_time_has_come() -> None:
    shop = Catalogue()
    async with scene(asks("nothing"), shop.agent) as call:
        await call.ready()
        call.line.let_play(5000)
        await call.caller(voice=600, silence=500)
        assert (await call.engine.wait_for(ToolResult)).content == "Error: there is no such thing."
        assert len(shop.asked) == 1


async def test_a_tool_that_does_something_waits_for_its_turn() -> None:
    for tool in (Catalogue(speculative=False), Catalogue()):
        privileged = replace(tool.tool, privileged=True)
        used = tool.tool if not tool.tool.speculative else privileged
        async with scene(asks("tents"), CallAgent("A", tools={"find": used})) as call:
            await call.ready()
            await call.caller(voice=600, silence=500)
            await call.hear(GROUP_MS - 20)
            assert not tool.asked
            call.line.let_play(400)
            await call.engine.wait_for(ToolResult)
            assert len(tool.asked) == 1


async def test_a_call_that_ends_leaves_no_look_behind() -> None:
    shop = Catalogue()
    shop.open.clear()
    async with scene(asks("tents"), shop.agent) as call:  # which asserts that no task outlives it
        await call.ready()
        await call.caller(voice=600, silence=500)
        await eventually(lambda: bool(shop.asked), "the look")
    assert shop.given_up == 1
