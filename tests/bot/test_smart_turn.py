"""Smart Turn as calls have it: the real model, on real speech."""

from __future__ import annotations

import asyncio
from statistics import mean

import numpy as np
import pytest

from bot import smart_turn
from bot.smart_turn import SmartTurn
from pipeline.turn_end import SMART_TURN
from tests.e2e.speakers import VOICES, say

RATE = 16_000
PAUSE = np.zeros(RATE // 5, np.float32)


def heard(text: str, voice: str, share: float = 1.0) -> bytes:
    """The first part of a sentence, and the pause after it: s16le."""
    said = say(text, voice, RATE)
    pcm = np.concatenate([PAUSE, said[: int(share * len(said))], PAUSE])
    hiss = np.random.default_rng(0).normal(0, 0.001, len(pcm))
    return ((pcm + hiss) * 32767).astype("<i2").tobytes()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> SmartTurn:
    monkeypatch.setattr(smart_turn, "REST", 0.0)
    return SmartTurn()


async def test_whole_questions_sound_finished_and_words_that_lead_on_do_not(model: SmartTurn) -> None:
    whole = ("do you have tents", "are you open on sunday", "what is your address")
    half = ("i would like to ask you whether the", "my order number is four two", "could you um")
    told = [
        [await model(heard(text, voice, share)) or 0.0 for voice in VOICES for text in texts]
        for texts, share in ((whole, 1.0), (half, 0.97))
    ]
    assert mean(told[0]) >= SMART_TURN.finished, told
    assert min(told[0]) > SMART_TURN.unfinished, told  # nobody who has finished is kept waiting
    assert mean(told[1]) < 0.6, told


async def test_who_asks_while_it_is_busy_or_rests_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sound = SmartTurn(), heard("do you have tents", VOICES[0])
    first, second = await asyncio.gather(model(sound), model(sound))
    assert first is not None
    assert second is None
    moment = model._rests_until
    monkeypatch.setattr("time.monotonic", lambda: moment - 0.001)
    assert await model(sound) is None
    monkeypatch.setattr("time.monotonic", lambda: moment)
    assert await model(sound) is not None
