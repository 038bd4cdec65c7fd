"""What stands in for lost sound: of the same pitch, without a click, and no louder than what was heard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.concealment import FADED, HOLD, JOIN, SPOILED, Concealer
from pipeline.onset import Onset
from pipeline.segmenter import FRAME_BYTES, FRAME_SAMPLES, RATE, Segmenter

Wave = NDArray[np.float64]
AT = RATE // 2  # samples before a hole
FRAME = FRAME_SAMPLES


def vowel(hertz: float, seconds: float = 1.0) -> Wave:
    """Ten harmonics, as of a voice, in int16's range."""
    phase = 2 * np.pi * hertz * np.arange(round(RATE * seconds)) / RATE
    return np.asarray(sum(np.sin(n * phase + n) / n for n in range(1, 11)) * 4000)


def hiss(seed: int, loudness: float = 300.0) -> Wave:
    return np.random.default_rng(seed).standard_normal(RATE) * loudness


def over_a_hole(wave: Wave, missing: int, at: int = AT) -> Wave:
    """``wave`` with ``missing`` frames of it lost from sample ``at`` on, as it is heard."""
    concealer, heard = Concealer(), b""
    for start in range(0, len(wave), FRAME):
        frame = wave[start : start + FRAME].astype("<i2").tobytes()
        lost = at <= start < at + missing * FRAME
        heard += concealer.lost(FRAME) if lost else concealer.heard(frame)
    return np.frombuffer(heard, np.int16).astype(float)


@pytest.mark.parametrize("hertz", [70, 110, 143.3, 210, 333])
@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_vowel_goes_on(hertz: float, missing: int) -> None:
    """What stands in for its first 10 ms is nearly what was lost; nothing else is changed."""
    wave = vowel(hertz)
    heard = over_a_hole(wave, missing)
    assert len(heard) == len(wave)
    assert (heard[:AT] == wave.astype(np.int16)[:AT]).all()
    joined = AT + missing * FRAME + SPOILED + JOIN
    assert (heard[joined:] == wave.astype(np.int16)[joined:]).all()
    lost = slice(AT, AT + HOLD)
    error = np.sqrt(np.mean((heard[lost] - wave[lost]) ** 2) / np.mean(wave[lost] ** 2))
    assert error < 0.35


@pytest.mark.parametrize("missing", [1, 2, 5, 10])
@pytest.mark.parametrize("hertz", [70, 143.3, 210])
def test_a_hole_does_not_click(hertz: float, missing: int) -> None:
    """No sample is farther from the one before it than in the vowel itself."""
    wave = vowel(hertz)
    steepest = np.abs(np.diff(wave)).max()
    assert np.abs(np.diff(over_a_hole(wave, missing))).max() < 1.2 * steepest


def test_a_long_hole_fades_to_silence() -> None:
    heard = over_a_hole(vowel(110), 10)
    levels = [np.sqrt(np.mean(heard[AT + at : AT + at + FRAME] ** 2)) for at in range(0, 10 * FRAME, FRAME)]
    assert levels == sorted(levels, reverse=True)
    assert not heard[AT + FADED : AT + 10 * FRAME].any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 10), st.integers(1, 40))
def test_a_stand_in_is_no_louder_than_what_came_before(seed: int, missing: int, pieces: int) -> None:
    concealer, wave = Concealer(), hiss(seed, 8000).clip(-32768, 32767)
    for piece in np.array_split(wave[:FRAME].astype("<i2"), pieces):
        assert concealer.heard(piece.tobytes()) == piece.tobytes()
    made = np.frombuffer(concealer.lost(missing * FRAME), np.int16).astype(float)
    assert len(made) == missing * FRAME
    assert np.abs(made).max() <= 2 * np.abs(wave[:FRAME]).max() + 1


def test_a_hole_in_silence_is_silence() -> None:
    assert not over_a_hole(np.zeros(RATE), 3).any()
    concealer = Concealer()
    assert not any(concealer.lost(FRAME))  # nothing was ever heard
    assert concealer.heard(b"") == b""
    assert concealer.lost(0) == b""


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_holes_in_noise_are_neither_a_voice_nor_the_beginning_of_a_sound(missing: int) -> None:
    for seed in range(20):
        noise = hiss(seed)
        line = over_a_hole(noise, missing).astype("<i2").tobytes()
        onset = Onset()
        onset.push(line[:AT])  # its noise is known by then
        assert not onset.push(line[AT:])
        # webrtcvad takes the first 100 ms of any noise for a voice.
        assert Segmenter().push(line) == Segmenter().push(noise.astype("<i2").tobytes())


def test_speech_goes_on_over_a_hole() -> None:
    """The segmenter sees no end of it, and the onset no new beginning."""
    wave = np.concatenate([hiss(1, 20.0)[: RATE // 2], vowel(140), vowel(120)])
    line = over_a_hole(wave, 4, at=RATE).astype("<i2").tobytes()
    onset = Onset()
    begins = [onset.push(line[at : at + FRAME_BYTES]) for at in range(0, len(line), FRAME_BYTES)]
    assert begins.count(True) == 1
    assert len(Segmenter().push(line)) == 1


@given(st.lists(st.integers(1, 100), min_size=30, max_size=30))
def test_sound_that_comes_in_scraps_is_joined_as_well(sizes: list[int]) -> None:
    whole, scraps, pcm = Concealer(), Concealer(), vowel(110).astype("<i2").tobytes()
    for concealer in (whole, scraps):
        concealer.heard(pcm[:FRAME_BYTES])
        concealer.lost(FRAME)
    ends = np.cumsum(sizes) * 2
    pieces = [scraps.heard(pcm[end - 2 * size : end]) for size, end in zip(sizes, ends, strict=True)]
    assert b"".join(pieces) == whole.heard(pcm[: ends[-1]])


def test_a_hole_may_go_on_before_its_end_was_joined() -> None:
    concealer, pcm = Concealer(), vowel(110).astype("<i2").tobytes()
    heard = concealer.heard(pcm[:FRAME_BYTES]) + concealer.lost(FRAME)
    heard += concealer.heard(pcm[2 * FRAME_BYTES :][:160]) + concealer.lost(FRAME - 80)
    heard += concealer.heard(pcm[3 * FRAME_BYTES :])
    samples = np.frombuffer(heard, np.int16).astype(float)
    assert np.abs(np.diff(samples)).max() < 1.2 * np.abs(np.diff(vowel(110))).max()
    assert heard[-FRAME_BYTES:] == pcm[-FRAME_BYTES:]
