"""What nets that judge a short sound have in common: their ear, how they learn, how they are kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

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
LOWEST_HZ, HIGHEST_HZ = 80, 7600
TRACT = (0.84, 1.19)  # formants of somebody else's are so much higher
PACE = (0.85, 1.18)  # ... and their words so much quicker
BENT = 0.5  # bands that a region of the spectrum is moved by, besides


class Sound(NamedTuple):
    """What there is to hear, and which kind it is; ``phones``: flite's, in order, where words are said."""

    wave: Wave
    kind: int
    phones: str = ""


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


def mel(hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Pitch as it is heard (HTK's formula)."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def _filters() -> npt.NDArray[np.float64]:
    """Triangles [MELS, WINDOW // 2 + 1], even on the mel scale."""
    corners = np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), MELS + 2)
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


def heard(net: LogMel, sounds: Sequence[Sound], count: int, hearing: Callable[[Wave, int], Wave]) -> Tensor:
    """``count`` hearings, of one sound after another, as log-mels [count, MELS, T] float16."""
    found = []
    for first in tqdm(range(0, count, 500), desc="hear"):
        some = [sounds[number % len(sounds)] for number in range(first, min(first + 500, count))]
        waves = torch.from_numpy(np.stack([hearing(sound.wave, sound.kind) for sound in some]))
        with torch.no_grad():
            found.append(net.features(waves).half())
    return torch.cat(found)


def somebody_elses(seen: Tensor) -> Tensor:
    """Log-mels [B, MELS, T] as others might have said the same, each another; the end stays in place.

    Their formants are higher or lower, region by region a little differently, and so is their pace.
    """
    count, _, moments = seen.shape
    corners = np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), MELS + 2)
    hertz = torch.from_numpy(700 * (10 ** (corners[1:-1] / 2595) - 1)).float()
    tract = torch.empty(count, 1).uniform_(*TRACT)
    bands = 2595 * torch.log10(1 + hertz * tract / 700)
    bands = (bands - corners[0]) / (corners[1] - corners[0]) - 1
    bent = functional.interpolate(BENT * torch.randn(count, 1, 6), MELS, mode="linear", align_corners=True)
    bands = 2 * (bands + bent[:, 0]) / (MELS - 1) - 1
    pace = torch.empty(count, 1).uniform_(*PACE)
    when = 1 - 2 * pace * torch.arange(moments - 1, -1, -1) / (moments - 1)
    where = torch.stack(
        torch.broadcast_tensors(when[:, None, :], bands[:, :, None]), dim=-1
    )  # [B, MELS, T, 2]: grid_sample's x and y
    moved = functional.grid_sample(seen[:, None], where, padding_mode="border", align_corners=True)
    return moved[:, 0]


def train(
    net: LogMel,
    log_mels: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    minutes: float,
    rate: float = 2e-3,
    batch: int = 128,
) -> None:
    """Learn for so long; of each hearing a few bands and moments are missing, others every time.

    ``loss_of``: of log-mels [B, MELS, T], and which of the hearings they are [B].
    """
    learn = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.05)
    begun, step = time.monotonic(), 0
    while (gone := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in learn.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (1 - gone) + 1e-5
        chosen = torch.randint(len(log_mels), (batch,))
        seen = log_mels[chosen].float()
        for one in seen:
            band, moment = torch.randint(0, MELS - 6, ()), torch.randint(0, seen.shape[2] - 10, ())
            one[band : band + int(torch.randint(0, 7, ()))] = -1.5
            one[:, moment : moment + int(torch.randint(0, 8, ()))] = -1.5
        net.train()
        loss = loss_of(seen, chosen)
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
    phones: list[str] = []
    for sound in lesson:
        pcm.append(np.asarray(np.clip(sound.wave, -1, 1) * 32767, np.int16))
        kinds.append(sound.kind)
        phones.append(sound.phones)
    ends = np.cumsum([len(one) for one in pcm])
    np.savez(path, pcm=np.concatenate(pcm), ends=ends, kinds=kinds, phones=phones)


def kept(folder: Path) -> list[Sound]:
    """All that has been made there."""
    sounds: list[Sound] = []
    for path in sorted(folder.glob("*.npz")):
        held = np.load(path)
        waves = np.split(held["pcm"].astype(np.float32) / 32768, held["ends"][:-1])
        sounds += map(Sound, waves, held["kinds"].tolist(), held["phones"].tolist())
    return sounds
