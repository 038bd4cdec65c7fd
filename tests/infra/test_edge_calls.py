"""Calls through the edge, heard at both ends: TLS, SRTP and plain RTP outside, plain RTP inside."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.infra.phones import LONG_S, Phone, phones
from tests.infra.running_edge import EDGE, GATEWAY, NODE, PASSWORD, STRANGER, TRUNK, Edge, Line, running_edge

pytestmark = pytest.mark.e2e

TALK_S = 2.5  # of which half a second must be heard
LATE_ANSWER = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.3\r\ns=-\r\nc=IN IP4 127.0.0.3\r\nt=0 0\r\n"
    "m=audio 41000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
)


def forget(phone: Phone) -> None:
    """What it has heard until now."""
    for recording in (phone.folder / "rec").glob("*.wav"):
        recording.unlink()


def talk(
    caller: Phone, node: Phone, uri: str, edge: Edge, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Both hear the other, and nothing else."""
    forget(node)
    with phones(caller):
        outcome = caller.dial(uri)
        assert outcome == "established", f"{outcome}\n{caller.log()}\n{edge.log()[-4000:]}"
        caller.listen_for(TALK_S)
        meanwhile()
        before = len(node.events)
        caller.hang_up()
        node.await_event("CALL_CLOSED", before)
        assert caller.heard_hz() == [node.tone_hz], caller.log()
        assert node.heard_hz() == [caller.tone_hz], edge.log()[-3000:]


def test_a_trunk_and_parley_hear_each_other(tmp_path: Path, edge: Edge, node: Phone) -> None:
    talk(Phone(tmp_path, TRUNK, "carrier", 440), node, edge.uri(), edge)


@pytest.mark.parametrize(
    ("transport", "media"),
    [
        ("udp", ""),
        ("tcp", ""),
        ("tls", ";mediaenc=srtp-mand"),
        ("tls", ";mediaenc=dtls_srtp"),
        ("udp", ";mediaenc=srtp-mand"),
    ],
)
def test_a_phone_with_a_password_and_parley_hear_each_other(
    tmp_path: Path, edge: Edge, node: Phone, transport: str, media: str
) -> None:
    phone = Phone(tmp_path, STRANGER, "alice", 520, params=f"{media};auth_user=alice;auth_pass={PASSWORD}")
    talk(phone, node, edge.uri(transport=transport), edge)


def test_parley_calls_a_phone_that_has_registered(tmp_path: Path, edge: Edge, node: Phone) -> None:
    phone = Phone(
        tmp_path,
        STRANGER,
        "alice",
        520,
        params=f";answermode=auto;auth_user=alice;auth_pass={PASSWORD}",
        registrar=f"{edge.udp[0]}:{edge.udp[1]}",
    )
    with phones(phone):
        phone.await_log("1 binding")
        node_calls(node, phone, f"sip:alice@{NODE}:{edge.settings.inside_port}", edge)


def test_parley_calls_a_number_by_the_trunk(tmp_path: Path, edge: Edge, node: Phone) -> None:
    carrier = Phone(tmp_path, TRUNK, "+4930123", 440, sip=GATEWAY, params=";answermode=auto")
    with phones(carrier):
        node_calls(node, carrier, f"sip:+4930123@{NODE}:{edge.settings.inside_port}", edge)


def test_parley_cannot_call_what_is_neither(edge: Edge, node: Phone) -> None:
    for uri in ("sip:nobody@{}", "sip:+49;phone-context=x@{}"):
        assert node.dial(uri.format(f"{NODE}:{edge.settings.inside_port}")).startswith("404")


def test_hold_and_resume_go_through(tmp_path: Path, edge: Edge, node: Phone) -> None:
    """Both re-INVITEs are answered, and the sound is there again."""
    caller = Phone(tmp_path, STRANGER, "alice", 520, params=f";auth_user=alice;auth_pass={PASSWORD}")

    def hold() -> None:
        before = _held(node)
        caller.do("hold")
        deadline = time.monotonic() + LONG_S
        while _held(node) == before:
            assert time.monotonic() < deadline, node.log()
            caller.listen(0.2)
        caller.do("resume")
        caller.listen_for(1.0)

    talk(caller, node, edge.uri(), edge, meanwhile=hold)


def _held(node: Phone) -> int:
    """How often the node was told that it is not to speak."""
    return node.whole_log().splitlines().count("a=sendonly")


def test_parley_hangs_up_on_a_phone_over_tls(tmp_path: Path, edge: Edge, node: Phone) -> None:
    """A request towards the phone finds its connection, whatever address the phone believes to have."""
    params = f";mediaenc=srtp-mand;auth_user=alice;auth_pass={PASSWORD}"
    phone = Phone(tmp_path, STRANGER, "alice", 520, params=params)
    with phones(phone):
        assert phone.dial(edge.uri(transport="tls")) == "established"
        before = len(phone.events)
        node.hang_up()
        phone.await_event("CALL_CLOSED", before)


def test_a_caller_who_gives_up_leaves_nothing_behind(tmp_path: Path) -> None:
    ringing = Phone(tmp_path / "ringing", NODE, "bot", 700)
    caller = Phone(tmp_path / "caller", TRUNK, "carrier", 440)
    (tmp_path / "edge").mkdir()
    with phones(ringing, caller), running_edge(tmp_path / "edge", [ringing.sip]) as own:
        caller.do("dial", own.uri())
        ringing.await_event("CALL_INCOMING")
        assert "1 ringing" in own.command("status").stdout
        caller.hang_up()
        ringing.await_event("CALL_CLOSED")
        caller.await_log("SIP/2.0 487")
        assert "calls: 0 ongoing, 0 ringing" in own.command("status").stdout


def test_a_call_that_brings_its_offer_late_has_its_audio_by_the_edge(edge: Edge, node: Phone) -> None:
    """INVITE without an offer, the offer in 200, the answer in ACK (RFC 3264, section 4)."""
    with Line(edge, TRUNK) as trunk:
        tag = {"From": "<sip:carrier@127.0.0.3>;tag=late", "Call_ID": "late-offer"}
        trunk.send(trunk.request("INVITE", **tag))
        offer = trunk.answer_of("200")
        assert f"c=IN IP4 {EDGE}" in offer
        to = next(line for line in offer.split("\r\n") if line.startswith("To:"))[4:]
        contact = next(line for line in offer.split("\r\n") if line.startswith("Contact:"))
        routes = [line[14:] for line in offer.split("\r\n") if line.startswith("Record-Route:")]
        same = tag | {"uri": contact.partition("<")[2].partition(">")[0], "To": to, "Route": ",".join(routes)}
        answer = {"Content_Type": "application/sdp", "body": LATE_ANSWER}
        trunk.send(trunk.request("ACK", **same, **answer, CSeq="1 ACK"))
        node.await_log("Call-ID: late-offer")
        trunk.send(trunk.request("BYE", **same, CSeq="2 BYE"))
        assert trunk.answer_of("200")
        acknowledged = node.whole_log().rpartition("\nACK ")[2].partition("BYE sip:")[0]
        assert f"c=IN IP4 {NODE}" in acknowledged
        assert "m=audio 41000" not in acknowledged
        assert "m=audio 2" in acknowledged  # of EDGE_RTP_PORTS


def node_calls(node: Phone, callee: Phone, uri: str, edge: Edge) -> None:
    """The node places the call; both hear the other."""
    forget(node)
    before = len(node.events)
    outcome = node.dial(uri)
    assert outcome == "established", f"{outcome}\n{node.log()}\n{edge.log()[-4000:]}"
    callee.listen_for(TALK_S)
    node.hang_up()
    node.await_event("CALL_CLOSED", before)
    callee.await_event("CALL_CLOSED")
    assert callee.heard_hz() == [node.tone_hz], edge.log()[-3000:]
    assert node.heard_hz() == [callee.tone_hz], edge.log()[-3000:]
