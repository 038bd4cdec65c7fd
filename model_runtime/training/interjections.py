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
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from model_runtime.interjections import KINDS, MODEL, SAMPLES
from model_runtime.training.augment import (
    RATE,
    Wave,
)
from model_runtime.training.interjection_sounds import BACK_CHANNEL, NOISE, WORDS, lesson, noise, said
from model_runtime.training.sound_net import MELS, LogMel, carried, heard, keep, kept, train, write
from model_runtime.training.synthesise import FESTIVAL, Voice

# For the check: festival's phones for what it cannot spell, and words that were not in the lesson.
UNHEARD = {
    BACK_CHANNEL: ("[m m hh m m]", "[m m m]", "uh huh", "yeah", "okay", "right", "I see", "oh yeah", "sure"),
    WORDS: (
        *("stop", "wait", "no", "hello", "hold on", "sorry", "what", "excuse me", "seven", "blue"),
        *("the price", "delivery", "a refund", "in Berlin", "my order", "it broke", "Peter", "which"),
    ),
}  # fmt: skip


class Net(LogMel):
    """Waveform [B, SAMPLES] in [-1, 1], the sound at its beginning and silence behind -> logits [B, 3]."""

    def __init__(self, width: int = 64) -> None:
        """See the class."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(MELS, width, 5, stride=2, padding=2), nn.ReLU(), nn.BatchNorm1d(width),
            nn.Conv1d(width, 96, 5, stride=2, padding=2), nn.ReLU(), nn.BatchNorm1d(96),
            nn.Conv1d(96, 96, 3, padding=1), nn.ReLU(), nn.BatchNorm1d(96),
            nn.Conv1d(96, 96, 3, padding=1), nn.ReLU(), nn.BatchNorm1d(96),
        )  # fmt: skip
        self.forget = nn.Dropout(0.3)
        self.tell = nn.Linear(2 * 96, len(KINDS))

    def told(self, features: Tensor) -> Tensor:
        """Log-mel [B, MELS, T] -> logits [B, 3]."""
        found = self.layers(features)
        pooled = torch.cat([found.mean(2), found.amax(2)], dim=1)
        said: Tensor = self.tell(self.forget(pooled))
        return said


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
    return padded(carried(wave, draw, 0.7, (5, 45)))


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
        lessons = lesson(args.make, args.seed, args.natural)
        keep(lessons, args.sounds / f"{args.natural:g}-{args.seed}.npz")
        return
    torch.manual_seed(args.seed)
    draw = np.random.default_rng(args.seed)
    sounds = kept(args.sounds)
    draw.shuffle(sounds)
    net = read(args.going_on) if args.going_on else Net()
    log_mels = heard(net, sounds, args.hearings, lambda wave, kind: hearing(wave, draw, kind))
    kinds = torch.tensor([sounds[number % len(sounds)].kind for number in range(args.hearings)])

    def loss_of(seen: Tensor, chosen: Tensor) -> Tensor:
        return functional.cross_entropy(net.told(seen), kinds[chosen], label_smoothing=0.02)

    train(net, log_mels, loss_of, args.minutes, rate=1e-3 if args.going_on else 2e-3)
    write(net, args.out, SAMPLES)
    print(json.dumps(check(args.out, args.seed + 1), indent=1))


if __name__ == "__main__":
    main()
