"""A Parley with a phone for tests, behind it an engine that answers in a steady tone, and callers' voices."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from bot.waveform import Pcm
from tests.e2e.server import Server, parley_server
from tests.ports import free_port

TONE_HZ = 300  # of tests.bot.speaking_engine
GREETING_S, ANSWER_S = 0.8, 0.96


@dataclass(frozen=True)
class PhoneLine:
    """Where to call, and the Parley that answers."""

    uri: str
    port: int
    server: Server

    def log(self) -> str:
        return self.server.log.read_text()

    def calls_now(self) -> int:
        taken: int = httpx.get(f"{self.server.url}/api/info").json()["calls"]["now"]
        return taken


@contextmanager
def tone_engine(*options: str) -> Iterator[str]:
    """Run the engine that answers in a tone, with its command line's ``options``; its URL."""
    engine = subprocess.Popen(
        [sys.executable, "-m", "tests.bot.speaking_engine", *options], stdout=subprocess.PIPE, text=True
    )
    try:
        assert engine.stdout is not None
        yield engine.stdout.readline().strip()
    finally:
        engine.kill()
        engine.communicate()


@contextmanager
def phone_line(folder: Path, **settings: str) -> Iterator[PhoneLine]:
    """Run Parley with a tone engine and SIP on a free port; ``settings`` are ``PARLEY_*`` variables."""
    folder.mkdir(parents=True, exist_ok=True)
    with tone_engine() as url, line_of(folder, **{"PARLEY_ENGINE__URL": url} | settings) as line:
        yield line


@contextmanager
def line_of(folder: Path, **settings: str) -> Iterator[PhoneLine]:
    """The same with the engine that ``settings`` name, or Parley's own."""
    port = free_port()
    listen = {"PARLEY_SIP__LISTEN": f"127.0.0.1:{port}"}
    with parley_server(folder / "serve.log", 0, **listen | settings) as server:
        line = PhoneLine(f"sip:bot@127.0.0.1:{port}", port, server)
        wait_for_log(line, "phone: answers")
        yield line


def wait_for_log(line: PhoneLine, text: str, seconds: float = 30.0, times: int = 1) -> None:
    """Wait until the log has said ``text``, so many times."""
    try:
        wait_until(lambda: line.log().count(text) >= times, f"{text!r} in the log", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}:\n{line.log()[-3000:]}") from None


def wait_until(fact: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait for something there is no event for."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            raise AssertionError(f"never came: {what}")
        time.sleep(0.1)


def voice(seconds: float, rate: int = 48_000) -> Pcm:
    """A buzz with formants, which webrtcvad takes for a voice."""
    at = np.arange(round(seconds * rate)) / rate
    pulses = sum(np.sin(2 * np.pi * 120 * k * at) / (1 + abs(k - 5)) for k in range(1, 30))
    beat = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * at)
    buzz: Pcm = (0.5 * beat * pulses / np.abs(pulses).max()).astype(np.float32)
    return buzz


def tones(heard: Pcm, rate: int) -> list[float]:
    """Seconds of the engine's tone in each stretch of it, in order; 0.3 s without it or more part them."""
    size = rate // 50
    blocks = heard[: len(heard) // size * size].reshape(-1, size)
    at = np.arange(size) / rate
    wave = np.exp(-2j * np.pi * TONE_HZ * at)
    level = np.abs(blocks @ wave) * 2 / size
    loud = np.abs(blocks).max(axis=1)
    # The tone, and next to nothing but the tone: an octave off or a buzz would be no tone of ours.
    is_tone = (level > 0.1) & (level > 0.7 * loud)
    at_blocks = np.flatnonzero(is_tone)
    stretches = np.split(at_blocks, np.flatnonzero(np.diff(at_blocks) >= 15) + 1)
    return [len(stretch) / 50 for stretch in stretches if len(stretch)]  # a stutter of the machine is none
