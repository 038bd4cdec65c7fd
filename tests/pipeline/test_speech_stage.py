"""The processor as pipecat drives it."""

from __future__ import annotations

import pytest
from pipecat.frames.frames import InputAudioRawFrame, LLMServiceMetadataFrame, TextFrame
from pipecat.tests.utils import run_test

from pipeline.agent import CallAgent, CallSettings
from pipeline.fader import Fader
from pipeline.record import CallRecord
from pipeline.speech_stage import SpeechStage
from tests.pipeline.scripted_engine import ScriptedEngine, eventually


def stage(url: str) -> SpeechStage:
    async def nobody(_: str) -> None:
        raise AssertionError("nobody should hang up")

    return SpeechStage(
        engine_url=url,
        call_id="c",
        agent=CallAgent("A"),
        settings=CallSettings(),
        record=CallRecord(),
        fader=Fader(),
        hang_up=nobody,
    )


async def test_swallows_the_callers_audio_and_passes_the_rest_until_the_end() -> None:
    async with ScriptedEngine() as engine:
        frames = [InputAudioRawFrame(bytes(640), 16_000, 1), TextFrame("x")]
        down, up = await run_test(stage(engine.url), frames_to_send=frames)
        await eventually(lambda: engine.open_now == 0, "the end of the session")
    kinds = {type(frame) for frame in down}
    assert TextFrame in kinds
    assert InputAudioRawFrame not in kinds
    assert any(isinstance(frame, LLMServiceMetadataFrame) and frame.is_realtime_service for frame in up)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 2)])
async def test_audio_of_another_kind_is_refused_not_misheard(rate: int, channels: int) -> None:
    async with ScriptedEngine() as engine:
        made = stage(engine.url)
        errors: list[str] = []

        @made.event_handler("on_error")  # type: ignore[untyped-decorator] # pipecat's
        async def on_error(_: object, error: object) -> None:
            errors.append(str(error))

        await run_test(made, frames_to_send=[InputAudioRawFrame(bytes(640), rate, channels)])
        assert engine.samples == 0
    assert any("not 16 kHz mono" in error for error in errors)
