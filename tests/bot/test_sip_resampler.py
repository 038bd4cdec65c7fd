"""A line's rates and the engine's: a tone stays as high, as loud and as long, and is next to nothing late."""

from __future__ import annotations

import numpy as np
import pytest

from bot.ingress.sip.resampler import Resampler

HZ = 440


def tone(rate: int, channels: int) -> bytes:
    """Half a second, from its peak on, so that its beginning can be seen."""
    wave = 8000 * np.cos(2 * np.pi * HZ * np.arange(rate // 2) / rate)
    return np.repeat(wave.astype("<i2"), channels).tobytes()


@pytest.mark.parametrize("source", [(8000, 1), (16_000, 1), (24_000, 1), (48_000, 2)])
@pytest.mark.parametrize("target", [(8000, 1), (16_000, 1), (48_000, 2)])
def test_a_tone_comes_out_as_it_went_in(source: tuple[int, int], target: tuple[int, int]) -> None:
    resampler = Resampler(*source, *target)
    pcm, size = tone(*source), source[0] // 50 * 2 * source[1]
    pieces = [resampler(pcm[start : start + size]) for start in range(0, len(pcm), size)]
    assert {len(piece) for piece in pieces} == {target[0] // 50 * 2 * target[1]}  # 20 ms in, 20 ms out
    samples = np.frombuffer(b"".join(pieces), "<i2").reshape(-1, target[1]).astype(float)
    assert (samples == samples[:, :1]).all()  # the same on both sides
    level = np.abs(np.fft.rfft(samples[:, 0]))
    assert np.argmax(level) * 2 == HZ
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    assert np.abs(middle).max() == pytest.approx(8000, rel=0.02)
    delay = int(np.argmax(np.abs(samples[:, 0]) > 4000)) / target[0]
    assert delay <= 0.003


def test_nothing_in_is_nothing_out() -> None:
    assert Resampler(8000, 1, 16_000, 1)(b"") == b""
