"""Speakers that never were, from the four there are, who all say the same (``synthesise --parallel``).

One of them lends the voice: its pitch, its breath, its phases. Over it is laid, frame by frame, a mix of all
their spectral envelopes, aligned phone by phone. How much of whom differs from phone to phone, so that each
such speaker has vowels of its own, and goes beyond the originals as well as between them. The result is
a waveform, which goes over the same line as every other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_runtime.listening.features import slaney_filters
from model_runtime.training.augment import RATE, Wave
from model_runtime.training.hearings import MIXED, NATURAL, PHONES, Said, natural, read
from model_runtime.training.synthesise import PARALLEL, as_pcm

N_FFT, HOP = 512, 128  # samples: 32 ms, 8 ms
BANDS = 30  # of an envelope, 94 Hz apart below 1 kHz: formants are told apart, most voices' harmonics are not
FLOOR = (
    6.0  # log10: an envelope ends 60 dB below its loudest band, so that silence is no extreme to go beyond
)
LOUDEST = 2.5  # log10: a band is raised or lowered by 25 dB at most
BEYOND = 1.6  # shares of two speakers run from -0.3 to 1.3
OWN = 0.4  # how far a phone's shares follow the phone, and not the speaker
BENT = 0.09  # formants move by so much of their frequency at most, by another amount in every region,
BENT_OWN = 0.06  # and in every phone by so much more: four speakers span few vowels
TONE = 0.5  # log10: a speaker's lasting colour, 5 dB each way
SLOWEST = 1.25  # a phone lasts so many times as long at most, and 1 / 1.25 at least: its pitch moves with it
GRID = 0.005  # s, of the course of a pace
DISGUISED = 0.7  # share of natural utterances that are given another voice each time
THREE = 0.3  # share of speakers mixed of three and not of two
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Speaker:
    """A speaker made of n others.

    ``shares`` [phones, n] of each one's envelope in each phone; ``pace`` [n] of each one's durations. Both
    add up to 1. ``bend`` [phones, BANDS, BANDS] moves an envelope's formants, and ``tone`` [BANDS] is added
    to it, in log10 of power.
    """

    shares: Floats
    pace: Floats
    bend: Floats
    tone: Floats


@lru_cache(maxsize=1)
def centres() -> Floats:
    """Hz of the middle of each band: where its filter is highest."""
    return np.asarray(_filters().argmax(1) * RATE / N_FFT, dtype=np.float64)


@lru_cache(maxsize=1)
def _window() -> Tensor:
    return torch.hann_window(N_FFT)


def _filters() -> Tensor:
    """[BANDS, N_FFT / 2 + 1]."""
    return slaney_filters(RATE, N_FFT, BANDS, RATE / 2)


def curves(draw: np.random.Generator, count: int, most: float, knots: int) -> Floats:
    """[count, BANDS]: random lines over the bands with so many knots, nowhere beyond ``most`` either way."""
    return read_at(draw.uniform(-most, most, (knots, count)), np.linspace(0, knots - 1, BANDS)).T


def bending(factor: Floats) -> Floats:
    """Matrices [..., BANDS, BANDS] that read an envelope at ``factor`` [..., BANDS] times a band's Hz."""
    hertz = centres()
    at = np.interp(hertz * factor, hertz, np.arange(BANDS))
    return np.asarray(np.maximum(0.0, 1 - np.abs(at[..., None] - np.arange(BANDS))))


def random_speaker(draw: np.random.Generator, count: int) -> Speaker:
    """Somebody between and beyond ``count`` speakers."""

    def beyond(shares: Floats) -> Floats:
        return 1 / count + BEYOND * (shares - 1 / count)

    evenly = np.ones(count)
    whole, phones = draw.dirichlet(evenly), draw.dirichlet(evenly, len(PHONES))
    return Speaker(
        beyond((1 - OWN) * whole + OWN * phones),
        beyond(draw.dirichlet(evenly)),
        bending(1 + curves(draw, 1, BENT, 4) + curves(draw, len(PHONES), BENT_OWN, 3)),
        curves(draw, 1, TONE, 5)[0],
    )


def smoothed(track: Floats, reach: int) -> Floats:
    """Each row of [T, C] with ``reach`` rows before and after it, evenly."""
    around = np.pad(track, ((reach, reach), (0, 0)), mode="edge")
    return np.asarray(np.lib.stride_tricks.sliding_window_view(around, 2 * reach + 1, axis=0).mean(-1))


def ends_of(said: Said) -> Floats:
    """When each phone ends, in seconds, a 0 before them: [phones + 1]."""
    return np.array([0.0, *(end for _, end in said.phones)])


def repaced(wave: Wave, ends: Floats, durations: Floats) -> tuple[Wave, Floats]:
    """The wave [n], each phone lasting about as long as ``durations`` [P] say, and the new ``ends`` [P + 1].

    Played slower or faster, not stretched: its pitch and formants move a little, and the envelope that is
    laid over it afterwards puts the formants right.
    """
    own = np.diff(ends)
    slower = np.clip(durations / np.maximum(own, 1e-3), 1 / SLOWEST, SLOWEST)
    grid = np.arange(0, len(wave) / RATE + GRID, GRID)
    course = slower[np.minimum(np.searchsorted(ends[1:], grid), len(own) - 1)]
    course = smoothed(course[:, None], 5)[:, 0]  # no steps in the pitch
    late = np.concatenate([[0.0], np.cumsum(course[:-1])]) * GRID
    count = int(np.interp(len(wave) / RATE, grid, late) * RATE)
    source = np.interp(np.arange(count) / RATE, late, grid) * RATE
    return np.interp(source, np.arange(len(wave)), wave).astype(np.float32), np.interp(ends, grid, late)


def spectrum_of(wave: Wave) -> Tensor:
    """Complex [N_FFT / 2 + 1, T] at 125 Hz."""
    return torch.stft(torch.from_numpy(wave), N_FFT, HOP, window=_window(), return_complex=True)


def envelope(spectrum: Tensor) -> Floats:
    """[T, BANDS], log10 of power: the harmonics smoothed away, and a little of the hurry."""
    bands = (_filters() @ torch.view_as_real(spectrum).square().sum(-1)).T.double().numpy()
    level = np.log10(bands + bands.max() * 10**-FLOOR + 1e-12)
    return smoothed(level, 1)


def read_at(track: Floats, at: Floats) -> Floats:
    """Rows of ``track`` [T, ...] at the places ``at`` [N], between its frames as well."""
    at = np.clip(at, 0, len(track) - 1)
    low = np.minimum(at.astype(np.int64), len(track) - 2)
    return np.asarray(track[low] + (at - low)[:, None] * (track[low + 1] - track[low]))


def through(spectrum: Tensor, gain: Floats, count: int) -> Wave:
    """The wave [count] of a spectrum whose bands are raised by ``gain`` [T, BANDS], log10 of power."""
    hertz = np.linspace(0, RATE / 2, N_FFT // 2 + 1)
    fine = read_at(gain.T, np.interp(hertz, centres(), np.arange(BANDS)))  # [N_FFT / 2 + 1, T]
    louder = spectrum * torch.from_numpy(10 ** (fine / 2)).float()
    return np.asarray(torch.istft(louder, N_FFT, HOP, window=_window(), length=count).numpy())


def mix(told: Sequence[Said], speaker: Speaker) -> Said:
    """What all of ``told`` say, phone for phone, said by ``speaker``; the first of them lends the voice."""
    ends = [ends_of(one) for one in told]
    durations = np.stack([np.diff(each) for each in ends])  # [n, P]
    wave, own_ends = repaced(told[0].wave, ends[0], speaker.pace @ durations)
    spectrum = spectrum_of(wave)
    own = envelope(spectrum)
    times = np.arange(len(own)) * HOP / RATE
    others = [
        read_at(envelope(spectrum_of(one.wave)), np.interp(times, own_ends, each) * RATE / HOP)
        for one, each in zip(told[1:], ends[1:], strict=True)
    ]
    phones = np.array([PHONES.index(phone) for phone, _ in told[0].phones])
    now = phones[np.minimum(np.searchsorted(own_ends[1:], times), len(phones) - 1)]
    between = np.einsum("tn,ntb->tb", speaker.shares[now], np.stack([own, *others]))
    wanted = np.einsum("tab,tb->ta", speaker.bend[now], between) + speaker.tone
    gain = smoothed(np.clip(wanted - own, -LOUDEST, LOUDEST), 2)  # no steps from phone to phone
    heard = through(spectrum, gain, len(wave))
    pcm = as_pcm(heard)
    spoken = [(phone, float(end)) for (phone, _), end in zip(told[0].phones, own_ends[1:], strict=True)]
    return Said(pcm, told[0].words, told[0].intent, " & ".join(one.voice for one in told), spoken)


def alike(told: Sequence[Said]) -> bool:
    """Whether all say the same phones and it is known when."""
    first = [phone for phone, _ in told[0].phones]
    return all([phone for phone, _ in one.phones] == first and one.phones[0][1] >= 0 for one in told)


def mixed(folder: Path, draw: np.random.Generator) -> Iterator[Said]:
    """Utterances without end, each of a speaker of its own, from the files of ``synthesise --parallel``.

    Raises FileNotFoundError when there are none.
    """
    while True:
        paths = sorted(folder.glob("parallel-*[0-9].npz"))  # anew: more may have been made
        if not paths:
            raise FileNotFoundError(f"no parallel-*.npz in {folder}: run synthesise --parallel")
        for place in draw.permutation(len(paths)):
            said = read(folder, paths[place].name)  # one file at a time: all of them would be a gigabyte
            for at in draw.permutation(len(said) // len(PARALLEL)) * len(PARALLEL):
                order = at + draw.permutation(len(PARALLEL))[: 3 if draw.random() < THREE else 2]
                told = [said[index] for index in order]
                if alike(told):
                    yield mix(told, random_speaker(draw, len(told)))


def disguised(told: Iterator[Said], draw: np.random.Generator) -> Iterator[Said]:
    """The same utterances, most of them with formants moved, region by region, and another colour."""
    for one in told:
        if draw.random() > DISGUISED:
            yield one
            continue
        bend, tone = bending(1 + curves(draw, 1, BENT, 4))[0], curves(draw, 1, TONE, 5)[0]
        spectrum = spectrum_of(one.wave)
        own = envelope(spectrum)
        gain = smoothed(np.clip(own @ bend.T + tone - own, -LOUDEST, LOUDEST), 2)
        yield replace(one, pcm=as_pcm(through(spectrum, gain, len(one.pcm))))


def strangers(work: Path, draw: np.random.Generator) -> list[tuple[float, Iterator[Said]]]:
    """What `hearings.shards` takes beside flite and espeak-ng, as far as ``work`` holds it: with shares."""
    found: list[tuple[float, Iterator[Said]]] = []
    if (work / "parallel").is_dir():
        found.append((MIXED, mixed(work / "parallel", draw)))
    if (work / "natural").is_dir():
        found.append((NATURAL, disguised(natural(work / "natural", draw), draw)))
    return found
