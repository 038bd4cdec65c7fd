"""Waveform to log-mel, as the audio encoder was trained to hear it (Step-Audio 2's ``utils.py``, after
Whisper).

The loudest bin of a whole piece sets the floor of every frame, so a mel cannot be extended: a longer piece is
computed again from its samples.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

RATE = 16_000  # Hz
N_FFT = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
RIGHT_PAD = (
    479  # zero samples appended upstream, so that the last 25 ms window and two hops are always filled
)
PAD_FRAMES = 2  # frames that hear that padding alone: they are computed but are not part of the valid length
PIECE_SAMPLES = 25 * RATE  # longer audio is cut here; the encoder's positions end at 30 s
_DYNAMIC_RANGE = 8.0  # log10 units kept below the loudest bin


@lru_cache(maxsize=8)
def slaney_filters(rate: int, n_fft: int, n_mels: int, fmax: float) -> Tensor:
    """Mel filterbank with Slaney's scale and area normalisation, as ``librosa.filters.mel`` makes it.

    Returns float32 [n_mels, n_fft // 2 + 1]. Linear below 1 kHz (200/3 Hz a mel), logarithmic above (Slaney's
    Auditory Toolbox, 1998). Computed in float64 and rounded once.
    """
    step, knee_hz, log_step = 200.0 / 3, 1000.0, np.log(6.4) / 27.0
    knee = knee_hz / step
    top = fmax / step if fmax < knee_hz else knee + np.log(fmax / knee_hz) / log_step
    mels = np.linspace(0.0, top, n_mels + 2)
    edges = np.where(mels < knee, mels * step, knee_hz * np.exp(log_step * (mels - knee)))
    bins = np.linspace(0.0, rate / 2, n_fft // 2 + 1)
    widths = np.diff(edges)
    ramps = edges[:, None] - bins[None, :]
    rising, falling = -ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]
    weights = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(weights.astype(np.float32))


@lru_cache(maxsize=8)
def _window(device: torch.device) -> Tensor:
    return torch.hann_window(N_FFT, device=device)


@lru_cache(maxsize=8)
def _filters(n_mels: int, device: torch.device) -> Tensor:
    return slaney_filters(RATE, N_FFT, n_mels, RATE / 2).to(device)


def log_mel(wav: np.ndarray | Tensor, n_mels: int = 128, right_pad: int = RIGHT_PAD) -> Tensor:
    """Log-mel of one piece.

    ``wav`` is float32 [n] (or a batch [B, n] of equal lengths), 16 kHz in [-1, 1]. Returns float32 [n_mels,
    T] (or [B, n_mels, T]) on the waveform's device, T = (n + right_pad) // 160. The encoder takes the default
    padding; preparing a voice takes ``right_pad=0``. Raises ValueError when there are fewer than 201 samples
    with the padding (the reflected edges need them).
    """
    samples = torch.as_tensor(wav, dtype=torch.float32)
    if samples.shape[-1] + right_pad <= N_FFT // 2:
        raise ValueError(
            f"{samples.shape[-1]} samples are too few for a mel: at least {N_FFT // 2 + 1} are needed"
        )
    samples = F.pad(samples, (0, right_pad))
    device = samples.device
    spectrum = torch.stft(
        samples, N_FFT, HOP, window=_window(device), center=True, pad_mode="reflect", return_complex=True
    )
    power = spectrum[..., :-1].abs().square()
    mel = (_filters(n_mels, device) @ power).clamp(min=1e-10).log10()
    floor = mel.amax(dim=(-2, -1), keepdim=True) - _DYNAMIC_RANGE
    return (torch.maximum(mel, floor) + 4.0) / 4.0


def mel_frames(samples: int) -> int:
    """Valid mel frames (100 Hz) of a piece: what ``log_mel`` returns, less the frames of padding alone."""
    return max(0, (samples + RIGHT_PAD) // HOP - PAD_FRAMES)


def encoder_frames(mel_length: int) -> int:
    """Encoder frames (25 Hz) of that many valid mel frames: a convolution and a pooling, each of stride 2."""
    return (mel_length + 1) // 2 // 2


def patches(encoder_length: int) -> int:
    """``<audio_patch>`` positions (12.5 Hz) the adaptor makes of that many encoder frames."""
    return (encoder_length - 1) // 2 + 1 if encoder_length > 0 else 0


def token_count(samples: int) -> int:
    """``<audio_patch>`` positions one piece of at most 25 s takes in the prompt. 0 below 20 ms."""
    return patches(encoder_frames(mel_frames(samples)))


def split_pieces(samples: int) -> list[tuple[int, int]]:
    """Where audio of that many samples is cut: [from, to) of at most 25 s, none too short to be heard."""
    cuts = [(at, min(at + PIECE_SAMPLES, samples)) for at in range(0, samples, PIECE_SAMPLES)]
    return [(begin, end) for begin, end in cuts if token_count(end - begin) > 0]
