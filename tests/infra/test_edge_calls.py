"""Calls through the edge, heard at both ends: TLS, SRTP and plain RTP outside, plain RTP inside."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.infra.phones import Phone, phones
from tests.infra.running_edge import PASSWORD, STRANGER, TRUNK, Edge

pytestmark = pytest.mark.e2e

TALK_S = 2.0


def _talk(caller: Phone, node: Phone, uri: str, edge: Edge) -> None:
    """Both hear the other, and nothing else."""
    for recording in (node.folder / "rec").glob("*.wav"):
        recording.unlink()
    with phones(caller):
        outcome = caller.dial(uri)
        assert outcome == "established", f"{outcome}\n{caller.log()}\n{edge.log()[-4000:]}"
        end = time.monotonic() + TALK_S
        while time.monotonic() < end:
            caller.listen(0.2)
        before = len(node.events)
        caller.hang_up()
        node.await_event("CALL_CLOSED", before)
        assert caller.heard_hz() == [node.tone_hz], caller.log()
        assert node.heard_hz() == [caller.tone_hz], edge.log()[-3000:]


def test_a_trunk_and_parley_hear_each_other(tmp_path: Path, edge: Edge, node: Phone) -> None:
    _talk(Phone(tmp_path, TRUNK, "carrier", 440), node, edge.uri(), edge)


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
    _talk(phone, node, edge.uri(transport=transport), edge)
