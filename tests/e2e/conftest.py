"""What the end-to-end tests share: one running Parley."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.server import Server, parley_server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Parley as ``make run`` starts it: nano on the CPU, the shipped agent, every setting at its default."""
    with parley_server(tmp_path_factory.mktemp("parley") / "serve.log") as running:
        yield running
