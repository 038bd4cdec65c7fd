"""A caller says goodbye, and the model ends the call by its own tool call, once its goodbye was heard."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from playwright.sync_api import expect

from bot.waveform import write_wav
from model_runtime.training.judge import nearest, recognise
from tests.e2e.browser import RATE, browser_page, take_recording
from tests.e2e.measure import utterances
from tests.e2e.server import parley_server
from tests.e2e.shop import ANSWERS
from tests.e2e.speakers import say, silence

pytestmark = pytest.mark.e2e

GOODBYES = ("thank you goodbye", "bye bye")  # nano may mishear one
SHIPPED = Path("bot/agents/bluebird.yaml")


def test_the_model_hangs_up_after_a_goodbye(tmp_path: Path) -> None:
    agent = yaml.safe_load(SHIPPED.read_text()) | {"tools": [{"name": "hang_up", "policy": "allow"}]}
    agents = tmp_path / "agents"
    agents.mkdir()
    (agents / "bluebird.yaml").write_text(yaml.safe_dump(agent))
    spoken = [[silence(6.0), say(words, "cmu_us_slt_arctic_hts")] for words in GOODBYES]
    microphone = tmp_path / "microphone.wav"
    write_wav(microphone, [np.concatenate([piece for one in spoken for piece in one] + [silence(9.0)])], RATE)
    log = tmp_path / "serve.log"
    with (
        parley_server(log, PARLEY_AGENTS_DIR=str(agents)) as server,
        browser_page(server.url, microphone) as page,
    ):
        page.get_by_role("button", name="Call", exact=True).click()
        expect(page.get_by_role("button", name="Hang up")).to_be_visible(timeout=15_000)
        page.wait_for_timeout(6500)
        expect(page.get_by_role("button", name="Call", exact=True)).to_be_visible(timeout=25_000)
        recording = take_recording(page)
    begun, _ = utterances(recording.caller, RATE)[-1]
    heard = recognise(recording.bot[begun:], RATE)
    assert nearest(heard, ANSWERS) == "Thank you for calling. Goodbye!", heard
    ended = re.findall(r"call ended: ([\w-]+) after", log.read_text())
    assert ended == ["bot-hung-up"]
