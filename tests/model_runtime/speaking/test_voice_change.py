"""A voice that changes while it speaks, heard in nano's own voices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import model_runtime
from model_runtime.model import SpeechModel
from model_runtime.speaking.vocoder import RATE

HOME = Path(model_runtime.__file__).parent
AROUND = RATE // 10  # samples: what a chunk's joint may reach


@pytest.fixture(scope="module")
def nano() -> SpeechModel:
    return SpeechModel.load(HOME / "checkpoints" / "nano")


def likeness(nano: SpeechModel, sound: NDArray[np.float32], voice: str) -> float:
    """Cosine of the sound's speaker embedding and the voice's."""
    made = nano.token2wav.prepare_voice(sound, RATE).speaker.numpy()
    own = nano.voices[voice].speaker.numpy()
    return float(made @ own / np.linalg.norm(made) / np.linalg.norm(own))


@pytest.mark.parametrize(("first", "then"), [("rms", "slt"), ("slt", "kal16"), ("awb", "rms")])
def test_from_the_next_chunk_on_it_is_the_other_voice_and_nothing_clicks(
    nano: SpeechModel, first: str, then: str
) -> None:
    answers = json.loads((HOME / "training" / "runs" / "answers.json").read_text())
    codes = max(answers.values(), key=len)
    stream = nano.token2wav.stream(nano.voices[first])
    half = len(codes) // 2
    before = stream.push(codes[:half])
    stream.speak_as(nano.voices[then])
    after = stream.push(codes[half:], last=True)
    assert likeness(nano, before, first) > likeness(nano, before, then) + 0.3
    settled = after[AROUND:]
    assert likeness(nano, settled, then) > likeness(nano, settled, first) + 0.3
    steps = np.abs(np.diff(np.concatenate([before, after])))
    joint = steps[len(before) - AROUND : len(before) + AROUND]
    assert joint.max() <= max(steps[: len(before) - AROUND].max(), steps[len(before) + AROUND :].max())
