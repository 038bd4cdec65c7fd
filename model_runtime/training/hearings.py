"""Augmented log-mels for training: each utterance as it may be heard over a line.

The mel is the product's ``log_mel``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from model_runtime.listening.features import log_mel
from model_runtime.training.augment import (
    RATE,
    Wave,
    coloured,
    loudness,
    nothing,
    over_a_line,
    placed,
    telephone,
    tilted,
    with_noise,
)
from model_runtime.training.texts import REFUSE

SHARD = 320  # hearings
HARDEST = 0.8
FRAME = 640  # samples a state of the encoder stands for: 25 Hz
PHONES = [
    "pau", "aa", "ae", "ah", "ao", "aw", "ax", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f",
    "g", "hh", "ih", "iy", "jh", "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t",
    "th", "uh", "uw", "v", "w", "y", "z", "zh",
]  # fmt: skip
"""Flite's, the pause first."""
UNKNOWN = -100  # a frame of which nobody said what is in it; what cross-entropy leaves out
NOTHING = 0.04  # share of hearings that are no speech at all
MIXED = 0.4  # share of mixed speakers among the utterances: recorded ones are clearer
NATURAL = 0.35  # ... and of natural ones, which are few and heard often
PLAIN_LINE = 0.35  # share of hearings, on the hardest lines, over a telephone with nothing but hiss on it,
HISS_DB = (11.0, 24.0)  # ... which is so far below the speech
PLAYED = (0.88, 1.16)  # each time a natural one is played so much faster, pitch and formants with it
_PINK = coloured(80_000, np.random.default_rng(0), 1.0)
Mel = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Said:
    """An utterance as synthesised: int16 ``pcm`` at 16 kHz, its words, its intent and who said it.

    ``phones``: each with when it ends, in seconds; -1 is not known.
    """

    pcm: npt.NDArray[np.int16]
    words: str
    intent: str
    voice: str
    phones: list[tuple[str, float]]

    @property
    def wave(self) -> Wave:
        """Float32 in [-1, 1]."""
        return np.asarray(self.pcm / np.float32(32768), dtype=np.float32)


@dataclass(frozen=True)
class Hearing:
    """What reaches the ear: ``mel`` [T, 128] (its last two frames are padding alone), and what was said.

    ``phones`` int64 [E] is the phone in each frame of 40 ms (``UNKNOWN``: not known), ``path`` all of them in
    order, without the pauses, as places in ``PHONES``.
    """

    mel: Mel
    words: str
    intent: str
    phones: npt.NDArray[np.int64]
    path: list[int]


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


def labelled(said: Said, wave: Wave, shift: int) -> Hearing:
    """The utterance as ``wave`` holds it, ``shift`` samples late."""
    mel = mel_of(wave)
    count = (len(mel) - 1) // 4
    path = [PHONES.index(phone) for phone, _ in said.phones]
    ends = [end for _, end in said.phones]
    frames = np.full(count, UNKNOWN, dtype=np.int64)
    if ends and ends[0] >= 0:
        middle = (np.arange(count) * FRAME + FRAME // 2 - shift) / RATE
        at = np.searchsorted(ends, middle)
        frames = np.array([*path, 0])[np.where(middle < 0, len(path), np.minimum(at, len(path)))]
    return Hearing(mel, said.words, said.intent, frames, [phone for phone in path if phone])


def hearing(said: Said, everyone: list[Said], draw: np.random.Generator, hardness: float) -> Hearing:
    """One utterance over a line, or now and then nothing at all."""
    others = (
        babble(everyone, draw) if draw.random() < 0.25 else np.roll(_PINK, int(draw.integers(len(_PINK))))
    )
    if draw.random() < NOTHING:
        wave = nothing(draw, others)
        if draw.random() < 0.4:
            wave = telephone(wave)
        mel = mel_of(wave)
        return Hearing(mel, "", REFUSE, np.zeros((len(mel) - 1) // 4, dtype=np.int64), [])
    if draw.random() < PLAIN_LINE * hardness:
        wave, late = placed(said.wave, draw)
        if draw.random() < 0.5:  # a dull voice loses its consonants first
            wave = tilted(wave, draw.uniform(-20, 3))
        return labelled(said, hissing(wave, draw, draw.uniform(*HISS_DB), draw.uniform(0.2, 0.9)), late)
    return labelled(said, *over_a_line(said.wave, others, draw, hardness))


def hissing(wave: Wave, draw: np.random.Generator, decibels: float, gain: float) -> Wave:
    """Over G.711, with white noise at that ratio."""
    return telephone(with_noise(wave, coloured(len(wave), draw, 0), decibels) * gain)


def over_the_test_line(wave: Wave, draw: np.random.Generator, decibels: float = 15.0) -> Wave:
    """The line of the gate: 200 ms before, 400 ms after, white noise at that ratio, then G.711."""
    return hissing(np.pad(wave, (3200, 6400)).astype(np.float32), draw, decibels, 0.5)


def heard_on_the_test_line(said: Said, draw: np.random.Generator, noisy: bool) -> Hearing:
    """An utterance on the line of the gate, or, not ``noisy``, on a clean one."""
    wave = over_the_test_line(said.wave, draw) if noisy else np.pad(said.wave, (3200, 6400))
    return labelled(said, wave.astype(np.float32), 3200)


def natural(folder: Path, draw: np.random.Generator) -> Iterator[Said]:
    """Utterances without end from the files of ``synthesise --natural``, those too that are still being made.

    They are few, so each time one is another speaker's: played faster or slower. Raises FileNotFoundError
    when there are none.
    """
    seen: set[str] = set()
    said: list[Said] = []
    while True:
        said += read(folder, "natural-*.npz", seen)
        if not said:
            raise FileNotFoundError(f"no natural-*.npz in {folder}: run synthesise --natural")
        for at in draw.permutation(len(said)):
            one, faster = said[at], draw.uniform(*PLAYED)
            wave = soxr.resample(one.wave, RATE * faster, RATE, "QQ")
            yield replace(one, pcm=np.asarray(np.clip(wave, -1, 1) * 32767, dtype=np.int16))


def shards(
    speech: Path,
    seed: int,
    done: int = 0,
    ramp: int = 28,
    reuse: int = 2,
    keep: int = 8,
    others: Sequence[tuple[float, Iterator[Said]]] = (),
) -> Iterator[list[Hearing]]:
    """Shards without end: one fresh, then ``reuse - 1`` of the last ``keep`` once more.

    The line grows worse over the first ``ramp`` fresh shards, of which ``done`` were made before. Of
    ``others`` (`natural`, `speakers.mixed`) such shares of the utterances are taken, and the rest of those
    in ``speech``.
    """
    draw = np.random.default_rng(seed + done)
    said = read(speech)
    shares = [share for share, _ in others]
    order: list[int] = []
    held: list[list[Hearing]] = []
    while True:
        hardness = min(HARDEST, done / ramp)
        fresh: list[Hearing] = []
        while len(fresh) < SHARD:
            order = order or [*draw.permutation(len(said))]
            source = int(draw.choice(len(others) + 1, p=[*shares, 1 - sum(shares)]))
            one = next(others[source][1]) if source < len(others) else said[order.pop()]
            fresh.append(hearing(one, said, draw, hardness))
        done += 1
        held = [*held, fresh][-keep:]
        yield fresh
        for _ in range(min(reuse, len(held)) - 1):
            yield held[int(draw.integers(len(held)))]
