"""The line nano is trained over: same length, audible, never out of range, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from model_runtime.training import augment


def tone(hertz: float, seconds: float = 1.0, level: float = 0.3) -> augment.Wave:
    at = np.arange(int(seconds * augment.RATE)) / augment.RATE
    return (level * np.sin(2 * np.pi * hertz * at)).astype(np.float32)


def power(wave: augment.Wave, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(wave)) ** 2
    hertz = np.linspace(0, augment.RATE / 2, len(spectrum))
    return float(spectrum[(hertz >= low) & (hertz < high)].sum() / len(wave) ** 2)


@pytest.mark.parametrize("a_law", [False, True])
def test_g711_keeps_a_voice_band_tone_and_its_quantisation_is_38_db_down(a_law: bool) -> None:
    wave = tone(1037)  # not a divisor of the rate: every level is met
    heard = augment.telephone(wave, a_law)
    assert len(heard) == len(wave)
    error = heard - wave
    ratio = 10 * np.log10(np.mean(wave[800:-800] ** 2) / np.mean(error[800:-800] ** 2))
    assert 30 < ratio < 50


def test_g711_has_nothing_above_4_khz() -> None:
    heard = augment.telephone((tone(1000) + tone(6000)).astype(np.float32))
    assert power(heard, 4100, 8000) < 1e-4 * power(heard, 0, 4000)


def test_lost_packets_are_silent() -> None:
    heard = augment.telephone(tone(500, 4.0), lost=np.random.default_rng(1))
    frames = heard[: len(heard) // 320 * 320].reshape(-1, 320)
    quiet = np.sqrt(np.mean(frames[:, 80:240] ** 2, axis=1)) < 0.01
    assert 0 < quiet.sum() < 0.15 * len(frames)


def test_noise_is_added_at_the_ratio_asked_for() -> None:
    draw = np.random.default_rng(0)
    wave = tone(700, 2.0)
    noisy = augment.with_noise(wave, augment.coloured(len(wave), draw, 0), 15)
    ratio = 10 * np.log10(np.mean(wave**2) / np.mean((noisy - wave) ** 2))
    assert ratio == pytest.approx(15, abs=0.5)


def test_a_tilt_takes_the_top_away_and_leaves_the_bottom() -> None:
    heard = augment.tilted((tone(200) + tone(7000)).astype(np.float32), -24)
    assert power(heard, 100, 300) == pytest.approx(power(tone(200), 100, 300), rel=0.2)
    assert power(heard, 6900, 7100) < 0.02 * power(tone(7000), 6900, 7100)


def test_a_whole_line_is_finite_in_range_and_repeats_with_its_seed() -> None:
    wave = tone(300, 1.5)
    for seed in range(40):
        heard = [
            augment.over_a_line(
                wave, augment.coloured(8000, np.random.default_rng(9), 1), np.random.default_rng(seed)
            )
            for _ in range(2)
        ]
        (line, late), (again, _) = heard
        assert np.isfinite(line).all()
        assert np.abs(line).max() < 2
        assert augment.loudness(line) > 1e-4
        assert np.array_equal(line, again)
        assert line.dtype == np.float32
        assert -0.06 * augment.RATE <= late <= 0.6 * augment.RATE


def test_where_a_placed_utterance_begins_is_told() -> None:
    click = np.zeros(16000, dtype=np.float32)
    click[8000] = 1.0
    for seed in range(20):
        wave, late = augment.placed(click, np.random.default_rng(seed))
        assert np.argmax(wave) == 8000 + late


def test_nothing_is_short_noise_of_some_kind() -> None:
    for seed in range(40):
        wave = augment.nothing(
            np.random.default_rng(seed), augment.coloured(8000, np.random.default_rng(1), 0)
        )
        assert 0.3 < len(wave) / augment.RATE < 3.1
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() <= 1
