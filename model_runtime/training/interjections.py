"""Teaches what is said over the bot: ``python -m model_runtime.training.interjections --minutes 10``.

A caller who says one short word while the bot speaks either means "go on" (a back-channel: "mm-hm", "okay")
or wants the floor ("stop", "no", the beginning of a question). Its length does not tell them apart, how it
sounds does. The net learns three kinds of sound, a back-channel, words, and noise, from what
``interjection_sounds`` makes and what microphones and lines do to it (``augment``). It is asked while
somebody still speaks, too, so half of what it hears breaks off. Festival, another engine, is heard in the
check at the end alone. No human voice was in it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from model_runtime.interjections import KINDS, MODEL, SAMPLES
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
from model_runtime.training.interjection_sounds import BACK_CHANNEL, NOISE, WORDS, Sound, lesson, noise, said
from model_runtime.training.speech_onnx import halve
from model_runtime.training.synthesise import FESTIVAL, Voice

WINDOW, HOP, MELS = 400, 160, 40

# For the check: festival's phones for what it cannot spell, and words that were not in the lesson.
UNHEARD = {
    BACK_CHANNEL: ("[m m hh m m]", "[m m m]", "uh huh", "yeah", "okay", "right", "I see", "oh yeah", "sure"),
    WORDS: (
        *("stop", "wait", "no", "hello", "hold on", "sorry", "what", "excuse me", "seven", "blue"),
        *("the price", "delivery", "a refund", "in Berlin", "my order", "it broke", "Peter", "which"),
    ),
}  # fmt: skip


class Net(nn.Module):
    """Waveform [B, SAMPLES] in [-1, 1], the sound at its beginning and silence behind -> logits [B, 3].

    Its own log-mel is part of it, so that who runs it needs nothing but samples. Level plays no part: the
    loudest bin is the measure of all.
    """

    waves: Tensor
    mels: Tensor

    def __init__(self, width: int = 64) -> None:
        """See the class."""
        super().__init__()
        angle = 2 * np.pi * np.outer(np.arange(WINDOW // 2 + 1), np.arange(WINDOW)) / WINDOW
        window = np.hanning(WINDOW)
        waves = np.concatenate([np.cos(angle) * window, np.sin(angle) * window])
        self.register_buffer("waves", torch.tensor(waves, dtype=torch.float32)[:, None])
        self.register_buffer("mels", torch.tensor(_filters(), dtype=torch.float32))
        self.layers = nn.Sequential(
            nn.Conv1d(MELS, width, 5, stride=2, padding=2), nn.ReLU(), nn.BatchNorm1d(width),
            nn.Conv1d(width, 96, 5, stride=2, padding=2), nn.ReLU(), nn.BatchNorm1d(96),
            nn.Conv1d(96, 96, 3, padding=1), nn.ReLU(), nn.BatchNorm1d(96),
            nn.Conv1d(96, 96, 3, padding=1), nn.ReLU(), nn.BatchNorm1d(96),
        )  # fmt: skip
        self.forget = nn.Dropout(0.3)
        self.tell = nn.Linear(2 * 96, len(KINDS))

    def forward(self, wave: Tensor) -> Tensor:
        """See the class."""
        return self.told(self.features(wave))

    def features(self, wave: Tensor) -> Tensor:
        """Waveform [B, SAMPLES] -> log-mel [B, MELS, T], about -2 to 1."""
        bins = functional.conv1d(wave[:, None], self.waves, stride=HOP)
        real, imaginary = bins.chunk(2, dim=1)
        power = torch.einsum("mb,nbt->nmt", self.mels, real.square() + imaginary.square())
        loudest = power.amax(dim=(1, 2), keepdim=True) + 1e-9
        return torch.log(power / loudest + 1e-5) / 4 + 1

    def told(self, features: Tensor) -> Tensor:
        """Log-mel [B, MELS, T] -> logits [B, 3]."""
        found = self.layers(features)
        pooled = torch.cat([found.mean(2), found.amax(2)], dim=1)
        said: Tensor = self.tell(self.forget(pooled))
        return said


def _filters() -> npt.NDArray[np.float64]:
    """Triangles [MELS, WINDOW // 2 + 1], even on the mel scale from 80 to 7,600 Hz (HTK's formula)."""

    def mel(hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return 2595 * np.log10(1 + np.asarray(hertz) / 700)

    corners = np.linspace(mel(80), mel(7600), MELS + 2)
    at = mel(np.arange(WINDOW // 2 + 1) * RATE / WINDOW)
    rising = (at - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - at) / (corners[2:] - corners[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))


def hearing(wave: Wave, draw: np.random.Generator, kind: int = WORDS, breaks_off: float = 0.45) -> Wave:
    """One hearing of a sound, as it is handed over: [SAMPLES]. ``breaks_off``: the share that goes on yet."""
    if kind == NOISE:  # begins to be one wherever it is first taken for a voice
        wave = wave[int(draw.uniform(0, 0.7) * len(wave)) :]
    elif draw.random() < 0.2:
        wave = wave[int(draw.uniform(0, 0.05) * RATE) :]
    before = int(draw.uniform(0.0, 0.26) * RATE)
    if draw.random() < breaks_off:
        ends = before + int(draw.uniform(0.1, max(0.12, min(1.2, len(wave) / RATE))) * RATE)
        wave = np.pad(wave, (before, 0))[:ends]
    else:
        wave = np.pad(wave, (before, int(draw.uniform(0.02, 0.14) * RATE)))
    wave = wave.astype(np.float32)
    if kind != NOISE and draw.random() < 0.15:
        wave = _behind_noise(wave, draw)
    if draw.random() < 0.35:
        wave = in_room(wave, draw)
    if draw.random() < 0.4:
        wave = tilted(wave, draw.uniform(-22, 6))
    if draw.random() < 0.4:
        wave = shaped(wave, draw, 7.0)
    if draw.random() < 0.7:
        wave = with_noise(wave, coloured(len(wave), draw, draw.uniform(0, 2)), draw.uniform(5, 45))
    wave = wave / (np.abs(wave).max() + 1e-6) * draw.uniform(0.05, 0.9)
    if draw.random() < 0.5:
        wave = telephone(wave, draw.random() < 0.5, draw.choice([0.0, 200.0, 300.0]))
    return padded(wave)


def _behind_noise(wave: Wave, draw: np.random.Generator) -> Wave:
    """Somebody speaks up after a noise, or while it goes on."""
    other, gap = noise(draw) * np.float32(10 ** draw.uniform(-1.2, 0)), int(draw.uniform(0, 0.4) * RATE)
    both = np.pad(wave, (gap, 0))
    length = min(len(other), len(both))
    both[:length] += other[:length]
    return both


def padded(wave: Wave) -> Wave:
    """[SAMPLES]: the end of it, and silence behind."""
    wave = wave[-SAMPLES:]
    return np.pad(wave, (0, SAMPLES - len(wave))).astype(np.float32)


def heard(net: Net, sounds: Sequence[Sound], count: int, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """``count`` hearings as log-mels [count, MELS, T] float16, and their kinds [count]."""
    chosen = [number % len(sounds) for number in range(count)]
    found = []
    for first in tqdm(range(0, count, 500), desc="hear"):
        some = chosen[first : first + 500]
        waves = torch.from_numpy(np.stack([hearing(sounds[i][0], draw, sounds[i][1]) for i in some]))
        with torch.no_grad():
            found.append(net.features(waves).half())
    return torch.cat(found), torch.tensor([sounds[i][1] for i in chosen])


def train(
    net: Net, log_mels: Tensor, kinds: Tensor, minutes: float, rate: float = 2e-3, batch: int = 128
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


def write(net: Net, path: Path) -> None:
    """``wave`` [B, SAMPLES] float32 -> ``kind`` [B, 3] float32, probabilities."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        nn.Sequential(net, nn.Softmax(dim=1)).eval(),
        (torch.zeros(1, SAMPLES),),
        str(path),
        input_names=["wave"],
        output_names=["kind"],
        dynamic_axes={"wave": {0: "B"}, "kind": {0: "B"}},
        opset_version=17,
        dynamo=False,
    )
    onnx.save(halve(onnx.load(path)), path)


def read(path: Path) -> Net:
    """The net that ``write`` has written, to go on from."""
    net, held = Net(), {}
    for one in onnx.load(path).graph.initializer:
        name = one.name.removeprefix("0.").removesuffix("_half")
        held[name] = torch.from_numpy(onnx.numpy_helper.to_array(one).astype(np.float32))
    held["waves"] = held["waves"].reshape(net.waves.shape)
    net.load_state_dict(held, strict=False)  # how many batches a norm has seen is not written
    return net


def check(path: Path, seed: int) -> dict[str, dict[str, float]]:
    """Of festival's voices, clean, over lines, and while they still speak: how sure it is of each kind."""
    from model_runtime.interjections import Interjections

    ears, draw = Interjections(path), np.random.default_rng(seed)

    def told(wave: Wave) -> list[float]:
        return list(ears.kinds((wave * 32767).astype(np.int16).tobytes()).values())

    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, texts in UNHEARD.items():
            waves = [
                said(text, Voice("festival", voice), Path(folder))
                for voice in FESTIVAL
                for text in texts
                if "diphone" in voice or not text.startswith("[")
            ]
            for line, mine in (
                ("clean", [told(padded(0.5 * wave / np.abs(wave).max())) for wave in waves]),
                ("lines", [told(hearing(wave, draw, kind, 0.0)) for wave in waves for _ in range(7)]),
                ("midway", [told(hearing(wave, draw, kind, 1.0)) for wave in waves for _ in range(7)]),
            ):
                sure = {f"{name} >= {p}": round(float((np.array(mine)[:, i] >= p).mean()), 3)
                        for i, name in enumerate(KINDS) for p in (0.5, 0.9, 0.97)}  # fmt: skip
                found[f"{KINDS[kind]}, {line}"] = {"heard": len(mine), **sure}
    return found


def made(count: int, seed: int, natural: float, path: Path) -> None:
    """Make so many sounds of a lesson, and keep them."""
    pcm: list[npt.NDArray[np.int16]] = []
    kinds: list[int] = []
    for wave, kind in lesson(count, seed, natural):
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


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--sounds", type=Path, required=True, help="a folder for them, to be used again")
    parse.add_argument("--make", type=int, default=0, help="so many sounds, and no more than that")
    parse.add_argument("--natural", type=float, default=0.0, help="Kokoro's share of what is spoken in them")
    parse.add_argument("--hearings", type=int, default=36_000, help="each as another line carries it")
    parse.add_argument("--minutes", type=float, default=10.0)
    parse.add_argument("--seed", type=int, default=1)
    parse.add_argument("--going-on", type=Path, help="from this net, instead of from nothing")
    parse.add_argument("--out", type=Path, default=MODEL)
    args = parse.parse_args()
    if args.make:
        args.sounds.mkdir(parents=True, exist_ok=True)
        made(args.make, args.seed, args.natural, args.sounds / f"{args.natural:g}-{args.seed}.npz")
        return
    torch.manual_seed(args.seed)
    draw = np.random.default_rng(args.seed)
    sounds = kept(args.sounds)
    draw.shuffle(sounds)
    net = read(args.going_on) if args.going_on else Net()
    log_mels, kinds = heard(net, sounds, args.hearings, draw)
    train(net, log_mels, kinds, args.minutes, rate=1e-3 if args.going_on else 2e-3)
    write(net, args.out)
    print(json.dumps(check(args.out, args.seed + 1), indent=1))


if __name__ == "__main__":
    main()
