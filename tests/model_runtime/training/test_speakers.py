"""Mixed speakers: the originals at the ends, others between them, and labels that still fit."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from model_runtime.training import hearings, speakers, synthesise
from model_runtime.training.augment import RATE, coloured, tilted
from model_runtime.training.hearings import PHONES, Said, labelled
from model_runtime.training.speakers import BANDS, Floats, Speaker
from model_runtime.training.texts import Question

NAMES = ["pau", "s", "aa", "pau"]


def said(tilts: tuple[float, float], lasting: tuple[float, ...], seed: int = 0) -> Said:
    """A pause, two phones of noise that tilt so many dB, a pause: each so many seconds ``lasting``."""
    draw = np.random.default_rng(seed)
    counts = [round(seconds * RATE) for seconds in lasting]
    noises = [
        tilted(coloured(count, draw, 0), decibels) for count, decibels in zip(counts[1:3], tilts, strict=True)
    ]
    levels = [noise / np.std(noise) for noise in noises]
    wave = np.concatenate([np.zeros(counts[0]), *levels, np.zeros(counts[3])])
    ends = (np.cumsum(counts) / RATE).tolist()
    return Said((3000 * wave).astype(np.int16), "sa", "hours", "a", list(zip(NAMES, ends, strict=True)))


DARK = said((-12, -24), (0.1, 0.2, 0.3, 0.2))
BRIGHT = said((12, 0), (0.12, 0.22, 0.25, 0.2), seed=1)


def speaker(shares: list[float], pace: list[float] | None = None) -> Speaker:
    return Speaker(
        np.tile(shares, (len(PHONES), 1)),
        np.array(pace or [1.0, 0.0]),
        np.tile(np.eye(BANDS), (len(PHONES), 1, 1)),
        np.zeros(BANDS),
    )


def sound(one: Said, phone: int) -> Floats:
    """The envelope [BANDS] in the middle of that phone, its level taken away."""
    ends = speakers.ends_of(one)
    begin, end = ends[phone] + 0.03, ends[phone + 1] - 0.03
    frames = slice(round(begin * RATE / speakers.HOP), round(end * RATE / speakers.HOP))
    level = speakers.envelope(speakers.spectrum_of(one.wave))[frames].mean(0)
    return np.asarray(level - level.mean())


def apart(one: Said, other: Said, phone: int) -> float:
    return float(np.abs(sound(one, phone) - sound(other, phone)).mean())


def test_all_of_the_first_gives_back_the_first() -> None:
    same = speakers.mix([DARK, BRIGHT], speaker([1.0, 0.0]))
    scale = 0.6 * 32767 / np.abs(DARK.pcm).max()
    assert len(same.pcm) == len(DARK.pcm)
    assert np.abs(same.pcm - scale * DARK.pcm).max() < 3
    assert [phone for phone, _ in same.phones] == NAMES
    assert speakers.ends_of(same) == pytest.approx(speakers.ends_of(DARK))
    assert (same.words, same.intent) == ("sa", "hours")


@pytest.mark.parametrize("phone", [1, 2])
def test_a_mixed_one_lies_between_and_all_of_the_second_is_the_second(phone: int) -> None:
    whole = apart(DARK, BRIGHT, phone)
    half = speakers.mix([DARK, BRIGHT], speaker([0.5, 0.5]))
    assert 0.2 * whole < apart(half, DARK, phone) < 0.8 * whole
    assert 0.2 * whole < apart(half, BRIGHT, phone) < 0.8 * whole
    second = speakers.mix([BRIGHT, DARK], speaker([0.0, 1.0]))
    assert apart(second, DARK, phone) < 0.25 * whole


def test_each_phone_has_shares_of_its_own() -> None:
    shares = speaker([1.0, 0.0])
    shares.shares[PHONES.index("aa")] = [0.0, 1.0]
    one = speakers.mix([BRIGHT, DARK], shares)
    assert apart(one, BRIGHT, 1) < 0.1 * apart(one, DARK, 1)
    assert apart(one, DARK, 2) < 0.4 * apart(one, BRIGHT, 2)


def test_labels_fit_the_frames_at_another_s_pace() -> None:
    slow = said((-12, -24), (0.12, 0.24, 0.36, 0.24))
    one = speakers.mix([DARK, slow], speaker([0.5, 0.5], [0.0, 1.0]))
    assert len(one.pcm) / RATE == pytest.approx(0.96, abs=0.01)
    assert speakers.ends_of(one) == pytest.approx(speakers.ends_of(slow), abs=0.01)
    heard = labelled(one, one.wave, 0)
    assert len(heard.phones) == (len(heard.mel) - 1) // 4
    assert [PHONES[phone] for phone in heard.path] == ["s", "aa"]
    loud = np.abs(one.wave[: len(one.wave) // 640 * 640]).reshape(-1, 640).mean(1) > 0.05
    spoken = heard.phones[: len(loud)] > 0
    assert np.abs(loud.astype(int) - spoken).sum() <= 2  # the frames at the two edges may go either way


@pytest.mark.parametrize("count", [2, 3])
def test_a_random_speaker_goes_beyond_its_originals_but_not_far(count: int) -> None:
    draw = np.random.default_rng(count)
    drawn = [speakers.random_speaker(draw, count) for _ in range(50)]
    shares = np.stack([one.shares for one in drawn])
    assert shares.sum(-1) == pytest.approx(1.0)
    assert -0.31 < shares.min() < -0.05
    assert 1.05 < shares.max() < 1.41
    assert np.stack([one.bend for one in drawn]).sum(-1) == pytest.approx(1.0)


def test_bending_moves_a_formant_by_its_factor() -> None:
    hertz = speakers.centres()
    formant = -np.abs(hertz - 1500.0)
    moved = speakers.bending(np.full(BANDS, 1.2)) @ formant
    assert hertz[moved.argmax()] == pytest.approx(1500 / 1.2, rel=0.07)


def test_shards_are_in_part_of_mixed_speakers_where_phones_and_times_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearings, "SHARD", 40)
    unlike = [("s", 0.3), ("pau", 0.6)]
    untimed = [(phone, -1.0) for phone, _ in DARK.phones]
    for block, phones in enumerate([DARK.phones, unlike, untimed]):
        four = [(one.pcm, phones if one is DARK else one.phones) for one in (DARK, BRIGHT, DARK, BRIGHT)]
        asked = [Question(f"text {block}", "hours")] * 4
        synthesise.save(tmp_path / f"parallel-{block:04d}.npz", four, asked, list("abcd"))
    others = speakers.mixed(tmp_path, np.random.default_rng(0))
    assert all(" & " in next(others).voice for _ in range(3))
    synthesise.save(tmp_path / "train-0000.npz", [(DARK.pcm, DARK.phones)], [Question("so", "hours")], ["a"])
    shard = next(hearings.shards(tmp_path, 1, others=[(0.5, others)]))
    made = [h.words.startswith("text") for h in shard if h.words]
    assert 0.3 < sum(made) / len(made) < 0.7


def test_a_parallel_text_is_cast_with_every_speaker_at_one_pace() -> None:
    voices = synthesise.cast("parallel", random.Random(0))
    assert [voice.name for voice in voices] == list(synthesise.PARALLEL)
    assert len({voice.pace for voice in voices}) == 1
    assert len({voice.pitch for voice in voices}) == 4
    assert len(synthesise.cast("train", random.Random(0))) == 1
    assert synthesise.cast("known", random.Random(0))[0].engine == "festival"
