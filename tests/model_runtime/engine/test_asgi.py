"""The engine behind another's server (uvicorn): its clients see no difference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.request import urlopen

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from model_runtime import protocol
from model_runtime.engine.asgi import application
from model_runtime.engine.reception import Reception
from model_runtime.engine.worker import Worker
from model_runtime.protocol import Close, Commit, Done, Error, Open, Respond, Speech
from tests.model_runtime.engine.live import PATIENCE, Running
from tests.model_runtime.engine.rig import ScriptedKit, model, settings
from tests.ports import free_port


class Uvicorn(uvicorn.Server):
    """One that leaves signals to the tests."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running(**changes: Any) -> AsyncIterator[Running]:
    chosen = settings(**changes)
    kit = ScriptedKit(model(), chosen)
    worker = Worker(lambda: kit)
    worker.start()
    await asyncio.wrap_future(worker.ready)
    reception = Reception(chosen, worker)
    port = free_port()
    server = Uvicorn(uvicorn.Config(application(reception), port=port, log_level="warning", lifespan="off"))
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
        worker.stop()
        await asyncio.wrap_future(worker.ended)


async def test_a_call_from_the_greeting_to_the_end() -> None:
    async with running() as engine, engine.session() as client:
        kit = engine.kit
        kit.script = [*kit.spoken(5), kit.tokens.tts_end, kit.tokens.eot]
        await client.send(Respond(0, text="Greet the caller."))
        done = await client.read(Done)
        assert (done.reason, done.groups) == ("end", 5)
        assert sum(len(m.pcm) for m in client.said if isinstance(m, Speech)) == 5 * 2 * protocol.GROUP_SAMPLES
        await client.send(Commit(0), Close())
        assert await client.closed() == 1000
        await engine.until(lambda: engine.server.sessions == 0)


async def test_one_call_too_many_is_refused_at_once_and_let_in_later() -> None:
    async with running(max_sessions=2) as engine, engine.session(), engine.client() as late:
        async with engine.session():
            await late.send(Open("late"))
            error = await late.read(Error)
            assert (error.code, error.fatal) == ("capacity", True)
            assert await late.closed() == 1000
        await engine.until(lambda: engine.server.sessions == 1)
        async with engine.session():
            assert engine.server.sessions == 2


@pytest.mark.parametrize("frame", [b"\xc1", "hello", bytes(protocol.MAX_FRAME_BYTES + 1)])
async def test_garbage_ends_its_own_session_with_a_sentence(frame: bytes | str) -> None:
    async with running() as engine, engine.session("good") as good:
        async with engine.session("bad") as bad:
            await bad.socket.send(frame)
            error = await bad.read(Error)
            assert (error.code, error.fatal) == ("bad_request", True)
            assert await bad.closed() == 1000
        await engine.until(lambda: engine.server.sessions == 1)
        await good.talk(0)
        await good.read(Speech)


async def test_a_client_that_vanishes_in_mid_answer_leaves_nothing_behind() -> None:
    async with running(slot_masking=True) as engine:
        async with engine.session() as client:
            await client.talk(0)
            await client.read(Speech)
            client.socket.transport.abort()
        await engine.until(lambda: engine.server.sessions == 0)
        assert engine.worker._sessions == {}


async def test_a_web_page_is_not_let_in() -> None:
    async with running() as engine:
        with pytest.raises(InvalidStatus) as refused:
            await connect(engine.url, origin="http://example.com", proxy=None)  # type: ignore[arg-type]  # as a browser
        assert refused.value.response.status_code == 403


async def test_a_supervisor_can_ask_how_full_it_is() -> None:
    async with running(max_sessions=3) as engine, engine.session():
        url = engine.url.replace("ws://", "http://") + "/healthz"
        assert await asyncio.to_thread(lambda: urlopen(url).read()) == b"1/3 sessions\n"
