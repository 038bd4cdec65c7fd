"""A tool takes its time: the caller is told so, and loses nothing by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from model_runtime.protocol import (
    GROUP_MS,
    Commit,
    Done,
    Drop,
    EngineMessage,
    HistoryEntry,
    Respond,
    ToolCall,
    ToolResult,
    Transcript,
)
from pipeline import page_messages as page
from pipeline.agent import SilencePolicy
from pipeline.call import CallAgent, CallSettings
from pipeline.conversation import Exchange
from pipeline.dialogue import WAITING_INSTRUCTION
from pipeline.tools.tool import CannotTransfer, Found, Line, Tool
from pipeline.tools.waiting import WaitingPolicy
from pipeline.turns import TurnSettings
from tests.pipeline.scene import SETTINGS, Scene, scene
from tests.pipeline.scripted_engine import eventually, spoken

ASKED = WAITING_INSTRUCTION.format(words="One moment.")
POLICY = WaitingPolicy("One moment.")
AMPLE = 60_000  # ms that the sink may take: whatever is said is heard


def script(respond: Respond) -> Sequence[EngineMessage]:
    if respond.spans:
        call = ToolCall(respond.turn, "look", {"number": respond.turn})
        return [*spoken(respond.turn, "Let me see.")[:-1], call, Done(respond.turn, "end", 1)]
    return spoken(respond.turn, *(("One ", "moment.") if respond.text else ("It is ", "sunny.")))


@dataclass
class Slow:
    """A tool that returns when it is told to."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    ran: int = 0

    async def run(self, _: dict[str, Any], __: Line) -> Found:
        self.ran += 1
        self.begun.set()
        await self.go.wait()
        return Found("sunny", ("almanac.md",))

    @property
    def agent(self) -> CallAgent:
        return CallAgent("A", tools={"look": Tool({}, self.run)}, waiting=POLICY)


def words(call: Scene) -> list[Respond]:
    """Those that had the caller told that they wait."""
    return [respond for respond in call.engine.all(Respond) if respond.text == ASKED]


def record(call: Scene) -> list[Exchange]:
    return call.call.conversation.exchanges


@asynccontextmanager
async def asked(
    slow: Slow, agent: CallAgent | None = None, settings: CallSettings = SETTINGS, plays: int = AMPLE
) -> AsyncIterator[Scene]:
    """A call whose caller has asked for what the tool is to find."""
    async with scene(script, agent or slow.agent, settings) as call:
        await call.ready()
        call.line.let_play(plays)
        await call.caller(voice=600, silence=500)
        await asyncio.wait_for(slow.begun.wait(), 10)
        try:
            yield call
        finally:
            slow.go.set()  # else the end of the call waits for it


async def test_is_told_so_once_and_the_answer_follows_right_behind() -> None:
    slow = Slow()
    async with asked(slow) as call:
        await call.caller(silence=640)
        assert not words(call)
        await call.caller(silence=80)
        await call.engine.wait_for(Drop)  # they were heard: the engine keeps no trace of them
        await call.caller(silence=1000)
        slow.go.set()
        await call.engine.wait_for(ToolResult)
        await call.caller(silence=40)
        await eventually(lambda: call.bot_text(2) == "It is sunny.", "the answer")
        await eventually(lambda: len(record(call)) == 3, "the record")
        assert len(words(call)) == slow.ran == 1
        told = [m for m in call.engine.told if isinstance(m, Respond | Commit | Drop | ToolResult)]
        assert [type(m) for m in told] == [Respond, Commit, Respond, Drop, ToolResult, Respond, Commit]
        assert told[5] == Respond(2)
        heard = [(one.turn, one.bot, one.sources) for one in record(call)]
        assert heard == [(0, "Let me see.", []), (1, "One moment.", []), (2, "It is sunny.", ["almanac.md"])]
        assert [done.turn for done in call.seen(page.BotDone)] == [0, 1, 2]
        assert call.bot_text(1) == "One moment."


async def test_is_told_nothing_where_the_tool_is_quick_or_nothing_is_to_be_said() -> None:
    slow = Slow()
    async with asked(slow) as call:
        await call.caller(silence=600)
        slow.go.set()
        await call.engine.wait_for(ToolResult)
        await call.caller(silence=3000)
        await eventually(lambda: call.bot_text(1) == "It is sunny.", "the answer")
        assert not words(call)
    silent = Slow()
    async with asked(silent, replace(silent.agent, waiting=None)) as call:
        await call.caller(silence=9000)
        assert not words(call)


async def test_is_told_once_more_after_eight_seconds_and_not_a_third_time() -> None:
    slow = Slow()
    async with asked(slow) as call:
        await call.caller(silence=760)
        await call.engine.wait_for(Drop)
        await call.caller(silence=7900)
        assert len(words(call)) == 1
        await call.caller(silence=200)
        await call.engine.wait_for(Drop, 2)
        await call.caller(silence=20_000)
        assert len(words(call)) == 2


async def test_words_of_which_nothing_has_sounded_give_way_to_the_answer() -> None:
    slow = Slow()
    async with asked(slow, plays=GROUP_MS) as call:  # just the answer that asks for the tool
        await call.caller(silence=760)
        await call.engine.wait_for(Respond, 2)
        slow.go.set()
        await call.engine.wait_for(ToolResult)
        call.line.let_play(AMPLE)
        await call.caller(silence=40)
        await eventually(lambda: call.bot_text(2) == "It is sunny.", "the answer")
        assert call.engine.all(Drop) == [Drop(1)]
        await eventually(lambda: len(record(call)) == 2, "the record")
        assert not call.bot_text(1)
        assert [one.bot for one in record(call)] == ["Let me see.", "It is sunny."]


async def test_words_that_sound_are_said_to_their_end_before_the_answer() -> None:
    slow = Slow()
    async with asked(slow, plays=GROUP_MS) as call:
        await call.caller(silence=760)
        await call.hear(GROUP_MS)
        slow.go.set()
        await call.engine.wait_for(ToolResult)
        await call.caller(silence=40)
        assert len(call.engine.all(Respond)) == 2  # no answer yet
        await call.hear(GROUP_MS)
        await call.engine.wait_for(Drop)
        await call.caller(silence=40)
        call.line.let_play(AMPLE)
        await eventually(lambda: call.bot_text(2) == "It is sunny.", "the answer")
        await eventually(lambda: len(record(call)) == 3, "the record")
        assert [one.bot for one in record(call)] == ["Let me see.", "One moment.", "It is sunny."]
        assert record(call)[2].sources == ["almanac.md"]  # and not the words said when it came
        assert slow.ran == len(call.engine.all(ToolResult)) == 1


async def test_a_caller_who_speaks_over_the_words_stops_them_and_is_answered() -> None:
    slow = Slow()
    async with asked(slow, plays=GROUP_MS) as call:
        await call.caller(silence=760)
        await call.hear(GROUP_MS)
        call.engine.script = lambda respond: spoken(respond.turn, "Yes?" if respond.spans else "Sunny.")
        await call.caller(voice=1200, silence=100)
        await call.engine.wait_for(Drop)
        assert call.seen(page.Interrupted) == [page.Interrupted(1)]
        assert 1 not in [done.turn for done in call.seen(page.BotDone)]
        call.line.let_play(AMPLE)
        await call.caller(silence=600)
        await eventually(lambda: call.bot_text(2) == "Yes?", "the answer")
        slow.go.set()
        await call.engine.wait_for(ToolResult)
        await call.caller(silence=40)
        await eventually(lambda: call.bot_text(3) == "Sunny.", "the answer of the tool")
        heard = [(one.bot, one.interrupted) for one in record(call)[:3]]
        assert heard == [("Let me see.", False), ("One ", True), ("Yes?", False)]
        assert slow.ran == len(call.engine.all(ToolResult)) == 1
        assert [commit.turn for commit in call.engine.all(Commit)][:2] == [0, 2]


async def test_nothing_is_said_while_the_caller_speaks() -> None:
    slow = Slow()
    async with asked(slow) as call:
        await call.caller(silence=400)
        await call.caller(voice=1200)
        assert not words(call)


async def test_what_the_model_asks_for_in_passing_is_not_done() -> None:
    slow = Slow()

    def confused(respond: Respond) -> Sequence[EngineMessage]:
        if not respond.text:
            return script(respond)
        call = ToolCall(respond.turn, "look", {"number": 7})
        return [*spoken(respond.turn, "One moment.")[:-1], call, Done(respond.turn, "end", 1)]

    looks = replace(slow.agent, tools={"look": Tool({}, slow.run, speculative=True)})
    async with asked(slow, looks) as call:
        call.engine.script = confused
        await eventually(lambda: bool(call.seen(page.ToolUsed)), "the turn")
        await call.caller(silence=800)
        await call.engine.wait_for(Drop)
        slow.go.set()
        await call.engine.wait_for(ToolResult)
        await call.caller(silence=40)
        await eventually(lambda: call.bot_text(2) == "It is sunny.", "the answer")
        await call.caller(silence=100)
        assert slow.ran == len(call.engine.all(ToolResult)) == 1


@pytest.mark.parametrize("kind", ["failed", "silent"])
async def test_words_that_cannot_be_said_are_left_out(kind: str) -> None:
    slow = Slow()
    async with asked(slow) as call:
        reason: Any = "error" if kind == "failed" else "silent"
        call.engine.script = lambda respond: [Done(respond.turn, reason)] if respond.text else script(respond)
        await call.caller(silence=760)
        await call.engine.wait_for(Drop)
        slow.go.set()
        await call.engine.wait_for(ToolResult)
        await call.caller(silence=40)
        await eventually(lambda: call.bot_text(2) == "It is sunny.", "the answer")
        assert not call.seen(page.Notice)
        await eventually(lambda: len(record(call)) == 2, "the record")


async def test_words_that_die_with_an_engine_are_not_said_again_and_the_result_is_not_lost() -> None:
    slow = Slow()
    async with asked(slow, plays=GROUP_MS) as call:
        entries = [HistoryEntry(0, [1], turn=0, heard=True), HistoryEntry(1, [2], turn=0)]
        await call.engine.say(*entries)
        await eventually(lambda: len(call.call._record.history) == 2, "the history")
        await call.caller(silence=760)
        await call.engine.wait_for(Respond, 2)
        await call.engine_dies()
        await call.engine_returns()
        await call.caller(silence=2000)
        assert len(words(call)) == 1
        slow.go.set()
        await call.engine.wait_for(ToolResult)
        call.line.let_play(AMPLE)
        await call.caller(silence=40)
        await eventually(lambda: call.bot_text(2) == "It is sunny.", "the answer")
        assert slow.ran == len(call.engine.all(ToolResult)) == 1


async def test_nothing_comes_between_a_question_and_the_yes_it_needs() -> None:
    """The tool that takes its time is one thing; what the caller is asked meanwhile is another."""
    slow = Slow()
    paid: list[dict[str, Any]] = []

    async def pay(arguments: dict[str, Any], _: Line) -> str:
        paid.append(arguments)
        return "Paid."

    def privileged(respond: Respond) -> Sequence[EngineMessage]:
        if not respond.spans:
            done = any(result.content == "Paid." for result in call.engine.all(ToolResult))
            return spoken(respond.turn, "Done." if done else "Say yes if I shall pay.")
        made: list[EngineMessage] = [ToolCall(respond.turn, "pay"), Done(respond.turn, "end", 1)]
        return [*spoken(respond.turn, "Well.")[:-1], *made, Transcript(respond.turn, "yes")]

    bill = Tool({}, pay, privileged=True, confirm=True, question=lambda _: "Say yes if I shall pay.")
    agent = replace(slow.agent, tools={**slow.agent.tools, "pay": bill})
    async with asked(slow, agent) as call:
        call.engine.script = privileged
        await call.caller(voice=600, silence=500)
        asks = await call.engine.wait_for(ToolResult)
        assert "the caller must agree first" in asks.content
        await call.caller(silence=40)
        await eventually(lambda: record(call)[-1].bot == "Say yes if I shall pay.", "the question")
        await call.caller(silence=12_000)
        assert not words(call)
        await call.caller(voice=600, silence=500)
        await eventually(lambda: bool(paid), "the payment")


async def test_nothing_is_said_after_a_question_of_the_model_s_own() -> None:
    slow = Slow()
    async with scene(agent=slow.agent) as call:
        made: list[EngineMessage] = [ToolCall(0, "look"), Done(0, "end", 1)]
        call.engine.script = lambda respond: [*spoken(respond.turn, "Which city?")[:-1], *made]
        await call.ready()
        call.line.let_play(AMPLE)
        await call.caller(voice=600, silence=500)
        await asyncio.wait_for(slow.begun.wait(), 10)
        await call.caller(silence=3000)
        assert not words(call)
        slow.go.set()


async def test_nothing_is_said_to_who_is_being_put_through_until_they_are_back() -> None:
    ringing, busy = asyncio.Event(), asyncio.Event()

    async def transfer(_: str, __: str | None) -> None:
        ringing.set()
        await busy.wait()
        raise CannotTransfer("nobody answers.")

    slow = Slow()

    async def through(arguments: dict[str, Any], line: Line) -> Found:
        try:
            await line.transfer("sip:sales@example.com")
        except CannotTransfer:
            return await slow.run(arguments, line)
        raise AssertionError("they were put through")

    agent = CallAgent("A", tools={"look": Tool({}, through)}, waiting=POLICY)
    async with scene(script, agent, transfer=transfer) as call:
        await call.ready()
        call.line.let_play(AMPLE)
        await call.caller(voice=600, silence=500)
        await asyncio.wait_for(ringing.wait(), 10)
        await call.caller(silence=3000)
        assert not words(call)
        busy.set()
        await asyncio.wait_for(slow.begun.wait(), 10)
        await call.caller(silence=760)
        await call.engine.wait_for(Drop)
        assert len(words(call)) == 1
        slow.go.set()


async def test_nothing_is_said_in_a_call_that_ends() -> None:
    slow = Slow()
    async with asked(slow) as call:
        await call.call._stage.dialogue.hang_up()
        await call.caller(silence=3000)
        assert not words(call)


async def test_who_waits_for_a_tool_is_not_taken_for_one_who_has_fallen_silent() -> None:
    slow = Slow()
    quiet = replace(SETTINGS, turns=TurnSettings(silence_ms=2000))
    agent = replace(slow.agent, silence=SilencePolicy("Hello?", times=0, hang_up=True), waiting=None)
    async with asked(slow, agent, quiet) as call:
        await call.caller(silence=5000)
        assert not call.running.done()
        assert not call.seen(page.Notice)


async def test_a_chain_of_tools_is_one_wait() -> None:
    slow, second = Slow(), Slow()

    def chain(respond: Respond) -> Sequence[EngineMessage]:
        results = len(call.engine.all(ToolResult))
        if respond.spans or respond.text or results == 2:
            return script(respond)
        return [ToolCall(respond.turn, "more"), Done(respond.turn, "silent")]

    agent = replace(slow.agent, tools={**slow.agent.tools, "more": Tool({}, second.run)})
    async with asked(slow, agent) as call:
        call.engine.script = chain
        await call.caller(silence=760)
        await call.engine.wait_for(Drop)
        slow.go.set()
        await call.engine.wait_for(ToolResult)
        await call.caller(silence=40)
        await asyncio.wait_for(second.begun.wait(), 10)
        await call.caller(silence=5000)
        assert len(words(call)) == 1
        second.go.set()
        await call.engine.wait_for(ToolResult, 2)
        await call.caller(silence=40)
        await eventually(lambda: call.bot_text(3) == "It is sunny.", "the answer")
