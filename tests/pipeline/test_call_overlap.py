"""The caller speaks while the bot does: it gives way at once, and loses nothing if it need not have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from model_runtime.protocol import (
    GROUP_MS,
    GROUP_SAMPLES,
    INPUT_RATE,
    Commit,
    EngineMessage,
    Respond,
    Speech,
)
from pipeline import page_messages as page
from pipeline.turns import TurnSettings
from pipeline.volume import DUCKED
from tests.pipeline.scene import MUTE, SETTINGS, echo, scene
from tests.pipeline.scripted_engine import eventually, spoken
from tests.pipeline.virtual_transport import VOICE_20MS, VirtualTransport

LOUD = 10_000


def loudly(turn: int, *texts: str) -> Iterable[EngineMessage]:
    """An answer that is one loud level from beginning to end."""
    for message in spoken(turn, *texts):
        if isinstance(message, Speech):
            pcm = LOUD.to_bytes(2, "little") * (len(message.group_text) * GROUP_SAMPLES)
            message = msgspec.structs.replace(message, pcm=pcm)
        yield message


def loudness(line: VirtualTransport, from_ms: float, to_ms: float) -> float:
    """Of what was played there, as a share of the voice's own."""
    pcm = np.frombuffer(line.played, dtype=np.int16)
    return float(pcm[int(from_ms * 24) : int(to_ms * 24)].mean()) / LOUD


async def test_a_back_channel_lowers_the_voice_holds_it_and_loses_no_word() -> None:
    texts = tuple(f"w{i} " for i in range(10))
    async with scene(lambda respond: loudly(respond.turn, *texts)) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(2 * GROUP_MS)
        await call.caller(voice=80)  # lowered...
        await call.hear(100)
        await call.caller(voice=320)  # ... and held
        call.line.let_play(2000)
        await call.caller(silence=40)
        held = call.line.played_ms
        assert 2 * GROUP_MS + 100 <= held <= 2 * GROUP_MS + 160
        assert loudness(call.line, 2 * GROUP_MS + 40, 2 * GROUP_MS + 100) == pytest.approx(DUCKED, rel=0.1)
        await call.caller(silence=900)  # it was no more than an "mm-hm"
        assert await call.engine.wait_for(Commit) == Commit(0, -1)
        assert call.bot_text(0) == "".join(texts)
        assert call.line.played_ms == pytest.approx(10 * GROUP_MS, abs=20)
        assert loudness(call.line, held + 60, held + 400) == pytest.approx(1.0, rel=0.1)
        await call.caller(silence=600)
        assert len(call.engine.all(Respond)) == 1  # nor was it a turn
        assert not call.seen(page.Interrupted)


async def test_one_who_says_it_twice_means_it() -> None:
    async with scene(echo(*("la " for _ in range(20)))) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(2 * GROUP_MS)
        await call.caller(voice=500, silence=300)
        await call.caller(voice=400)
        assert (await call.engine.wait_for(Commit)).turn == 0
        await eventually(lambda: bool(call.seen(page.Interrupted)), "the interruption")
        await call.caller(silence=600)
        second = await call.engine.wait_for(Respond, 2)
        assert sum(end - start for start, end in second.spans) >= INPUT_RATE * 700 // 1000  # both times


async def test_a_short_word_that_wants_the_floor_stops_the_answer() -> None:
    heard: list[bytes] = []

    def kinds(pcm: bytes) -> dict[str, float]:
        heard.append(pcm)
        return {"back-channel": 0.0, "words": 1.0, "noise": 0.0}

    agent, settings = replace(MUTE, kinds=kinds), replace(SETTINGS, turns=TurnSettings(judge_ms=80))
    async with scene(echo(*("la " for _ in range(20))), agent, settings) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(2 * GROUP_MS)
        await call.caller(voice=300, silence=220)
        assert (await call.engine.wait_for(Commit)).turn == 0
        await eventually(lambda: bool(call.seen(page.Interrupted)), "the interruption")
        await call.caller(silence=500)
        assert (await call.engine.wait_for(Respond, 2)).turn == 1  # and is answered
    assert all(VOICE_20MS in pcm for pcm in heard)  # while it was said, each time more of it
    assert [len(pcm) - len(heard[0]) for pcm in heard] == [n * 2 * INPUT_RATE // 25 for n in range(4)]


@pytest.mark.parametrize("asked_for", [True, False])
async def test_who_wants_to_see_it_is_told_what_is_decided(asked_for: bool) -> None:
    agent = replace(MUTE, kinds=lambda _: {"back-channel": 0.0, "words": 1.0, "noise": 0.0})
    settings = replace(SETTINGS, turns=TurnSettings(judge_ms=80), tell_decisions=asked_for)
    async with scene(echo(*("la " for _ in range(20))), agent, settings) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(2 * GROUP_MS)
        await call.caller(voice=300, silence=220)
        await eventually(lambda: bool(call.seen(page.Interrupted)), "the interruption")
        await call.caller(silence=40)  # what is told of it comes behind it
        told = [message.what for message in call.seen(page.Decided) if message.turn == 0]
    steps = ["speculate", "speak", "duck", "hold", "stop"]
    assert [what for what in told if what in steps] == (steps if asked_for else [])
    assert ("barge-in" in told) == asked_for  # what it sounded like


async def test_after_what_sounds_like_a_back_channel_it_goes_on_at_once() -> None:
    agent = replace(MUTE, kinds=lambda _: {"back-channel": 1.0, "words": 0.0, "noise": 0.0})
    settings = replace(SETTINGS, turns=TurnSettings(judge_ms=80))
    async with scene(
        lambda respond: loudly(respond.turn, *("la " for _ in range(20))), agent, settings
    ) as call:
        await call.ready()
        await call.caller(voice=600, silence=500)
        await call.hear(2 * GROUP_MS)
        await call.caller(voice=400)
        call.line.let_play(5000)
        held = call.line.played_ms
        await call.caller(silence=220)
        await eventually(lambda: call.line.played_ms > held + 200, "the voice")
