"""HiFT: mel frames at 50 Hz to a 24 kHz waveform through a harmonic source filter and an inverse STFT.

Structure and parameter names are those of `HiFTGenerator` in Step-Audio 2's `token2wav/hift.pt`, with weight
normalisation folded into plain weights (`fold_weight_norm`). `forward` is differentiable and batched, for
training; `f0`, `source` and `decode` are its three parts, which streaming calls one by one.

Shapes: B batch, T mel frames (480 samples each), S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RATE = 24000  # Hz
HOP = 480  # samples a mel frame: the product of the up-sampling rates and the STFT hop
HARMONICS = 9  # the fundamental and 8 overtones
SINE_AMPLITUDE = 0.1
NOISE_VOICED = (
    0.003  # standard deviation under a voiced frame; unvoiced frames get a third of the sine's amplitude
)
VOICED_ABOVE = 10.0  # Hz
UP_RATES, UP_KERNELS = (8, 5, 3), (16, 11, 7)
SOURCE_RATES, SOURCE_KERNELS = (15, 3, 1), (7, 7, 11)  # from the STFT rate down to each stage's rate
RES_KERNELS, DILATIONS = (3, 7, 11), (1, 3, 5)
N_FFT, STFT_HOP = 16, 4
BINS = N_FFT // 2 + 1
AUDIO_LIMIT = 0.99
SLOPE = 0.1


@dataclass(frozen=True)
class HiFTConfig:
    """Dimensions of the vocoder; the published one is the default."""

    base_channels: int = 512
    f0_channels: int = 512
    mel_channels: int = 80

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> HiFTConfig:
        """Read the dimensions from a (folded) state dict's shapes; KeyError if a tensor is missing."""
        base, mel, _ = tensors["conv_pre.weight"].shape
        return cls(base, tensors["f0_predictor.classifier.weight"].shape[1], mel)


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, one alpha a channel."""

    def __init__(self, channels: int) -> None:
        """One alpha for each of `channels`, beginning at 1."""
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, S] -> [B, C, S]."""
        alpha = self.alpha.unsqueeze(1)
        return torch.addcmul(x, torch.sin(x * alpha).square(), 1 / (alpha + 1e-9))


class ResBlock(nn.Module):
    """Three residual pairs of convolutions with Snake activations, the first of each pair dilated."""

    def __init__(self, channels: int, kernel: int) -> None:
        """`channels` in and out, all convolutions `kernel` wide."""
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel - 1) // 2)
            for d in DILATIONS
        )
        self.convs2 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in DILATIONS
        )
        self.activations1 = nn.ModuleList(Snake(channels) for _ in DILATIONS)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, S] -> [B, C, S]."""
        for act1, conv1, act2, conv2 in zip(
            self.activations1, self.convs1, self.activations2, self.convs2, strict=True
        ):
            x = x + conv2(act2(conv1(act1(x))))
        return x


class F0Predictor(nn.Module):
    """Five convolutions and a linear layer: mel to the fundamental frequency, 0 where unvoiced."""

    def __init__(self, mel: int, channels: int) -> None:
        """From `mel` bins, `channels` wide."""
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(5):
            layers += [nn.Conv1d(channels if i else mel, channels, 3, padding=1), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """[B, 80, T] -> Hz [B, T], never negative."""
        y: Tensor = self.classifier(self.condnet(mel).transpose(1, 2))
        return y.squeeze(2).abs()


class Source(nn.Module):
    """Holds the mix of the harmonics under the name that it has in the checkpoint."""

    def __init__(self) -> None:
        """The mix of 9 harmonics to one."""
        super().__init__()
        self.l_linear = nn.Linear(HARMONICS, 1)


class HiFT(nn.Module):
    """The vocoder (see the module's docstring)."""

    def __init__(self, config: HiFTConfig) -> None:
        """Random weights, ready to be trained or filled."""
        super().__init__()
        self.config = config
        base = config.base_channels
        self.m_source = Source()
        self.f0_predictor = F0Predictor(config.mel_channels, config.f0_channels)
        self.conv_pre = nn.Conv1d(config.mel_channels, base, 7, padding=3)
        widths = [base >> (i + 1) for i in range(3)]
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(base >> i, widths[i], k, u, padding=(k - u) // 2)
            for i, (u, k) in enumerate(zip(UP_RATES, UP_KERNELS, strict=True))
        )
        self.source_downs = nn.ModuleList(
            nn.Conv1d(2 * BINS, width, 1 if r == 1 else 2 * r, r, padding=r // 2)
            for width, r in zip(widths, SOURCE_RATES, strict=True)
        )
        self.source_resblocks = nn.ModuleList(
            ResBlock(w, k) for w, k in zip(widths, SOURCE_KERNELS, strict=True)
        )
        self.resblocks = nn.ModuleList(ResBlock(width, k) for width in widths for k in RES_KERNELS)
        self.conv_post = nn.Conv1d(widths[-1], 2 * BINS, 7, padding=3)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.window: Tensor

    def f0(self, mel: Tensor) -> Tensor:
        """Mel [B, 80, T] to the fundamental frequency in Hz [B, T]."""
        hertz: Tensor = self.f0_predictor(mel)
        return hertz

    def phase(self, f0: Tensor, before: Tensor | None = None) -> Tensor:
        """Phase in the middle of each frame, per harmonic: [B, T, 9] from f0 [B, T] in Hz, in 480ths of a
        cycle.

        It accumulates at the frame rate, from `before` [B, 9], the phase in the middle of the frame before.
        The odd unit is the reference's: it multiplies by 480 last, and float32 sums are only reproduced in
        the same order.
        """
        multiple = torch.arange(1, HARMONICS + 1, device=f0.device, dtype=f0.dtype)
        steps = (f0.unsqueeze(2) * multiple / RATE) % 1
        return steps.cumsum(1) if before is None else before.unsqueeze(1) + steps.cumsum(1)

    def source(
        self, f0: Tensor, noise: Tensor | None = None, before: Tensor | None = None, goes_on: bool = False
    ) -> Tensor:
        """The excitation [B, 480 T]: harmonics where voiced, noise where not, mixed and squashed to (-1, 1).

        `noise` is standard normal [B, 480 T, 9] or None for none. `before` is explained at `phase`: with it
        the first half frame continues the frame before, without it the phase stands still for that half
        frame. It also stands still in the last half frame, unless the voice `goes_on`, at the last frame's
        pitch.

        The reference also draws a starting phase for each overtone, but its down-sampling to the frame rate
        never reads the one sample that carries it, so no draw of it can be heard and none is made here.
        """
        middle = self.phase(f0, before).transpose(1, 2)  # [B, 9, T]
        first, count = 0, f0.shape[1] * HOP
        if before is not None:
            middle, first = torch.cat([before.unsqueeze(2), middle], 2), HOP
        if goes_on:
            step = self.phase(f0[:, -1:]).transpose(1, 2)
            middle = torch.cat([middle, middle[:, :, -1:] + step], 2)
        angle = F.interpolate(middle * (2 * torch.pi) * HOP, scale_factor=HOP, mode="linear").transpose(1, 2)
        angle = angle[:, first : first + count]
        voiced = (f0 > VOICED_ABOVE).to(f0.dtype).repeat_interleave(HOP, 1).unsqueeze(2)
        waves = torch.sin(angle) * SINE_AMPLITUDE * voiced
        if noise is not None:
            waves = waves + (voiced * NOISE_VOICED + (1 - voiced) * (SINE_AMPLITUDE / 3)) * noise
        mixed: Tensor = self.m_source.l_linear(waves)
        return torch.tanh(mixed).squeeze(2)

    def decode(self, mel: Tensor, source: Tensor) -> Tensor:
        """Mel [B, 80, T] and excitation [B, 480 T] to the waveform [B, 480 T], within +-0.99."""
        spectrum = torch.stft(source, N_FFT, STFT_HOP, window=self.window, return_complex=True)
        excitation = torch.cat([spectrum.real, spectrum.imag], 1)
        x = self.conv_pre(mel)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, SLOPE))
            if i == len(self.ups) - 1:
                x = F.pad(x, (1, 0), mode="reflect")  # the STFT has one column more than 120 a frame
            x = x + self.source_resblocks[i](self.source_downs[i](excitation))
            blocks = self.resblocks[3 * i : 3 * i + 3]
            x = torch.stack([block(x) for block in blocks]).mean(0)
        x = self.conv_post(F.leaky_relu(x))  # slope 0.01 here, as in the reference
        magnitude = x[:, :BINS].exp().clamp(max=1e2)
        angle = torch.sin(x[:, BINS:])
        wave = torch.istft(torch.polar(magnitude, angle), N_FFT, STFT_HOP, window=self.window)
        return wave.clamp(-AUDIO_LIMIT, AUDIO_LIMIT)

    def forward(
        self, mel: Tensor, lengths: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mel [B, 80, T] to waveform [B, 480 T] and f0 [B, T], differentiably.

        `lengths` int [B] in frames: samples beyond are zeroed. The noise comes from `generator`.
        No gradient flows through the source's phase to f0: train f0 on its own target.
        """
        f0 = self.f0(mel)
        noise = torch.randn(
            (mel.shape[0], mel.shape[2] * HOP, HARMONICS), generator=generator, device=mel.device
        )
        wave = self.decode(mel, self.source(f0.detach(), noise))
        if lengths is not None:
            wave = wave * (torch.arange(wave.shape[1], device=wave.device) < lengths.unsqueeze(1) * HOP)
        return wave, f0


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip a `generator.` prefix and turn each weight-norm pair into the plain weight g v / |v|.

    Accepts both of torch's spellings, `parametrizations.weight.original0/1` and `weight_g/weight_v`. The norm
    is over all axes but the first, which is the one that weight norm keeps (also for transposed
    convolutions).
    """
    plain: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = key.removeprefix("generator.")
        for g, v in (
            ("parametrizations.weight.original0", "parametrizations.weight.original1"),
            ("weight_g", "weight_v"),
        ):
            if name.endswith("." + g):
                break
            if name.endswith("." + v):
                stem = name.removesuffix(v)
                size = tensors[key.removesuffix(v) + g].float()
                # torch's own function: another order of the same operations moves f0 by one unit in the last
                # place, which the accumulated phase turns into an audible part of the reference's tolerance.
                plain[stem + "weight"] = torch._weight_norm(value.float(), size, 0)
                break
        else:
            plain[name] = value
    return plain
