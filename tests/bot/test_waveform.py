"""Measuring recordings, on signals whose truth is known."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.waveform import Pcm, delay_ms, dropouts, first_loud, last_loud, spoken, underruns, write_wav

RATE = 48_000


def silence(ms: float) -> Pcm:
    return np.zeros(round(ms * RATE / 1000), np.float32)


def tone(ms: float, level: float = 0.3) -> Pcm:
    at = np.arange(round(ms * RATE / 1000)) / RATE
    return (level * np.sin(2 * np.pi * 440 * at + 1)).astype(np.float32)


def join(*pieces: Pcm) -> Pcm:
    return np.concatenate(pieces)


def test_the_first_and_last_loud_samples_are_found_exactly() -> None:
    pcm = silence(10)
    pcm[100] = 0.5
    pcm[200] = -0.5
    assert (first_loud(pcm), last_loud(pcm)) == (100, 200)
    assert (first_loud(pcm, 101), last_loud(pcm, 0, 200)) == (200, 100)
    assert first_loud(pcm, 201) is None
    assert last_loud(pcm, 0, 100) is None


def test_noise_is_not_sound() -> None:
    noise = np.random.default_rng(1).normal(0, 0.003, RATE).astype(np.float32)
    assert first_loud(noise) is None


@given(pause=st.integers(1, 2000), trailing=st.integers(0, 1000))
def test_the_delay_counts_from_the_last_sound_not_from_the_files_end(pause: int, trailing: int) -> None:
    caller = join(silence(50), tone(200), silence(trailing + 3000))
    bot = join(silence(250 + pause), tone(100), silence(3000))
    end = round((250 + trailing) * RATE / 1000)
    measured = delay_ms(caller, bot, RATE, 0, end, len(bot))
    assert measured == pytest.approx(pause, abs=1)  # a sine's first and last samples are quiet


def test_a_click_is_not_speech() -> None:
    said = join(silence(50), tone(200), silence(300), tone(10), silence(100))
    extent = spoken(said, RATE)
    assert extent is not None
    assert [at / 48 for at in extent] == pytest.approx([50, 250], abs=1)
    assert spoken(join(silence(500), tone(10), silence(500)), RATE) is None
    assert spoken(silence(500), RATE) is None


def test_speech_has_pauses() -> None:
    extent = spoken(join(tone(100), silence(400), tone(100)), RATE)
    assert extent is not None
    assert [at / 48 for at in extent] == pytest.approx([0, 600], abs=1)


def test_a_bot_that_speaks_into_the_question_has_no_delay() -> None:
    caller = join(tone(500), silence(1000))
    assert delay_ms(caller, join(silence(300), tone(700)), RATE, 0, 24_000, len(caller)) is None
    resumed = join(silence(100), tone(200), silence(500), tone(300))
    assert delay_ms(caller, resumed, RATE, 0, 24_000, len(caller)) == pytest.approx(300, abs=1)


def test_no_answer_and_no_question_have_no_delay() -> None:
    assert delay_ms(tone(100), silence(1000), RATE, 0, 4800, RATE) is None
    assert delay_ms(silence(100), tone(1000), RATE, 0, 4800, RATE) is None


def test_an_answer_after_the_next_question_began_is_not_this_ones() -> None:
    bot = join(silence(900), tone(100))
    assert delay_ms(join(tone(100), silence(900)), bot, RATE, 0, 4800, RATE // 2) is None


def test_a_hole_in_mid_sound_is_a_dropout() -> None:
    speech = join(silence(40), tone(100), silence(40), tone(100), silence(40))
    (gap,) = dropouts(speech, RATE, 0, len(speech))
    assert gap.ms(RATE) == pytest.approx(40, abs=1)
    assert gap.start == pytest.approx(140 * RATE / 1000, abs=48)


def test_a_pause_a_vocoder_breathes_through_is_not_a_dropout() -> None:
    breath = np.random.default_rng(1).normal(0, 0.0003, RATE // 10).astype(np.float32)
    speech = join(tone(100), breath, tone(100))
    assert dropouts(speech, RATE, 0, len(speech)) == []


def test_a_pause_that_fades_slowly_is_not_a_dropout() -> None:
    word = tone(200)
    word[-9600:] *= np.linspace(1, 0, 9600, dtype=np.float32) ** 2
    speech = join(word, silence(80), tone(100))
    assert dropouts(speech, RATE, 0, len(speech)) == []


def test_a_breath_and_a_click_are_not_dropouts() -> None:
    speech = join(tone(100), tone(60, 0.004), tone(100), silence(10), tone(100))
    assert dropouts(speech, RATE, 0, len(speech)) == []


def test_silence_alone_has_no_dropouts() -> None:
    assert dropouts(silence(500), RATE, 0, RATE) == []


def test_packets_later_than_the_buffer_are_underruns() -> None:
    stamps = np.arange(50) * 0.02
    arrived = stamps + 5.0
    arrived[10] += 0.059
    arrived[20] += 0.200  # 140 ms more than the buffer bears
    arrived[30:] += 0.200  # no later than that, and heard without another pause
    arrived[40:] += 0.010
    assert underruns(arrived.astype(np.float64), stamps.astype(np.float64)) == pytest.approx([140, 10])
    assert underruns(np.zeros(0), np.zeros(0)) == []


def test_a_stereo_file_has_both_sides_at_their_times(tmp_path: Path) -> None:
    write_wav(tmp_path / "call.wav", [tone(10), silence(20)], RATE)
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, RATE, 960)
        samples = np.frombuffer(file.readframes(960), "<i2").reshape(-1, 2)
    assert np.abs(samples[:480, 0]).max() > 9000
    assert np.abs(samples[480:, 0]).max() == 0
    assert np.abs(samples[:, 1]).max() == 0
