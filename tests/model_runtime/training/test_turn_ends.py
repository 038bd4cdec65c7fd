"""What the judge of turn ends learns of, and the net that goes to a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model_runtime.training import turn_end_sounds as sounds
from model_runtime.training.augment import RATE
from model_runtime.training.hearings import PHONES
from model_runtime.training.sound_net import MELS, Sound, write
from model_runtime.training.synthesise import Voice
from model_runtime.training.texts import wordings
from model_runtime.training.turn_ends import UNHEARD, Net, hearing, spelt
from model_runtime.turn_ends import SAMPLES, TurnEnds


def test_a_sentence_breaks_off_only_where_it_cannot_be_over() -> None:
    assert sounds.halves("what is the price of a tent") == [1, 2, 3, 5, 6]
    assert sounds.halves("thanks") == []
    assert sounds.halves("the") == []  # that is all of it


def test_what_is_heard_in_the_check_is_in_no_lesson() -> None:
    taught = {*sounds.lists()["openers"], *sounds.lists()["whole"]}
    taught |= {
        said
        for kind in ("known", "later")
        for ways in wordings(kind).values()
        for way in ways
        for said in way
    }
    assert not taught & {text for texts in UNHEARD.values() for text in texts}


@pytest.mark.e2e
def test_a_half_that_is_cut_out_sounds_as_the_whole_does_so_far(tmp_path: Path) -> None:
    voice = Voice("flite", "rms")
    whole, _ = sounds.spoken("what is the price of a tent", voice, tmp_path)
    half = sounds.cut("what is the price of a tent", "what is the", voice, tmp_path)
    assert half is not None
    assert 0.15 < len(half.wave) / len(whole) < 0.5
    faded = len(half.wave) - RATE // 100
    np.testing.assert_array_equal(half.wave[:faded], whole[:faded])


def test_a_sound_is_spelt_where_all_of_it_is_heard() -> None:
    short, long = (Sound(np.zeros(count, np.float32), 1, "hh ow") for count in (RATE, 3 * RATE))
    assert spelt(short).tolist() == [1 + PHONES.index("hh"), 1 + PHONES.index("ow")]
    assert spelt(long).tolist() == []


def test_it_learns_from_the_phones_of_those_it_has_them_of() -> None:
    torch.manual_seed(1)
    net, seen, kinds = Net(width=16), torch.randn(3, MELS, 318), torch.tensor([0, 1, 1])
    none = torch.tensor([], dtype=torch.long)
    told, path = net.losses(seen, kinds, [none, none, none])
    assert told > 0
    assert path == 0
    _, path = net.losses(seen, kinds, [torch.tensor([3, 4]), none, torch.tensor([5])])
    path.backward()
    assert path > 0
    assert net.path.weight.grad is not None
    assert net.tell.weight.grad is None


@pytest.mark.parametrize("seconds", [0.2, 2.0, 6.0])
def test_a_hearing_is_of_one_length_and_ends_with_a_pause(seconds: float) -> None:
    draw = np.random.default_rng(7)
    wave = np.sin(np.arange(int(seconds * RATE)) / 9).astype(np.float32)
    for _ in range(12):
        heard = hearing(wave, draw)
        assert heard.shape == (SAMPLES,)
        loud = np.abs(heard).max()
        assert np.sqrt(np.mean(heard[-1200:] ** 2)) < 0.3 * loud


def test_a_net_that_was_written_says_what_it_said(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = Net(width=16).eval()
    write(net, tmp_path / "net.onnx", SAMPLES)
    wave = np.random.default_rng(1).integers(-3000, 3000, SAMPLES, dtype=np.int16)
    with torch.no_grad():
        told = torch.softmax(net(torch.from_numpy(wave / 32768).float()[None]), 1)[0, 1]
    assert TurnEnds(tmp_path / "net.onnx").finished(wave.tobytes()) == pytest.approx(float(told), abs=0.01)
