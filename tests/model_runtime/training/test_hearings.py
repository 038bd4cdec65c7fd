"""What the ears are taught: which phone is in which frame, wherever the line has put the utterance."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from model_runtime.training import hearings, synthesise
from model_runtime.training.augment import RATE
from model_runtime.training.encoder import best_path
from model_runtime.training.hearer import LABELS, Hearer, collate, dulled, hearing_losses
from model_runtime.training.hearings import PHONES, UNKNOWN, Said, labelled
from model_runtime.training.kokoro import phonemes, random_style
from model_runtime.training.texts import Question

PHONED = [("pau", 0.1), ("s", 0.3), ("aa", 0.5), ("pau", 0.6)]


def said(phones: list[tuple[str, float]], seconds: float = 0.6) -> Said:
    pcm = (3000 * np.random.default_rng(0).standard_normal(int(seconds * RATE))).astype(np.int16)
    return Said(pcm, "so", "hours", "flite:rms:1.00:1.00:1.00", phones)


def test_each_frame_has_the_phone_that_sounds_in_its_middle() -> None:
    one = said(PHONED)
    heard = labelled(one, np.pad(one.wave, (3200, 3200)), 3200)
    assert len(heard.phones) == (len(heard.mel) - 1) // 4
    names = [PHONES[phone] for phone in heard.phones]
    # 200 ms of lead, then 100 ms of pause: frames 0 to 6 and the middle of the eighth at 300 ms and after
    assert names[:7] == ["pau"] * 7
    assert names[8:12] == ["s"] * 4
    assert names[13:17] == ["aa"] * 4
    assert set(names[18:]) == {"pau"}
    assert [PHONES[phone] for phone in heard.path] == ["s", "aa"]


def test_without_times_only_the_order_of_the_phones_is_taught() -> None:
    one = said([(phone, -1.0) for phone, _ in PHONED])
    heard = labelled(one, one.wave, 0)
    assert set(heard.phones.tolist()) == {UNKNOWN}
    assert [PHONES[phone] for phone in heard.path] == ["s", "aa"]


def test_a_batch_s_losses_are_numbers_even_where_no_frame_is_known() -> None:
    torch.manual_seed(0)
    one = said([(phone, -1.0) for phone, _ in PHONED])
    batch = collate([labelled(one, one.wave, 0)] * 2, random.Random(1))
    assert batch.labels.tolist() == [LABELS.index("hours")] * 2
    losses = hearing_losses(Hearer()(batch.mel, batch.lengths), batch)
    assert float(losses["frames"]) == 0
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_ctc_s_best_path_joins_repeats_and_leaves_blanks_out() -> None:
    scores = torch.nn.functional.one_hot(torch.tensor([0, 3, 3, 0, 3, 5, 0]), 8).float()
    assert best_path(scores, 6) == [2, 2, 4]
    assert best_path(scores, 3) == [2]


@pytest.mark.parametrize("name", ["rms", "kal16"])
def test_flite_s_times_agree_with_its_sound(tmp_path: Path, name: str) -> None:
    voice = synthesise.Voice("flite", name, formant=1.1, pitch=1.2, pace=0.9)
    pcm, phones = synthesise.speak("stop", voice, tmp_path)
    ends = dict(phones)
    assert [phone for phone, _ in phones] == ["pau", "s", "t", "aa", "p", "pau"]
    wave = pcm / np.float32(32768)
    before, vowel = (
        wave[int(a * RATE) : int(b * RATE)] for a, b in ((0.0, phones[0][1] - 0.04), (ends["t"], ends["aa"]))
    )
    assert np.sqrt(np.mean(vowel**2)) > 20 * np.sqrt(np.mean(before**2))


def test_another_engine_s_phones_come_from_the_lexicon_without_times(tmp_path: Path) -> None:
    _, phones = synthesise.speak("stop", synthesise.Voice("espeak-ng", "en-us+m1"), tmp_path)
    assert phones == [(phone, -1.0) for phone in ("pau", "s", "t", "aa", "p", "pau")]


def test_utterances_come_back_as_they_were_kept(tmp_path: Path) -> None:
    spoken = [(np.full(40, 7, np.int16), PHONED), (np.full(60, 9, np.int16), [("pau", -1.0)])]
    asked = [Question("so", "hours"), Question("well", "refuse")]
    synthesise.save(tmp_path / "train-0000.npz", spoken, asked, ["a", "b"])
    first, second = hearings.read(tmp_path)
    assert (len(first.pcm), len(second.pcm)) == (40, 60)
    assert (second.words, second.intent, second.voice) == ("well", "refuse", "b")
    assert [tuple(phone) for phone in first.phones] == PHONED


def test_a_dulled_voice_keeps_its_shape_and_stays_finite() -> None:
    draw = random.Random(3)
    mel = torch.randn(40, 128).cumsum(1)
    for _ in range(30):
        dull = dulled(mel.clone(), draw)
        assert dull.shape == mel.shape
        assert torch.isfinite(dull).all()
        assert float((dull - mel).abs().mean()) < float(mel.std())


def test_natural_voices_are_heard_again_and_again_each_time_played_otherwise(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--natural"):
        next(hearings.natural(tmp_path, np.random.default_rng(0)))
    pcm = (8000 * np.sin(np.arange(8000) / 9)).astype(np.int16)
    synthesise.save(tmp_path / "natural-0000.npz", [(pcm, [])], [Question("hello", "hours")], ["a"])
    made = hearings.natural(tmp_path, np.random.default_rng(0))
    lengths = [len(next(made).pcm) for _ in range(12)]
    assert len(set(lengths)) > 6
    assert 8000 / 1.17 < min(lengths) < 7600
    assert 8400 < max(lengths) < 8000 / 0.87
    synthesise.save(tmp_path / "natural-0001.npz", [(pcm, [])], [Question("more", "hours")], ["a"])
    assert {next(made).words for _ in range(4)} == {"hello", "more"}  # what was made meanwhile is heard, too


def test_kokoro_is_told_how_english_is_said_and_its_styles_add_up() -> None:
    assert phonemes("how old is the joke", "en-us") == "hˌW ˈOld ɪz ðə ʤˈOk"
    assert phonemes("how old is the joke", "en-gb") != phonemes("how old is the joke", "en-us")
    for seed in range(20):
        style = random_style(random.Random(seed))
        assert sum(style.voice) == pytest.approx(1)
        assert sum(style.manner) == pytest.approx(1)
        assert -0.11 < min(style.voice) < 0.2 < max(style.voice) < 1.41
