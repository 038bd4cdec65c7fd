"""Pure tones, made by numpy, over clean and noisy lines; and what is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.training.augment import telephone
from pipeline.tones import FRAME, RATE, WINDOW, Tone, ToneTracker, frequency, least_ms
from tests.e2e.phone_line import voice


def sine(hertz: tuple[float, ...], seconds: float, level: float = 0.3) -> np.ndarray:
    at = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(level * sum(np.sin(2 * np.pi * hz * at) for hz in hertz) / len(hertz), np.float32)


def followed(pcm: np.ndarray) -> tuple[list[Tone], Tone | None]:
    """The tones that ended, and the one that sounds at the end."""
    tracker = ToneTracker()
    samples = (pcm * 32767).astype(np.int16)
    told = [tracker.push(samples[at : at + FRAME]) for at in range(0, len(samples) - FRAME + 1, FRAME)]
    return [tone for tone in told if tone is not None], tracker.now


QUIET = np.zeros(RATE // 2, np.float32)


@settings(deadline=None)
@given(st.floats(350, 2500), st.floats(0.25, 1.5), st.floats(0.01, 0.9))
def test_a_tone_is_found_with_its_frequency_and_length(hz: float, seconds: float, level: float) -> None:
    (tone,), sounding = followed(np.concatenate([QUIET, sine((hz,), seconds, level), QUIET]))
    assert sounding is None
    assert tone.hz == pytest.approx(hz, abs=8)
    assert tone.ms == pytest.approx(1000 * seconds, abs=60)
    assert tone.begin * 20 <= 500 <= (tone.begin + 6) * 20


@pytest.mark.parametrize("pair", [(440.0, 480.0), (400.0, 450.0)])
def test_two_tones_of_a_ring_are_one_at_their_middle(pair: tuple[float, float]) -> None:
    ended, _ = followed(np.concatenate([QUIET, sine(pair, 1.0), QUIET]))
    assert len(ended) == 1
    assert ended[0].hz == pytest.approx(sum(pair) / 2, abs=15)


def test_a_tone_that_goes_on_is_told_as_it_sounds() -> None:
    ended, sounding = followed(sine((1000,), 0.3))
    assert not ended
    assert sounding is not None
    assert sounding.ms >= least_ms(sounding.hz)


def test_it_is_found_over_g711_with_noise_10_db_below() -> None:
    draw = np.random.default_rng(1)
    pcm = np.concatenate([QUIET, sine((1000,), 0.5), QUIET])
    pcm = pcm + (0.3 / 2**0.5 / 10**0.5) * draw.standard_normal(len(pcm)).astype(np.float32)
    ended, _ = followed(telephone(np.clip(pcm, -1, 1), low=300, high=3400))
    assert [round(tone.hz, -1) for tone in ended] == [1000]


@pytest.mark.parametrize(
    "pcm",
    [
        QUIET,
        voice(2, RATE),
        0.3 * np.random.default_rng(2).standard_normal(RATE).astype(np.float32),
        sine((697.0, 1209.0), 0.5),  # the key 1
        sine((1000.0,), 0.5, level=0.002),  # nobody hears it
        sine((1000.0,), 0.06),  # a click
        sine((100.0,), 0.5),  # hum of the mains
    ],
    ids=["silence", "voice", "noise", "key", "faint", "click", "hum"],
)
def test_what_is_no_tone_is_none(pcm: np.ndarray) -> None:
    assert followed(np.concatenate([QUIET, pcm, QUIET])) == ([], None)


def test_a_glide_is_no_tone() -> None:
    at = np.arange(RATE) / RATE
    glide = 0.3 * np.sin(2 * np.pi * (600 * at + 500 * at**2))
    assert followed(glide.astype(np.float32)) == ([], None)


def test_a_window_of_one_value_is_no_tone() -> None:
    assert frequency(np.full(WINDOW, 20_000, np.int16)) is None
