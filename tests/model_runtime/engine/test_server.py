"""The engine over a real WebSocket: who is let in, what ends a session, and that nobody disturbs anybody."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_sync

from model_runtime import protocol
from model_runtime.engine.ops import Decode, Hear, Op, Vocode
from model_runtime.protocol import (
    Cancel,
    Commit,
    Done,
    Error,
    Open,
    Respond,
    Sampling,
    SetVoice,
    Speech,
)
from tests.model_runtime.engine.live import PATIENCE, Running, running

# --- who is let in ---


async def test_another_version_is_refused() -> None:
    async with running() as engine, engine.client() as client:
        await client.send(Open("old", version=99))
        error = await client.read(Error)
        assert (error.code, error.fatal) == ("version", True)
        assert "99" in error.message
        await client.closed()


async def test_an_unknown_voice_is_refused_and_frees_its_place() -> None:
    async with running(max_sessions=1) as engine:
        async with engine.client() as client:
            await client.send(Open("call", voice="nobody"))
            error = await client.read(Error)
            assert (error.code, error.fatal) == ("voice", True)
            assert "anna, bert" in error.message
            await client.closed()
        await engine.until(lambda: engine.server.sessions == 0)


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    async with running(socket=path) as engine, engine.session() as client:
        await client.talk(0)
        await client.read(Speech)
    assert not path.exists()


# --- what ends a session ---


async def test_a_monstrous_frame_is_cut_off() -> None:
    def send(url: str) -> None:
        with connect_sync(url, proxy=None) as socket, suppress(ConnectionClosed, OSError):
            socket.send(protocol.encode(Open("monster")))
            socket.recv()
            socket.send(bytes(3 * protocol.MAX_FRAME_BYTES))
            socket.recv()
            raise AssertionError("a session that takes any frame")

    async with running() as engine, engine.session() as other:
        await asyncio.to_thread(send, engine.url)
        await engine.until(lambda: engine.server.sessions == 1)
        await other.talk(0)
        await other.read(Speech)


async def test_mistakes_that_are_not_fatal_leave_the_session_open() -> None:
    async with running() as engine, engine.session() as client:
        await client.send(SetVoice("nobody"))
        assert (await client.read(Error)).code == "voice"
        await client.send(Respond(0, spans=[(0, 100)]))
        error = await client.read(Error)
        assert (error.code, error.turn, error.fatal) == ("bad_request", 0, False)
        await client.talk(1)
        await client.read(Speech)


# --- nobody disturbs anybody ---


async def spoken(engine: Running, seed: int) -> tuple[bytes, str]:
    """The sound of two turns of one call, the model choosing its own words."""
    async with engine.session(f"call{seed}", sampling=Sampling(temperature=1.0, seed=seed)) as client:
        await client.talk(0, 1.0 + seed / 4, seed)
        first = await client.read(Done)
        await client.send(Commit(0, 6))
        await client.send(Respond(1, text="And then?"))
        second = await client.read(Done)
        # How it is cut into frames may depend on who else speaks; what is said must not.
        pcm = b"".join(m.pcm for m in client.said if isinstance(m, Speech))
        return pcm, first.text + second.text


SHORT: dict[str, Any] = {"slot_masking": True, "max_reply_s": 2.4, "max_text_tokens": 20}


async def test_without_batches_calls_at_once_hear_bit_for_bit_what_each_would_hear_alone() -> None:
    async with running(
        slot_masking=True, max_reply_s=2.4, max_text_tokens=20, decode_batch=1, speech_batch=1
    ) as engine:
        alone = [await spoken(engine, seed) for seed in range(3)]
        together = await asyncio.gather(*(spoken(engine, seed) for seed in range(3)))
        assert alone == together
        assert len({text for _, text in alone}) == 3  # and they are three different calls


async def test_calls_decoded_as_one_say_what_each_would_say_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(slot_masking=True, max_reply_s=2.4, max_text_tokens=20) as engine:
        alone = [await spoken(engine, seed) for seed in range(3)]
        sizes, decode_each = [], engine.kit.decode_each

        def counted(steps: Sequence[Decode]) -> list[int]:
            sizes.append(len(steps))
            return decode_each(steps)

        monkeypatch.setattr(engine.kit, "decode_each", counted)
        together = await asyncio.gather(*(spoken(engine, seed) for seed in range(3)))
        assert [text for _, text in together] == [text for _, text in alone]
        assert [len(pcm) for pcm, _ in together] == [len(pcm) for pcm, _ in alone]
        assert sizes  # it did happen


async def test_when_a_step_of_several_fails_each_goes_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(slot_masking=True, max_reply_s=2.4, max_text_tokens=20, speech_batch=1) as engine:
        alone = [await spoken(engine, seed) for seed in range(2)]

        decode_each = engine.kit.decode_each

        def broken(steps: Sequence[Decode]) -> list[int]:
            if len(steps) > 1:
                raise RuntimeError("out of luck")
            return decode_each(steps)

        monkeypatch.setattr(engine.kit, "decode_each", broken)
        assert await asyncio.gather(*(spoken(engine, seed) for seed in range(2))) == alone


async def test_a_fault_in_one_call_is_that_calls_alone() -> None:
    async with running(
        slot_masking=True, max_reply_s=2.4, max_text_tokens=20, decode_batch=1, speech_batch=1
    ) as engine:
        expected = await spoken(engine, 1)
        execute = engine.kit.execute

        def faulty(op: Op) -> Any:
            if isinstance(op, Hear) and len(op.wav) == 8_000:
                raise RuntimeError("out of luck")
            return execute(op)

        engine.kit.execute = faulty  # type: ignore[method-assign]  # one call's audio is not survived

        async def unlucky() -> None:
            async with engine.session("unlucky") as client:
                await client.talk(0, 0.5)
                error = await client.read(Error)
                assert (error.code, error.turn, error.fatal) == ("internal", 0, False)
                assert "out of luck" not in error.message  # details are for the log
                assert (await client.read(Done)).reason == "error"
                await client.send(Respond(1, text="Still there?"))
                await client.read(Speech)

        lucky, _ = await asyncio.gather(spoken(engine, 1), unlucky())
        assert lucky == expected


async def test_the_end_of_the_models_thread_ends_every_call() -> None:
    class OutOfOrder(BaseException):
        """Nothing that anybody catches."""

    async with running(slot_masking=True) as engine, engine.session() as client:
        await client.talk(0)
        await client.read(Speech)

        def broken(op: Op) -> Any:
            raise OutOfOrder

        engine.kit.execute = broken  # type: ignore[method-assign]  # the worst that can happen
        with pytest.raises(OutOfOrder):
            await asyncio.wait_for(asyncio.wrap_future(engine.worker.ended), PATIENCE)
        await client.socket.close()
        await engine.until(lambda: engine.server.sessions == 0)
        engine.worker.ended = Future()
        engine.worker.ended.set_result(None)


async def test_cancel_is_obeyed_while_others_speak() -> None:
    async with running(slot_masking=True) as engine, engine.session("a") as a, engine.session("b") as b:
        execute, go = engine.kit.execute, threading.Event()
        begun: set[int] = set()  # streams

        def held(op: Op) -> Any:
            """No answer ends before it can be cancelled."""
            if isinstance(op, Vocode):
                if len(begun) == 2:
                    go.wait(PATIENCE)
                begun.add(id(op.stream))
            return execute(op)

        engine.kit.execute = held  # type: ignore[method-assign]  # a device that others keep busy
        await a.talk(0)
        await b.talk(0)
        await a.read(Speech)
        await b.read(Speech)
        await a.send(Cancel(0))
        assert (await a.read(Done)).reason == "cancelled"
        go.set()
        await b.read(Speech)


@pytest.mark.slow
async def test_the_event_loop_is_never_kept_waiting_by_the_model() -> None:
    async with running(slot_masking=True) as engine, engine.session() as client:
        execute = engine.kit.execute

        def slow(op: Op) -> Any:
            time.sleep(0.2)
            return execute(op)

        engine.kit.execute = slow  # type: ignore[method-assign]  # a model that takes its time
        await client.talk(0)
        beats = 0
        reading = asyncio.ensure_future(client.read(Speech))
        while not reading.done():
            await asyncio.sleep(0.01)
            beats += 1
        assert (
            beats > 50
        )  # a dozen units of 200 ms went by: a loop that waited for each would have counted those


async def test_nothing_more_is_made_for_a_client_that_reads_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("model_runtime.engine.reception.STALL_BYTES", 20_000)
    monkeypatch.setattr("model_runtime.engine.server.PING_S", 600.0)  # it does not read pings either
    # A unix socket, because the buffers of a TCP connection on one machine would swallow the whole reply.
    async with running(socket=tmp_path / "s") as engine, engine.session("deaf") as deaf:
        kit = engine.kit
        kit.script = [*kit.spoken(100), kit.tokens.tts_end, kit.tokens.eot]
        deaf.socket.transport.pause_reading()
        await deaf.talk(0)
        await engine.until(lambda: any(port.stalled for port in list(engine.worker._sessions)))
        rest, kit.script = kit.script, [*kit.spoken(10), kit.tokens.tts_end, kit.tokens.eot]
        async with engine.session("other") as other:  # is served meanwhile
            await other.talk(0)
            assert (await other.read(Done)).groups == 10
        assert rest  # all the while nothing more is made for the first
        kit.script = rest
        deaf.socket.transport.resume_reading()
        assert (await deaf.read(Done)).groups == 100
