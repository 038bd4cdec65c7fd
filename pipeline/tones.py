"""Pure tones on a line: beeps, ring-back, the three tones before "the number is not in service". Pure.

A window of 80 ms is a tone if nearly all of its energy in the telephone's band lies within 60 Hz of one
frequency. Two that are 40 or 50 Hz apart (ring-back, ITU-T E.180) are one by that rule, at their middle,
which is all that has to be known of them. A voice that hums passes it now and then, up to 120 ms at one
pitch and below 500 Hz in all that was looked at: so a tone counts from ``least_ms`` on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
FRAME_MS = 20
FRAME = RATE * FRAME_MS // 1000
WINDOW = 4 * FRAME
FFT = 2048  # bins of 7.8 Hz
BAND = (280.0, 3400.0)  # Hz
WIDTH_HZ = 60.0
PURITY = 0.85  # share of the energy; a tone 10 dB above white noise has 0.9
LEAST_RMS = 100.0  # of 32768: 50 dB below full scale is no tone that anybody is meant to hear
DRIFT_HZ = 7.0  # a telephone exchange keeps its tones to 1 %; a voice does not

_hann = np.hanning(WINDOW).astype(np.float32)
_hz = np.fft.rfftfreq(FFT, 1 / RATE)
_band = (_hz >= BAND[0]) & (_hz <= BAND[1])


def least_ms(hz: float) -> int:
    """From how long on it is a tone, at that frequency, rather than a voice."""
    return 200 if hz < 600 else 120


def frequency(window: NDArray[np.int16]) -> float | None:
    """The frequency in Hz of the tone that fills ``window`` (``WINDOW`` samples at 16 kHz); None: no tone."""
    samples = window.astype(np.float32)
    if float(np.sqrt(np.mean(samples**2))) < LEAST_RMS:
        return None
    power = np.abs(np.fft.rfft(samples * _hann, FFT)) ** 2
    power[~_band] = 0.0
    total = float(power.sum())
    near = np.abs(_hz - _hz[int(power.argmax())]) <= WIDTH_HZ
    share = float(power[near].sum())
    if share < PURITY * total or not total:
        return None
    return float((power[near] * _hz[near]).sum() / share)


@dataclass
class Tone:
    """A tone in the windows of frames ``begin`` to before ``end``, as far as it is known."""

    hz: float
    begin: int
    end: int

    @property
    def ms(self) -> int:
        """How long it is, or has been: the first and the last window have but a frame of it."""
        return (self.end - self.begin - 2 * (WINDOW // FRAME - 1)) * FRAME_MS


class ToneTracker:
    """Follows the tones of one line, 20 ms at a time."""

    def __init__(self) -> None:
        """Silence so far."""
        self.now: Tone | None = None  # the one that sounds, once it is sure
        self._window = np.zeros(WINDOW, np.int16)
        self._run: Tone | None = None
        self._frames = 0

    def push(self, frame: NDArray[np.int16]) -> Tone | None:
        """The next ``FRAME`` samples at 16 kHz. The tone that has just ended, if one has."""
        self._window = np.concatenate((self._window[FRAME:], frame))
        self._frames += 1
        hz = frequency(self._window)
        run, ended = self._run, None
        if run is not None and (hz is None or abs(hz - run.hz) > DRIFT_HZ):
            ended, self.now, run = self.now, None, None
        if hz is not None:
            run = run or Tone(hz, self._frames - WINDOW // FRAME, self._frames)
            run.end = self._frames
            if run.ms >= least_ms(run.hz):
                self.now = run
        self._run = run
        return ended
