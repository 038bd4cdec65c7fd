"""Parley as an extension of a PBX: a real registrar, and calls that come through it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.e2e.pbx import EXTENSION, HOST, PASSWORD, Pbx
from tests.e2e.phone_line import PhoneLine, phone_line, wait_for_log, wait_until
from tests.e2e.softphone import softphone
from tests.e2e.test_phone import heard, worker_of
from tests.ports import free_port
from tests.torture import RawLine

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def settings(pbx: Pbx, transport: str = "udp", password: str = PASSWORD) -> dict[str, str]:
    return {
        "PARLEY_SIP__REGISTRAR": f"{HOST}:{pbx.port};transport={transport}",
        "PARLEY_SIP__USERNAME": EXTENSION,
        "PARLEY_SIP__PASSWORD": password,
    }


def phone_says(line: PhoneLine) -> str:
    said: str = httpx.get(f"{line.server.url}/readyz").json()["phone"]
    return said


def is_called(pbx: Pbx, line: PhoneLine, folder: Path) -> None:
    """Somebody dials the extension, and Parley answers."""
    with softphone(folder) as phone:
        phone.dial(pbx.uri)
        phone.wait("CALL_ESTABLISHED")
        wait_until(lambda: bool(heard(phone)), "the greeting")
        phone.hang_up()
    wait_until(lambda: line.calls_now() == 0, "the end of the call")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_extension_is_called_and_stays_registered_and_goes(tmp_path: Path, transport: str) -> None:
    with Pbx(tmp_path / "pbx", free_port()) as pbx:
        with phone_line(tmp_path / "line", **settings(pbx, transport)) as line:
            wait_for_log(line, f"phone: registered at {HOST}:{pbx.port}")
            assert phone_says(line) == "ok"
            is_called(pbx, line, tmp_path / "first")
            before = pbx.registrations()
            wait_until(lambda: pbx.registrations() >= before + 2, "two refreshes")
            is_called(pbx, line, tmp_path / "second")
            before = pbx.registrations()
        with RawLine((HOST, pbx.port), HOST) as raw:  # gone at once, not when it expires
            assert raw.ask("INVITE", uri=pbx.uri).startswith("SIP/2.0 404")
        assert pbx.registrations() > before


def test_nobody_but_the_pbx_may_call(tmp_path: Path) -> None:
    with Pbx(tmp_path / "pbx", free_port()) as pbx, phone_line(tmp_path / "line", **settings(pbx)) as line:
        wait_for_log(line, "phone: registered")
        for address, answered in (("127.0.0.1", False), ("127.0.0.4", False), (HOST, True)):
            with RawLine(("127.0.0.1", line.port), address) as raw:
                assert bool(raw.ask("OPTIONS", 1.0 if not answered else 5.0)) is answered


def test_after_the_registrar_or_the_worker_was_away_calls_come_again(tmp_path: Path) -> None:
    pbx = Pbx(tmp_path / "pbx", free_port())
    with phone_line(tmp_path / "line", **settings(pbx)) as line:
        wait_for_log(line, f"phone: not registered at {HOST}:{pbx.port}: ")
        assert "It is not registered at" in phone_says(line)
        with pbx:
            wait_for_log(line, "phone: registered at", seconds=60)
            os.kill(worker_of(line), signal.SIGKILL)
            wait_for_log(line, "phone: registered at", times=2)
            is_called(pbx, line, tmp_path / "first")
        known = line.log().count("phone: not registered")
        wait_for_log(line, "phone: not registered", times=known + 1, seconds=90)
        with pbx:
            wait_for_log(line, "phone: registered at", times=3, seconds=90)
            is_called(pbx, line, tmp_path / "second")


def test_a_wrong_password_is_named(tmp_path: Path) -> None:
    with (
        Pbx(tmp_path / "pbx", free_port()) as pbx,
        phone_line(tmp_path / "line", **settings(pbx, password="wrong")) as line,
    ):
        wait_for_log(line, f"not registered at {HOST}:{pbx.port}: registration failed: 401")
        assert "401" in phone_says(line)
        assert pbx.registrations() == 0
        assert pbx.asked() <= 6  # twice an attempt, and those after 1 and 2 s: not a guess after the other
