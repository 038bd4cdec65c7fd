"""Speech is rendered on a thread of its own: nobody else waits for it, and it can be given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model_runtime.engine.ops import Op, Vocode
from model_runtime.protocol import Cancel, Commit, Done, Respond, Sampling, Speech
from model_runtime.speaking.token2wav import CodesRefused
from tests.model_runtime.engine.live import Running, running


@asynccontextmanager
async def rendering(**changes: Any) -> AsyncIterator[tuple[Running, threading.Event, threading.Event]]:
    """An engine whose token2wav, once it has begun, waits to be let go."""
    begun, go = threading.Event(), threading.Event()
    async with running(slot_masking=True, max_reply_s=2.4, max_text_tokens=20, **changes) as engine:
        execute = engine.kit.execute

        def held(op: Op) -> Any:
            if isinstance(op, Vocode):
                begun.set()
                go.wait()
            return execute(op)

        engine.kit.execute = held  # type: ignore[method-assign]  # a slow device
        try:
            yield engine, begun, go
        finally:
            go.set()


async def test_others_are_answered_while_one_calls_speech_is_rendered() -> None:
    async with rendering() as (engine, begun, go), engine.session("a") as a, engine.session("b") as b:
        await a.talk(0)
        await engine.until(begun.is_set)
        tokens, tokenizer = engine.kit.tokens, engine.kit.model.tokenizer
        assert tokens.tool_call is not None
        words = [*tokenizer.encode("function\nlook\n{}"), tokens.eot]  # a call: it needs no sound
        engine.kit.script = [tokens.tts_end, tokens.tool_call, *words]
        await b.send(Respond(0, text="Look it up."))
        assert (await b.read(Done)).reason == "end"
        assert not any(isinstance(message, Speech) for message in a.said)
        go.set()
        await a.read(Speech)


async def test_an_answer_is_cancelled_while_its_speech_is_rendered_and_the_next_one_is_heard() -> None:
    async with rendering() as (engine, begun, go), engine.session() as call:
        await call.talk(0)
        await engine.until(begun.is_set)
        await call.send(Cancel(0))
        assert (await call.read(Done)).reason == "cancelled"
        await call.send(Commit(0, 0), Respond(1, text="And then?"))
        go.set()
        await call.read(Speech)
        assert {message.turn for message in call.said if isinstance(message, Speech)} == {1}


async def test_a_client_that_leaves_while_its_speech_is_rendered_holds_up_nobody() -> None:
    async with rendering() as (engine, begun, go):
        async with engine.session("leaves") as call:
            await call.talk(0)
            await engine.until(begun.is_set)
        await engine.until(lambda: engine.server.sessions == 0)
        go.set()
        async with engine.session("stays") as call:
            await call.talk(0)
            await call.read(Speech)


async def said(engine: Running, seed: int) -> NDArray[np.int16]:
    """What one call hears; the model chooses its own words."""
    async with engine.session(f"call{seed}", sampling=Sampling(temperature=1.0, seed=seed)) as call:
        await call.talk(0, 1.0, seed)
        await call.read(Done)
        return np.frombuffer(b"".join(m.pcm for m in call.said if isinstance(m, Speech)), np.int16)


async def test_chunks_that_wait_together_are_rendered_together_and_sound_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with rendering(decode_batch=1, speech_batch=4) as (engine, begun, go):
        go.set()
        alone = [await said(engine, seed) for seed in range(3)]
        sizes: list[int] = []
        vocode_each = engine.kit.vocode_each

        def counted(chunks: Sequence[Vocode]) -> list[NDArray[np.float32]]:
            sizes.append(len(chunks))
            return vocode_each(chunks)

        monkeypatch.setattr(engine.kit, "vocode_each", counted)
        begun.clear()
        go.clear()
        calls = asyncio.gather(*(said(engine, seed) for seed in range(3)))
        await engine.until(begun.is_set)
        await engine.until(lambda: chunks_waiting(engine) == 3)
        go.set()
        for together, before in zip(await calls, alone, strict=True):
            assert len(together) == len(before) > 0
            assert np.std(together.astype(float) - before) < 0.01 * np.std(before.astype(float))
        assert max(sizes) > 1


async def test_on_a_cpu_nobody_waits_for_the_chunks_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rendering(decode_batch=1) as (engine, begun, go):
        sizes: list[int] = []
        vocode_each = engine.kit.vocode_each

        def counted(chunks: Sequence[Vocode]) -> list[NDArray[np.float32]]:
            sizes.append(len(chunks))
            return vocode_each(chunks)

        monkeypatch.setattr(engine.kit, "vocode_each", counted)
        calls = asyncio.gather(*(said(engine, seed) for seed in range(5)))
        await engine.until(begun.is_set)
        await engine.until(lambda: chunks_waiting(engine) == 5)
        go.set()
        assert all(len(sound) for sound in await calls)
        assert max(sizes) == 2


def chunks_waiting(engine: Running) -> int:
    """Calls whose next piece of work is to render a chunk."""
    sessions = list(engine.worker._sessions.values())
    return sum(isinstance(job.op, Vocode) for one in sessions for job in list(one._jobs)[:1])


async def test_one_wrong_chunk_in_a_batch_is_its_own_calls_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rendering(decode_batch=1, speech_batch=4) as (engine, begun, go):

        def wrong(chunks: Sequence[Vocode]) -> list[NDArray[np.float32]]:
            raise CodesRefused("one of them")

        monkeypatch.setattr(engine.kit, "vocode_each", wrong)
        calls = asyncio.gather(*(said(engine, seed) for seed in range(3)))
        await engine.until(begun.is_set)
        await engine.until(lambda: chunks_waiting(engine) == 3)
        go.set()
        assert all(len(sound) for sound in await calls)  # each was rendered alone


async def test_a_fault_that_meets_a_whole_batch_is_told_to_each_call_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with rendering(decode_batch=1, speech_batch=4) as (engine, begun, go):

        def broken(chunks: Sequence[Vocode]) -> list[NDArray[np.float32]]:
            raise RuntimeError("out of luck")

        monkeypatch.setattr(engine.kit, "vocode_each", broken)
        async with engine.session("a") as a, engine.session("b") as b, engine.session("c") as c:
            await a.talk(0)
            await engine.until(begun.is_set)
            await b.talk(0)
            await c.talk(0)
            await engine.until(lambda: chunks_waiting(engine) == 3)
            go.set()
            for call in (b, c):
                assert (await call.read(Done)).reason == "error"
