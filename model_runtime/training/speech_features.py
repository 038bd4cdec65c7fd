"""Features of the speaking stages beside the product's own: trimmed speech, a batched mel, a pitch track."""

import sys
import types
from functools import cache

import numpy as np
import numpy.typing as npt
import soxr
import torch

from model_runtime.listening.features import slaney_filters
from model_runtime.speaking.mel import MEL_BINS, MEL_FFT, MEL_HOP, MEL_RATE, MEL_TOP

Wave = npt.NDArray[np.float32]

MEL_HZ = 50  # frames a second of the 24 kHz mel
HOP = MEL_HOP  # samples of 24 kHz speech in one such frame
EDGE_SECONDS = 0.06  # silence left around trimmed speech: a soft onset, too short to be a pause


def to_rate(wav: Wave, rate: int, wanted: int) -> Wave:
    """[n] float32 at `rate` Hz, resampled to `wanted` Hz."""
    return np.asarray(soxr.resample(wav, rate, wanted), dtype=np.float32) if rate != wanted else wav


def trimmed(wav: Wave, rate: int, lead: float = EDGE_SECONDS, tail: float = EDGE_SECONDS) -> Wave:
    """[n] float32 cut to its speech, with `lead` and `tail` seconds of silence around it.

    Speech is any 10 ms whose peak lies within 40 dB of the loudest.
    """
    step = rate // 100
    frames = len(wav) // step
    peaks = np.abs(wav[: frames * step]).reshape(frames, step).max(axis=1)
    loud = np.flatnonzero(peaks > 0.01 * peaks.max())
    before, after = int(lead * rate), int(tail * rate)
    padded = np.pad(wav, (before, after))
    return padded[loud[0] * step : (loud[-1] + 1) * step + before + after]


def pitch(wav24k: Wave, frames: int) -> Wave:
    """[n] float32 at 24 kHz -> [frames] float32: Hz, 0 where unvoiced (WORLD's DIO and StoneMask)."""
    # pyworld asks for its own version on import, through a module that newer setuptools no longer has.
    if "pkg_resources" not in sys.modules:
        stand_in = types.ModuleType("pkg_resources")
        stand_in.get_distribution = lambda name: types.SimpleNamespace(version="")  # type: ignore[attr-defined]  # made on the spot
        sys.modules["pkg_resources"] = stand_in
    import pyworld

    wide = wav24k.astype(np.float64)
    coarse, times = pyworld.dio(wide, 24000, f0_floor=55.0, f0_ceil=500.0, frame_period=1000 / MEL_HZ)
    track = pyworld.stonemask(wide, coarse, times + 0.01, 24000)  # the mel's frames are centred 10 ms later
    return np.pad(track, (0, max(0, frames - len(track))))[:frames].astype(np.float32)


def mels(wav24k: torch.Tensor) -> torch.Tensor:
    """[B, n] float32 at 24 kHz -> [B, 80, n // 480]: `speaking.mel.mel24k` of a batch, differentiable."""
    side = (MEL_FFT - MEL_HOP) // 2
    padded = torch.nn.functional.pad(wav24k[None], (side, side), mode="reflect")[0]
    window = torch.hann_window(MEL_FFT)
    stft = torch.stft(padded, MEL_FFT, MEL_HOP, window=window, center=False, return_complex=True)
    magnitude = (stft.real**2 + stft.imag**2 + 1e-9).sqrt()
    return (_filters() @ magnitude).clamp(min=1e-5).log()


@cache
def _filters() -> torch.Tensor:
    return slaney_filters(MEL_RATE, MEL_FFT, MEL_BINS, MEL_TOP)
