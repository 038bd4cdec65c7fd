"""An engine as Parley starts one, for a bench to talk to."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec

from model_runtime.engine.figures import Figures

START_S = 300.0  # 17 GB are read and warmed up in far less
STOP_S = 20.0
ANSWER_S = 15.0


class EngineFailed(Exception):  # noqa: N818 - it reads as what happened
    """It did not start. The message is the end of its log."""


@contextmanager
def engine(checkpoint: str, options: Sequence[str], log: Path) -> Iterator[Path]:
    """A running engine's socket. Raises ``EngineFailed``; what the engine says is in ``log``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine.sock"
        command = [sys.executable, "-m", "model_runtime.engine", "--checkpoint", checkpoint]
        command += ["--socket", str(path), *options]
        with log.open("w") as errors, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child:  # fmt: skip
            patience = threading.Timer(START_S, child.kill)
            patience.start()
            try:
                assert child.stdout is not None
                if not child.stdout.readline().startswith("ready"):
                    raise EngineFailed(log.read_text()[-2000:])
                patience.cancel()
                yield path
            finally:
                patience.cancel()
                child.terminate()
                try:
                    child.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    child.kill()


async def figures(path: Path) -> Figures | None:
    """What the engine at that socket tells of itself; ``None`` if it does not."""
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    try:
        async with httpx.AsyncClient(transport=transport, timeout=ANSWER_S) as client:
            answer = await client.get("http://engine/figures")
        return msgspec.json.decode(answer.content, type=Figures)
    except (httpx.HTTPError, msgspec.MsgspecError):
        return None
