"""Measures of sounds of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from model_runtime.library.measures import measure
from tests.model_runtime.library.recordings import RATE, buzz, hiss


@pytest.mark.parametrize("pitch", [75, 110, 165, 220, 330])
def test_pitch_is_the_voices_and_no_multiple_of_it(pitch: float) -> None:
    assert measure(buzz(pitch), RATE).pitch_hz == pytest.approx(pitch, rel=0.03)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_measures_do_not_depend_on_the_sampling_rate_much(rate: int) -> None:
    import soxr

    sound = buzz(120, dark=2.0)
    here, there = measure(sound, RATE), measure(soxr.resample(sound, RATE, rate), rate)
    assert there.pitch_hz == pytest.approx(here.pitch_hz, rel=0.02)
    assert there.rate_hz == pytest.approx(here.rate_hz, rel=0.1)


@pytest.mark.parametrize("syllables", [2.0, 4.0, 6.0])
def test_rate_counts_syllables(syllables: float) -> None:
    said = measure(buzz(120, syllables), RATE)
    assert syllables <= said.rate_hz <= 1.6 * syllables  # pauses between them are no speech


def test_a_dark_voice_is_less_bright() -> None:
    assert measure(buzz(120, dark=2.5), RATE).brightness_hz < 0.8 * measure(buzz(120), RATE).brightness_hz


def test_what_has_no_voice_has_no_pitch() -> None:
    assert measure(hiss(3), RATE).pitch_hz == 0
    assert measure(np.zeros(3 * RATE, np.float32), RATE).pitch_hz == 0
    assert measure(buzz(120, seconds=0.1), RATE).pitch_hz == 0
