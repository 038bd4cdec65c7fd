"""Another voice in the middle of a call: by the caller's choice, over a crash, and where there is none."""

from __future__ import annotations

import asyncio
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
VOICES: Opened = with_fields(OPENED, voice="rms", voices=["rms", "slt"], descriptions={"slt": "A woman."})


async def wish(call: Scene, data: object) -> None:
    await call.line.input().push_frame(RTVIClientMessageFrame("1", "set-voice", data))
    await call.caller(silence=100)


async def test_the_caller_is_offered_voices_and_gets_the_one_they_choose() -> None:
    async with scene(agent=CHOOSES, answer_open=VOICES) as call:
        await call.ready()
        assert call.seen(page.CallInfo)[0].voices == ["rms", "slt"]
        assert call.seen(page.CallInfo)[0].descriptions == {"rms": "", "slt": "A woman."}
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


async def emmas(name: str) -> bytes:
    """``Timbres``: one voice."""
    return b"the file" if name == "emma" else b""


async def test_a_voice_that_the_engine_does_not_have_is_brought_along() -> None:
    record = CallRecord()
    record.speak_as("emma")
    refusal = Error("voice", "No 'emma'.", fatal=True)
    async with scene(agent=CHOOSES, answer_open=refusal, record=record, timbres=emmas) as call:
        call.engine.accepts_timbre = VOICES
        await call.ready()
        bare, brought = call.engine.all(Open)
        assert (bare.voice, bare.timbre) == ("emma", b"")
        assert (brought.voice, brought.timbre) == ("emma", b"the file")
        assert not call.seen(page.Notice)


async def test_so_is_an_agents_voice_and_none_ends_the_call_in_words() -> None:
    agent = replace(MUTE, voice="emma")
    refusal = Error("voice", "No 'emma'.", fatal=True)
    async with scene(agent=agent, answer_open=refusal, timbres=emmas) as call:
        call.engine.accepts_timbre = VOICES
        await call.ready()
    async with scene(agent=replace(MUTE, voice="otto"), answer_open=refusal, timbres=emmas) as call:
        await eventually(lambda: bool(call.seen(page.Notice)), "the notice")
        assert "voice is not available" in call.seen(page.Notice)[0].text


async def test_voices_to_be_brought_are_offered_and_the_caller_gets_them() -> None:
    agent = replace(CHOOSES, more_voices=("emma", "slt"))
    async with scene(agent=agent, answer_open=VOICES, timbres=emmas) as call:
        await call.ready()
        assert call.seen(page.CallInfo)[0].voices == ["emma", "rms", "slt"]
        await wish(call, {"voice": "emma"})
        await wish(call, {"voice": "slt"})
        await call.engine.wait_for(SetVoice, 2)
        assert call.engine.all(SetVoice) == [SetVoice("emma", b"the file"), SetVoice("slt")]


async def test_while_a_voice_is_looked_up_the_call_goes_on_and_choices_keep_their_order() -> None:
    looked_up = asyncio.Event()

    async def slow(name: str) -> bytes:
        await looked_up.wait()
        return b"the file"

    agent = replace(CHOOSES, more_voices=("emma",))
    async with scene(agent=agent, answer_open=VOICES, timbres=slow) as call:
        await call.ready()
        await wish(call, {"voice": "emma"})
        await wish(call, {"voice": "rms"})
        await call.caller(voice=200, silence=100)  # the engine hears it
        assert not call.engine.all(SetVoice)
        looked_up.set()
        await call.engine.wait_for(SetVoice, 2)
        assert [told.voice for told in call.engine.all(SetVoice)] == ["emma", "rms"]


class Liked:
    """``Favourite``: what one caller likes."""

    def __init__(self, voice: str) -> None:
        self.voice = voice
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Event()

    async def recall(self) -> str:
        self.asked.set()
        await self.may_answer.wait()
        return self.voice

    async def keep(self, voice: str) -> None:
        self.voice = voice


async def test_a_voice_chosen_in_one_call_is_that_of_the_callers_next() -> None:
    liked = Liked("")
    async with scene(agent=CHOOSES, answer_open=VOICES, favourite=liked) as call:
        await call.ready()
        assert (await call.engine.wait_for(Open)).voice == "rms"
        await wish(call, {"voice": "slt"})
        await call.engine.wait_for(SetVoice)
    assert liked.voice == "slt"
    async with scene(agent=CHOOSES, answer_open=VOICES, favourite=liked) as call:
        await call.ready()
        assert (await call.engine.wait_for(Open)).voice == "slt"
    assert liked.voice == "slt"


async def test_who_chose_nothing_is_remembered_by_nothing() -> None:
    class Unasked(Liked):
        async def keep(self, voice: str) -> None:
            raise AssertionError("there is nothing to keep")

    async with scene(agent=CHOOSES, answer_open=VOICES, favourite=Unasked("")) as call:
        await call.ready()


async def test_a_favourite_that_is_gone_is_forgotten_and_the_agents_voice_speaks() -> None:
    liked = Liked("gone")
    async with scene(
        agent=CHOOSES, answer_open=Error("voice", "No 'gone'.", fatal=True), favourite=liked
    ) as call:
        await call.engine.wait_for(Open)
        call.engine.answer_open = VOICES
        await call.ready()
        assert call.engine.all(Open)[-1].voice == "rms"
    assert liked.voice == ""


async def test_a_call_that_goes_on_keeps_its_own_voice() -> None:
    record = CallRecord()
    record.speak_as("rms")
    async with scene(agent=CHOOSES, answer_open=VOICES, favourite=Liked("slt"), record=record) as call:
        await call.ready()
        assert (await call.engine.wait_for(Open)).voice == "rms"


async def test_a_call_may_end_while_it_is_still_looked_up() -> None:
    liked = Liked("slt")
    liked.may_answer.clear()
    async with scene(agent=CHOOSES, answer_open=VOICES, favourite=liked) as call:
        await asyncio.wait_for(liked.asked.wait(), 10)
        assert not call.engine.all(Open)
