"""A caller says goodbye, and the model ends the call by its own tool call, once its goodbye was heard."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import expect

from bot.waveform import first_loud, last_loud
from tests.e2e.browser import LONG_S, RATE, browser_page, hear, speak, take_recording
from tests.e2e.measure import utterances
from tests.e2e.server import parley_server
from tests.e2e.speakers import say

pytestmark = pytest.mark.e2e

GOODBYES = ("thank you goodbye", "bye bye", "thank you goodbye")  # nano may mishear one
GOODBYE = "Thank you for calling. Goodbye!"
QUIET_S = 1.2  # within an answer there are shorter pauses only
SHIPPED = Path("bot/agents/bluebird.yaml")


def test_the_model_hangs_up_after_a_goodbye(tmp_path: Path) -> None:
    agent = yaml.safe_load(SHIPPED.read_text()) | {"tools": [{"name": "hang_up", "policy": "allow"}]}
    agents = tmp_path / "agents"
    agents.mkdir()
    (agents / "bluebird.yaml").write_text(yaml.safe_dump(agent))
    log = tmp_path / "serve.log"
    with parley_server(log, PARLEY_AGENTS_DIR=str(agents)) as server, browser_page(server.url) as page:
        page.get_by_role("button", name="Call", exact=True).click()
        hear(page, quiet_s=QUIET_S)
        for words in GOODBYES:
            hear(page, speak(page, say(words, "cmu_us_slt_arctic_hts")), QUIET_S)
            if GOODBYE in page.get_by_role("log").inner_text():
                break
        expect(page.get_by_role("button", name="Call", exact=True)).to_be_visible(timeout=LONG_S * 1000)
        assert GOODBYE in page.get_by_role("log").inner_text()
        recording = take_recording(page)
    _, asked = utterances(recording.caller, RATE)[-1]
    answered, answered_to = first_loud(recording.bot, asked), last_loud(recording.bot, asked)
    assert answered is not None
    assert answered_to is not None
    assert answered_to - answered > RATE  # it was heard, and not only shown
    ended = re.findall(r"call ended: ([\w-]+) after", log.read_text())
    assert ended == ["bot-hung-up"]
