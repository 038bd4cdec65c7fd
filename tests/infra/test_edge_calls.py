"""Calls through the edge, heard at both ends: TLS, SRTP and plain RTP outside, plain RTP inside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.phones import Phone, certificate_of, phones
from tests.infra.running_edge import NODE, STRANGER, TRUNK, Edge, running_edge

pytestmark = pytest.mark.e2e

PASSWORD = "a-long-password"
TALK_S = 2.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edge")


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[Phone]:
    phone = Phone(folder / "node", NODE, "bot", 880, params=";answermode=auto")
    with phones(phone):
        yield phone


@pytest.fixture(scope="module")
def edge(folder: Path, node: Phone) -> Iterator[Edge]:
    (folder / "tls").mkdir()
    certificate_of(folder / "tls")
    secrets = folder / "extensions"
    secrets.write_text(f"alice:{PASSWORD}\n")
    secrets.chmod(0o600)
    certificate = folder / "tls" / "certificate.pem"
    with running_edge(
        folder,
        [node.sip],
        TLS_CERTIFICATE=f"{certificate}.crt",
        TLS_KEY=f"{certificate}.key",
        EXTENSIONS_FILE=str(secrets),
        REGISTER="yes",
        TRUNK_GATEWAY=f"sip:{TRUNK}:5999",
    ) as running:
        yield running


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
