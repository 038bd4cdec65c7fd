"""The shipped net tells what is said over the bot, in voices of an engine that it never heard."""

from __future__ import annotations

import numpy as np
import pytest

from bot.waveform import Pcm
from model_runtime.interjections import KINDS, Interjections
from pipeline.interjection import WORDS_SURE
from tests.e2e.speakers import say

RATE = 16_000
VOICES = ("ked_diphone", "kal_diphone")


@pytest.fixture(scope="module")
def ears() -> Interjections:
    return Interjections()


def kinds(ears: Interjections, wave: Pcm) -> dict[str, float]:
    around = np.pad(wave, (RATE // 10, RATE // 20))
    return ears.kinds((around * 32767).astype(np.int16).tobytes())


def test_probabilities_of_anything_at_all(ears: Interjections) -> None:
    for pcm in (b"", bytes(2), bytes(32_000), b"\xff\x7f" * 40_000):
        told = ears.kinds(pcm)
        assert tuple(told) == KINDS
        assert sum(told.values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.e2e
def test_words_and_back_channels_are_told_apart(ears: Interjections) -> None:
    """Most of them, whoever says it; and none is taken for the other."""

    def heard(*texts: str) -> list[dict[str, float]]:
        return [kinds(ears, say(text, voice, RATE)) for voice in VOICES for text in texts]

    go_on, the_floor = heard("uh huh", "okay", "I see", "yeah"), heard("stop", "wait", "hello", "excuse me")
    assert sum(told["words"] < 0.5 for told in go_on) >= 5
    assert max(told["words"] for told in go_on) < WORDS_SURE
    assert sum(told["words"] >= WORDS_SURE for told in the_floor) >= 7
    assert max(told["back-channel"] + told["noise"] for told in the_floor) < 0.5


def test_how_loud_it_is_plays_no_part(ears: Interjections) -> None:
    draw = np.random.default_rng(1)
    wave = (np.sin(np.arange(RATE // 2) / 9) * draw.uniform(0.5, 1, RATE // 2)).astype(np.float32)
    loud, soft = kinds(ears, 0.9 * wave), kinds(ears, 0.05 * wave)
    assert loud == pytest.approx(soft, abs=0.05)
