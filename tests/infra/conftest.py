"""What the edge's tests share: one node and one edge before it, with a trunk and an extension."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.phones import Phone, certificate_of, phones
from tests.infra.running_edge import GATEWAY, NODE, PASSWORD, TRUNK, Edge, running_edge

IDLE_S = 4  # seconds, as the next
BAN_S = 10  # seconds: longer than what the tests do meanwhile


@pytest.fixture(scope="package")
def edge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edge")


@pytest.fixture(scope="package")
def node(edge_folder: Path) -> Iterator[Phone]:
    """Stands in for a Parley: it answers whoever calls it."""
    phone = Phone(edge_folder / "node", NODE, "bot", 880, params=";answermode=auto")
    with phones(phone):
        yield phone


@pytest.fixture(scope="package")
def edge(edge_folder: Path, node: Phone) -> Iterator[Edge]:
    """The whole edge: TLS, extensions (alice), registration, a trunk both ways."""
    (edge_folder / "tls").mkdir()
    certificate = certificate_of(edge_folder / "tls")
    with running_edge(
        edge_folder,
        [node.sip],
        TLS_CERTIFICATE=f"{certificate}.crt",
        TLS_KEY=f"{certificate}.key",
        EXTENSIONS_FILE=str(extensions(edge_folder)),
        REGISTER="yes",
        TRUNK_GATEWAY=f"sip:{TRUNK}:{GATEWAY}",
        TRIES="4",
        BAN_S=str(BAN_S),
        IDLE_S=str(IDLE_S),
    ) as running:
        yield running


def extensions(folder: Path) -> Path:
    """A file with one extension, alice."""
    path = folder / "extensions"
    path.write_text(f"alice:{PASSWORD}\n")
    path.chmod(0o600)
    return path
