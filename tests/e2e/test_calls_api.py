"""Calls placed by HTTP, as a program has them placed: a running Parley, real phones at the other end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.phone_line import GREETING_S, PhoneLine, phone_line, tones, wait_until
from tests.e2e.softphone import SoftPhone, softphone

pytestmark = pytest.mark.e2e

KEY = "a key that nobody guesses"
AGENT = """
name: Caller
greeting: "Hello {{name}}."
may_call: ["alice@127.0.0.1:*"]
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
    return {
        "PARLEY_AGENTS_DIR": str(folder),
        "PARLEY_AGENT": "caller",
        "PARLEY_SIP__API_KEY": KEY,
        "PARLEY_SIP__DESTINATIONS": "*@127.0.0.1:*",
    } | more


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    with phone_line(folder, **settings(folder / "agents", PARLEY_SIP__CALLS_A_DESTINATION="2")) as line:
        yield Api(line)
        wait_until(lambda: line.calls_now() == 0, "the end of all calls")


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
    assert told["to"] == f"sip:alice@127.0.0.1:{far.port}"
    assert told["placed_at"] <= told["answered_at"] <= told["ended_at"]
    assert api.hang_up(call_id) == 204  # harmless
