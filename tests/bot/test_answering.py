"""What an agent's file says of waiting, in a call that is made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bot.agents import Agent
from bot.answering import Answering
from bot.engine_process import Engine
from bot.settings import Settings
from bot.tools.toolbox import Toolbox
from bot.voices.shared import SharedVoices
from model_runtime.protocol import Done, Drop, EngineMessage, Respond, ToolCall
from pipeline.memory import Memory
from pipeline.record import CallRecord
from pipeline.tools.tool import Line, Tool
from tests.pipeline.scripted_engine import ScriptedEngine, eventually, spoken
from tests.pipeline.virtual_transport import VirtualTransport


def script(respond: Respond) -> Sequence[EngineMessage]:
    if not respond.spans:
        return spoken(respond.turn, "Well.")
    call = ToolCall(respond.turn, "look")
    return [*spoken(respond.turn, "Let me see.")[:-1], call, Done(respond.turn, "end", 1)]


@pytest.mark.parametrize(
    ("fields", "silence", "said"),
    [
        ({"language": "de"}, 800, "Einen Moment, bitte."),
        ({"waiting": {"say": "Hold on.", "after_s": 3}}, 3100, "Hold on."),
        ({"waiting": {"after_s": 0}}, 9000, ""),
    ],
)
async def test_who_waits_for_a_tool_hears_what_the_file_says(
    fields: dict[str, Any], silence: int, said: str
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def look(_: dict[str, Any], __: Line) -> str:
        begun.set()
        await go.wait()
        return "sunny"

    async with ScriptedEngine(script) as engine:
        agent = Agent.model_validate({"name": "A"} | fields)
        memory = Memory("unix:///nowhere")
        voices = SharedVoices(memory.voices, Path("/nowhere"))
        settings, box = Settings.model_construct(), Toolbox({"look": Tool({}, look)})
        here = Answering(settings, agent, Engine(engine.url), memory, voices, box)
        line = VirtualTransport()
        line.let_play(60_000)
        call = here.call(line, line.fader, "test-call", CallRecord(), page=True)
        running = asyncio.create_task(call.run())
        try:
            await eventually(lambda: "'type': 'call'" in str(line.messages), "the session")
            await line.voice(600)
            await line.silence(700)
            await asyncio.wait_for(begun.wait(), 10)
            before = engine.samples
            await line.silence(silence)
            await engine.wait_until(lambda: engine.samples - before >= 16 * (silence - 200), "the silence")
            if said:
                await engine.wait_for(Drop)
            words = f"A tool is still at work, and the caller waits. Say these words: {said}"
            assert [one.text for one in engine.all(Respond)][1:] == ([words] if said else [])
        finally:
            go.set()
            await call.end()
            await running
