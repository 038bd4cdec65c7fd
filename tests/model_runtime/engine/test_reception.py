"""What a client meets at either server: the engine's own, and another's (uvicorn) with its application.

Their sockets differ and nothing else: behind both is the same reception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from urllib.request import urlopen

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from model_runtime import protocol
from model_runtime.engine.figures import Figures
from model_runtime.protocol import Audio, Close, Commit, Done, Error, Open, Respond, Sampling, Speech
from tests.model_runtime.engine.live import Running, behind_uvicorn, running

Serve = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture(params=[running, behind_uvicorn], ids=["own", "uvicorn"])
def serve(request: pytest.FixtureRequest) -> Serve:
    """Runs an engine behind one of the two."""
    chosen: Serve = request.param
    return chosen


async def test_a_call_from_the_greeting_to_the_end(serve: Serve) -> None:
    async with serve() as engine, engine.session() as client:
        kit = engine.kit
        text = kit.model.tokenizer.encode
        slots = [id for word in "hello" for id in (*text(word), *[kit.tokens.audio0 + n for n in range(4)])]
        kit.script = [*slots, kit.tokens.tts_end, kit.tokens.eot]
        await client.send(Respond(0, text="Greet the caller."))
        done = await client.read(Done)
        assert (done.reason, done.text, done.groups) == ("end", "hello", 5)
        assert sum(len(m.pcm) for m in client.said if isinstance(m, Speech)) == 5 * 2 * protocol.GROUP_SAMPLES
        assert 0 < done.timings.first_audio_ms <= done.timings.total_ms
        await client.send(Commit(0), Close())
        assert await client.closed() == 1000
        await engine.until(lambda: engine.server.sessions == 0)


async def test_one_call_too_many_is_refused_at_once_and_let_in_later(serve: Serve) -> None:
    async with serve(max_sessions=2) as engine, engine.session(), engine.client() as late:
        async with engine.session():
            await late.send(Open("late"))
            error = await late.read(Error)
            assert (error.code, error.fatal) == ("capacity", True)
            assert await late.closed() == 1000
        await engine.until(lambda: engine.server.sessions == 1)
        async with engine.session():
            assert engine.server.sessions == 2


async def test_a_web_page_is_not_let_in(serve: Serve) -> None:
    async with serve() as engine:
        with pytest.raises(InvalidStatus) as refused:
            await connect(engine.url, origin="http://example.com", proxy=None)  # type: ignore[arg-type]  # as a browser
        assert refused.value.response.status_code == 403


async def test_a_supervisor_can_ask_how_full_it_is(serve: Serve) -> None:
    async with serve(max_sessions=3) as engine, engine.session():
        url = engine.url.replace("ws://", "http://") + "/healthz"
        answer = await asyncio.to_thread(lambda: urlopen(url).read())
        assert answer == b"1/3 sessions\n"


async def test_whoever_measures_is_told_what_work_was_done_and_what_fills_the_memory(serve: Serve) -> None:
    async def told(engine: Running) -> Figures:
        url = engine.url.replace("ws://", "http://") + "/figures"
        return msgspec.json.decode(await asyncio.to_thread(lambda: urlopen(url).read()), type=Figures)

    async with serve() as engine:
        before = await told(engine)
        assert not any(work.units for work in before.work.values())
        assert before.memory.kv_cache == 0
        async with engine.session() as client:
            engine.kit.script = [*engine.kit.spoken(5), engine.kit.tokens.tts_end, engine.kit.tokens.eot]
            await client.send(Respond(0, text="Greet the caller."))
            timings = (await client.read(Done)).timings
            after = await told(engine)
        work = after.since(before).work
        # The prompt gives the first id. The end of the turn is drawn as well, and is no part of it.
        assert (work["prefill"].items, work["decode"].items) == (1, timings.output_tokens)
        assert work["hear"].items == 0
        assert work["vocode"].items == 2  # 20 codes: a first chunk, and the rest
        assert all(sum(kind.times.values()) == kind.units for kind in work.values())
        model, memory = engine.kit.model, after.memory
        parts = [model.encoder, model.adaptor, model.backbone, model.token2wav.flow, model.token2wav.hift]
        numbers = sum(part.numel() for whole in parts for part in [*whole.parameters(), *whole.buffers()])
        assert 4 * numbers <= memory.weights < 4.01 * numbers  # those laid side by side are counted once
        config = model.backbone.config
        position = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        assert memory.kv_cache >= position * (timings.prompt_tokens + timings.output_tokens)
        assert memory.flow > 0
        assert memory.rest > 0


GARBAGE: dict[str, bytes | str] = {
    "no msgpack": b"\xc1\xc1\xc1",
    "no message": msgspec.msgpack.encode({"type": "sing"}),
    "no object": msgspec.msgpack.encode([1, 2, 3]),
    "wrong field": msgspec.msgpack.encode({"type": "respond", "turn": "one"}),
    "half a frame": protocol.encode(Open("call"))[:-3],
    "empty": b"",
    "nested": b"\x91" * 100_000,
    "text": "hello",
    "too long": bytes(protocol.MAX_FRAME_BYTES + 1),
    "half a sample": protocol.encode(Audio(b"abc")),
    "opened twice": protocol.encode(Open("again")),
}


async def test_garbage_ends_its_own_session_with_a_sentence(serve: Serve) -> None:
    async with serve() as engine, engine.session("good", sampling=Sampling(seed=1)) as good:
        for what, frame in GARBAGE.items():
            async with engine.session("bad") as bad:
                await bad.socket.send(frame)
                error = await bad.read(Error)
                assert (error.code, error.fatal) == ("bad_request", True), what
                assert error.message.endswith((".", "`")) or ":" in error.message, what
                assert await bad.closed() == 1000, what
            await engine.until(lambda: engine.server.sessions == 1)
        await good.talk(0)
        await good.read(Speech)


async def test_garbage_instead_of_an_open_is_refused(serve: Serve) -> None:
    async with serve() as engine:
        for what, frame in GARBAGE.items():
            if what == "opened twice":
                continue
            async with engine.client() as client:
                await client.socket.send(frame)
                error = await client.read(Error)
                assert (error.code, error.fatal) == ("bad_request", True), what
                await client.closed()
                assert engine.server.sessions == 0, what


async def test_a_client_that_vanishes_leaves_nothing_behind(serve: Serve) -> None:
    async with serve(slot_masking=True) as engine:
        for _ in range(3):
            async with engine.session() as client:
                await client.talk(0)
                await client.read(Speech)
                client.socket.transport.abort()
        await engine.until(lambda: engine.server.sessions == 0)
        assert engine.worker._sessions == {}
