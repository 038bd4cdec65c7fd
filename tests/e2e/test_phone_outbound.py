"""``parley call``, as a person runs it: whom it calls, whom it does not, and that nothing is left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.phone_line import GREETING_S, tone_engine, tones, wait_until
from tests.e2e.softphone import softphone

pytestmark = pytest.mark.e2e


def call(uri: str, folder: Path, *more: str, **settings: str) -> subprocess.Popen[str]:
    env = os.environ | {"PARLEY_REDIS__DATA_DIR": str(folder / "data")} | settings
    return subprocess.Popen(
        [sys.executable, "-m", "bot.cli", "call", uri, *more],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_nobody_is_called_who_is_not_on_the_list(tmp_path: Path) -> None:
    with softphone(tmp_path / "far", answers=True) as far:
        out, said = call(f"sip:alice@127.0.0.1:{far.port}", tmp_path).communicate(timeout=60)
        assert "is not among those that may be called" in said
        assert "PARLEY_SIP__DESTINATIONS" in said
        assert not out
        assert not far.seen("CALL_INCOMING")


def test_an_agent_calls_with_all_that_its_words_ask_for_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "caller.yaml").write_text(
        "name: Caller\ngreeting: Hello {{name}}!\nmay_call: ['*@127.0.0.1:*']"
    )
    settings = {"PARLEY_AGENTS_DIR": str(tmp_path), "PARLEY_SIP__DESTINATIONS": "*@127.0.0.1:*"}
    for more, fault in (
        ((), "The agent caller asks for name."),
        (("--variable", "name"), "--variable 'name' should be NAME=VALUE."),
        (("--variable", "name=Ada", "--header", "Via=x"), "only X-... ones may be"),
    ):
        calling = call("bob@127.0.0.1:5060", tmp_path, "--agent", "caller", *more, **settings)
        _, said = calling.communicate(timeout=60)
        assert (calling.returncode, fault in said) == (1, True), said


def test_somebody_on_the_list_is_called_greeted_and_hangs_up(tmp_path: Path) -> None:
    with tone_engine() as url, softphone(tmp_path / "far", answers=True) as far:
        settings = {"PARLEY_ENGINE__URL": url, "PARLEY_SIP__DESTINATIONS": "alice@127.0.0.1:*"}
        calling = call(f"sip:alice@127.0.0.1:{far.port}", tmp_path, **settings)
        try:
            far.wait("CALL_ESTABLISHED", 60)

            def heard() -> list[float]:
                recording = far.recording()
                return tones(recording.heard, recording.rate)

            wait_until(lambda: sum(heard()) > GREETING_S - 0.1, "the greeting")
            far.hang_up()
            out, said = calling.communicate(timeout=30)
        finally:
            calling.kill()
            calling.wait()
    assert calling.returncode == 0, said
    assert "bot: Hello, this is Bluebird Outdoor." in out
    assert "hung-up after" in out


def test_somebody_whose_port_refuses_the_connection_is_named_at_once(tmp_path: Path) -> None:
    with tone_engine() as url, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody else gets the port, and nobody listens on it
        settings = {"PARLEY_ENGINE__URL": url, "PARLEY_SIP__DESTINATIONS": "*@127.0.0.1:*"}
        uri = f"sip:nobody@127.0.0.1:{taken.getsockname()[1]};transport=tcp"
        calling = call(uri, tmp_path, **settings)
        _, said = calling.communicate(timeout=90)
        assert calling.returncode == 1
        assert "nobody@127.0.0.1" in said
        assert "was not reached: Connection refused" in " ".join(said.split())


@pytest.mark.slow
def test_somebody_who_never_says_a_word_was_not_reached_when_sip_gives_up(tmp_path: Path) -> None:
    """RFC 3261's Timer B, 64 times T1: 32 s without any answer, a provisional one included."""
    with tone_engine() as url, socket.socket(type=socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        settings = {"PARLEY_ENGINE__URL": url, "PARLEY_SIP__DESTINATIONS": "*@127.0.0.1:*"}
        calling = call(f"sip:nobody@127.0.0.1:{mute.getsockname()[1]}", tmp_path, **settings)
        _, said = calling.communicate(timeout=120)
        assert calling.returncode == 1
        assert "was not reached: Connection timed out" in " ".join(said.split())
