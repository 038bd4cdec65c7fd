"""The shipped net tells who has finished, in voices of an engine that it never heard."""

from __future__ import annotations

from statistics import mean

import numpy as np
import pytest

from bot.waveform import Pcm
from model_runtime.turn_ends import TurnEnds
from tests.e2e.speakers import VOICES, say

RATE = 16_000
WHOLE = (
    *("do you have tents", "how long does delivery take", "when are you open", "my stove is leaking"),
    *("what does a lamp cost", "has the rain stopped", "who designed this jacket", "that sounds good to me"),
)
HALF = (
    *("i would like to know", "could you tell me", "when is your", "is the shop open at"),
    *("what does a", "how heavy is your", "who designed the", "that sounds good but"),
)


@pytest.fixture(scope="module")
def ears() -> TurnEnds:
    return TurnEnds()


def finished(ears: TurnEnds, wave: Pcm) -> float:
    hiss = np.random.default_rng(0).normal(0, 0.001, len(wave) + RATE // 2)
    heard = np.pad(wave, (3 * RATE // 10, RATE // 5)) + hiss
    return ears.finished((heard * 32767).astype(np.int16).tobytes())


def test_a_probability_of_anything_at_all(ears: TurnEnds) -> None:
    for pcm in (b"", bytes(2), bytes(32_000), b"\xff\x7f" * 80_000):
        assert 0 <= ears.finished(pcm) <= 1


@pytest.mark.e2e
@pytest.mark.parametrize("voice", VOICES)
def test_whole_sentences_and_halves_are_told_apart(ears: TurnEnds, voice: str) -> None:
    """Mostly: of a whole and a half one it is the whole that sounds more finished."""
    whole, half = ([finished(ears, say(text, voice, RATE)) for text in texts] for texts in (WHOLE, HALF))
    assert mean(one > other for one in whole for other in half) > 0.7, (whole, half)


def test_how_loud_it_is_plays_no_part(ears: TurnEnds) -> None:
    draw = np.random.default_rng(1)
    wave = (np.sin(np.arange(RATE) / 9) * draw.uniform(0.5, 1, RATE)).astype(np.float32)
    told = [ears.finished((level * wave * 32767).astype(np.int16).tobytes()) for level in (0.9, 0.05)]
    assert told[0] == pytest.approx(told[1], abs=0.05)
