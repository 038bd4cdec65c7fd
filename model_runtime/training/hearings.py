"""Augmented log-mels for training: each utterance as it may be heard over a line.

The mel is the product's ``log_mel``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_runtime.listening.features import log_mel
from model_runtime.training.augment import (
    Wave,
    coloured,
    loudness,
    nothing,
    over_a_line,
    telephone,
    with_noise,
)
from model_runtime.training.texts import REFUSE

SHARD = 640  # hearings
HARDEST = 0.8
STRANGE = 0.2  # how often a voice far from natural is taken when its turn comes
LESS_REFUSED = 0.45  # share of refused speech left out: it is long, and teaches less than the questions
NOTHING = 0.04  # share of hearings that are no speech at all
_PINK = coloured(80_000, np.random.default_rng(0), 1.0)
Mel = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Said:
    """An utterance as synthesised: int16 ``pcm`` at 16 kHz, its words, its intent and who said it."""

    pcm: npt.NDArray[np.int16]
    words: str
    intent: str
    voice: str

    @property
    def wave(self) -> Wave:
        """Float32 in [-1, 1]."""
        return np.asarray(self.pcm / np.float32(32768), dtype=np.float32)


@dataclass(frozen=True)
class Hearing:
    """What reaches the ear: ``mel`` [T, 128] (its last two frames are padding alone), and what was said."""

    mel: Mel
    words: str
    intent: str


def read(folder: Path, pattern: str = "train-*.npz", seen: set[str] | None = None) -> list[Said]:
    """All utterances of the finished files whose names are not in ``seen``, which is added to."""
    found: list[Said] = []
    for path in sorted(folder.glob(pattern)):
        if path.name.endswith(".half.npz") or (seen is not None and path.name in seen):
            continue
        with np.load(path) as held:
            pieces = np.split(held["pcm"], held["ends"][:-1])
            about = json.loads(str(held["said"]))
        found += [Said(pcm, **what) for pcm, what in zip(pieces, about, strict=True)]
        if seen is not None:
            seen.add(path.name)
    return found


def is_easy(said: Said) -> bool:
    """Plain voices at a plain pace, to begin with."""
    engine, _, formant, _, pace = said.voice.split(":")
    return engine == "flite" and abs(float(formant) - 1) < 0.13 and 0.78 < float(pace) < 1.3


def babble(said: list[Said], draw: np.random.Generator, seconds: float = 5.0) -> Wave:
    """Four people at once, unit power."""
    count = int(seconds * 16_000)
    mix = np.zeros(count, dtype=np.float32)
    for index in draw.integers(len(said), size=4):
        wave = said[index].wave
        mix += np.resize(wave, count) / (loudness(wave) + 1e-6)
    return (mix / (np.std(mix) + 1e-6)).astype(np.float32)


def mel_of(wave: Wave) -> Mel:
    """The product's log-mel, float16 [T, 128]."""
    return log_mel(wave).T.numpy().astype(np.float16)


def hearing(said: Said, everyone: list[Said], draw: np.random.Generator, hardness: float) -> Hearing:
    """One utterance over a line, or now and then nothing at all."""
    others = (
        babble(everyone, draw) if draw.random() < 0.25 else np.roll(_PINK, int(draw.integers(len(_PINK))))
    )
    if draw.random() < NOTHING:
        wave = nothing(draw, others)
        if draw.random() < 0.4:
            wave = telephone(wave)
        return Hearing(mel_of(wave), "", REFUSE)
    return Hearing(mel_of(over_a_line(said.wave, others, draw, hardness)), said.words, said.intent)


def over_the_test_line(wave: Wave, draw: np.random.Generator, decibels: float = 15.0) -> Wave:
    """The line of the gate: 200 ms before, 400 ms after, white noise at that ratio, then G.711."""
    wave = np.pad(wave, (3200, 6400)).astype(np.float32)
    return telephone(with_noise(wave, coloured(len(wave), draw, 0), decibels) * 0.5)


def shards(
    speech: Path, seed: int, done: int = 0, ramp: int = 28, reuse: int = 3, keep: int = 8
) -> Iterator[list[Hearing]]:
    """Shards without end: one fresh, then ``reuse - 1`` of the last ``keep`` once more.

    The line grows worse over the first ``ramp`` fresh shards, of which ``done`` were made before.
    """
    draw = np.random.default_rng(seed + done)
    said = read(speech)
    easy = {at for at, one in enumerate(said) if is_easy(one)}
    order: list[int] = []
    held: list[list[Hearing]] = []
    while True:
        hardness = min(HARDEST, done / ramp)
        fresh: list[Hearing] = []
        while len(fresh) < SHARD:
            order = order or [*draw.permutation(len(said))]
            at = order.pop()
            if said[at].intent == REFUSE and draw.random() < LESS_REFUSED:
                continue
            if at in easy or draw.random() < STRANGE:
                fresh.append(hearing(said[at], said, draw, hardness))
        done += 1
        held = [*held, fresh][-keep:]
        yield fresh
        for _ in range(min(reuse, len(held)) - 1):
            yield held[int(draw.integers(len(held)))]
