"""Stage vocoder: HiFT at nano's size, first its pitch predictor on WORLD's pitch, then the whole on spectra.

The losses are magnitudes at several resolutions and the flow's own mel, over crops of 0.64 s from every voice
of the corpus.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_runtime.speaking.vocoder import HARMONICS, HiFT, Snake
from model_runtime.training.speech_corpus import Utterance
from model_runtime.training.speech_features import HOP, mels
from model_runtime.training.speech_loop import Loop, Losses

BATCH, FRAMES = 4, 32  # crops, and frames of 20 ms in each: many small steps learn sooner than few large ones
# What lies below is silence to the ear (about -75 dB): its exact level, and the empty band above 8 kHz,
# would take most of a logarithmic loss.
QUIET, QUIET_MEL = 1e-2, -8.0
RESOLUTIONS = ((2048, 512, 2048), (1024, 256, 1024), (512, 128, 512), (256, 64, 200))  # n_fft, hop, window


class Crops:
    """Random crops of mel, pitch and waveform, every second of speech as likely as every other."""

    def __init__(self, utterances: list[Utterance]) -> None:
        """Leaves out what is shorter than 0.3 s."""
        self.utterances = [u for u in utterances if len(u.mel) >= 16]
        self.weights = np.cumsum([u.seconds for u in self.utterances])

    def batch(self, size: int, frames: int, rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
        """(mel [B, 80, frames], f0 [B, frames], wav [B, 480 frames]); short ones are padded with silence."""
        mels, tracks, waves = [], [], []
        for _ in range(size):
            u = self.utterances[int(np.searchsorted(self.weights, rng.random() * self.weights[-1]))]
            start = rng.randint(0, max(0, len(u.mel) - frames))
            mel, f0 = u.mel[start : start + frames].float().T, torch.from_numpy(u.f0[start : start + frames])
            wav = torch.from_numpy(u.wav[start * HOP : (start + frames) * HOP].astype(np.float32) / 32768)
            spare = frames - mel.shape[1]
            mels.append(F.pad(mel, (0, spare), value=float(np.log(1e-5))))
            tracks.append(F.pad(f0, (0, spare)))
            waves.append(F.pad(wav, (0, frames * HOP - len(wav))))
        return torch.stack(mels), torch.stack(tracks), torch.stack(waves)


def magnitude(wav: Tensor, resolution: tuple[int, int, int]) -> Tensor:
    """[B, n] -> [B, bins, frames] float32 magnitudes."""
    n_fft, hop, window = resolution
    stft = torch.stft(wav, n_fft, hop, window, torch.hann_window(window), return_complex=True)
    return (stft.real**2 + stft.imag**2 + 1e-9).sqrt()


def spectral_loss(made: Tensor, real: Tensor) -> Tensor:
    """Multi-resolution STFT loss: relative error of the magnitudes plus mean error of their logarithms."""
    total = torch.zeros(())
    for resolution in RESOLUTIONS:
        a, b = magnitude(made, resolution), magnitude(real, resolution)
        total = (
            total
            + (a - b).norm() / b.norm().clamp(min=1.0)
            + (a.clamp(min=QUIET).log() - b.clamp(min=QUIET).log()).abs().mean()
        )
    return total / len(RESOLUTIONS)


def mel_loss(made: Tensor, real: Tensor) -> Tensor:
    """Mean absolute error of the flow's own mel."""
    return (mels(made).clamp(min=QUIET_MEL) - mels(real).clamp(min=QUIET_MEL)).abs().mean()


def pitch_loss(found: Tensor, track: Tensor) -> Tensor:
    """Mean absolute error in units of 50 Hz: whether a frame is voiced weighs as much as its pitch."""
    return (found - track).abs().mean() / 50


class _QuickSnake(torch.autograd.Function):
    """x + sin(x)^2 given out in bfloat16: Snake with its alpha held at 1, in half the passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin().square_().add_(x).to(torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = (x * 2).sin_().add_(1)
        return slope.mul_(grads[0])


class _Exact(nn.Conv1d):
    """A convolution that stays in float32 under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def quicken(hift: HiFT) -> None:
    """Makes `hift` train twice as fast on a CPU under bfloat16 autocast, with the same parameters and names.

    Snake keeps alpha at 1 and hands half-precision activations on; the residual path and the last
    convolution, whose output is exponentiated, stay in float32.
    """
    for module in hift.modules():
        if isinstance(module, Snake):
            module.alpha.requires_grad_(False)
            module.forward = _QuickSnake.apply  # type: ignore[method-assign]  # this object alone
    hift.conv_post.__class__ = _Exact


def initialise(hift: HiFT) -> None:
    """A quiet start: small output, a pitch near that of speech, the fundamental loudest in the source."""
    with torch.no_grad():
        hift.conv_post.weight.mul_(0.3)
        bias = hift.conv_post.bias
        assert bias is not None
        bias[:9] = -3.0
        hift.f0_predictor.classifier.weight.mul_(20)
        hift.f0_predictor.classifier.bias.fill_(80.0)
        hift.m_source.l_linear.weight.copy_(torch.tensor([[1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.3, 0.3]]))
        hift.m_source.l_linear.bias.zero_()


def train_pitch(crops: Crops, unseen: Crops, hift: HiFT, folder: Path, steps: int, seed: int = 1) -> Loop:
    """The pitch predictor alone, on noised mels too: the flow's will not be as clean as the corpus'."""
    loop = Loop("pitch", folder, {"f0": hift.f0_predictor}, steps, rate=1e-3, seed=seed)

    def losses(step: int) -> Losses:
        rng = random.Random(f"{seed}/{step}")
        mel, track, _ = crops.batch(16, 100, rng)
        mel = mel + rng.choice((0.0, 0.1, 0.3)) * torch.randn_like(mel)
        return {"loss": pitch_loss(hift.f0(mel), track)}

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        mel, track, _ = unseen.batch(48, 100, random.Random(seed))
        found = hift.f0(mel)
        both = (found > 10) & (track > 10)
        return {
            "hz": float((found - track).abs()[both].mean()),
            "voicing_wrong": float(((found > 10) != (track > 10)).float().mean()),
        }

    loop.run(losses, evaluate)
    return loop


def train(crops: Crops, unseen: Crops, hift: HiFT, folder: Path, steps: int, seed: int = 1) -> Loop:
    """The waveform net, in place, its pitch predictor left as it is; `loop.average` is what is shipped."""
    for parameter in hift.f0_predictor.parameters():
        parameter.requires_grad_(False)
    loop = Loop("vocoder", folder, {"hift": hift}, steps, rate=1e-3, seed=seed, average=("hift",))
    quicken(hift)  # after the loop has taken its copy for the running mean

    def render(mel: Tensor) -> Tensor:
        with torch.no_grad():
            f0 = hift.f0(mel)
        # The pitch and its phase need all of float32; the convolutions do not.
        excitation = hift.source(f0, torch.randn(len(mel), mel.shape[2] * HOP, HARMONICS))
        with torch.autocast("cpu", torch.bfloat16):
            return hift.decode(mel, excitation)

    def losses(step: int) -> Losses:
        mel, _, real = crops.batch(BATCH, FRAMES, random.Random(f"{seed}/{step}"))
        made = render(mel)
        found = {"spectral": spectral_loss(made, real), "mel": mel_loss(made, real)}
        return {"loss": found["spectral"] + 5 * found["mel"], **found}

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        torch.manual_seed(seed)
        mel, _, real = unseen.batch(24, FRAMES, random.Random(seed))
        made = render(mel)
        return {"spectral": float(spectral_loss(made, real)), "mel": float(mel_loss(made, real))}

    loop.run(losses, evaluate)
    return loop
