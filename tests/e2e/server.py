"""A Parley of the test's own: started as a user starts it, on a free port, stopped and checked at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.ports import free_port

START_SECONDS = 120  # loading nano takes seconds; a loaded CI machine gets room


@dataclass(frozen=True)
class Server:
    """A running Parley: where it listens, its process, and the file its log goes to."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def parley_server(log: Path, port: int = 0, **settings: str) -> Iterator[Server]:
    """Run ``parley serve`` with ``PARLEY_*`` settings and wait until it says it is ready.

    What it remembers is kept beside its log.
    """
    port = port or free_port()
    own = {"PARLEY_PORT": str(port), "PARLEY_REDIS__DATA_DIR": str(log.parent / "data")}
    env = os.environ | own | settings
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bot.cli", "serve"], stdout=out, stderr=out, env=env
        )
    server = Server(f"http://127.0.0.1:{port}", port, process, log)
    try:
        _wait_ready(server)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(
                f"parley serve did not stop within 20 s of SIGTERM; its log:\n{_tail(log)}"
            ) from None


def _wait_ready(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise AssertionError(f"parley serve ended with {server.process.returncode}:\n{_tail(server.log)}")
        try:
            if httpx.get(f"{server.url}/readyz", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"parley serve was not ready after {START_SECONDS} s:\n{_tail(server.log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]
