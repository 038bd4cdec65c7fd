"""People call by phone: a real softphone, real SIP and RTP, an engine that answers in a tone."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.e2e.phone_line import (
    ANSWER_S,
    GREETING_S,
    PhoneLine,
    phone_line,
    tone_engine,
    tones,
    voice,
    wait_for_log,
    wait_until,
)
from tests.e2e.server import parley_server
from tests.e2e.softphone import SoftPhone, softphone
from tests.e2e.speakers import silence
from tests.e2e.standstill import steadily
from tests.ports import free_port

pytestmark = pytest.mark.e2e

QUESTION_AT_S = 4.0  # from the answer: the greeting is over by then, and takes less than 2 s to begin
QUESTION = np.concatenate([silence(QUESTION_AT_S), voice(1.2)])


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLine]:
    with phone_line(tmp_path_factory.mktemp("phone"), PARLEY_SIP__RING_S="0.5") as running:
        yield running
        assert running.calls_now() == 0  # every call gave its place back


def heard(phone: SoftPhone) -> list[float]:
    """Seconds of each answer."""
    recording = phone.recording()
    return tones(recording.heard, recording.rate)


def call(line: PhoneLine, phone: SoftPhone) -> None:
    """Call, and hear the greeting begin."""
    phone.dial(line.uri)
    phone.wait("CALL_ESTABLISHED")
    wait_until(lambda: bool(heard(phone)), "the greeting")


@pytest.mark.parametrize(
    ("codec", "transport"), [("pcmu", "udp"), ("pcma", "tcp"), ("g722", "udp"), ("opus", "udp")]
)
def test_a_caller_is_greeted_asks_and_is_answered(
    line: PhoneLine, tmp_path: Path, codec: str, transport: str
) -> None:
    def attempt(number: int) -> None:
        with softphone(tmp_path / f"phone{number}", QUESTION, codec) as phone:
            phone.dial(f"{line.uri};transport={transport}")
            phone.wait("CALL_RINGING")
            phone.wait("CALL_ESTABLISHED")
            wait_until(lambda: sum(heard(phone)[1:]) > ANSWER_S - 0.2, "the answer")
            time.sleep(0.5)  # it may go on
            phone.hang_up()
            wait_until(lambda: line.calls_now() == 0, "the end of the call")
            # To a block or two; one group of the engine's, which is 160 ms, would be missed.
            assert heard(phone) == [pytest.approx(length, abs=0.12) for length in (GREETING_S, ANSWER_S)]

    steadily(attempt)


def test_what_the_phone_cannot_speak_is_refused_with_488(line: PhoneLine, tmp_path: Path) -> None:
    with softphone(tmp_path / "phone", codec="l16") as phone:
        phone.dial(line.uri)
        assert phone.wait("CALL_CLOSED").startswith("488")


def test_a_call_outlives_a_hold_longer_than_a_dead_peer_is_given(line: PhoneLine, tmp_path: Path) -> None:
    """What is heard after it: ``test_phone_leg``; this phone records up to the first hold."""
    with softphone(tmp_path / "phone") as phone:
        call(line, phone)
        phone.hold()
        wait_for_log(line, "put on hold")
        time.sleep(7)
        phone.resume()
        wait_for_log(line, "taken back from hold")
        assert not phone.seen("CALL_CLOSED")
        phone.hang_up()


def test_keys_are_heard_and_answered(line: PhoneLine, tmp_path: Path) -> None:
    with softphone(tmp_path / "phone") as phone:
        call(line, phone)
        for key in "15#":
            phone.press(key)
        wait_for_log(line, "a key was pressed", times=3)
        wait_until(lambda: sum(heard(phone)) > 2 * GREETING_S - 0.2, "an answer to the keys")
        phone.hang_up()


def test_the_bot_ends_a_call_that_is_too_long_and_one_call_more_is_busy(tmp_path: Path) -> None:
    with (
        phone_line(tmp_path / "line", PARLEY_MAX_CALL_S="8", PARLEY_MAX_CALLS="1") as line,
        softphone(tmp_path / "first") as first,
        softphone(tmp_path / "second") as second,
    ):
        first.dial(line.uri)
        first.wait("CALL_ESTABLISHED")
        second.dial(line.uri)
        assert second.wait("CALL_CLOSED").startswith("486")
        first.wait("CALL_CLOSED")  # by our BYE
        wait_for_log(line, "call ended: max-duration")
        wait_until(lambda: line.calls_now() == 0, "a free place")


def test_when_parley_is_stopped_its_callers_are_hung_up_on(tmp_path: Path) -> None:
    with softphone(tmp_path / "phone") as phone:
        with phone_line(tmp_path / "line") as line:
            call(line, phone)
            worker = worker_of(line)
        phone.wait("CALL_CLOSED")
        assert not Path(f"/proc/{worker}").exists()
        assert "call ended: stopping" in line.log()


def test_a_port_that_is_taken_is_named_and_tried_again(tmp_path: Path) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))
        with (
            tone_engine() as url,
            parley_server(
                tmp_path / "serve.log",
                0,
                PARLEY_ENGINE__URL=url,
                PARLEY_SIP__LISTEN=f"127.0.0.1:{port}",
            ) as server,
        ):
            line = PhoneLine(f"sip:bot@127.0.0.1:{port}", port, server)
            wait_for_log(line, f"cannot listen on 127.0.0.1:{port}")
            assert httpx.get(f"{server.url}/readyz").status_code == 200  # the page is none the worse
            other.close()
            wait_for_log(line, "phone: answers")


def test_a_phone_that_vanishes_is_noticed(tmp_path: Path) -> None:
    with phone_line(tmp_path / "line", PARLEY_SIP__RTP_TIMEOUT_S="2") as line:
        with softphone(tmp_path / "phone") as phone:
            call(line, phone)
        # It was killed: no BYE, and no RTP any more.
        wait_for_log(line, "call ended: rtp-timeout")
        assert line.calls_now() == 0


def test_when_the_worker_is_killed_its_calls_end_and_the_next_one_is_answered(tmp_path: Path) -> None:
    with phone_line(tmp_path / "line") as line:
        with softphone(tmp_path / "phone") as phone:
            call(line, phone)
            os.kill(worker_of(line), signal.SIGKILL)
            wait_for_log(line, "call ended: worker-died")
        wait_for_log(line, "phone: answers", times=2)
        assert httpx.get(f"{line.server.url}/readyz").status_code == 200
        assert line.calls_now() == 0
        with softphone(tmp_path / "again") as phone:
            call(line, phone)
        worker = worker_of(line)
    assert not Path(f"/proc/{worker}").exists()  # stopped with its Parley


def worker_of(line: PhoneLine) -> int:
    """The process id of the phone's worker."""
    parley = line.server.process.pid
    for child in Path(f"/proc/{parley}/task/{parley}/children").read_text().split():
        if "bot.ingress.sip.worker" in Path(f"/proc/{child}/cmdline").read_text():
            return int(child)
    raise AssertionError("there is no worker")
