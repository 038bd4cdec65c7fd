"""Another voice in the middle of a call: by the caller's choice, over a crash, and where there is none."""

from __future__ import annotations

from dataclasses import replace

from msgspec.structs import replace as with_fields
from pipecat.processors.frameworks.rtvi.frames import RTVIClientMessageFrame

from model_runtime.protocol import Error, Open, Opened, SetVoice
from pipeline import page_messages as page
from pipeline.memory import Remembered
from pipeline.record import CallRecord
from tests.pipeline.scene import MUTE, Scene, scene
from tests.pipeline.scripted_engine import OPENED, eventually

CHOOSES = replace(MUTE, voice="rms", voice_choice=True)
VOICES: Opened = with_fields(OPENED, voice="rms", voices=["rms", "slt"])


async def wish(call: Scene, data: object) -> None:
    await call.line.input().push_frame(RTVIClientMessageFrame("1", "set-voice", data))
    await call.caller(silence=100)


async def test_the_caller_is_offered_voices_and_gets_the_one_they_choose() -> None:
    async with scene(agent=CHOOSES, answer_open=VOICES) as call:
        await call.ready()
        assert call.seen(page.CallInfo)[0].voices == ["rms", "slt"]
        await wish(call, {"voice": "slt"})
        assert await call.engine.wait_for(SetVoice) == SetVoice("slt")
        assert call.seen(page.Voice) == [page.Voice("slt")]


async def test_what_was_not_offered_is_not_done() -> None:
    async with scene(agent=CHOOSES, answer_open=VOICES) as call:
        await call.ready()
        for data in ({"voice": "nobody"}, {"voice": None}, {}, "slt", None):
            await wish(call, data)
        assert not call.engine.all(SetVoice)
    async with scene(answer_open=VOICES) as call:  # an agent that offers no choice
        await call.ready()
        assert call.seen(page.CallInfo)[0].voices == []
        await wish(call, {"voice": "slt"})
        assert not call.engine.all(SetVoice)


async def test_the_choice_outlives_the_engine_and_the_call() -> None:
    record = CallRecord()
    async with scene(agent=CHOOSES, answer_open=VOICES, record=record) as call:
        await call.ready()
        await wish(call, {"voice": "slt"})
        await call.engine_dies()
        await call.engine_returns()
        assert [opening.voice for opening in call.engine.all(Open)] == ["rms", "slt"]
    again = CallRecord(Remembered("c", record.facts, [], record.conversation))
    async with scene(agent=CHOOSES, answer_open=VOICES, record=again) as call:
        await call.ready()
        assert (await call.engine.wait_for(Open)).voice == "slt"


async def test_a_voice_the_engine_has_not_is_given_up_in_words() -> None:
    async with scene(agent=CHOOSES, answer_open=VOICES) as call:
        await call.ready()
        await wish(call, {"voice": "slt"})
        await call.engine.say(Error("voice", "There is no voice 'slt'."))
        await eventually(lambda: bool(call.seen(page.Notice)), "the notice")
        assert call.seen(page.Notice)[0].text == "There is no voice 'slt'."
        assert call.seen(page.Voice)[-1] == page.Voice("rms")


async def test_a_remembered_voice_that_is_gone_does_not_end_the_call() -> None:
    record = CallRecord()
    record.speak_as("gone")
    async with scene(
        agent=CHOOSES, answer_open=Error("voice", "No 'gone'.", fatal=True), record=record
    ) as call:
        first = await call.engine.wait_for(Open)
        call.engine.answer_open = VOICES
        await call.ready()
        assert first.voice == "gone"
        assert call.engine.all(Open)[-1].voice == "rms"
