"""A caller whose connection broke calls again: the conversation goes on, and what is said is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
)
from pipeline.call import CallAgent
from pipeline.conversation import Conversation, Exchange
from pipeline.memory import CallMemory, Remembered
from pipeline.record import CallRecord
from pipeline.tools.ledger import ToolLedger
from pipeline.tools.tool import Line, Tool
from tests.pipeline.scene import echo, scene

AGENT = CallAgent("Shop", greeting="Hello there.")
EARLIER = [HistoryEntry(0, [1, 2, 3]), HistoryEntry(1, [4, 5])]


def earlier() -> Remembered:
    said = Conversation([Exchange(0, None, "Hello there.", 3, spoken=False), Exchange(1, "Hi", "Yes?", 2)])
    return Remembered("talk", {}, EARLIER, said)


@dataclass
class Kept(CallMemory):
    """What would have been written."""

    entries: list[HistoryEntry] = field(default_factory=list)
    said: list[list[dict[str, str]]] = field(default_factory=list)
    noted: dict[str, str] = field(default_factory=dict)
    closed: bool = False

    def entry(self, entry: HistoryEntry) -> None:
        self.entries.append(entry)

    def converse(self, conversation: Conversation) -> None:
        self.said.append(conversation.messages())

    def note(self, **facts: Any) -> None:
        self.noted |= facts

    def close(self, **facts: Any) -> None:
        self.noted |= facts
        self.closed = True


async def test_the_engine_is_given_what_was_said_and_nobody_is_greeted_twice() -> None:
    async with scene(echo("Monday."), AGENT, record=CallRecord(earlier())) as call:
        await call.ready()
        assert call.engine.all(Open)[0].history == 2
        assert call.engine.all(HistoryEntry) == EARLIER
        await call.caller(silence=600)
        assert not call.engine.all(Respond)
        await call.caller(voice=600, silence=500)
        await call.hear(GROUP_MS)
        await call.engine.wait_for(Commit)
        assert [said["content"] for said in call.call.conversation.messages()][-2:] == ["[speech]", "Monday."]
    end = await call.running
    assert [exchange.bot for exchange in end.conversation.exchanges] == ["Hello there.", "Yes?", "Monday."]


def test_a_turn_that_is_on_record_alone_has_its_number_to_itself() -> None:
    """Words for one who waits for a tool are in no history; a transcript finds its turn by the number."""
    record = CallRecord(earlier())
    record.enter(HistoryEntry(2, [6], turn=2))
    record.add(Exchange(3, None, "One moment.", 2, spoken=False), aside=True)
    again = CallRecord(Remembered("talk", {}, record.history, record.conversation))
    assert again.next_turn == 4


async def test_what_is_said_is_kept_as_it_is_settled_with_what_was_said_before() -> None:
    kept = Kept()
    async with scene(echo("Monday."), AGENT, record=CallRecord(earlier(), kept)) as call:
        assert kept.entries == EARLIER
        assert len(kept.said[-1]) == 3
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(GROUP_MS)
        await call.engine.wait_for(Commit)
        entry = HistoryEntry(2, [6])
        await call.engine.say(entry)
        await call.engine.wait_until(lambda: kept.entries[-1] == entry, "the entry")
        assert kept.said[-1][-1] == {"role": "assistant", "content": "Monday."}
        assert not kept.closed
    assert kept.noted["end"] == (await call.running).reason
    assert kept.noted["began"] <= kept.noted["ended"]
    assert kept.closed


async def test_a_call_that_goes_on_began_when_its_first_part_did() -> None:
    kept = Kept()
    before = replace(
        earlier(), facts={"began": "2026-01-01T10:00:00+00:00", "ended": "x", "end": "dead-peer"}
    )
    async with scene(echo("Monday."), AGENT, record=CallRecord(before, kept)) as call:
        await call.ready()
        assert kept.noted["began"] == "2026-01-01T10:00:00+00:00"
        assert not {"ended", "end"} & set(kept.noted)
    assert (await call.running).facts["began"] == "2026-01-01T10:00:00+00:00"


async def test_an_answer_that_the_end_of_the_call_cuts_short_is_on_record_as_far_as_it_was_heard() -> None:
    async with scene(echo("One ", "two ", "three ", "four.")) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(2 * GROUP_MS)
        await call.call.end("replaced")
        assert await call.engine.wait_for(Commit) == Commit(0, 2)
        account = HistoryEntry(0, [1, 2])
        await call.engine.say(account)
        end = await call.running
    assert [exchange.bot for exchange in end.conversation.exchanges] == ["One two "]
    assert end.history == [account]  # what the next call goes on from


@dataclass
class Noted(Kept):
    """The same, of a call that uses tools."""

    facts: dict[str, str] = field(default_factory=dict)

    def note(self, **facts: Any) -> None:
        self.facts |= facts


async def test_a_tool_that_is_begun_is_kept_as_begun_before_it_does_anything() -> None:
    kept, begun = Noted(), list[str]()

    async def pay(_: dict[str, Any], __: Line) -> str:
        begun.append(kept.facts["tools"])
        return "Paid."

    def script(respond: Respond) -> Sequence[EngineMessage]:
        return [ToolCall(respond.turn, "pay"), Done(respond.turn, "end")] if respond.spans else []

    agent = CallAgent("A", tools={"pay": Tool({}, pay)})
    async with scene(script, agent, record=CallRecord(None, kept)) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        result = await call.engine.wait_for(ToolResult)
        (unknown,) = ToolLedger.load(begun[0]).undelivered  # the process died then: who knows what was done
        assert "not known whether it was done" in unknown.content
        assert [one.content for one in ToolLedger.load(kept.facts["tools"]).undelivered] == ["Paid."]
        await call.engine.say(HistoryEntry(0, [1], result=result.id))
        await call.engine.wait_until(lambda: bool(kept.entries), "the entry")
        earlier = Remembered("talk", kept.facts, kept.entries, Conversation())
        assert CallRecord(earlier).tools.undelivered == []


async def test_an_account_of_tools_that_cannot_be_read_ends_no_call() -> None:
    earlier = Remembered("talk", {"tools": "nonsense"}, EARLIER, Conversation())
    async with scene(echo("Yes?"), record=CallRecord(earlier)) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.engine.wait_for(Respond)
