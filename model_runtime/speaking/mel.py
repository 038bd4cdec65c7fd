"""The two spectra that a voice prompt is turned into, beside the encoder's log-mel (`listening.features`)."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_runtime.listening.features import slaney_filters

MEL_RATE = 24000  # Hz
MEL_FFT = 1920  # samples, 80 ms
MEL_HOP = 480  # samples, 20 ms: 50 frames a second
MEL_BINS = 80
MEL_TOP = 8000.0  # Hz

FBANK_RATE = 16000  # Hz
FBANK_WINDOW = 400  # samples, 25 ms
FBANK_HOP = 160  # samples, 10 ms
FBANK_FFT = 512
FBANK_BINS = 80
PREEMPHASIS = 0.97
LOW_HZ = 20.0  # kaldi's default low_freq


@cache
def _mel_filters() -> Tensor:
    return slaney_filters(MEL_RATE, MEL_FFT, MEL_BINS, MEL_TOP)


def mel24k(wav: np.ndarray | Tensor) -> Tensor:
    """The flow's mel: float32 [n // 480, 80], natural log of magnitudes, from 24 kHz float32 [n] in [-1, 1].

    Step-Audio 2, `flashcosyvoice/utils/audio.py`: periodic Hann of 1920, reflected 720 samples at each side,
    so that a frame's window is centred on its 480 samples. Needs more than 720 samples.
    """
    samples = torch.as_tensor(wav, dtype=torch.float32).view(1, 1, -1)
    side = (MEL_FFT - MEL_HOP) // 2
    padded = F.pad(samples, (side, side), mode="reflect").view(1, -1)
    window = torch.hann_window(MEL_FFT)
    spectrum = torch.stft(padded, MEL_FFT, MEL_HOP, window=window, center=False, return_complex=True)[0]
    magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
    return (_mel_filters() @ magnitude).clamp(min=1e-5).log().T


@cache
def _kaldi_filters() -> Tensor:
    """Kaldi's triangles, straight in mel = 1127 ln(1 + f / 700): float32 [80, 257], no Nyquist bin."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log(1.0 + hertz / 700.0)

    low, high = mel(torch.tensor([LOW_HZ, FBANK_RATE / 2], dtype=torch.float64)).tolist()
    step = (high - low) / (FBANK_BINS + 1)
    left = (low + torch.arange(FBANK_BINS) * step).unsqueeze(1)  # float32, as the reference rounds it
    bins = mel(torch.arange(FBANK_FFT // 2) * (FBANK_RATE / FBANK_FFT)).unsqueeze(0)
    centre, right = left + step, left + 2 * step
    up, down = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return F.pad(torch.minimum(up, down).clamp(min=0), (0, 1))


def fbank(wav: np.ndarray | Tensor) -> Tensor:
    """Kaldi's log filterbank: float32 [F, 80] from 16 kHz float32 [n] in [-1, 1]; F = 1 + (n - 400) // 160.

    As `torchaudio.compliance.kaldi.fbank(num_mel_bins=80, dither=0)`: each 25 ms frame has its mean removed,
    is pre-emphasised (its first sample with itself) and weighted by povey's window, hann ** 0.85; power
    spectrum, natural log floored at float32's epsilon. Needs at least 400 samples.
    """
    frames = torch.as_tensor(wav, dtype=torch.float32).unfold(0, FBANK_WINDOW, FBANK_HOP)
    frames = frames - frames.mean(1, keepdim=True)
    before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
    window = torch.hann_window(FBANK_WINDOW, periodic=False).pow(0.85)
    spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * window, FBANK_FFT)
    power: Tensor = spectrum.abs().square()
    return (power @ _kaldi_filters().T).clamp(min=torch.finfo(torch.float32).eps).log()
