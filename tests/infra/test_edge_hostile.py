"""Hostile and broken messages: after each the edge answers, and after all of them a good call is heard."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.infra.phones import Phone
from tests.infra.running_edge import EDGE, TRUNK, Edge, Line, running_edge
from tests.infra.test_edge_calls import talk
from tests.torture import HOSTILE, SDPS, SESSION, STREAMS, mutated

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DATAGRAMS = 5000
SEED = 4475  # RFC 4475 is the book of SIP torture tests

CODES = {  # of those that are worth an answer; the others may be dropped, as Kamailio does with SIP/7.0
    "Max-Forwards 0": "483",
    "CSeq of another method": "400",
    "Content-Length too long": "400",
    "Proxy-Require": "420",
    "an unknown scheme": "400",  # RFC 3261, section 21.4.14, has 416 for it; Kamailio says 400
}


@pytest.fixture(scope="module")
def open_edge(tmp_path_factory: pytest.TempPathFactory, node: Phone) -> Iterator[Edge]:
    """Lets the trunk call as often as it will: nothing hostile is kept from what lies behind."""
    folder = tmp_path_factory.mktemp("hostile")
    with running_edge(folder, [node.sip], CALLS_PER_SECOND="10000", MAX_CALLS="1000", PROBE_S="60") as edge:
        yield edge


@pytest.fixture
def trunk(open_edge: Edge) -> Iterator[Line]:
    with Line(open_edge, TRUNK) as line:
        yield line


def _is_well(edge: Edge) -> None:
    with Line(edge, TRUNK) as line:
        assert line.ask("OPTIONS", 5.0) == "SIP/2.0 200 OK", edge.log()[-3000:]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_request_breaks_nothing(open_edge: Edge, trunk: Line, name: str) -> None:
    for method in ("OPTIONS", "INVITE"):
        changes = {"uri": "sip:nobody@127.0.0.2"} | HOSTILE[name]
        if "CSeq" in changes:
            changes["CSeq"] = changes["CSeq"].replace("OPTIONS", method)
        if name == "CSeq of another method":
            changes["CSeq"] = "1 BYE"
        answer = trunk.ask(method, 0.3 if name not in CODES else 2.0, **changes)
        if name in CODES:
            assert answer.startswith(f"SIP/2.0 {CODES[name]}"), answer
        assert not answer.startswith("SIP/2.0 2") or method == "OPTIONS"
    _is_well(open_edge)


@pytest.mark.parametrize("name", SDPS)
def test_a_broken_description_breaks_nothing(open_edge: Edge, trunk: Line, name: str) -> None:
    trunk.send(
        trunk.request("INVITE", uri="sip:nobody@127.0.0.2", Content_Type="application/sdp", body=SDPS[name])
    )
    trunk.answer(1.0)
    _is_well(open_edge)


def test_what_belongs_to_no_call_is_told_so(trunk: Line) -> None:
    assert trunk.ask("CANCEL").startswith("SIP/2.0 481")
    assert trunk.ask("BYE", 2.0, To="<sip:x@127.0.0.2>;tag=1").startswith("SIP/2.0 481")
    assert trunk.ask("NEWMETHOD").startswith("SIP/2.0 405")


@pytest.mark.parametrize("sent", STREAMS.values(), ids=STREAMS)
def test_a_broken_stream_breaks_nothing(open_edge: Edge, sent: bytes) -> None:
    with socket.create_connection(open_edge.udp, 2.0) as line:
        with suppress(OSError):  # it may be closed on us, and that is right
            line.sendall(sent)
        _is_well(open_edge)


def test_a_hundred_slow_connections_keep_nobody_out(open_edge: Edge) -> None:
    slow = []
    try:
        for _ in range(100):
            line = socket.create_connection(open_edge.udp, 2.0)
            line.sendall(b"OPTIONS sip:bot@127.0.0.2 SIP/2.0\r\nVia: ")
            slow.append(line)
        _is_well(open_edge)
    finally:
        for line in slow:
            line.close()


def test_mutated_datagrams_break_nothing(open_edge: Edge, trunk: Line, node: Phone, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    sdp = SESSION + "m=audio 4000 RTP/AVP 0\r\n"
    good = [
        trunk.request(method, uri="sip:nobody@127.0.0.2") for method in ("OPTIONS", "BYE", "ACK", "CANCEL")
    ]
    good.append(trunk.request("INVITE", uri="sip:nobody@127.0.0.2", Content_Type="application/sdp", body=sdp))
    good.append(trunk.request("REGISTER", Authorization='Digest username="a", realm="parley", nonce="x"'))
    good.append(trunk.request("SIP/2.0", uri="200", version="OK", CSeq="1 INVITE"))
    for sent in range(1, DATAGRAMS + 1):
        trunk.send(mutated(dice.choice(good), dice))
        if sent % 100 == 0:
            _is_well(open_edge)
    talk(Phone(tmp_path, TRUNK, "carrier", 440), node, open_edge.uri(), open_edge)


def test_nobody_else_can_speak_into_a_call(open_edge: Edge, node: Phone, tmp_path: Path) -> None:
    """RTP from another address, and RTP that is none, to the port where the caller's is taken."""
    caller = Phone(tmp_path, TRUNK, "carrier", 440)

    def disturb() -> None:
        port = int(
            caller.whole_log().rpartition(f"c=IN IP4 {EDGE}")[2].partition("m=audio ")[2].split(" ")[0]
        )
        dice = random.Random(SEED)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as intruder:
            intruder.bind(("127.0.0.66", 0))
            for sequence in range(100):
                loud = bytes([0x80, 0]) + sequence.to_bytes(2, "big") + bytes(4) + b"intr" + b"\0\x80" * 80
                for packet in (loud, b"", b"\x80", bytes(11), b"\x8f" * 14, dice.randbytes(1500)):
                    intruder.sendto(packet, (EDGE, port))
                time.sleep(0.02)

    talk(caller, node, open_edge.uri(), open_edge, meanwhile=disturb)
