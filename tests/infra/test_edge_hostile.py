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

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DATAGRAMS = 5000
SEED = 4475  # RFC 4475 is the book of SIP torture tests

VIA = "SIP/2.0/UDP 127.0.0.3:5060;branch=z9hG4bK"
HOSTILE: dict[str, dict[str, str]] = {  # what differs from a good OPTIONS
    "Via port 99999": {"Via": "SIP/2.0/UDP 127.0.0.3:99999;branch=z9hG4bKa1"},
    "Via port 0": {"Via": "SIP/2.0/UDP 127.0.0.3:0;branch=z9hG4bKa2"},
    "Via port -1": {"Via": "SIP/2.0/UDP 127.0.0.3:-1;branch=z9hG4bKa3"},
    "rport=99999": {"Via": f"{VIA}a4;rport=99999"},
    "Via of a bad host": {"Via": "SIP/2.0/UDP ..%%..;branch=z9hG4bKa5"},
    "Via of an endless host": {"Via": f"SIP/2.0/UDP {'a' * 4000}.example;branch=z9hG4bKa6"},
    "Via of half an IPv6 address": {"Via": "SIP/2.0/UDP [::1;branch=z9hG4bKa7"},
    "Via of a transport nobody has": {"Via": "SIP/2.0/PIGEON 127.0.0.3;branch=z9hG4bKa8"},
    "Via without a branch": {"Via": "SIP/2.0/UDP 127.0.0.3"},
    "no Via": {"Via": ""},
    "200 Vias": {"Via": "\r\nVia: ".join(f"{VIA}b{n}" for n in range(200))},
    "SIP/7.0": {"version": "SIP/7.0"},
    "no version": {"version": ""},
    "HTTP": {"version": "HTTP/1.1"},
    "Content-Length too long": {"Content_Length": "9999"},
    "Content-Length negative": {"Content_Length": "-1"},
    "Content-Length of 2^31": {"Content_Length": "2147483648"},
    "Content-Length of 10^30": {"Content_Length": "1" + "0" * 30},
    "Content-Length of letters": {"Content_Length": "many"},
    "Content-Length too short": {"Content_Length": "1", "body": "abcdef"},
    "CSeq of another method": {"CSeq": "1 INVITE"},
    "CSeq of 2^32": {"CSeq": "4294967296 OPTIONS"},
    "CSeq negative": {"CSeq": "-1 OPTIONS"},
    "no CSeq": {"CSeq": ""},
    "no Call-ID": {"Call_ID": ""},
    "an endless Call-ID": {"Call_ID": "x" * 8000},
    "no From": {"From": ""},
    "From without an end": {"From": '"x <sip:x@127.0.0.3;tag=1'},
    "From with a NUL": {"From": "<sip:x\0y@127.0.0.3>;tag=1"},
    "From with two tags": {"From": "<sip:x@127.0.0.3>;tag=1;tag=2"},
    "no To": {"To": ""},
    "To of nothing": {"To": "<>"},
    "Max-Forwards 0": {"Max_Forwards": "0"},
    "Max-Forwards 300": {"Max_Forwards": "300"},
    "Max-Forwards of letters": {"Max_Forwards": "ten"},
    "an unknown scheme": {"uri": "nobodyKnowsThisScheme:x"},
    "no URI": {"uri": ""},
    "a URI with a space": {"uri": "sip:b ot@127.0.0.2"},
    "a URI full of percents": {"uri": "sip:%00%ff%zz@127.0.0.2"},
    "a URI with port 99999": {"uri": "sip:bot@127.0.0.2:99999"},
    "an endless URI": {"uri": f"sip:{'b' * 5000}@127.0.0.2"},
    "a URI with format characters": {"uri": "sip:%s%n%x@127.0.0.2"},
    "Contact of a star": {"Contact": "*"},
    "Contact without an end": {"Contact": '"<sip:'},
    "Route to itself": {"Route": f"<sip:{EDGE};lr>, <sip:{EDGE};lr>"},
    "Route of rubbish": {"Route": "<<<>>>"},
    "Record-Route of rubbish": {"Record_Route": "@@@"},
    "Require": {"Require": "nothing.that.there.is"},
    "Proxy-Require": {"Proxy_Require": "nothing.that.there.is"},
    "Authorization of rubbish": {"Authorization": 'Digest ,,,="",nonce'},
    "a folded header": {"Subject": "a\r\n b\r\n\tc"},
    "a header without a colon": {"Subject": "a\r\nno colon here"},
    "a thousand headers": {"X": "\r\nX: ".join("y" * 1000)},
    "Latin-1": {"Subject": "\xff\xfe\xe9"},
}
CODES = {  # of those that are worth an answer; the others may be dropped, as Kamailio does with SIP/7.0
    "Max-Forwards 0": "483",
    "CSeq of another method": "400",
    "Content-Length too long": "400",
    "Proxy-Require": "420",
    "an unknown scheme": "400",  # RFC 3261, section 21.4.14, has 416 for it; Kamailio says 400
}
SESSION = "v=0\r\no=- 1 1 IN IP4 127.0.0.3\r\ns=-\r\nc=IN IP4 127.0.0.3\r\nt=0 0\r\n"
SDPS = {
    "no media": SESSION,
    "rubbish": "\0\xff" * 200,
    "port 99999": SESSION + "m=audio 99999 RTP/AVP 0\r\n",
    "host of rubbish": SESSION.replace("IP4 127.0.0.3", "IP4 %%%") + "m=audio 4000 RTP/AVP 0\r\n",
    "1000 media": SESSION + "m=audio 4000 RTP/AVP 0\r\n" * 1000,
    "crypto of rubbish": SESSION
    + "m=audio 4000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\r\n",
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


@pytest.mark.parametrize(
    "sent",
    [
        b"INVITE sip:bot@127.0.0.2 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.3",
        b"INVITE sip:bot@127.0.0.2 SIP/2.0\r\n" + b"X: y\r\n" * 20000,
        b"A" * 70000,
        b"\0" * 5000,
        b"\r\n" * 5000,
        b"OPTIONS sip:bot@127.0.0.2 SIP/2.0\r\nContent-Length: 2147483648\r\n\r\n",
        b"OPTIONS sip:bot@127.0.0.2 SIP/2.0\r\nContent-Length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=["half", "endless headers", "endless line", "zeros", "pings", "length 2^31", "length -5", "TLS"],
)
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


def mutated(message: bytes, dice: random.Random) -> bytes:
    """One to eight bytes changed, cut out or put in, a piece doubled, or the end cut off."""
    found = bytearray(message)
    for _ in range(dice.randint(1, 8)):
        at = dice.randrange(len(found) or 1)
        match dice.randrange(6):
            case 0:
                found[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del found[at : at + dice.randint(1, 20)]
            case 2:
                found[at:at] = bytes(dice.choices(b'\r\n\0;=<>"@:%,0 \xff', k=dice.randint(1, 20)))
            case 3:
                found[at:at] = found[at : at + dice.randint(1, 400)]
            case 4:
                found[at:at] = str(dice.choice([0, -1, 65536, 2**31, 2**32, 10**30])).encode()
            case _:
                del found[max(at, 1) :]
    return bytes(found[:60000]) or b"x"


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
