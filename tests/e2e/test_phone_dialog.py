"""Within a call, by hand: keys in every form, refreshing, moving, and what becomes of who says nothing."""

from __future__ import annotations

import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.phone_line import (
    ANSWER_S,
    GREETING_S,
    PhoneLine,
    phone_line,
    voice,
    wait_for_log,
    wait_until,
)
from tests.e2e.raw_call import OFFER, RawCall, raw_call
from tests.e2e.sipp import mu_law
from tests.e2e.test_phone import worker_of
from tests.e2e.test_phone_fire import kilobytes
from tests.torture import CLIENT, RawLine

pytestmark = pytest.mark.e2e

HERE = "127.0.0.1"
KEYS = OFFER + "a=rtpmap:{kind} telephone-event/8000\r\na=fmtp:{kind} 0-15\r\n"
SOUND = b"\xff" * 160  # silence in G.711 mu-law


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLine]:
    settings = {
        "PARLEY_MAX_CALLS": "20",
        "PARLEY_CONNECT_TIMEOUT_S": "4",
        "PARLEY_SIP__MEDIA": "127.0.9.0/24",
    }
    with phone_line(tmp_path_factory.mktemp("dialog"), **settings) as running:
        yield running
        wait_until(lambda: running.calls_now() == 0, "the end of all calls")


@pytest.fixture
def caller(line: PhoneLine) -> Iterator[RawLine]:
    with RawLine((HERE, line.port), CLIENT) as raw:
        yield raw


def offer_of(call: RawCall, port: int, types: str = "0") -> str:
    return OFFER.format(address=CLIENT, port=port, types=types)


def press(call: RawCall, event: int, number: int, kind: int, mark: bool) -> int:
    """A key (RFC 4733): five packets, then the last one three times; the number of the next packet."""
    start = 160 * number
    for held in range(1, 6):
        duration = (160 * held).to_bytes(2, "big")
        call.speak(bytes([event, 10]) + duration, number, kind, start, mark=int(mark and held == 1))
        number += 1
        time.sleep(0.02)
    for _ in range(3):
        call.speak(bytes([event, 0x8A]) + (800).to_bytes(2, "big"), number, kind, start)
        number += 1
    return number


@pytest.mark.parametrize(("kind", "mark"), [(101, True), (101, False), (97, False), (127, True)])
def test_a_key_counts_once_with_and_without_a_marker_whatever_its_payload_type(
    line: PhoneLine, caller: RawLine, kind: int, mark: bool
) -> None:
    before = line.log().count("a key was pressed")
    with raw_call(caller, KEYS.replace("{kind}", str(kind)), types=f"0 {kind}") as call:
        number = 0
        for _ in range(20):
            call.speak(SOUND, number)
            number += 1
        number = press(call, 5, number, kind, mark)
        number = press(call, 5, number, kind, mark)  # the same key again
        press(call, 11, number, kind, mark)  # "#"
        wait_for_log(line, "a key was pressed", times=before + 3)
        assert call.ask("OPTIONS").startswith("SIP/2.0 200")
        assert line.log().count("a key was pressed") == before + 3


def test_a_key_in_an_info_counts(line: PhoneLine, caller: RawLine) -> None:
    before = line.log().count("a key was pressed")
    with raw_call(caller) as call:
        for signal in "5#":
            body = f"Signal={signal}\r\nDuration=160\r\n"
            said = call.ask("INFO", Content_Type="application/dtmf-relay", body=body)
            assert said == "SIP/2.0 200 OK"
        wait_for_log(line, "a key was pressed", times=before + 2)


@pytest.mark.parametrize("refresher", ["uac", "uas"])
def test_who_has_a_session_timer_may_refresh_and_nobody_is_made_to(caller: RawLine, refresher: str) -> None:
    """RFC 4028, section 9: the stack knows no timer, says none, and answers whatever refreshes a session."""
    timer = {"Session_Expires": f"90;refresher={refresher}", "Min_SE": "90", "Supported": "timer"}
    with raw_call(caller, **timer) as call:
        assert "Session-Expires" not in call.answer
        assert call.ask("UPDATE", **timer) == "SIP/2.0 200 OK"
        again = offer_of(call, call.sound.getsockname()[1])
        assert call.ask("INVITE", Content_Type="application/sdp", body=again, **timer) == "SIP/2.0 200 OK"
        call.acknowledge()
        assert call.ask("OPTIONS").startswith("SIP/2.0 200")


def test_who_cannot_do_without_session_timers_is_told_that_there_are_none(caller: RawLine) -> None:
    assert caller.ask("INVITE", 5.0, Require="timer") == "SIP/2.0 420 Bad Extension"


@pytest.mark.parametrize("header", ["Require", "Supported"])
def test_ringing_is_told_until_it_is_acknowledged_and_then_we_answer(caller: RawLine, header: str) -> None:
    """RFC 3262: to those who can, whether or not they must; the caller here loses the first that rings."""
    invited = {"From": f"<sip:raw@{CLIENT}>;tag=rel", "Call_ID": uuid.uuid4().hex}
    body = OFFER.format(address=CLIENT, port=4000, types="0")
    caller.send(
        caller.request("INVITE", **invited, Content_Type="application/sdp", body=body, **{header: "100rel"})
    )
    rings = [caller.whole_answer(10.0) for _ in range(2)]
    assert [ring.split("\r\n")[0] for ring in rings] == ["SIP/2.0 180 Ringing"] * 2
    assert "Require: 100rel" in rings[0]
    numbers = {re.findall(r"RSeq: (\d+)", ring)[0] for ring in rings}
    assert len(numbers) == 1
    there = {
        "To": re.findall(r"(?m)^To: (.*?)\r?$", rings[0])[0],
        "uri": re.findall(r"(?m)^Contact: *<([^>]+)>", rings[0])[0],
    }
    caller.send(caller.request("PRACK", **invited, **there, CSeq="2 PRACK", RAck=f"{numbers.pop()} 1 INVITE"))
    answers = [caller.whole_answer(10.0) for _ in range(2)]
    assert [re.findall(r"CSeq: (.*?)\r", answer)[0] for answer in answers] == ["2 PRACK", "1 INVITE"]
    assert all(answer.startswith("SIP/2.0 200") for answer in answers)
    caller.send(caller.request("ACK", **invited, **there, CSeq="1 ACK"))
    caller.send(caller.request("BYE", **invited, **there, CSeq="3 BYE"))


def test_a_call_that_moves_is_followed_in_address_and_codec(caller: RawLine) -> None:
    with raw_call(caller) as call, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(("127.0.0.4", 0))
        elsewhere.settimeout(10)
        there = OFFER.format(address="127.0.0.4", port=elsewhere.getsockname()[1], types="8")
        assert call.ask("INVITE", Content_Type="application/sdp", body=there) == "SIP/2.0 200 OK"
        call.acknowledge()
        packet = elsewhere.recv(2000)
        assert (len(packet), packet[1] & 0x7F) == (172, 8)  # PCMA


def test_who_holds_us_is_told_that_we_only_listen_and_hears_nothing_until_they_take_us_back(
    caller: RawLine,
) -> None:
    """RFC 3264, section 8.4: ``sendonly`` is answered ``recvonly``."""
    with raw_call(caller) as call:
        port = call.sound.getsockname()[1]
        for direction, answered in (("sendonly", "recvonly"), ("inactive", "inactive"), ("sendrecv", "")):
            again = offer_of(call, port) + f"a={direction}\r\n"
            call.send("INVITE", Content_Type="application/sdp", body=again)
            answer = caller.answer_of("200")
            call.acknowledge()
            assert f"a={answered}" in answer
            if direction != "sendrecv":
                assert falls_silent(call)
                continue
            call.sound.settimeout(10)
            for _ in range(5):
                assert call.sound.recv(2000)


def falls_silent(call: RawCall) -> bool:
    """Whether 1 s passes without RTP, after what was on its way."""
    call.sound.settimeout(1.0)
    try:
        for _ in range(200):
            call.sound.recv(2000)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("media", ["RTP/SAVP", "UDP/TLS/RTP/SAVPF"])
def test_who_cannot_do_without_encryption_is_refused_with_488(caller: RawLine, media: str) -> None:
    """SRTP is the edge's."""
    offer = OFFER.format(address=CLIENT, port=4000, types="0").replace("RTP/AVP", media)
    said = caller.ask("INVITE", 5.0, Content_Type="application/sdp", body=offer)
    assert said.startswith("SIP/2.0 488")


def test_asked_for_an_offer_we_make_one(caller: RawLine) -> None:
    with raw_call(caller) as call:
        call.send("INVITE")
        offer = caller.answer_of("200")
        assert "m=audio" in offer
        answer = offer_of(call, call.sound.getsockname()[1])
        call.acknowledge(Content_Type="application/sdp", body=answer)
        call.sound.settimeout(10)
        while call.sound.recv(2000)[1] & 0x7F != 0:
            pass
        assert call.ask("OPTIONS").startswith("SIP/2.0 200")


def test_an_invite_sent_again_is_one_call_and_has_the_same_answer(line: PhoneLine, caller: RawLine) -> None:
    before = line.log().count(" calls ")
    with raw_call(caller, again="yes") as call:
        assert call.ask("OPTIONS").startswith("SIP/2.0 200")
        assert line.log().count(" calls ") == before + 1


def test_an_answer_that_is_not_acknowledged_is_said_again_and_then_the_call_is_ended(
    line: PhoneLine, caller: RawLine
) -> None:
    """Ours is the shorter patience: ``PARLEY_CONNECT_TIMEOUT_S``; RFC 3261, 13.3.1.4, has 32 s."""
    body = OFFER.format(address=CLIENT, port=4000, types="0")
    caller.send(caller.request("INVITE", Content_Type="application/sdp", body=body))
    answers = []
    while not (answer := caller.answer(20.0)).startswith("BYE"):
        assert answer, "never given up"
        answers.append(answer)
    assert answers.count("SIP/2.0 200 Answering") >= 3


def test_who_gives_up_as_we_answer_has_one_end_of_it(line: PhoneLine, caller: RawLine) -> None:
    """CANCEL on its way while 200 is: the caller acknowledges and hangs up (RFC 3261, section 9.1)."""
    with raw_call(caller) as call:
        call.send("CANCEL", Via=call.via, CSeq="1 CANCEL", uri=f"sip:bot@{HERE}", To=f"<sip:bot@{HERE}>")
        assert call.ask("OPTIONS").startswith("SIP/2.0 200")
    wait_until(lambda: line.calls_now() == 0, "the end of the call")


def test_sound_from_a_stranger_is_not_answered(caller: RawLine) -> None:
    """RTP goes where SDP says, whoever sends to our port; that it follows its source is the edge's affair."""
    with raw_call(caller) as call, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
        thief.bind(("127.0.0.66", 0))
        call.sound.settimeout(10)
        for number in range(50):
            thief.sendto(bytes([0x80, 0]) + number.to_bytes(2, "big") + bytes(8) + SOUND, call.there)
            assert call.sound.recv(2000)
        thief.setblocking(False)
        with pytest.raises(BlockingIOError):
            thief.recv(2000)


@contextmanager
def speaking_from(call: RawCall, address: str) -> Iterator[None]:
    """Meanwhile what the caller sends comes from elsewhere."""
    own = call.sound
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as call.sound:
        call.sound.bind((address, 0))
        try:
            yield
        finally:
            call.sound = own


def test_a_stranger_presses_no_keys_while_the_phone_and_who_may_as_well_do(
    line: PhoneLine, caller: RawLine
) -> None:
    """... even one who knows its SSRC, its payload types and where it is in its numbers."""
    before = line.log().count("a key was pressed")
    with raw_call(caller, KEYS.replace("{kind}", "101"), types="0 101") as call:
        call.sound.settimeout(10)
        assert call.sound.recv(2000)
        with speaking_from(call, "127.0.0.66"):
            number = press(call, 1, 0, 101, mark=True)
        number = press(call, 2, number, 101, mark=True)
        with speaking_from(call, "127.0.9.1"):  # of PARLEY_SIP__MEDIA
            press(call, 3, number, 101, mark=True)
        wait_for_log(line, "a key was pressed", times=before + 2)
        assert call.ask("OPTIONS").startswith("SIP/2.0 200")
        assert line.log().count("a key was pressed") == before + 2


def test_a_stranger_is_not_answered_and_the_phone_is(caller: RawLine) -> None:
    with raw_call(caller) as call, listening(call) as loud:
        wait_until(lambda: sum(loud) > 50 * GREETING_S - 3, "the greeting")
        wait_until(lambda: not any(loud[-50:]), "its end")
        with speaking_from(call, "127.0.0.66"):
            say(call, 0)
        before = len(loud)
        wait_until(lambda: len(loud) > before + 100, "two seconds in which there would be an answer")
        assert not any(loud[before:])
        say(call, 60)
        wait_until(lambda: sum(loud) > 50 * (GREETING_S + ANSWER_S) - 6, "the answer")


def say(call: RawCall, number: int) -> None:
    """1.2 s of a voice, in packets from ``number`` on."""
    pcm = mu_law(voice(1.2, 8000))
    for start in range(0, len(pcm), 160):
        call.speak(pcm[start : start + 160], number + start // 160)
        time.sleep(0.02)


@contextmanager
def listening(call: RawCall) -> Iterator[list[bool]]:
    """For each packet of the bot's, whether there is sound in it."""
    loud: list[bool] = []
    sound, enough = call.sound, threading.Event()
    sound.settimeout(0.2)

    def listen() -> None:
        while not enough.is_set():
            with suppress(TimeoutError):
                packet = sound.recv(2000)
                loud.append(max(~byte & 0x7F for byte in packet[12:]) > 0x40)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield loud
    finally:
        enough.set()
        thread.join()


def test_who_moves_is_heard_from_there_and_no_more_from_where_they_were(
    line: PhoneLine, caller: RawLine
) -> None:
    before = line.log().count("a key was pressed")
    with raw_call(caller, KEYS.replace("{kind}", "101"), types="0 101") as call:
        there = KEYS.format(address="127.0.0.4", port=4000, types="0 101", kind=101)
        assert call.ask("INVITE", Content_Type="application/sdp", body=there) == "SIP/2.0 200 OK"
        call.acknowledge()
        with speaking_from(call, "127.0.0.4"):
            number = press(call, 1, 0, 101, mark=True)
            wait_for_log(line, "a key was pressed", times=before + 1)
        number = press(call, 2, number, 101, mark=True)
        with speaking_from(call, "127.0.0.4"):
            press(call, 3, number, 101, mark=True)
            wait_for_log(line, "a key was pressed", times=before + 2)
        assert call.ask("OPTIONS").startswith("SIP/2.0 200")
        assert line.log().count("a key was pressed") == before + 2


@pytest.mark.slow
def test_a_thousand_calls_leave_nothing_behind(tmp_path: Path) -> None:
    """No port, descriptor, thread or process; what stays in memory is told and bounded."""
    with phone_line(tmp_path / "line", PARLEY_MAX_CALLS="4", PARLEY_REDIS__KEEP_S="0") as line:
        processes = (worker_of(line), line.server.process.pid)

        def held() -> list[tuple[int, ...]]:
            """Descriptors, threads and child processes of each."""
            return [_held(Path("/proc", str(process))) for process in processes]

        def call(times: int) -> None:
            for _ in range(times):
                with RawLine((HERE, line.port), CLIENT) as raw, raw_call(raw) as call:
                    call.sound.settimeout(10)
                    assert call.sound.recv(2000)
                wait_until(lambda: line.calls_now() == 0, "the end of the call")

        call(100)  # by then pools and caches are there
        before, memory = held(), [kilobytes(process) for process in processes]
        call(1000)
        grown = [kilobytes(process) - had for process, had in zip(processes, memory, strict=True)]
        print(f"1000 calls: the worker has grown by {grown[0]} kB, the media process by {grown[1]} kB")
        wait_until(lambda: all(map(_no_more, held(), before)), f"no more than {before}: {held()}")
        assert max(grown) < 40_000, grown


def _held(process: Path) -> tuple[int, ...]:
    children = (process / "task" / process.name / "children").read_text().split()
    return (*(len(list((process / what).iterdir())) for what in ("fd", "task")), len(children))


def _no_more(now: tuple[int, ...], before: tuple[int, ...]) -> bool:
    return all(have <= had + 2 for have, had in zip(now, before, strict=True))
