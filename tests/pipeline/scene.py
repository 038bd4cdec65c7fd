"""A running call for tests: a scripted engine at one end, a virtual line at the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from model_runtime.protocol import EngineMessage
from pipeline import page_messages as page
from pipeline.call import Call, CallAgent, CallEnd, CallSettings
from pipeline.chosen_voice import Favourite, Timbres, no_timbre
from pipeline.engine_client import HELD_BYTES
from pipeline.record import CallRecord
from pipeline.tools.line import Transfer
from tests.pipeline.scripted_engine import OPENED, Script, ScriptedEngine, eventually, spoken
from tests.pipeline.virtual_transport import VirtualTransport

SETTINGS = CallSettings(reconnect_s=5.0, reconnect_every_s=0.01)
MUTE = CallAgent("Mute")  # does not greet
P = TypeVar("P", bound=page.PageMessage)


class Scene:
    """A running call and everything around it."""

    def __init__(
        self,
        engine: ScriptedEngine,
        agent: CallAgent,
        settings: CallSettings,
        record: CallRecord | None,
        transfer: Transfer | None,
        timbres: Timbres,
        favourite: Favourite | None,
    ) -> None:
        self.engine = engine
        self.line = VirtualTransport()
        self.shown: list[page.PageMessage] = []
        self.call = Call(
            self.line,
            self.line.fader,
            engine.url,
            agent,
            settings,
            on_event=self.shown.append,
            call_id="test-call",
            record=record,
            transfer=transfer,
            timbres=timbres,
            favourite=favourite,
        )
        self.running: asyncio.Task[CallEnd] = asyncio.create_task(self.call.run())

    def seen(self, kind: type[P]) -> list[P]:
        return [message for message in self.shown if isinstance(message, kind)]

    def bot_text(self, turn: int) -> str:
        return "".join(message.text for message in self.seen(page.BotText) if message.turn == turn)

    async def ready(self) -> None:
        await eventually(lambda: bool(self.seen(page.CallInfo)), "the session")

    async def caller(self, *, voice: int = 0, silence: int = 0) -> None:
        """Speak, then be silent (ms), until the engine has heard it all but what its client holds."""
        before, at_engine = self.line.said, self.engine.samples
        await self.line.voice(voice)
        await self.line.silence(silence)
        sent = at_engine + self.line.said - before - HELD_BYTES // 2
        await self.engine.wait_until(lambda: self.engine.samples > sent, "the caller's audio")

    async def engine_dies(self) -> None:
        """... and the call has noticed."""
        before = len(self.seen(page.Notice))
        await self.engine.crash()
        await eventually(lambda: len(self.seen(page.Notice)) > before, "the notice")

    async def engine_returns(self) -> None:
        """... and has a session again, after all that the caller said meanwhile."""
        recent = self.call._stage.dialogue.ear.recent
        await eventually(lambda: recent.end >= self.line.said, "the caller's audio")
        before = len(self.seen(page.CallInfo))
        await self.engine.start()
        await eventually(lambda: len(self.seen(page.CallInfo)) > before, "a new session")

    async def hear(self, ms: int) -> None:
        """Let the sink take ``ms`` more and wait until it has."""
        target = self.line.played_ms + ms
        self.line.let_play(ms)
        await eventually(lambda: self.line.played_ms >= target, f"{ms} ms more of sound")


@asynccontextmanager
async def scene(
    script: Script | None = None,
    agent: CallAgent = MUTE,
    settings: CallSettings = SETTINGS,
    answer_open: EngineMessage = OPENED,
    record: CallRecord | None = None,
    transfer: Transfer | None = None,
    timbres: Timbres = no_timbre,
    favourite: Favourite | None = None,
) -> AsyncIterator[Scene]:
    tasks_before = asyncio.all_tasks()
    async with ScriptedEngine(script, answer_open) as engine:
        made = Scene(engine, agent, settings, record, transfer, timbres, favourite)
        try:
            yield made
        finally:
            await made.call.end("test-over")
            await made.running
        await eventually(lambda: engine.open_now == 0, "the end of the session")
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= tasks_before  # nothing of the call outlives it


def echo(*texts: str) -> Script:
    """Answer everything with the same words."""
    return lambda respond: spoken(respond.turn, *texts)
