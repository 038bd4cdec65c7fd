"""Calls through the edge, heard at both ends: TLS, SRTP and plain RTP outside, plain RTP inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.infra.phones import Phone, phones
from tests.infra.running_edge import GATEWAY, NODE, PASSWORD, STRANGER, TRUNK, Edge

pytestmark = pytest.mark.e2e

TALK_S = 2.0


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
        caller.do("hold")
        caller.listen_for(1.0)
        held = len([line for line in node.whole_log().splitlines() if line == "a=sendonly"])
        assert held
        caller.do("resume")
        caller.listen_for(1.0)

    talk(caller, node, edge.uri(), edge, meanwhile=hold)


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
