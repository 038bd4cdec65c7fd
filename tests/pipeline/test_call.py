"""A whole call, against a scripted engine, over a virtual line: what the caller hears and the page shows."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from model_runtime.protocol import (
    GROUP_MS,
    INPUT_RATE,
    Close,
    Commit,
    Done,
    Drop,
    EngineMessage,
    Error,
    Open,
    Opened,
    Respond,
    Speech,
    Thinking,
    ToolCall,
    Transcript,
)
from pipeline import page_messages as page
from pipeline.call import WATCH_EVERY_S, CallAgent, CallEnd, CallSettings
from pipeline.dialogue import GREETING_INSTRUCTION, Dialogue
from tests.pipeline.scene import echo, scene
from tests.pipeline.scripted_engine import eventually, spoken


async def test_greets_when_the_caller_is_there() -> None:
    agent = CallAgent("Shop", instructions="Be brief.", greeting="Hello there.", voice="v")
    async with scene(echo("Hel", "lo ", "the", "re."), agent) as call:
        await call.ready()
        assert call.engine.all(Open)[0].instructions == "Be brief."
        assert not call.engine.all(Respond)  # nobody to greet yet
        await call.caller(silence=40)
        respond = await call.engine.wait_for(Respond)
        assert respond == Respond(0, text=GREETING_INSTRUCTION.format(greeting="Hello there."))
        await call.hear(4 * GROUP_MS)
        await call.engine.wait_for(Commit)
        assert call.engine.all(Commit) == [Commit(0, -1)]
        assert call.bot_text(0) == "Hello there."
        assert call.seen(page.BotDone) == [page.BotDone(0)]
        assert not call.seen(page.Latency)  # nobody had asked
        assert call.call.conversation.messages() == [{"role": "assistant", "content": "Hello there."}]


async def test_page_is_told_whom_the_caller_talks_to() -> None:
    async with scene() as call:
        await call.ready()
        info = page.CallInfo("scripted", "a script", ["Hello?"], "v", agent="Mute", transcribes=True)
        assert call.seen(page.CallInfo) == [info]
        wire = {"label": "rtvi-ai", "type": "server-message", "data": page.to_data(info)}

        def on_the_wire(message: dict[str, Any]) -> bool:
            return {key: message.get(key) for key in wire} == wire

        await eventually(lambda: any(on_the_wire(m) for m in call.line.messages), "the RTVI message")


async def test_an_agents_own_examples_go_before_the_checkpoints() -> None:
    async with scene(agent=CallAgent("Mute", examples=["What is new?"])) as call:
        await call.ready()
        assert call.seen(page.CallInfo)[0].examples == ["What is new?"]


async def test_answers_when_the_turn_is_over_and_text_follows_its_audio() -> None:
    texts = ("Your ", "order ", "is on ", "its way.")

    def script(respond: Respond) -> list[EngineMessage]:
        return [Transcript(respond.turn, "where is my order"), *spoken(respond.turn, *texts)]

    async with scene(script) as call:
        await call.ready()
        await call.caller(silence=500)
        await call.caller(voice=800, silence=500)
        respond = await call.engine.wait_for(Respond)
        assert respond.transcribe
        ((start, stop),) = respond.spans
        said_from, said_to = INPUT_RATE * 500 // 1000, INPUT_RATE * 1300 // 1000
        assert (
            said_from - INPUT_RATE * 280 // 1000 <= start <= said_from - INPUT_RATE * 120 // 1000
        )  # pre-roll
        assert said_to <= stop <= said_to + INPUT_RATE * 240 // 1000
        for heard in range(4):
            await call.hear(GROUP_MS - 20)
            assert call.bot_text(0) == "".join(texts[:heard])  # not before its last sample
            await call.hear(20)
            await eventually(lambda n=heard + 1: call.bot_text(0) == "".join(texts[:n]), "the text")  # type: ignore[misc] # n is bound
        assert await call.engine.wait_for(Commit) == Commit(0, -1)
        assert call.seen(page.UserText) == [page.UserText(0, "where is my order")]
        (latency,) = call.seen(page.Latency)
        assert latency.turn == 0
        assert latency.ms >= 0
        assert call.call.conversation.messages() == [
            {"role": "user", "content": "where is my order"},
            {"role": "assistant", "content": "Your order is on its way."},
        ]


async def test_an_answer_is_heard_while_it_is_made() -> None:
    async with scene() as call:
        await call.ready()
        call.line.let_play(1000)
        await call.caller(voice=600, silence=500)
        await call.engine.wait_for(Respond)
        first, second, done = spoken(0, "one ", "two ", per_piece=1)
        await call.engine.say(Transcript(0, "count"), first)
        await eventually(lambda: call.bot_text(0) == "one ", "the first piece")
        assert call.seen(page.UserText) == [page.UserText(0, "count")]
        text_alone = Speech(0, b"", 3, ["(silently) three"])
        await call.engine.say(Thinking(0, "what comes next?"), second, text_alone, done)
        await call.engine.wait_for(Commit)
        assert call.engine.all(Commit) == [Commit(0, -1)]
        assert call.bot_text(0) == "one two (silently) three"


async def test_an_answer_that_breaks_off_is_kept_as_far_as_it_was_heard() -> None:
    async with scene() as call:
        await call.ready()
        call.line.let_play(1000)
        await call.caller(voice=600, silence=500)
        await call.engine.wait_for(Respond)
        piece = spoken(0, "one ")[0]
        await call.engine.say(piece, Error("internal", "it broke", turn=0), Done(0, "error"))
        await call.engine.wait_for(Commit)
        assert call.engine.all(Commit) == [Commit(0, 1)]
        assert call.seen(page.Notice)[0].level == "warning"


async def test_messages_of_an_answer_taken_back_are_ignored() -> None:
    async with scene() as call:
        await call.ready()
        await call.caller(voice=600, silence=260)
        await call.engine.wait_for(Respond)
        await call.caller(voice=600, silence=500)
        await call.engine.wait_for(Respond, 2)
        call.line.let_play(2000)
        late = [
            *spoken(0, "old "),
            Transcript(0, "old"),
            ToolCall(0, "weather"),
            Error("internal", "", turn=0),
        ]
        await call.engine.say(*late, *spoken(1, "new "))
        await eventually(lambda: call.bot_text(1) == "new ", "the answer")
        assert call.bot_text(0) == ""
        assert not call.seen(page.UserText)
        assert not call.seen(page.Notice)


async def test_a_greeting_cut_off_unheard_is_forgotten() -> None:
    async with scene(echo("Hello."), CallAgent("A", greeting="Hello.")) as call:
        await call.ready()
        await call.caller(silence=100)
        await call.engine.wait_for(Respond)
        await call.caller(voice=900, silence=500)
        assert call.engine.all(Drop) == [Drop(0)]
        question = await call.engine.wait_for(Respond, 2)
        assert question.spans


async def test_nothing_is_heard_before_the_turn_is_over() -> None:
    async with scene(echo("Yes.")) as call:
        await call.ready()
        call.line.let_play(1000)
        await call.caller(voice=600, silence=260)
        await call.engine.wait_for(Respond)  # made already, in silence
        await call.caller(silence=20)
        assert call.line.played == b""
        await call.caller(silence=200)
        await eventually(lambda: call.bot_text(0) == "Yes.", "the answer")


async def test_caller_who_goes_on_is_answered_once_and_whole() -> None:
    async with scene(lambda respond: spoken(respond.turn, f"answer {respond.turn}")) as call:
        await call.ready()
        call.line.let_play(2000)
        await call.caller(voice=600, silence=260)  # a pause
        await call.engine.wait_for(Respond)
        await call.caller(voice=600, silence=600)  # goes on, then ends
        second = await call.engine.wait_for(Respond, 2)
        assert call.engine.all(Drop) == [Drop(0)]
        assert second.turn == 1
        assert second.spans[0][0] < INPUT_RATE * 200 // 1000  # the first words are in it
        assert second.spans[-1][1] > INPUT_RATE * 1460 // 1000  # and the last
        await eventually(lambda: call.bot_text(1) == "answer 1", "the answer")
        await call.engine.wait_for(Commit)
        assert call.engine.all(Commit) == [Commit(1, -1)]
        assert call.bot_text(0) == ""
        assert len(call.line.played) == GROUP_MS * 48  # one answer's sound, no more
        assert len(call.call.conversation.exchanges) == 1


async def test_speaking_over_the_bot_silences_it_and_every_record_is_cut_at_what_was_heard() -> None:
    texts = tuple(f"w{i} " for i in range(20))
    async with scene(echo(*texts)) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(3 * GROUP_MS + 60)  # three groups and a bit
        await eventually(lambda: call.bot_text(0) == "w0 w1 w2 ", "three groups")
        await call.caller(voice=900)
        assert await call.engine.wait_for(Commit) == Commit(0, 3)
        await eventually(lambda: bool(call.seen(page.Interrupted)), "the interruption")
        played = call.line.played_ms
        call.line.let_play(2000)
        await call.caller(voice=100)
        assert call.line.played_ms <= played + 20  # the chunk being written, no more
        assert call.bot_text(0) == "w0 w1 w2 "
        (exchange,) = call.call.conversation.exchanges
        assert (exchange.heard_groups, exchange.bot, exchange.interrupted) == (3, "w0 w1 w2 ", True)
        await call.caller(silence=600)  # what was said over the bot is a turn of its own
        second = await call.engine.wait_for(Respond, 2)
        assert second.turn == 1
        assert second.spans[0][0] >= INPUT_RATE * 900 // 1000
        await eventually(lambda: call.bot_text(1).startswith("w0"), "the next answer")


async def test_a_click_over_the_bot_is_nothing() -> None:
    async with scene(echo(*("la " for _ in range(10)))) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(2 * GROUP_MS)
        await call.caller(voice=20, silence=600)
        await call.hear(8 * GROUP_MS)
        assert await call.engine.wait_for(Commit) == Commit(0, -1)
        assert len(call.engine.all(Respond)) == 1


async def test_going_on_before_a_group_was_heard_takes_the_answer_back() -> None:
    def script(respond: Respond) -> list[EngineMessage]:
        return [Transcript(respond.turn, f"words {respond.turn}"), *spoken(respond.turn, "one ", "two ")]

    async with scene(script) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(60)  # begins to sound
        await call.caller(voice=400, silence=600)
        second = await call.engine.wait_for(Respond, 2)
        assert call.engine.all(Drop) == [Drop(0)]
        assert second.spans[0][0] < INPUT_RATE * 200 // 1000
        assert call.seen(page.Withdrawn) == [page.Withdrawn(0)]
        call.line.let_play(1000)
        await eventually(lambda: call.bot_text(1) == "one two ", "the second answer")
        assert call.bot_text(0) == ""


@pytest.mark.parametrize("code", ["context", "internal"])  # of the second kind: words without sound
async def test_answer_that_cannot_be_made_is_told_and_leaves_no_trace(
    code: Literal["context", "internal"],
) -> None:
    def script(respond: Respond) -> list[EngineMessage]:
        return [Error(code, "It is so.", turn=respond.turn), Done(respond.turn, "error")]

    async with scene(script) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        assert await call.engine.wait_for(Drop) == Drop(0)
        (notice,) = call.seen(page.Notice)
        assert "could not be made" in notice.text
        call.engine.script = echo("Now it works.")
        await call.caller(voice=600, silence=500)
        call.line.let_play(400)
        await eventually(lambda: call.bot_text(1) == "Now it works.", "the next answer")


async def test_silent_answer_frees_the_floor() -> None:
    async with scene(lambda respond: [Done(respond.turn, "silent")]) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        assert await call.engine.wait_for(Commit) == Commit(0, -1)
        await call.caller(voice=600, silence=500)
        assert (await call.engine.wait_for(Respond, 2)).turn == 1


async def test_late_transcript_is_shown_and_recorded() -> None:
    async with scene(echo("Yes.")) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        call.line.let_play(400)
        await call.engine.wait_for(Commit)
        await call.engine.say(Transcript(0, "is it open"), Transcript(7, "never was"))
        await eventually(lambda: bool(call.seen(page.UserText)), "the transcript")
        assert call.call.conversation.messages()[0] == {"role": "user", "content": "is it open"}


async def test_hang_up_frees_everything_in_the_middle_of_an_answer() -> None:
    async with scene(lambda respond: [Speech(respond.turn, bytes(40_000), 3, ["a", "b", "c"])]) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(100)
        await call.line.hang_up()
        end = await call.running
        assert end.reason == "hung-up"
        assert end.call_id == "test-call"
        await call.engine.wait_for(Close)


async def test_cancelling_run_ends_the_call() -> None:
    async with scene() as call:
        await call.ready()
        call.running.cancel()
        await asyncio.wait({call.running})
        await call.engine.wait_for(Close)
        call.running = asyncio.create_task(_over())


async def _over() -> CallEnd:
    return CallEnd("", "", 0.0, None)  # type: ignore[arg-type] # stands for a call already awaited


@pytest.mark.parametrize(
    ("settings", "speaks", "reason"),
    [
        (CallSettings(max_call_s=0.2), True, "max-duration"),
        (CallSettings(dead_peer_s=0.2), True, "dead-peer"),
        (CallSettings(connect_timeout_s=0.2), False, "no-peer"),
    ],
)
async def test_calls_that_nobody_ends_end(settings: CallSettings, speaks: bool, reason: str) -> None:
    async with scene() as call:
        await call.ready()
        if speaks:
            await call.caller(silence=40)
        # Not before: on a busy machine the call would be over before it has begun.
        call.call._settings = settings
        assert (await call.running).reason == reason


def test_a_caller_who_is_gone_is_noticed_within_five_seconds() -> None:
    assert CallSettings().dead_peer_s + WATCH_EVERY_S <= 5.0


async def test_interruption_from_elsewhere_silences_the_bot_too() -> None:
    """A page may send RTVI messages that interrupt; nothing may hang on the lost playback."""
    from pipecat.frames.frames import InterruptionFrame

    async with scene(echo(*("la " for _ in range(10)))) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(2 * GROUP_MS)
        await eventually(lambda: call.bot_text(0) == "la la ", "two groups")
        await call.line.input().push_frame(InterruptionFrame())
        assert await call.engine.wait_for(Commit) == Commit(0, 2)
        await call.caller(voice=600, silence=500)
        call.line.let_play(400)
        await eventually(lambda: call.bot_text(1).startswith("la"), "the next answer")


async def test_one_call_that_ends_leaves_another_alone() -> None:
    opened = Opened("scripted")
    async with scene(echo("One."), answer_open=opened) as one, scene(echo("Two.")) as two:
        for call in (one, two):
            await call.ready()
            call.line.let_play(400)
            await call.caller(voice=600, silence=500)
        await eventually(lambda: one.bot_text(0) == "One." and two.bot_text(0) == "Two.", "both answers")
        await one.line.hang_up()
        await one.running
        await two.caller(voice=600, silence=500)
        assert (await two.engine.wait_for(Respond, 2)).turn == 1


async def test_a_fault_of_ours_is_told_and_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Dialogue, "session_begun", broken)
    async with scene() as call:
        assert (await call.running).reason == "failed"
        assert call.seen(page.Notice)[-1].ended
