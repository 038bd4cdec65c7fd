"""The sounds that the judge of short words learns of, and the net that goes to a file and comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model_runtime.interjections import SAMPLES, Interjections
from model_runtime.training import interjection_sounds as sounds
from model_runtime.training.interjections import Net, hearing, read
from model_runtime.training.sound_net import write


@pytest.mark.parametrize("kind", [sounds.BACK_CHANNEL, sounds.WORDS, sounds.NOISE])
@pytest.mark.parametrize("breaks_off", [0.0, 1.0])
def test_a_hearing_is_of_one_length_and_no_voice_is_lost_in_it(kind: int, breaks_off: float) -> None:
    draw = np.random.default_rng(7)
    for number in range(24):
        wave = sounds.noise(draw) if kind == sounds.NOISE else sounds.hum(draw)
        heard = hearing(wave[: SAMPLES * (1 + number % 2)], draw, kind, breaks_off)
        assert heard.shape == (SAMPLES,)
        assert np.abs(heard).max() < 1.5
        assert kind == sounds.NOISE or np.abs(heard).max() > 0.02  # keys may pause


def test_a_net_that_was_written_is_read_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = Net().eval()
    write(net, tmp_path / "net.onnx", SAMPLES)
    wave = np.random.default_rng(1).integers(-3000, 3000, SAMPLES, dtype=np.int16)
    again = read(tmp_path / "net.onnx").eval()
    with torch.no_grad():
        kinds = torch.softmax(again(torch.from_numpy(wave / 32768).float()[None]), 1)[0]
    told = Interjections(tmp_path / "net.onnx").kinds(wave.tobytes())
    assert list(told.values()) == pytest.approx(kinds.tolist(), abs=0.01)
