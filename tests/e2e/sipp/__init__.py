"""SIP to the letter: scenarios for Debian's sipp, and how to run them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from bot.waveform import Pcm

HERE = Path(__file__).parent


def sipp(
    scenario: str, folder: Path, *arguments: str, seconds: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run ``scenario``; its status is 0 if every call went as written. Logs go to ``folder``."""
    command = [
        "sipp",
        *arguments,
        *("-sf", str(HERE / f"{scenario}.xml")),
        *("-i", "127.0.0.1", "-mi", "127.0.0.1"),
        *("-nostdin", "-trace_err", "-trace_logs"),
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds)


def write_speech(path: Path, pcm: Pcm) -> None:
    """Mono at 8 kHz, for sipp to stream."""
    path.write_bytes(mu_law(pcm))


def mu_law(pcm: Pcm) -> bytes:
    """G.711, a byte a sample."""
    magnitude = np.log1p(255 * np.abs(np.clip(pcm, -1, 1))) / np.log(256)
    code = np.minimum((magnitude * 128).astype(int), 127)
    return bytes((~(code | np.where(pcm < 0, 0x80, 0)) & 0xFF).astype(np.uint8))
