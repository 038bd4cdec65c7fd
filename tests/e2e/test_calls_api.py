"""Calls placed by HTTP, as a program has them placed: a running Parley, real phones at the other end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.phone_line import GREETING_S, PhoneLine, phone_line, tones, voice, wait_until
from tests.e2e.sipp import sipp, write_speech
from tests.e2e.softphone import SoftPhone, softphone
from tests.e2e.speakers import silence
from tests.ports import free_port

pytestmark = pytest.mark.e2e

KEY = "a key that nobody guesses"
AGENT = """
name: Caller
greeting: "Hello {{name}}."
may_call: ["alice@127.0.0.1:*"]
"""
WITH_MACHINES = """
name: With machines
greeting: "Hello."
may_call: ["*@*"]
answering_machine: {leave_message: "Please call back."}
"""


class Api:
    """The line, asked by HTTP."""

    def __init__(self, line: PhoneLine) -> None:
        self.line = line
        self._http = httpx.Client(
            base_url=line.server.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=20
        )

    def post(self, to: str, key: str = "", **more: Any) -> httpx.Response:
        asked = {"to": to, "agent": "caller", "variables": {"name": "Alice"}} | more
        return self._http.post("/api/calls", json=asked, headers={"Idempotency-Key": key} if key else {})

    def place(self, phone: SoftPhone, **more: Any) -> str:
        placed = self.post(f"sip:alice@127.0.0.1:{phone.port}", **more)
        assert placed.status_code == 201, placed.text
        assert placed.headers["Location"] == f"/api/calls/{placed.json()['id']}"
        return str(placed.json()["id"])

    def told(self, call_id: str) -> dict[str, Any]:
        told: dict[str, Any] = self._http.get(f"/api/calls/{call_id}").json()
        return told

    def wait(self, call_id: str, state: str) -> dict[str, Any]:
        wait_until(lambda: self.told(call_id)["state"] == state, state)
        return self.told(call_id)

    def hang_up(self, call_id: str) -> int:
        return self._http.delete(f"/api/calls/{call_id}").status_code


def settings(folder: Path, **more: str) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "caller.yaml").write_text(AGENT)
    (folder / "machines.yaml").write_text(WITH_MACHINES)
    return {
        "PARLEY_SIP__AGENT": "machines",
        "PARLEY_AGENTS_DIR": str(folder),
        "PARLEY_AGENT": "caller",
        "PARLEY_SIP__API_KEY": KEY,
        "PARLEY_SIP__DESTINATIONS": "*@127.0.0.1:*",
    } | more


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    with phone_line(folder, **settings(folder / "agents", PARLEY_SIP__CALLS_A_DESTINATION="1")) as line:
        yield Api(line)
        wait_until(lambda: line.calls_now() == 0, "the end of all calls")


def archived(line: PhoneLine, call_id: str) -> dict[str, str]:
    """What ``parley calls show`` says of a call."""
    env = os.environ | {"PARLEY_REDIS__DATA_DIR": str(line.server.log.parent / "data")}
    command = [sys.executable, "-m", "bot.cli", "calls", "show", call_id]
    shown = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True).stdout
    rows = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in shown.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def test_a_call_is_placed_greeted_counted_and_ended(api: Api, tmp_path: Path) -> None:
    with softphone(tmp_path / "far", answers=True) as far:
        call_id = api.place(far)
        api.wait(call_id, "answered")
        assert api.line.calls_now() == 1

        def heard() -> list[float]:
            recording = far.recording()
            return tones(recording.heard, recording.rate)

        wait_until(lambda: sum(heard()) > GREETING_S - 0.1, "the greeting")
        assert api.hang_up(call_id) == 204
        told = api.wait(call_id, "ended")
        far.wait("CALL_CLOSED")
    assert told["reason"] == "hung-up-by-api"
    kept = archived(api.line, call_id)
    assert kept["to"] == f"sip:alice@127.0.0.1:{far.port} by sip-outbound"
    assert kept["called by"].startswith("Caller on")
    assert told["to"] == f"sip:alice@127.0.0.1:{far.port}"
    assert told["placed_at"] <= told["answered_at"] <= told["ended_at"]
    assert api.hang_up(call_id) == 204  # harmless


def test_who_is_called_too_often_is_called_no_more_and_a_repeated_request_rings_once(
    api: Api, tmp_path: Path
) -> None:
    with softphone(tmp_path / "far") as far:  # rings, and nobody answers
        call_id = api.place(far, key="order 7")
        assert api.wait(call_id, "ringing")["answered_at"] is None
        assert api.place(far, key="order 7") == call_id
        refused = api.post(f"sip:alice@127.0.0.1:{far.port}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "destination_rate")
        assert api.hang_up(call_id) == 204
        assert api.wait(call_id, "ended")["reason"] == "hung-up-by-api"
        assert len(far.seen("CALL_INCOMING")) == 1


def test_nobody_is_called_whom_the_agents_file_does_not_name(api: Api, tmp_path: Path) -> None:
    with softphone(tmp_path / "far", answers=True) as far:
        refused = api.post(f"sip:bob@127.0.0.1:{far.port}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "destination")
        assert "may_call" in refused.json()["error"]["message"]
        assert not far.seen("CALL_INCOMING")


def test_a_header_of_ones_own_arrives_and_early_media_is_no_answer(api: Api, tmp_path: Path) -> None:
    """183 with speech for 6 s, and then 480."""
    write_speech(tmp_path / "speech.ulaw", np.concatenate([silence(1, 8000), voice(1, 8000)]))
    port = free_port()
    with ThreadPoolExecutor() as beside:
        far = beside.submit(sipp, "early_media", tmp_path, "-p", str(port), "-m", "1")
        call_id = str(api.post(f"alice@127.0.0.1:{port}", headers={"X-Order": "seven"}).json()["id"])
        api.wait(call_id, "ringing")
        told = api.wait(call_id, "ended")
        done = far.result()
    assert done.returncode == 0, done.stdout[-2000:]
    assert (told["reason"], told["answered_at"]) == ("refused:480", None)
    (log,) = tmp_path.glob("*_logs.log")
    assert re.search(r"order=\s*seven", log.read_text())


def test_the_networks_announcement_in_early_media_ends_the_call(api: Api, tmp_path: Path) -> None:
    """183 with the three tones (SIT) again and again, until it is cancelled."""
    three = [0.3 * np.sin(2 * np.pi * hz * np.arange(3040) / 8000) for hz in (914, 1371, 1777)]
    write_speech(tmp_path / "speech.ulaw", np.concatenate([*three, silence(1, 8000)]).astype(np.float32))
    port = free_port()
    with ThreadPoolExecutor() as beside:
        beside.submit(sipp, "early_media", tmp_path, "-p", str(port), "-m", "1", "-timeout", "20")
        call_id = str(api.post(f"alice@127.0.0.1:{port}", headers={"X-Order": "none"}).json()["id"])
        told = api.wait(call_id, "ended")
    assert (told["reason"], told["answered_at"]) == ("intercept", None)


@pytest.mark.slow
def test_a_machine_is_left_a_message_after_its_beep(api: Api, tmp_path: Path) -> None:
    at = np.arange(round(0.5 * 48_000)) / 48_000
    beep = (0.3 * np.sin(2 * np.pi * 1000 * at)).astype(np.float32)
    greeting = np.concatenate([silence(0.5), voice(4.0), silence(0.7), beep])
    with softphone(tmp_path / "far", greeting, answers=True) as far:
        call_id = api.place(far, agent="machines", variables={})
        told = api.wait(call_id, "ended")
        recording = far.recording()
    assert (told["answered_by"], told["reason"]) == ("machine", "message-left")
    assert sum(tones(recording.heard, recording.rate)) == pytest.approx(GREETING_S, abs=0.2)
    loud = np.flatnonzero(np.abs(recording.heard) > 0.1)
    # Spoken as soon as it is known for a machine, it would begin at 3 s. A busy phone records less than 5.7.
    assert loud[0] / recording.rate > 4.5


@pytest.mark.slow
def test_a_person_is_talked_to_at_once_where_machines_are_listened_for(api: Api, tmp_path: Path) -> None:
    hello = np.concatenate([silence(0.5), voice(0.6)])
    with softphone(tmp_path / "far", hello, answers=True) as far:
        call_id = api.place(far, agent="machines", variables={})
        api.wait(call_id, "answered")

        def heard() -> list[float]:
            recording = far.recording()
            return tones(recording.heard, recording.rate)

        wait_until(lambda: sum(heard()) > GREETING_S - 0.1, "the bot")
        api.hang_up(call_id)
        assert api.wait(call_id, "ended")["answered_by"] == "person"
