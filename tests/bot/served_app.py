"""The application for tests: over HTTP; what its engine and its calls do, the test decides."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

from bot.agent_folder import AgentFolder
from bot.agents import Agent
from bot.app import create_app
from bot.engine_process import Engine, EngineStatus
from bot.ingress.webrtc import LiveCall, MakeCall, Recall
from bot.reception import Reception
from bot.settings import Settings
from bot.voices.shared import SharedVoices
from model_runtime.protocol import HistoryEntry, Opened
from pipeline.call import CallEnd
from pipeline.conversation import Conversation
from pipeline.memory import Memory, Remembered

ABOUT = Opened("nano", label="demo model", voice="slt", transcribes=True, examples=["When are you open?"])
AGENT = Agent(name="Bluebird", greeting="Hello")
ENTRY = HistoryEntry(0, [1, 2])


ALONE = AgentFolder({"bluebird": AGENT})


class GivenReception(Reception):
    """A reception whose calls the test makes."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        make_call: MakeCall,
        recall: Recall,
        agents: AgentFolder = ALONE,
    ) -> None:
        memory = Memory("unix:///nowhere")
        super().__init__(settings, agents, engine, memory, SharedVoices(memory.voices, settings.voices_dir))
        self._make_call = make_call
        self._recall = recall

    def browser_call(self, *of_call: Any) -> LiveCall:
        return self._make_call(*of_call)

    async def recall(self, name: str) -> Remembered | None:
        return await self._recall(name)


class GivenEngine(Engine):
    """An engine whose state the test decides."""

    def __init__(self, status: EngineStatus) -> None:
        super().__init__("ws://nowhere")
        self.status = status

    async def run(self) -> None:
        await asyncio.Event().wait()


@dataclass
class Line:
    """A call without sound: lasts until it is ended."""

    connection: SmallWebRTCConnection
    over: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    agent: str = ""
    name: str = ""
    remembered: Remembered | None = None
    conversation: Conversation = field(default_factory=Conversation)

    async def run(self) -> CallEnd:
        await self.over.wait()
        return CallEnd("id", self.reason, 0.0, self.conversation, [ENTRY])

    async def end(self, reason: str = "ended") -> None:
        self.reason = reason
        self.over.set()


@dataclass
class Parley:
    """The application under test, a client for it, and the calls it has made."""

    http: httpx.AsyncClient
    engine: GivenEngine
    lines: list[Line]
    asked: list[str]

    async def post(self, body: Any, **headers: str) -> httpx.Response:
        return await self.http.post("/api/offer", json=body, headers=headers)


@asynccontextmanager
async def parley(
    status: EngineStatus | None = None,
    known: Remembered | None = None,
    agents: AgentFolder = ALONE,
    **changes: Any,
) -> AsyncIterator[Parley]:
    """``known``: what is remembered of every conversation that this process does not know."""
    engine = GivenEngine(status or EngineStatus("ready", about=ABOUT))
    lines: list[Line] = []
    asked: list[str] = []

    def make_call(
        agent: str, connection: SmallWebRTCConnection, _: str, name: str, remembered: Remembered | None
    ) -> Line:
        lines.append(Line(connection, agent=agent, name=name, remembered=remembered))
        return lines[-1]

    async def recall(name: str) -> Remembered | None:
        asked.append(name)
        return known

    settings = Settings.model_construct(**changes)
    async with GivenReception(settings, engine, make_call, recall, agents) as reception:
        app: FastAPI = create_app(settings, reception, engine)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
        ):
            yield Parley(http, engine, lines, asked)


async def nothing_known(name: str) -> Remembered | None:
    return None


async def settle(fact: Callable[[], bool]) -> None:
    for _ in range(500):
        if fact():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


def code(response: httpx.Response) -> str:
    """The error's code; every refusal has a message, and shows nothing of our insides."""
    error = response.json()["error"]
    assert error["message"].endswith(".") or response.status_code in (404, 405)
    assert not re.search(r"Traceback|Error\(|/bot/|aiortc|pydantic", response.text)
    return str(error["code"])
