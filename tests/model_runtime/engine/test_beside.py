"""Speech is rendered on a thread of its own: nobody else waits for it, and it can be given up."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from model_runtime.engine.ops import Op, Vocode
from model_runtime.protocol import Cancel, Commit, Done, Respond, Speech
from tests.model_runtime.engine.live import Running, running


@asynccontextmanager
async def rendering() -> AsyncIterator[tuple[Running, threading.Event, threading.Event]]:
    """An engine whose token2wav, once it has begun, waits to be let go."""
    begun, go = threading.Event(), threading.Event()
    async with running(slot_masking=True, max_reply_s=2.4, max_text_tokens=20) as engine:
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
        words = [*engine.kit.model.tokenizer.encode("no sound"), engine.kit.tokens.eot]
        engine.kit.script = [engine.kit.tokens.tts_end, *words]
        await b.send(Respond(0, text="Write something."))
        assert (await b.read(Done)).reason == "silent"
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
