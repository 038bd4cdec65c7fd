"""What of a voice can be measured: pitch, brightness, rate. Pure numpy."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from model_runtime.library.entry import Measures

RATE = 16_000
LOWEST, HIGHEST = 60.0, 420.0  # Hz of the voice: a deep man's to a child's
SPEECH_DB = 25.0  # frames that far below the loudest are pauses

_WINDOW, _HOP = 640, 160  # samples: 40 ms holds two periods of the lowest pitch; 10 ms
_VOICED = 0.5  # normalised autocorrelation above which a frame has a pitch
_SAME = 0.9  # a shorter period with so much of the best one's correlation is the true one, not its multiple
_SYLLABLE_BAND = (300.0, 2500.0)  # Hz: vowels are loud there, hum and hiss are not
_SYLLABLE_SMOOTH = 12  # frames of 10 ms: a syllable is seldom shorter
_DIP_DB = 2.0  # between two syllables


def measure(mono: NDArray[np.float32], rate: int) -> Measures:
    """Measures of a recording, float32 [n] at ``rate`` Hz; a measure for which there is too little is 0."""
    wav = mono if rate == RATE else soxr.resample(mono, rate, RATE)
    if len(wav) < 4 * _WINDOW:
        return Measures()
    frames = np.lib.stride_tricks.sliding_window_view(wav.astype(np.float64), _WINDOW)[::_HOP]
    energy = 10 * np.log10(np.square(frames).mean(1) + 1e-12)
    speech = energy > energy.max() - SPEECH_DB
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(_WINDOW), 2 * _WINDOW)))
    return Measures(
        pitch_hz=_pitch(frames[speech]),
        brightness_hz=_brightness(power[speech]),
        rate_hz=_rate(power, speech),
    )


def _pitch(frames: NDArray[np.float64]) -> float:
    """Median over the frames that have one: from the autocorrelation, divided by the window's own."""
    window = np.hanning(_WINDOW)

    def correlate(x: NDArray[np.float64]) -> NDArray[np.float64]:
        whole = np.fft.irfft(np.square(np.abs(np.fft.rfft(x, 2 * _WINDOW))))
        return np.asarray(whole[..., : round(RATE / LOWEST) + 2])

    centred = (frames - frames.mean(1, keepdims=True)) * window
    found = correlate(centred) / correlate(window)
    found /= np.maximum(found[:, :1], 1e-12)
    first = int(RATE / HIGHEST)
    found = found[:, first - 1 :]
    middle = found[:, 1:-1]
    peaks = np.where((middle > found[:, :-2]) & (middle >= found[:, 2:]), middle, 0.0)
    best = peaks.max(1)
    voiced = best > _VOICED
    if voiced.sum() < 10:
        return 0.0
    lag = first + np.argmax(peaks[voiced] >= _SAME * best[voiced, None], axis=1)
    return float(np.median(RATE / lag))


def _brightness(power: NDArray[np.float64]) -> float:
    """Median over frames of the mean frequency, by amplitude: by power it would be the first formant's."""
    amplitude = np.sqrt(power)
    hertz = np.fft.rfftfreq(2 * _WINDOW, 1 / RATE)
    return float(np.median(amplitude @ hertz / np.maximum(amplitude.sum(1), 1e-12)))


def _rate(power: NDArray[np.float64], speech: NDArray[np.bool_]) -> float:
    """Peaks of the smoothed loudness in the band of vowels, parted by a dip, in a second of speech."""
    hertz = np.fft.rfftfreq(2 * _WINDOW, 1 / RATE)
    band = (hertz >= _SYLLABLE_BAND[0]) & (hertz <= _SYLLABLE_BAND[1])
    smooth = np.hanning(_SYLLABLE_SMOOTH + 2)[1:-1]
    loudness = 10 * np.log10(np.convolve(power[:, band].sum(1), smooth / smooth.sum(), "same") + 1e-12)
    floor = loudness.max() - SPEECH_DB
    peaks, high, low, rising = 0, -np.inf, np.inf, True
    for value in loudness:  # up to a peak, down to a dip, and so on
        high, low = max(high, value), min(low, value)
        if rising and value < high - _DIP_DB:
            peaks += high > floor
            rising, low = False, value
        elif not rising and value > low + _DIP_DB:
            rising, high = True, value
    seconds = float(speech.sum()) * _HOP / RATE
    return peaks / seconds if seconds else 0.0
