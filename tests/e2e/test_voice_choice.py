"""The caller chooses another voice on the page, and from then on is answered in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr
from torch.nn.functional import cosine_similarity

from bot.waveform import Pcm, write_wav
from model_runtime.speaking.voice import Voice, VoicePreparer
from model_runtime.training.encoder import NANO
from tests.e2e.browser import RATE, browser_page, take_recording
from tests.e2e.measure import utterances
from tests.e2e.server import Server
from tests.e2e.shop import QUESTIONS
from tests.e2e.speakers import VOICES, say, silence

pytestmark = pytest.mark.e2e


def likeness(sound: Pcm, voice: str) -> float:
    """Cosine of their speaker embeddings."""
    heard = VoicePreparer(NANO / "token2wav").speaker(soxr.resample(sound, RATE, 16_000))
    own = Voice.load(NANO / "voices" / f"{voice}.safetensors").speaker
    return float(cosine_similarity(heard.flatten(), own.flatten(), 0))


def test_a_voice_chosen_on_the_page_is_heard_from_then_on(server: Server, tmp_path: Path) -> None:
    question, before_s = say(next(iter(QUESTIONS)), VOICES[0]), 14.0
    head = np.concatenate([silence(7.0), question])
    microphone = [head, silence(before_s + 3.0 - len(head) / RATE), question, silence(7.0)]
    path = tmp_path / "microphone.wav"
    write_wav(path, [np.concatenate(microphone)], RATE)
    with browser_page(server.url, path) as page:
        page.get_by_role("button", name="Call", exact=True).click()
        page.wait_for_timeout(before_s * 1000)
        page.get_by_label("Voice").select_option("slt")
        page.wait_for_timeout(10_000)
        recording = take_recording(page)
    first, second = (start for start, _ in utterances(recording.caller, RATE))
    before, after = recording.bot[first:second], recording.bot[second:]
    said = [np.concatenate([one[a:b] for a, b in utterances(one, RATE)]) for one in (before, after)]
    assert likeness(said[0], "rms") > likeness(said[0], "slt")
    assert likeness(said[1], "slt") > likeness(said[1], "rms")
