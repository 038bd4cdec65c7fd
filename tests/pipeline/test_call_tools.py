"""Tools in a call: run once, after their turn, and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from model_runtime.protocol import (
    GROUP_MS,
    Commit,
    Done,
    EngineMessage,
    HistoryEntry,
    Open,
    Respond,
    ToolCall,
    ToolResult,
    Transcript,
)
from pipeline import page_messages as page
from pipeline.call import CallAgent
from pipeline.conversation import Conversation
from pipeline.memory import Remembered
from pipeline.record import CallRecord
from pipeline.tools.ledger import ToolLedger
from pipeline.tools.tool import Found, Line, Tool
from tests.pipeline.scene import echo, scene
from tests.pipeline.scripted_engine import eventually, spoken


def tool(results: list[dict[str, Any]], content: str = "sunny") -> Tool:
    async def run(arguments: dict[str, Any], _: Line) -> str:
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
        result = await call.engine.wait_for(ToolResult)
        assert (result.name, result.content) == ("weather", "sunny")
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


async def test_where_an_answer_was_looked_up_is_told_with_it_and_kept() -> None:
    async def look(_: dict[str, Any], __: Line) -> Found:
        return Found("sunny", ("almanac.md, line 3", "weather.example"))

    agent = CallAgent("A", tools={"weather": Tool({"function": {"name": "weather"}}, look)})
    async with scene(tool_script, agent) as call:
        await call.ready()
        call.line.let_play(5000)
        await call.caller(voice=600, silence=500)
        await call.engine.wait_for(ToolResult)
        await call.caller(silence=40)
        await eventually(lambda: bool(call.seen(page.Sources)), "the sources")
        names = ["almanac.md, line 3", "weather.example"]
        assert call.seen(page.Sources) == [page.Sources(1, names)]
        kept = call.call._record.conversation.exchanges
        assert [(one.bot, one.sources) for one in kept] == [("One moment.", []), ("It is sunny.", names)]


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

    async def slow(_: dict[str, Any], __: Line) -> str:
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


def history_of(turn: int) -> list[EngineMessage]:
    """What an engine tells of a turn that was committed, with the caller's side first."""
    return [
        HistoryEntry(2 * turn, [1], turn=turn, heard=True),
        HistoryEntry(2 * turn + 1, [2], turn=turn),
    ]


async def test_a_result_that_comes_while_the_engine_is_away_reaches_the_next_one() -> None:
    go = asyncio.Event()
    ran: list[dict[str, Any]] = []

    async def slow(arguments: dict[str, Any], _: Line) -> str:
        ran.append(arguments)
        await go.wait()
        return "sunny"

    agent = CallAgent("A", tools={"weather": Tool({"function": {"name": "weather"}}, slow)})
    async with scene(tool_script, agent) as call:
        await call.ready()
        call.line.let_play(5000)
        await call.caller(voice=600, silence=500)
        await eventually(lambda: bool(ran), "the tool")
        await call.engine.say(*history_of(0))
        await eventually(lambda: len(call.call._record.history) == 2, "the history")
        await call.engine_dies()
        go.set()
        await eventually(lambda: len(call.seen(page.ToolUsed)) == 2, "the end of the tool")
        await call.engine_returns()
        result = await call.engine.wait_for(ToolResult)
        assert result.content == "sunny"
        await call.caller(silence=40)
        assert await call.engine.wait_for(Respond, 2) == Respond(1)  # the history as it stands
        await eventually(lambda: call.bot_text(1) == "It is sunny.", "the answer")
        assert len(ran) == 1


async def test_a_result_that_died_with_an_engine_is_told_again_and_one_that_did_not_is_not() -> None:
    agent = CallAgent("A", tools={"weather": tool([])})
    async with scene(tool_script, agent) as call:
        await call.ready()
        call.line.let_play(5000)
        await call.caller(voice=600, silence=500)
        result = await call.engine.wait_for(ToolResult)
        await call.engine.say(*history_of(0))
        await eventually(lambda: len(call.call._record.history) == 2, "the history")
        await call.engine_dies()
        await call.engine_returns()
        assert await call.engine.wait_for(ToolResult, 2) == result
        await call.engine.say(HistoryEntry(2, [3], result=result.id))
        await eventually(lambda: len(call.call._record.history) == 3, "the history")
        await call.engine_dies()
        await call.engine_returns()
        await call.caller(silence=100)
        assert len(call.engine.all(ToolResult)) == 2


async def test_a_question_whose_tool_has_run_is_asked_again_but_the_tool_is_not_run_again() -> None:
    """The engine dies before it has told of the turn: the next one knows nothing of the question."""
    ran: list[dict[str, Any]] = []
    async with scene(tool_script, CallAgent("A", tools={"weather": tool(ran)})) as call:
        await call.ready()
        call.line.let_play(8000)
        await call.caller(voice=600, silence=500)
        await call.engine.wait_for(ToolResult)
        await call.engine_dies()
        await call.engine_returns()
        await call.engine.wait_for(ToolResult, 2)
        await call.caller(silence=100)
        again = await call.engine.wait_for(Respond, 2)
        assert again.spans
        note = await call.engine.wait_for(ToolResult, 3)
        assert "is not run again" in note.content
        assert len(ran) == 1


async def test_an_answer_whose_last_word_is_cut_off_asks_for_nothing() -> None:
    ran: list[dict[str, Any]] = []

    def script(respond: Respond) -> Sequence[EngineMessage]:
        call = ToolCall(respond.turn, "weather", {"city": "Rome"})
        return [*spoken(respond.turn, "One ", "moment ", "please.")[:-1], call, Done(respond.turn, "end", 3)]

    async with scene(script, CallAgent("A", tools={"weather": tool(ran)})) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(GROUP_MS * 2)
        call.engine.script = echo("Yes?")
        await call.caller(voice=1200, silence=100)
        commit = await call.engine.wait_for(Commit)
        assert commit.heard_groups == 2
        await call.caller(silence=500)
        assert not ran
        assert not call.engine.all(ToolResult)


async def test_a_tool_under_way_when_the_caller_hangs_up_is_finished_and_its_result_kept() -> None:
    go = asyncio.Event()

    async def slow(_: dict[str, Any], __: Line) -> str:
        await go.wait()
        return "cancelled"

    agent = CallAgent("A", tools={"weather": Tool({"function": {"name": "weather"}}, slow)})
    async with scene(tool_script, agent) as call:
        await call.ready()
        call.line.let_play(5000)
        await call.caller(voice=600, silence=500)
        await eventually(lambda: bool(call.seen(page.ToolUsed)), "the tool")
        await call.line.hang_up()
        await asyncio.sleep(0.05)
        go.set()
        end = await call.running
    assert [result.content for result in ToolLedger.load(end.facts["tools"]).undelivered] == ["cancelled"]


async def test_a_caller_who_calls_again_hears_what_came_of_the_tool() -> None:
    ledger = ToolLedger()
    done, under_way = ledger.enter([ToolCall(3, "book"), ToolCall(3, "pay")])
    ledger.begin(done)
    ledger.finish(done, "Booked.")
    ledger.begin(under_way)
    earlier = Remembered("talk", {"tools": ledger.dump()}, [HistoryEntry(0, [1], turn=3)], Conversation())
    async with scene(echo("It is booked."), record=CallRecord(earlier)) as call:
        await call.ready()
        assert (await call.engine.wait_for(ToolResult)).content == "Booked."
        assert "not known whether it was done" in (await call.engine.wait_for(ToolResult, 2)).content
        await call.caller(silence=100)
        assert await call.engine.wait_for(Respond) == Respond(4)


async def test_hanging_up_waits_until_all_was_heard_and_ends_the_call() -> None:
    async def hang_up(_: dict[str, Any], line: Line) -> str:
        await line.hang_up()
        return "The call ends."

    def script(respond: Respond) -> Sequence[EngineMessage]:
        return [
            *spoken(respond.turn, "Good", "bye!")[:-1],
            ToolCall(respond.turn, "bye"),
            Done(respond.turn, "end", 2),
        ]

    async with scene(script, CallAgent("A", tools={"bye": Tool({}, hang_up)})) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(GROUP_MS * 2 - 20)
        assert not call.running.done()
        call.line.let_play(500)
        end = await call.running
        assert end.reason == "bot-hung-up"
        assert call.bot_text(0) == "Goodbye!"
        assert call.seen(page.Notice)[-1].ended
        assert len(call.engine.all(Respond)) == 1


@pytest.mark.parametrize("can", [True, False])
async def test_a_caller_is_put_through_where_the_line_can_and_else_the_model_is_told(can: bool) -> None:
    async def through(_: dict[str, Any], line: Line) -> str:
        await line.transfer("sip:sales@example.com")
        return "Done."

    put_through: list[str] = []

    async def transfer(target: str, briefing: str | None) -> None:
        put_through.append(target)

    def script(respond: Respond) -> Sequence[EngineMessage]:
        if not respond.spans:
            return spoken(respond.turn, "Sorry.")
        return [
            *spoken(respond.turn, "Yes.")[:-1],
            ToolCall(respond.turn, "go"),
            Done(respond.turn, "end", 1),
        ]

    agent = CallAgent("A", tools={"go": Tool({}, through)})
    async with scene(script, agent, transfer=transfer if can else None) as call:
        await call.ready()
        call.line.let_play(5000)
        await call.caller(voice=600, silence=500)
        if can:
            assert (await call.running).reason == "transferred"
            assert put_through == ["sip:sales@example.com"]
        else:
            result = await call.engine.wait_for(ToolResult)
            assert result.content == "Error: this line cannot put callers through."


async def test_a_result_that_comes_while_an_answer_is_made_is_answered_after_it() -> None:
    """That answer was begun without the result: it cannot have spoken of it."""
    go = asyncio.Event()

    async def slow(_: dict[str, Any], __: Line) -> str:
        await go.wait()
        return "sunny"

    agent = CallAgent("A", tools={"weather": Tool({"function": {"name": "weather"}}, slow)})
    async with scene(tool_script, agent) as call:
        await call.ready()
        call.line.let_play(9000)
        await call.caller(voice=600, silence=500)
        await eventually(lambda: bool(call.seen(page.ToolUsed)), "the tool")
        call.engine.script = echo("Yes.")
        await call.caller(voice=600, silence=320)  # the answer is begun, and may not speak yet
        await call.engine.wait_for(Respond, 2)
        go.set()
        await call.engine.wait_for(ToolResult)
        await call.caller(silence=400)
        await eventually(lambda: call.bot_text(1) == "Yes.", "the answer")
        await call.caller(silence=100)
        assert await call.engine.wait_for(Respond, 3) == Respond(2)


@pytest.mark.parametrize("foreign", [False, True])
async def test_where_strangers_describe_a_tool_every_privileged_one_is_asked_for(foreign: bool) -> None:
    ran: list[dict[str, Any]] = []

    def script(respond: Respond) -> Sequence[EngineMessage]:
        if not respond.spans:
            return spoken(respond.turn, "Well.")
        calls: list[EngineMessage] = [ToolCall(respond.turn, "pay"), Done(respond.turn, "end", 1)]
        calls.append(Transcript(respond.turn, "pay"))
        return [*spoken(respond.turn, "Yes.")[:-1], *calls]

    async def pay(arguments: dict[str, Any], _: Line) -> str:
        ran.append(arguments)
        return "Paid."

    tools = {"pay": Tool({}, pay, privileged=True), "other": Tool({}, pay, foreign=foreign)}
    async with scene(script, CallAgent("A", tools=tools)) as call:
        await call.ready()
        call.line.let_play(5000)
        await call.caller(voice=600, silence=500)
        result = await call.engine.wait_for(ToolResult)
        assert result.content.startswith("Not done: the caller must agree first." if foreign else "Paid.")
        assert len(ran) == (not foreign)
