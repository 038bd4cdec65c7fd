"""A caller who says nothing any more: spoken to, and in the end hung up on, if the agent is so."""

from __future__ import annotations

from dataclasses import replace

from model_runtime.protocol import GROUP_MS, Commit, Respond
from pipeline import page_messages as page
from pipeline.agent import SilencePolicy
from pipeline.dialogue import SILENCE_INSTRUCTION
from pipeline.turns import TurnSettings
from tests.pipeline.scene import MUTE, SETTINGS, Scene, echo, scene
from tests.pipeline.scripted_engine import eventually

SOON = replace(SETTINGS, turns=TurnSettings(silence_ms=2000))
PATIENT = replace(MUTE, silence=SilencePolicy("Hello?", times=1))
IMPATIENT = replace(MUTE, silence=SilencePolicy("Hello?", times=1, hang_up=True))
ASKED = SILENCE_INSTRUCTION.format(words="Hello?")


async def spoken_to(call: Scene) -> None:
    await call.ready()
    await call.caller(silence=2000)
    assert (await call.engine.wait_for(Respond)).text == ASKED
    await call.hear(2 * GROUP_MS)
    await call.engine.wait_for(Commit)


async def test_is_spoken_to_so_often_and_then_waited_for() -> None:
    async with scene(echo("Hel", "lo?"), PATIENT, SOON) as call:
        await spoken_to(call)
        await call.caller(silence=7000)
        assert len(call.engine.all(Respond)) == 1
        await call.caller(voice=600, silence=500)
        assert (await call.engine.wait_for(Respond, 2)).spans
        assert not call.running.done()


async def test_is_hung_up_on_in_words_where_the_agent_says_so() -> None:
    async with scene(echo("Hel", "lo?"), IMPATIENT, SOON) as call:
        await spoken_to(call)
        await call.caller(silence=1900)
        await call.line.silence(300)
        await eventually(call.running.done, "the end of the call")
        assert (await call.running).reason == "silent-caller"
        notice = call.seen(page.Notice)[-1]
        assert notice.ended
        assert notice.text == "Nothing was heard from you, so this call has ended."


async def test_nobody_is_hurried_by_an_agent_that_says_nothing_of_it() -> None:
    async with scene(echo("Hel", "lo?"), settings=SOON) as call:
        await call.ready()
        await call.caller(silence=9000)
        assert not call.engine.all(Respond)
