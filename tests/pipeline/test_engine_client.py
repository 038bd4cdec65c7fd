"""The client's end of the protocol, over a real WebSocket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, unix_serve

from model_runtime import protocol
from model_runtime.protocol import (
    Audio,
    ClientMessage,
    Close,
    Done,
    EngineMessage,
    Error,
    Open,
    Respond,
    Speech,
)
from pipeline import engine_client
from pipeline.engine_client import HELD_BYTES, EngineClient, EngineGone, EngineRefused
from tests.pipeline.scripted_engine import OPENED, ScriptedEngine


async def test_opens_sends_in_order_and_says_goodbye() -> None:
    async with ScriptedEngine() as engine:
        client = await EngineClient.open(engine.url, Open("c"))
        assert client.opened == OPENED
        async with client:
            client.send(Audio(bytes(640)))
            client.send(protocol.Respond(3))
            await engine.wait_for(protocol.Respond)
            assert engine.samples == 320
        await engine.wait_for(Close)
        with pytest.raises(EngineGone):
            client.send(Audio(b""))


async def test_hears_what_the_engine_says() -> None:
    async with ScriptedEngine() as engine, await EngineClient.open(engine.url, Open("c")) as client:
        said: list[EngineMessage] = [Speech(1, b"\0\0", 1, ["x"]), Done(1, "end", 1)]
        await engine.say(*said)
        events = client.events()
        assert [await anext(events), await anext(events)] == said
        await engine.crash()
        with pytest.raises(EngineGone):
            await anext(events)
        with pytest.raises(EngineGone):
            client.send(Audio(b""))


async def test_a_refusal_carries_its_code_and_words() -> None:
    async with ScriptedEngine(answer_open=Error("capacity", "full")) as engine:
        with pytest.raises(EngineRefused) as refusal:
            await EngineClient.open(engine.url, Open("c"))
        assert (refusal.value.code, refusal.value.message) == ("capacity", "full")


async def test_nobody_there() -> None:
    async with ScriptedEngine() as engine:
        await engine.crash()
        with pytest.raises(EngineGone):
            await EngineClient.open(engine.url, Open("c"))
    with pytest.raises(EngineGone):
        await EngineClient.open("http://nonsense", Open("c"))


async def test_somebody_who_never_answers() -> None:
    closed = asyncio.Event()

    async def mute(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closed.wait()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(EngineGone):
        await EngineClient.open(f"ws://127.0.0.1:{port}", Open("c"), within=0.05)
    closed.set()
    server.close()
    await server.wait_closed()


async def test_somebody_who_accepts_and_says_nothing(tmp_path: Path) -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.wait_closed()

    path = tmp_path / "engine"
    async with unix_serve(serve, str(path)):
        with pytest.raises(EngineGone):
            await EngineClient.open(f"unix:{path}", Open("c"), within=0.05)


@pytest.mark.parametrize("frame", ["text", b"\xc1"])
async def test_somebody_who_speaks_something_else(frame: str | bytes) -> None:
    async with ScriptedEngine() as engine, await EngineClient.open(engine.url, Open("c")) as client:
        await engine.say_raw(frame)
        with pytest.raises(EngineGone):
            await anext(client.events())


async def test_an_odd_first_answer() -> None:
    async with ScriptedEngine(answer_open=Done(0, "end")) as engine:
        with pytest.raises(EngineGone):
            await EngineClient.open(engine.url, Open("c"))


async def test_an_engine_that_reads_nothing_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_client, "OUTBOX_MESSAGES", 3)
    async with ScriptedEngine() as engine, await EngineClient.open(engine.url, Open("c")) as client:
        for _ in range(3):  # without letting the sender run
            client.send(Audio(bytes(HELD_BYTES)))
        with pytest.raises(EngineGone, match="reads nothing"):
            client.send(Audio(bytes(HELD_BYTES)))
        with pytest.raises(EngineGone):
            await anext(client.events())


async def test_audio_goes_a_tenth_of_a_second_at_a_time_and_before_what_is_asked_after_it(
    tmp_path: Path,
) -> None:
    told: asyncio.Queue[ClientMessage] = asyncio.Queue()

    async def serve(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(protocol.encode(OPENED))
        async for frame in connection:
            assert isinstance(frame, bytes)
            told.put_nowait(protocol.decode_client(frame))

    path, frames = tmp_path / "engine", [bytes([number]) * 640 for number in range(7)]
    async with (
        unix_serve(serve, str(path)),
        await EngineClient.open(f"unix:{path}", Open("c")) as client,
    ):
        for frame in frames:
            client.send(Audio(frame))
        client.send(Respond(1))
        said = [await told.get() for _ in range(3)]
    assert said == [Audio(b"".join(frames[:5])), Audio(b"".join(frames[5:])), Respond(1)]


async def test_a_local_socket(tmp_path: Path) -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(protocol.encode(OPENED))
        await connection.wait_closed()

    path = tmp_path / "engine"
    async with (
        unix_serve(serve, str(path)),
        await EngineClient.open(f"unix:{path}", Open("c")) as client,
    ):
        assert client.opened.checkpoint == "scripted"
