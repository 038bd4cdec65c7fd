"""Teaches what is said over the bot: ``python -m model_runtime.training.interjections --minutes 8``.

A caller who says one short word while the bot speaks either means "go on" (a back-channel: "mm-hm", "okay")
or wants the floor ("stop", "no", the beginning of a question). Its length does not tell them apart, how it
sounds does. The net learns three kinds of sound, a back-channel, words, and noise, from words spoken by flite
and espeak-ng, hums made here, and what microphones and lines do to them (``augment``). Festival, another
engine, is heard in the check at the end alone. No human voice was in it.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import soundfile
import soxr
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from model_runtime.interjections import KINDS, MODEL, SAMPLES
from model_runtime.training.augment import (
    RATE,
    Wave,
    coloured,
    in_room,
    nothing,
    shaped,
    telephone,
    tilted,
    with_noise,
)
from model_runtime.training.speech_onnx import halve
from model_runtime.training.synthesise import FESTIVAL, Voice, flite_settings, speak, training_voice
from model_runtime.training.texts import questions

DATA = Path(__file__).with_name("data") / "interjections.yaml"
BACK_CHANNEL, WORDS, NOISE = range(len(KINDS))
WINDOW, HOP, MELS = 400, 160, 40
Int16 = npt.NDArray[np.int16]

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


def hum(draw: np.random.Generator) -> Wave:
    """An "mm-hm" as a throat makes it: one to three pulses of a nasal or an open sound, at a moving pitch."""
    pulses, f0 = draw.integers(1, 4), draw.uniform(75, 300)
    nasal = draw.random() < 0.65
    formants = [(270, 90, 1.0), (1000, 250, 0.05), (2200, 300, 0.08)] if nasal else [
        (draw.uniform(450, 750), 150, 1.0), (draw.uniform(1000, 1500), 250, 0.5), (2400, 400, 0.15),
    ]  # fmt: skip
    sound: list[npt.NDArray[np.float64]] = []
    for _ in range(pulses):
        count = int(RATE * draw.uniform(0.09, 0.3))
        pitch = f0 * np.interp(np.linspace(0, 1, count), [0, 0.5, 1], draw.uniform(0.8, 1.35, 3))
        phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.01 * draw.standard_normal(count))) / RATE
        pulse = np.zeros(count)
        for harmonic in range(1, int(3800 / f0)):
            hertz = f0 * harmonic
            gain = sum(a * np.exp(-(((hertz - f) / w) ** 2)) for f, w, a in formants) + 0.004
            pulse += gain / harmonic**0.3 * np.sin(harmonic * phase)
        edge = int(RATE * 0.03)
        pulse *= np.clip(np.minimum(np.arange(count), count - np.arange(count)) / edge, 0, 1)
        sound.append(pulse / np.abs(pulse).max() * draw.uniform(0.5, 1.0))
        gap = int(RATE * draw.uniform(0.0, 0.09))
        sound.append(draw.uniform(0, 0.05) * draw.standard_normal(gap))
    return np.concatenate(sound).astype(np.float32) * np.float32(0.6)


def said(text: str, voice: Voice, scratch: Path) -> Wave:
    """A word of the lists in that voice, nothing around it."""
    if text.startswith("["):
        wave = _phones(text.strip("[]"), voice, scratch)
    else:
        pcm, _ = speak(text, voice, scratch)
        wave = pcm.astype(np.float32) / np.float32(32768)
    loud = np.flatnonzero(np.abs(wave) > 0.03 * np.abs(wave).max())
    return wave[loud[0] : loud[-1] + 1]


def _phones(phones: str, voice: Voice, scratch: Path) -> Wave:
    wav = scratch / "phones.wav"
    if voice.engine == "festival":
        script = scratch / "phones.scm"
        script.write_text(
            f'(voice_{voice.name}) (utt.save.wave (utt.synth (Utterance Phones (pau {phones} pau))) "{wav}")'
        )
        command = ["festival", "-b", str(script)]
    else:
        name = voice.name if voice.engine == "flite" else "kal16"
        command = ["flite", "-voice", name, *flite_settings(voice)]
        command += ["-p", f"pau {phones} pau", "-o", str(wav)]
    subprocess.run(command, check=True, capture_output=True)
    wave, rate = soundfile.read(wav, dtype="float32")
    return np.asarray(soxr.resample(wave, rate * voice.formant, RATE), dtype=np.float32)


def lesson(count: int, seed: int) -> Iterator[tuple[Wave, int]]:
    """Back-channels and words in equal parts, every tenth sound no speech."""
    draw, dice = random.Random(seed), np.random.default_rng(seed)
    lists = yaml.safe_load(DATA.read_text())
    beginnings = (q.words.split() for q in questions(10 * count, seed))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for _ in tqdm(range(count), desc="speak"):
            chance, voice = draw.random(), training_voice(draw)
            if chance < 0.1:
                yield noise(dice), NOISE
            elif chance < 0.2:
                yield hum(dice), BACK_CHANNEL
            elif chance < 0.55:
                yield said(draw.choice(lists["back_channels"]), voice, scratch), BACK_CHANNEL
            elif chance < 0.75:
                yield said(draw.choice(lists["words"]), voice, scratch), WORDS
            else:  # a sentence as far as one has come when the speaker stops for breath
                words = next(beginnings)
                first = draw.randrange(max(1, len(words) - 2)) if draw.random() < 0.5 else 0
                yield said(" ".join(words[first : first + draw.randint(1, 3)]), voice, scratch), WORDS


def noise(draw: np.random.Generator) -> Wave:
    """A cough, keys, a breath, or what ``augment.nothing`` makes."""
    wave: npt.NDArray[Any]
    match draw.integers(4):
        case 0:
            bursts: list[npt.NDArray[Any]] = []
            for _ in range(draw.integers(1, 4)):
                count = int(RATE * draw.uniform(0.06, 0.25))
                fading = np.exp(-np.arange(count) / (draw.uniform(0.02, 0.08) * RATE))
                bursts += [coloured(count, draw, draw.uniform(0, 1.2)) * fading]
                bursts += [np.zeros(int(RATE * draw.uniform(0.03, 0.15)))]
            wave = np.concatenate(bursts)
        case 1:
            count = int(RATE * draw.uniform(0.2, 0.9))
            wave = np.zeros(count)
            for at in draw.integers(0, count - 400, draw.integers(1, 8)):
                click = draw.standard_normal(400) * np.exp(-np.arange(400) / draw.uniform(20, 90))
                wave[at : at + 400] += click
        case 2:
            count = int(RATE * draw.uniform(0.15, 0.8))
            swell = np.sin(np.pi * np.arange(count) / count) ** draw.uniform(0.5, 2)
            wave = shaped(coloured(count, draw, draw.uniform(0, 1)), draw, 10.0, 300.0) * swell
        case _:
            wave = nothing(draw, coloured(RATE, draw, 1.0))[:SAMPLES]
    return np.asarray(0.6 * wave / (np.abs(wave).max() + 1e-6), dtype=np.float32)


def hearing(wave: Wave, draw: np.random.Generator) -> Wave:
    """One hearing of a sound, as it is handed over: [SAMPLES]."""
    before, after = (int(draw.uniform(*span) * RATE) for span in ((0.0, 0.16), (0.02, 0.14)))
    wave = np.pad(wave, (before, after)).astype(np.float32)
    if draw.random() < 0.35:
        wave = in_room(wave, draw)
    if draw.random() < 0.4:
        wave = tilted(wave, draw.uniform(-22, 6))
    if draw.random() < 0.4:
        wave = shaped(wave, draw, 7.0)
    if draw.random() < 0.7:
        wave = with_noise(wave, coloured(len(wave), draw, draw.uniform(0, 2)), draw.uniform(8, 40))
    wave = wave / (np.abs(wave).max() + 1e-6) * draw.uniform(0.05, 0.9)
    if draw.random() < 0.5:
        wave = telephone(wave, draw.random() < 0.5, draw.choice([0.0, 300.0]))
    return padded(wave)


def padded(wave: Wave) -> Wave:
    """[SAMPLES]: what there is, and silence behind."""
    wave = wave[:SAMPLES]
    return np.pad(wave, (0, SAMPLES - len(wave))).astype(np.float32)


def heard(
    net: Net, sounds: Sequence[tuple[Wave, int]], count: int, draw: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """``count`` hearings as log-mels [count, MELS, T] float16, and their kinds [count]."""
    chosen = [number % len(sounds) for number in range(count)]
    found = []
    for first in tqdm(range(0, count, 500), desc="hear"):
        some = chosen[first : first + 500]
        waves = torch.from_numpy(np.stack([hearing(sounds[i][0], draw) for i in some]))
        with torch.no_grad():
            found.append(net.features(waves).half())
    return torch.cat(found), torch.tensor([sounds[i][1] for i in chosen])


def train(net: Net, log_mels: Tensor, kinds: Tensor, minutes: float, batch: int = 128) -> None:
    """Learn for so long; of each hearing a few bands and moments are missing, others every time."""
    learn = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    begun, step = time.monotonic(), 0
    while (gone := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in learn.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * (1 - gone) + 1e-5
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


def check(path: Path, seed: int) -> dict[str, dict[str, float]]:
    """Of festival's voices, clean and over lines: the share of each kind told with p >= .5 and >= .9."""
    from model_runtime.interjections import Interjections

    ears, draw = Interjections(path), np.random.default_rng(seed)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, texts in UNHEARD.items():
            told = []
            for voice in FESTIVAL:
                for text in texts:
                    if text.startswith("[") and "diphone" not in voice:
                        continue
                    wave = said(text, Voice("festival", voice), Path(folder))
                    hearings = [
                        padded(0.5 * wave / np.abs(wave).max()),
                        *(hearing(wave, draw) for _ in range(7)),
                    ]
                    told += [ears.kinds((one * 32767).astype(np.int16).tobytes()) for one in hearings]
            for line, mine in (("clean", told[::8]), ("lines", [p for i, p in enumerate(told) if i % 8])):
                table = np.array([[p[name] for name in KINDS] for p in mine])
                sure = {f"{name} >= {p}": round(float((table[:, i] >= p).mean()), 3)
                        for i, name in enumerate(KINDS) for p in (0.5, 0.9, 0.97)}  # fmt: skip
                found[f"{KINDS[kind]}, {line}"] = {"heard": len(mine), **sure}
    return found


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--out", type=Path, default=MODEL)
    parse.add_argument("--count", type=int, default=9000, help="sounds to make")
    parse.add_argument(
        "--hearings", type=int, default=30_000, help="of them, each as another line carries it"
    )
    parse.add_argument("--minutes", type=float, default=8.0)
    parse.add_argument("--seed", type=int, default=1)
    parse.add_argument("--sounds", type=Path, help="where they are kept, to be used again")
    args = parse.parse_args()
    torch.manual_seed(args.seed)
    if args.sounds and args.sounds.is_file():
        kept = np.load(args.sounds)
        waves = np.split(kept["pcm"].astype(np.float32) / 32768, kept["ends"][:-1])
        sounds = list(zip(waves, kept["kinds"].tolist(), strict=True))
    else:
        sounds = list(lesson(args.count, args.seed))
        if args.sounds:
            pcm = [np.asarray(np.clip(wave, -1, 1) * 32767, np.int16) for wave, _ in sounds]
            ends = np.cumsum([len(one) for one in pcm])
            np.savez(args.sounds, pcm=np.concatenate(pcm), ends=ends, kinds=[kind for _, kind in sounds])
    net = Net()
    log_mels, kinds = heard(net, sounds, args.hearings, np.random.default_rng(args.seed))
    train(net, log_mels, kinds, args.minutes)
    write(net, args.out)
    print(json.dumps(check(args.out, args.seed + 1), indent=1))


if __name__ == "__main__":
    main()
