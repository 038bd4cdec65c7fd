"""What nets that judge a short sound have in common: their ear, how they learn, how they are kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from model_runtime.training.augment import (
    RATE,
    Wave,
    coloured,
    in_room,
    shaped,
    telephone,
    tilted,
    with_noise,
)
from model_runtime.training.speech_onnx import halve

WINDOW, HOP, MELS = 400, 160, 40
Sound = tuple[Wave, int]
"""And which kind it is."""


class LogMel(nn.Module):
    """A net that hears samples: its log-mel is part of it, so who runs it needs nothing else.

    Level plays no part: the loudest bin is the measure of all.
    """

    waves: Tensor
    mels: Tensor

    def __init__(self) -> None:
        """The ear alone."""
        super().__init__()
        angle = 2 * np.pi * np.outer(np.arange(WINDOW // 2 + 1), np.arange(WINDOW)) / WINDOW
        window = np.hanning(WINDOW)
        waves = np.concatenate([np.cos(angle) * window, np.sin(angle) * window])
        self.register_buffer("waves", torch.tensor(waves, dtype=torch.float32)[:, None])
        self.register_buffer("mels", torch.tensor(_filters(), dtype=torch.float32))

    def forward(self, wave: Tensor) -> Tensor:
        """Waveform [B, N] in [-1, 1] -> logits [B, kinds]."""
        return self.told(self.features(wave))

    def features(self, wave: Tensor) -> Tensor:
        """Waveform [B, N] -> log-mel [B, MELS, T], about -2 to 1."""
        bins = functional.conv1d(wave[:, None], self.waves, stride=HOP)
        real, imaginary = bins.chunk(2, dim=1)
        power = torch.einsum("mb,nbt->nmt", self.mels, real.square() + imaginary.square())
        loudest = power.amax(dim=(1, 2), keepdim=True) + 1e-9
        return torch.log(power / loudest + 1e-5) / 4 + 1

    def told(self, features: Tensor) -> Tensor:
        """Log-mel [B, MELS, T] -> logits [B, kinds]."""
        raise NotImplementedError  # each net has its own


def _filters() -> npt.NDArray[np.float64]:
    """Triangles [MELS, WINDOW // 2 + 1], even on the mel scale from 80 to 7,600 Hz (HTK's formula)."""

    def mel(hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return 2595 * np.log10(1 + np.asarray(hertz) / 700)

    corners = np.linspace(mel(80), mel(7600), MELS + 2)
    at = mel(np.arange(WINDOW // 2 + 1) * RATE / WINDOW)
    rising = (at - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - at) / (corners[2:] - corners[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))


def carried(wave: Wave, draw: np.random.Generator, noisy: float, decibels: tuple[float, float]) -> Wave:
    """As rooms, microphones and lines carry it; ``noisy``: the share with noise, so many dB below."""
    if draw.random() < 0.35:
        wave = in_room(wave, draw)
    if draw.random() < 0.4:
        wave = tilted(wave, draw.uniform(-22, 6))
    if draw.random() < 0.4:
        wave = shaped(wave, draw, 7.0)
    if draw.random() < noisy:
        wave = with_noise(wave, coloured(len(wave), draw, draw.uniform(0, 2)), draw.uniform(*decibels))
    wave = wave / (np.abs(wave).max() + 1e-6) * draw.uniform(0.05, 0.9)
    if draw.random() < 0.5:
        wave = telephone(wave, draw.random() < 0.5, draw.choice([0.0, 200.0, 300.0]))
    return wave


def heard(
    net: LogMel, sounds: Sequence[Sound], count: int, hearing: Callable[[Wave, int], Wave]
) -> tuple[Tensor, Tensor]:
    """``count`` hearings as log-mels [count, MELS, T] float16, and their kinds [count]."""
    chosen = [number % len(sounds) for number in range(count)]
    found = []
    for first in tqdm(range(0, count, 500), desc="hear"):
        some = chosen[first : first + 500]
        waves = torch.from_numpy(np.stack([hearing(*sounds[i]) for i in some]))
        with torch.no_grad():
            found.append(net.features(waves).half())
    return torch.cat(found), torch.tensor([sounds[i][1] for i in chosen])


def train(
    net: LogMel, log_mels: Tensor, kinds: Tensor, minutes: float, rate: float = 2e-3, batch: int = 128
) -> None:
    """Learn for so long; of each hearing a few bands and moments are missing, others every time."""
    learn = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.05)
    begun, step = time.monotonic(), 0
    while (gone := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in learn.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (1 - gone) + 1e-5
        chosen = torch.randint(len(kinds), (batch,))
        seen = log_mels[chosen].float()
        for one in seen:
            band, moment = torch.randint(0, MELS - 6, ()), torch.randint(0, seen.shape[2] - 10, ())
            one[band : band + int(torch.randint(0, 7, ()))] = -1.5
            one[:, moment : moment + int(torch.randint(0, 8, ()))] = -1.5
        loss = functional.cross_entropy(net.train().told(seen), kinds[chosen], label_smoothing=0.02)
        learn.zero_grad()
        loss.backward()
        learn.step()
        step += 1
        if step % 200 == 0:
            news = {"step": step, "minutes": round(gone * minutes, 1), "loss": round(loss.item(), 3)}
            print(json.dumps(news), flush=True)


def write(net: LogMel, path: Path, samples: int) -> None:
    """``wave`` [B, samples] float32 -> ``kind`` [B, kinds] float32, probabilities."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        nn.Sequential(net, nn.Softmax(dim=1)).eval(),
        (torch.zeros(1, samples),),
        str(path),
        input_names=["wave"],
        output_names=["kind"],
        dynamic_axes={"wave": {0: "B"}, "kind": {0: "B"}},
        opset_version=17,
        dynamo=False,
    )
    onnx.save(halve(onnx.load(path)), path)


def keep(lesson: Iterable[Sound], path: Path) -> None:
    """Make the sounds of a lesson, and keep them."""
    pcm: list[npt.NDArray[np.int16]] = []
    kinds: list[int] = []
    for wave, kind in lesson:
        pcm.append(np.asarray(np.clip(wave, -1, 1) * 32767, np.int16))
        kinds.append(kind)
    np.savez(path, pcm=np.concatenate(pcm), ends=np.cumsum([len(one) for one in pcm]), kinds=kinds)


def kept(folder: Path) -> list[Sound]:
    """All that has been made there."""
    sounds: list[Sound] = []
    for path in sorted(folder.glob("*.npz")):
        held = np.load(path)
        waves = np.split(held["pcm"].astype(np.float32) / 32768, held["ends"][:-1])
        sounds += zip(waves, held["kinds"].tolist(), strict=True)
    return sounds
