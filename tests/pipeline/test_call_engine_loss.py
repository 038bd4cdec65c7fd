"""A call whose engine dies, is late or refuses: told in words, and gone on with as if nothing had been."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from model_runtime.protocol import (
    GROUP_MS,
    INPUT_RATE,
    Error,
    HistoryEntry,
    Open,
    Respond,
)
from pipeline import page_messages as page
from pipeline.call import CallAgent, CallSettings
from tests.pipeline.scene import echo, scene
from tests.pipeline.scripted_engine import eventually

QUIET_MS = 20_000


async def test_engine_gone_is_told_and_the_call_goes_on_with_a_new_session() -> None:
    agent = CallAgent("Shop", greeting="Hello.")
    async with scene(echo("Hello.", " And more."), agent) as call:
        await call.ready()
        await call.caller(silence=100)
        await call.hear(GROUP_MS)
        await eventually(lambda: call.bot_text(0) == "Hello.", "the greeting's first words")
        await call.engine_dies()
        assert call.seen(page.Notice)[0].level == "error"
        assert call.seen(page.Interrupted) == [page.Interrupted(0)]
        await call.line.silence(600)
        await call.engine_returns()
        assert call.seen(page.Notice)[-1].level == "info"
        await call.caller(silence=100)
        greeting = await call.engine.wait_for(Respond, 2)
        assert "Hello." in greeting.text
        call.line.let_play(1000)
        await eventually(lambda: bool(call.seen(page.BotDone)), "the second greeting")
        await call.caller(voice=600, silence=500)
        question = await call.engine.wait_for(Respond, 3)
        assert question.spans[0][1] <= call.engine.samples  # on the new session's clock


async def test_what_was_said_while_the_engine_was_away_is_answered_when_it_is_back() -> None:
    async with scene(echo("Yes.")) as call:
        await call.ready()
        await call.caller(silence=QUIET_MS)
        await call.engine_dies()
        await call.line.voice(600)
        await call.line.silence(700)
        await call.engine_returns()
        await call.caller(silence=100)
        again = await call.engine.wait_for(Respond, 1)
        ((start, end),) = again.spans  # on the new session's clock, which has heard all that went before
        assert abs(start * 1000 / INPUT_RATE - QUIET_MS) <= 300
        assert 600 <= (end - start) * 1000 / INPUT_RATE <= 1300
        call.line.let_play(1000)
        await eventually(lambda: bool(call.seen(page.BotDone)), "the answer")
        (latency,) = call.seen(page.Latency)
        assert latency.ms < QUIET_MS  # from the end of what was said, not from the beginning of the call
        await call.caller(voice=600, silence=500)
        question = await call.engine.wait_for(Respond, 2)
        assert question.spans[0][0] >= end
        assert question.spans[0][1] <= call.engine.samples


async def test_all_that_was_said_until_an_engine_answers_is_one_question() -> None:
    async with scene(lambda respond: []) as call:  # an engine that never comes to an answer
        await call.ready()
        await call.caller(voice=600, silence=500)
        ((begin, _),) = (await call.engine.wait_for(Respond, 1)).spans
        await call.engine_dies()
        for pause in (300, 300, 800):  # the caller goes on, with pauses: hello? hello?
            await call.line.voice(400)
            await call.line.silence(pause)
        await call.engine_returns()
        await call.caller(silence=100)
        again = await call.engine.wait_for(Respond, 2)
        assert again.spans[0][0] == begin
        assert sum(end - start for start, end in again.spans) >= (600 + 3 * 400) * INPUT_RATE / 1000
        assert all(stop < start for (_, stop), (start, _) in pairwise(again.spans))


async def test_a_question_whose_answer_died_unheard_is_asked_again_with_the_whole_history() -> None:
    entries = [HistoryEntry(0, [1, 2], kept=True), HistoryEntry(1, [3, 4], turn=0)]
    async with scene(lambda respond: []) as call:  # an engine that never comes to an answer
        await call.ready()
        await call.engine.say(entries[0], HistoryEntry(1, [9]), entries[1])  # the last replaces the second
        await call.caller(voice=600, silence=500)
        first = await call.engine.wait_for(Respond, 1)
        await call.engine_dies()
        await call.engine_returns()
        assert call.engine.all(Open)[-1].history == 2
        await call.caller(silence=100)
        again = await call.engine.wait_for(Respond, 2)
        assert call.engine.all(HistoryEntry) == entries
        lengths = [sum(end - start for start, end in respond.spans) for respond in (first, again)]
        assert lengths[0] == lengths[1]
        assert call.seen(page.Interrupted) == []  # nothing was heard of it


async def test_engine_that_stays_away_ends_the_call_in_words() -> None:
    settings = CallSettings(reconnect_s=0.05, reconnect_every_s=0.01)
    async with scene(settings=settings) as call:
        await call.ready()
        await call.engine.crash()
        end = await call.running
        assert end.reason == "engine-gone"
        assert call.seen(page.Notice)[-1].ended


async def test_engine_that_starts_late_is_waited_for() -> None:
    async with scene() as call:
        await call.engine.crash()  # before the call got to it
        await eventually(lambda: bool(call.seen(page.Notice)), "the notice")
        assert call.seen(page.Notice)[0].level == "warning"
        await call.engine.start()
        await call.ready()
        assert len(call.seen(page.Notice)) == 1


@pytest.mark.parametrize(
    ("code", "words"), [("capacity", "All lines are busy"), ("voice", "voice"), ("version", "refused")]
)
async def test_refusal_ends_the_call_in_words(code: Any, words: str) -> None:
    async with scene(answer_open=Error(code, "the engine's words", fatal=True)) as call:
        end = await call.running
        assert end.reason == f"refused:{code}"
        (notice,) = call.seen(page.Notice)
        assert words in notice.text
        assert notice.ended


async def test_engine_that_keeps_dying_is_given_up() -> None:
    async with scene() as call:
        await call.ready()
        for session in range(1, 5):
            await eventually(lambda n=session: len(call.seen(page.CallInfo)) == n, "the session")  # type: ignore[misc] # n is bound
            await call.engine.say_raw(b"\xc1 nonsense")
        end = await call.running
        assert end.reason == "engine-gone"


async def test_fatal_error_is_a_lost_engine() -> None:
    async with scene() as call:
        await call.ready()
        await call.engine.say(Error("internal", "out of memory", fatal=True))
        await eventually(lambda: len(call.seen(page.CallInfo)) == 2, "a new session")
