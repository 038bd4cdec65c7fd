"""What a caller enters on the keypad reaches the model as text, and is answered and recorded like speech."""

from __future__ import annotations

from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import InputDTMFFrame

from model_runtime.protocol import GROUP_MS, Commit, Respond
from pipeline import page_messages as page
from pipeline.dialogue import KEYS_INSTRUCTION
from tests.pipeline.scene import Scene, echo, scene


async def press(call: Scene, keys: str) -> None:
    for key in keys:
        await call.line.input().push_frame(InputDTMFFrame(KeypadEntry(key)))


async def test_keys_are_answered_and_recorded() -> None:
    async with scene(echo("Thank ", "you.")) as call:
        await call.ready()
        await press(call, "15#")
        await call.caller(silence=100)
        respond = await call.engine.wait_for(Respond)
        assert respond == Respond(0, text=KEYS_INSTRUCTION.format(keys="1 5 #"))
        await call.hear(2 * GROUP_MS)
        await call.engine.wait_for(Commit)
        assert call.seen(page.UserText) == [page.UserText(0, "[keys 15#]")]
        assert call.call.conversation.messages() == [
            {"role": "user", "content": "[keys 15#]"},
            {"role": "assistant", "content": "Thank you."},
        ]
        await call.caller(silence=4000)
        assert len(call.engine.all(Respond)) == 1


async def test_an_entry_without_hash_waits_for_a_pause() -> None:
    async with scene(echo("Thank ", "you.")) as call:
        await call.ready()
        await press(call, "4")
        await call.caller(silence=2900)
        assert not call.engine.all(Respond)
        await call.caller(silence=200)
        assert (await call.engine.wait_for(Respond)).text == KEYS_INSTRUCTION.format(keys="4")
