"""SIP to the letter, with sipp at the other end: what is on the wire, in which order, and nothing besides."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.phone_line import PhoneLine, phone_line, tone_engine, voice, wait_for_log, wait_until
from tests.e2e.sipp import sipp, write_speech
from tests.e2e.softphone import softphone
from tests.e2e.speakers import silence
from tests.e2e.test_phone_outbound import call
from tests.ports import free_port

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLine]:
    with phone_line(
        tmp_path_factory.mktemp("sip"), PARLEY_SIP__RING_S="0.5", PARLEY_MAX_CALLS="6"
    ) as running:
        yield running
        assert running.calls_now() == 0


@pytest.fixture(scope="module")
def ringing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLine]:
    """It rings for longer than anybody here needs to give up."""
    with phone_line(tmp_path_factory.mktemp("ringing"), PARLEY_SIP__RING_S="30") as running:
        yield running


def place(scenario: str, line: PhoneLine, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return sipp(scenario, folder, f"127.0.0.1:{line.port}", "-s", "bot", "-p", str(free_port()), *more)


@pytest.mark.parametrize("transport", ["u1", "t1"])
def test_a_call_is_rung_answered_and_left_alone(line: PhoneLine, tmp_path: Path, transport: str) -> None:
    write_speech(tmp_path / "speech.ulaw", np.concatenate([silence(1, 8000), voice(1, 8000)]))
    done = place("call", line, tmp_path, "-t", transport, "-m", "1", "-d", "3000")
    assert done.returncode == 0, done.stdout[-2000:]


def test_several_calls_at_once_all_go_well(line: PhoneLine, tmp_path: Path) -> None:
    write_speech(tmp_path / "speech.ulaw", np.concatenate([silence(1, 8000), voice(1, 8000)]))
    done = place("call", line, tmp_path, "-m", "6", "-r", "3", "-d", "4000")
    assert done.returncode == 0, done.stdout[-2000:]
    wait_until(lambda: line.calls_now() == 0, "the end of all calls")


def test_who_gives_up_is_told_487(ringing: PhoneLine, tmp_path: Path) -> None:
    done = place("cancel", ringing, tmp_path, "-m", "1")
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_caller_who_gives_up_while_it_rings_is_forgotten(ringing: PhoneLine, tmp_path: Path) -> None:
    with softphone(tmp_path / "phone") as phone:
        gave_up = ringing.log().count("gave up ringing")
        phone.dial(ringing.uri)
        phone.wait("CALL_RINGING")
        phone.hang_up()
        wait_for_log(ringing, "gave up ringing", times=gave_up + 1)
        assert not phone.seen("CALL_ESTABLISHED")
        wait_until(lambda: ringing.calls_now() == 0, "a free place")


TRUNK = {
    "PARLEY_SIP__AUTH_USERNAME": "trunk-7",
    "PARLEY_SIP__CALLER_ID": "+4930123456",
    "PARLEY_SIP__CALLER_NAME": "Bluebird Shop",
}


@pytest.mark.parametrize(
    ("algorithm", "trunk", "user", "shown"),
    [
        ("MD5", {}, "me", "<sip:me@127.0.0.1"),
        ("SHA-256", {}, "me", "<sip:me@127.0.0.1"),
        ("SHA-256", TRUNK, "trunk-7", '"Bluebird Shop" <sip:+4930123456@127.0.0.1'),
    ],
)
def test_where_a_password_is_asked_for_the_right_one_is_proved(
    tmp_path: Path, algorithm: str, trunk: dict[str, str], user: str, shown: str
) -> None:
    """... and the number and the name are shown that are to be, whatever user it is who proves it.

    The proof is computed here again (RFC 7616, 3.4.1): sipp believes anybody.
    """
    port = free_port()
    with tone_engine() as url:
        settings = {
            "PARLEY_ENGINE__URL": url,
            "PARLEY_SIP__DESTINATIONS": f"you@127.0.0.1:{port}",
            "PARLEY_SIP__USERNAME": "me",
            "PARLEY_SIP__PASSWORD": "open sesame",
        } | trunk
        calling = call(f"sip:you@127.0.0.1:{port}", tmp_path, **settings)
        try:
            done = sipp(
                "asks_for_password", tmp_path, "-p", str(port), "-m", "1", "-key", "algorithm", algorithm
            )
            out, said = calling.communicate(timeout=30)
        finally:
            calling.kill()
            calling.wait()
    assert done.returncode == 0, done.stdout[-2000:] + said
    assert "hung-up after" in out
    (log,) = tmp_path.glob("*_logs.log")
    assert shown in log.read_text()
    proof = dict(re.findall(r'(\w+)="?([^",\s]+)"?', log.read_text()))

    def digest(*parts: str) -> str:
        name = algorithm.replace("-", "")
        return hashlib.new(name, ":".join(parts).encode()).hexdigest()

    identity, request = digest(user, "here", "open sesame"), digest("INVITE", proof["uri"])
    assert proof["response"] == digest(
        identity, proof["nonce"], proof["nc"], proof["cnonce"], proof["qop"], request
    )
