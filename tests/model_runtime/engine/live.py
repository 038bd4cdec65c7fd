"""An engine in this process that listens, and a client that speaks its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import numpy as np
import uvicorn
from websockets.asyncio.client import ClientConnection, connect, unix_connect

from model_runtime import protocol
from model_runtime.engine.asgi import application
from model_runtime.engine.reception import Reception
from model_runtime.engine.server import EngineServer
from model_runtime.engine.settings import Settings
from model_runtime.engine.worker import Worker
from model_runtime.protocol import Audio, EngineMessage, Open, Opened, Respond
from tests.model_runtime.engine.rig import ScriptedKit, model, settings
from tests.ports import free_port

M = TypeVar("M", bound=EngineMessage)
PATIENCE = 60.0  # s; the machine may be busy, and no test waits for this


class Running:
    """An engine in this process, listening."""

    def __init__(self, server: EngineServer | Reception, worker: Worker, kit: ScriptedKit, url: str) -> None:
        self.server, self.worker, self.kit, self.url = server, worker, kit, url

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A connection on which nothing has been said."""
        if self.url.startswith("ws+unix://"):
            connecting = unix_connect(self.url.removeprefix("ws+unix://"), max_size=None, compression=None)
        else:
            connecting = connect(self.url, max_size=None, compression=None, proxy=None)
        async with connecting as socket:
            yield Client(socket)

    @asynccontextmanager
    async def session(self, name: str = "call", **opening: Any) -> AsyncIterator[Client]:
        """An open session."""
        async with self.client() as client:
            await client.send(Open(name, **opening))
            await client.read(Opened)
            yield client

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something that is about to be so."""
        async with asyncio.timeout(PATIENCE):
            while not true():  # noqa: ASYNC110  it is about the other thread, which sets no event
                await asyncio.sleep(0.005)


class Client:
    """One WebSocket, speaking the protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.said: list[EngineMessage] = []

    async def send(self, *messages: protocol.ClientMessage) -> None:
        for message in messages:
            await self.socket.send(protocol.encode(message))

    async def read(self, kind: type[M]) -> M:
        """The next message of that kind; what comes before it is kept in ``said``."""
        async with asyncio.timeout(PATIENCE):
            while True:
                message = protocol.decode_engine(await self.socket.recv(decode=False))
                self.said.append(message)
                if isinstance(message, kind):
                    return message

    async def closed(self) -> int | None:
        """Wait for the engine to close; returns the close code."""
        async with asyncio.timeout(PATIENCE):
            await self.socket.wait_closed()
        return self.socket.close_code

    async def talk(self, turn: int, seconds: float = 1.0, seed: int = 0) -> None:
        """Say something of that length and have it answered; ``turn`` 0 is the first second of the call."""
        samples = np.random.default_rng(seed).integers(-8000, 8000, int(seconds * 16_000), dtype=np.int16)
        await self.send(Audio(samples.tobytes()), Respond(turn, spans=[(0, len(samples))]))


@asynccontextmanager
async def running(**changes: Any) -> AsyncIterator[Running]:
    """The engine's own server."""
    chosen = settings(port=0, **changes)
    async with working(chosen) as (worker, kit):
        server = EngineServer(chosen, worker)
        async with server.listening() as url:
            yield Running(server, worker, kit, url)


@asynccontextmanager
async def behind_uvicorn(**changes: Any) -> AsyncIterator[Running]:
    """The engine's application, run by another's server."""
    chosen = settings(**changes)
    async with working(chosen) as (worker, kit):
        reception, port = Reception(chosen, worker), free_port()
        config = uvicorn.Config(application(reception), port=port, log_level="warning", lifespan="off")
        server = _Uvicorn(config)
        serving = asyncio.create_task(server.serve())
        try:
            async with asyncio.timeout(PATIENCE):
                while not server.started:
                    assert not serving.done()
                    await asyncio.sleep(0.01)
            yield Running(reception, worker, kit, f"ws://127.0.0.1:{port}")
        finally:
            server.should_exit = True
            await serving


class _Uvicorn(uvicorn.Server):
    """One that leaves signals to the tests."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def working(chosen: Settings) -> AsyncIterator[tuple[Worker, ScriptedKit]]:
    """The model's thread, with a tiny model."""
    kits: list[ScriptedKit] = []

    def load() -> ScriptedKit:
        kits.append(ScriptedKit(model(), chosen))
        return kits[0]

    worker = Worker(load)
    worker.start()
    await asyncio.wrap_future(worker.ready)
    try:
        yield worker, kits[0]
    finally:
        worker.stop()
        await asyncio.wrap_future(worker.ended)
