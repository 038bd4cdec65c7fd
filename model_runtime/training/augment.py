"""What a telephone, a room and a street do to a question, and noises that are none. Plain numpy.

Every function takes and returns float32 [n] in [-1, 1] at 16 kHz and draws from the generator it is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

RATE = 16_000  # Hz
Wave = npt.NDArray[np.float32]
Draw = np.random.Generator


def loudness(wave: Wave) -> float:
    """Root mean square of the louder half of its 20 ms frames: the level of the speech, not of the pauses."""
    frames = wave[: len(wave) // 320 * 320].reshape(-1, 320)
    if not len(frames):
        return float(np.sqrt(np.mean(np.square(wave)) + 1e-12)) if len(wave) else 1e-6
    power = np.sort(np.mean(np.square(frames), axis=1))
    return float(np.sqrt(power[len(power) // 2 :].mean() + 1e-12))


def shaped(wave: Wave, draw: Draw, decibels: float = 8.0, low: float = 0.0, high: float = 8000.0) -> Wave:
    """A random smooth equaliser of at most `decibels` each way, nothing below `low` or above `high` Hz."""
    spectrum = np.fft.rfft(wave)
    hertz = np.linspace(0, RATE / 2, len(spectrum))
    curve = np.interp(hertz, np.linspace(0, RATE / 2, 9), draw.uniform(-decibels, decibels, 9))
    gain = 10 ** (curve / 20)
    gain *= 1 / (1 + np.exp(-(hertz - low) / 25)) if low > 0 else 1.0
    gain *= 1 / (1 + np.exp((hertz - high) / 60)) if high < RATE / 2 else 1.0
    return np.asarray(np.fft.irfft(spectrum * gain, len(wave)), dtype=np.float32)


def tilted(wave: Wave, decibels: float) -> Wave:
    """Louder or, below zero, softer by that much at 8 kHz than at 0 Hz, evenly in between: a dull voice, or a
    hand before the microphone, whose consonants then drown first.
    """
    spectrum = np.fft.rfft(wave)
    gain = 10 ** (np.linspace(0, decibels, len(spectrum)) / 20)
    return np.asarray(np.fft.irfft(spectrum * gain, len(wave)), dtype=np.float32)


def in_room(wave: Wave, draw: Draw) -> Wave:
    """A synthetic room: a direct path and a tail of noise that decays by 60 dB in 0.1 to 0.5 s."""
    seconds = draw.uniform(0.1, 0.5)
    length = int(seconds * RATE)
    tail = draw.standard_normal(length).astype(np.float32) * 10 ** (
        -3 * np.arange(length, dtype=np.float32) / length
    )
    tail *= draw.uniform(0.05, 0.5) / np.sqrt(np.sum(np.square(tail)))
    tail[0] = 1.0
    size = 1 << int(np.ceil(np.log2(len(wave) + length)))
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: len(wave)].astype(
        np.float32
    )


def coloured(count: int, draw: Draw, slope: float) -> Wave:
    """Noise whose power falls as frequency ** slope: 0 white, 1 pink, 2 brown. Unit power."""
    spectrum = np.fft.rfft(draw.standard_normal(count))
    spectrum *= np.maximum(np.arange(len(spectrum)), 8.0) ** (-slope / 2)
    noise = np.fft.irfft(spectrum, count)
    return np.asarray(noise / (np.std(noise) + 1e-9), dtype=np.float32)


def with_noise(wave: Wave, noise: Wave, decibels: float) -> Wave:
    """The noise under the speech, at that signal-to-noise ratio."""
    scale = loudness(wave) / (np.sqrt(np.mean(np.square(noise))) + 1e-9) * 10 ** (-decibels / 20)
    return np.asarray(wave + noise[: len(wave)] * scale, dtype=np.float32)


def _law(wave: npt.NDArray[np.float64], a_law: bool) -> npt.NDArray[np.float64]:
    """Compressed to 8 bits and expanded again, by the continuous curves of G.711."""
    sign, size = np.sign(wave), np.minimum(np.abs(wave), 1.0)
    if a_law:
        a = 87.6
        scale = 1 + np.log(a)
        packed = np.where(size < 1 / a, a * size, 1 + np.log(np.maximum(a * size, 1.0))) / scale
        packed = np.round(packed * 127) / 127
        size = np.where(packed < 1 / scale, packed * scale / a, np.exp(packed * scale - 1) / a)
    else:
        packed = np.round(np.log1p(255 * size) / np.log(256) * 127) / 127
        size = np.expm1(packed * np.log(256)) / 255
    return np.asarray(sign * size)


def telephone(
    wave: Wave, a_law: bool = False, low: float = 0.0, high: float = 4000.0, lost: Draw | None = None
) -> Wave:
    """Over G.711: down to 8 kHz, 8 bits, up again. With `lost`, a few packets of 20 ms are missing."""
    even = wave[: len(wave) // 2 * 2]
    spectrum = np.fft.rfft(even)
    half = spectrum[: len(even) // 4 + 1].copy()
    hertz = np.linspace(0, RATE / 4, len(half))
    half[(hertz < low) | (hertz > high)] = 0
    half[-1] = 0
    narrow = _law(np.fft.irfft(half, len(even) // 2) / 2, a_law)
    if lost is not None:
        for at in np.flatnonzero(lost.random(len(narrow) // 160) < 0.03) * 160:
            narrow[at : at + 160] = 0
    wide = np.zeros(len(spectrum), dtype=complex)
    back = np.fft.rfft(narrow)
    wide[: len(back)] = back
    return np.asarray(np.fft.irfft(wide, len(even)) * 2, dtype=np.float32)


def placed(wave: Wave, draw: Draw) -> tuple[Wave, int]:
    """As the segmenter hands it over, and how many samples later than before.

    200 ms of pre-roll more or less, up to 0.6 s of trailing silence, starts cut.
    """
    cut = int(draw.uniform(0, 0.06) * RATE) if draw.random() < 0.3 else 0
    before = 0.2 + draw.normal(0, 0.08) if draw.random() < 0.6 else draw.uniform(0.0, 0.5)
    after = draw.uniform(0.0, 0.5)
    lead = int(np.clip(before, 0, 0.6) * RATE)
    wave = np.pad(wave[cut:], (lead, int(after * RATE))).astype(np.float32)
    return wave[: len(wave) // 640 * 640], lead - cut  # a length that Fourier transforms like


def nothing(draw: Draw, babble: Wave) -> Wave:
    """No speech for anyone: silence, hiss, hum, tones, clicks, or several people at once."""
    count = int(draw.uniform(0.4, 3.0) * RATE)
    wave: npt.NDArray[Any]
    time = np.arange(count) / RATE
    match draw.integers(6):
        case 0:
            wave = draw.standard_normal(count) * 10 ** draw.uniform(-5, -3)
        case 1:
            wave = coloured(count, draw, draw.uniform(0, 2)) * 0.1
        case 2:
            tone = draw.uniform(80, 2000) * 2 ** (
                draw.integers(-5, 6, 1 + count // 4000).repeat(4000)[:count] / 12
            )
            wave = 0.2 * np.sin(2 * np.pi * np.cumsum(tone) / RATE) + 0.1 * np.sin(
                4 * np.pi * np.cumsum(tone) / RATE
            )
        case 3:
            wave = sum(
                0.1 * np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 8)
            ) + 0.001 * draw.standard_normal(count)
        case 4:
            wave = (draw.random(count) < 3e-4) * draw.uniform(-1, 1, count)
            wave = np.convolve(wave, np.exp(-np.arange(400) / 60) * draw.standard_normal(400), "same")
        case _:
            wave = np.resize(babble, count) * 0.1
    noise = 10 ** draw.uniform(-4, -2) * draw.standard_normal(count)
    return np.asarray(np.clip(wave + noise, -1, 1), dtype=np.float32)


def over_a_line(wave: Wave, babble: Wave, draw: Draw, hardness: float = 1.0) -> tuple[Wave, int]:
    """One hearing of an utterance, and how many samples later it begins.

    `hardness` 0 is clean, 1 is all that happens on a real line; `babble` has unit power.
    """
    wave, late = placed(wave, draw)
    if draw.random() < 0.3 * hardness:
        wave = in_room(wave, draw)
    if draw.random() < 0.5 * hardness:
        wave = tilted(wave, draw.uniform(-26, 6))
    narrow = draw.random() < 0.15 * hardness
    if draw.random() < 0.5:
        wave = shaped(
            wave, draw, 8.0 * hardness + 1, high=draw.choice([3600, 4000, 6000]) if narrow else 8000
        )
    if draw.random() < 0.3 + 0.55 * hardness:
        kind = draw.random()
        noise = (
            np.resize(babble, len(wave))
            if kind < 0.2
            else coloured(len(wave), draw, 0 if kind < 0.65 else draw.uniform(0, 2))
        )
        easiest = 35 - 10 * hardness
        wave = with_noise(wave, noise, draw.uniform(easiest - 20 * hardness, easiest))
    else:
        wave = wave + draw.standard_normal(len(wave)).astype(np.float32) * 10 ** draw.uniform(-5, -3)
    wave = wave * (10 ** draw.uniform(-1.3 * hardness, 0.1) * 0.6 / (np.abs(wave).max() + 1e-6))
    wave = np.clip(wave, -1, 1).astype(np.float32)
    if draw.random() < 0.3 + 0.4 * hardness:
        low = draw.choice([0.0, 200.0, 300.0])
        lossy = draw if draw.random() < 0.1 * hardness else None
        wave = telephone(wave, draw.random() < 0.5, low, draw.choice([3400.0, 3700.0, 4000.0]), lossy)
    return (np.round(wave * 32767) / 32767).astype(np.float32), late
