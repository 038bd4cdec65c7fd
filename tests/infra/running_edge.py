"""The edge of one test: the real script with real Kamailio and rtpengine, on loopback addresses of its own.

Calls come to 127.0.0.2; nodes are at 127.0.0.1; 127.0.0.3 is a trunk's; everybody else is a stranger.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.sip import edge as edge_script
from infra.sip.settings import Settings, read_settings
from tests.ports import free_port
from tests.torture import RawLine

EDGE, NODE, TRUNK, STRANGER = "127.0.0.2", "127.0.0.1", "127.0.0.3", "127.0.0.9"
PASSWORD = "a-long-password"  # alice's
GATEWAY = 5999  # the port of the trunk's own server
START_S = 40.0
ROOT = Path(__file__).parents[2]
_SOON_S = 30.0


@dataclass(frozen=True)
class Edge:
    """A running edge."""

    settings: Settings
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def udp(self) -> tuple[str, int]:
        return self.settings.public_address, self.settings.public_port

    def uri(self, user: str = "bot", transport: str = "udp") -> str:
        port = self.settings.tls_port if transport == "tls" else self.settings.public_port
        return f"sip:{user}@{self.settings.public_address}:{port};transport={transport}"

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def await_log(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + _SOON_S
        while self.log().count(text) < times:
            assert time.monotonic() < deadline, f"no {text!r} in the log:\n{self.log()[-6000:]}"
            time.sleep(0.05)

    def await_node(self, port: int, state: str) -> None:
        """Until the dispatcher holds this of the node at ``port``: A active, I inactive, D drained."""
        deadline = time.monotonic() + 2 * _SOON_S
        while True:
            found = edge_script.nodes(self.settings)
            if any(f":{port};" in uri and flags.startswith(state) for uri, flags in found.items()):
                return
            assert time.monotonic() < deadline, f"{found}\n{self.log()[-6000:]}"
            time.sleep(0.1)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The script, as an operator calls it."""
        return subprocess.run(
            [sys.executable, "-m", "infra.sip.edge", *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True,
        )  # fmt: skip


@contextmanager
def running_edge(folder: Path, nodes: Sequence[int], ends_with: int = 0, **settings: str) -> Iterator[Edge]:
    """An edge before the nodes at these ports, ``settings`` without their ``EDGE_``.

    It must end with status ``ends_with``: by itself, or, for 0, when it is told to.
    """
    mine = {
        "PUBLIC_ADDRESS": EDGE,
        "PUBLIC_PORT": str(free_port()),
        "TLS_PORT": str(free_port()),
        "INSIDE_PORT": str(free_port()),
        "NG_PORT": str(free_port()),
        "RTP_PORTS": "20000-23999",  # below those of tests.ports
        "NODES": ",".join(f"{NODE}:{port}" for port in nodes),
        "TRUNKS": f"carrier={TRUNK}",
        "RUN_FOLDER": str(folder / "run"),
        "WORKERS": "1",
        "PROBE_S": "1",
        "NODE_TIMEOUT_MS": "8000",  # a busy machine is no dead node; where one is, the test says less
    } | settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
    own = {f"EDGE_{name}": value for name, value in mine.items()}
    log_file = folder / "edge.log"
    with log_file.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.sip.edge", "run"],
            cwd=ROOT, env=environment | own, stdout=out, stderr=out,
        )  # fmt: skip
    edge = Edge(read_settings(own), environment | own, process, log_file)
    try:
        deadline = time.monotonic() + START_S
        while "edge: ready" not in edge.log():
            assert process.poll() is None, edge.log()
            assert time.monotonic() < deadline, edge.log()
            time.sleep(0.1)
        yield edge
    finally:
        alive = process.poll() is None
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        if sys.exc_info()[0] is None:
            assert (alive, status) == (ends_with == 0, ends_with), edge.log()[-6000:]


class Line(RawLine):
    """A raw UDP socket at ``address``, towards the edge."""

    def __init__(self, edge: Edge, address: str) -> None:
        super().__init__(edge.udp, address)
        self.edge = edge
