"""How many calls one engine speaks to at once: ``python -m tests.bench.engine``.

Starts an engine as Parley does and opens 1, 4, 8, 16 sessions on it. Each asks for the greeting again and
again, hears it at the speed at which it is spoken, and asks anew a moment after it has ended. Time to first
audio runs from the request to the first frame of speech received; an under-run is a frame that comes after
what was there has been played. Everything is run in the same way in each mode: as Parley runs, one call after
another (one id and one chunk at a time), and that with the reference implementation's chunks of 25 codes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from websockets.asyncio.client import unix_connect

from model_runtime.protocol import (
    OUTPUT_RATE,
    Commit,
    Done,
    Error,
    Open,
    Opened,
    Respond,
    Speech,
    decode_engine,
    encode,
)
from tests.bench import report
from tests.bench.report import Goal

NANO = report.ROOT / "model_runtime" / "checkpoints" / "nano"
GREETING = "Hello, this is Bluebird Outdoor. How can I help you?"
ASK = f"The call has just begun. Greet the caller with these words: {GREETING}"
FIRST_AUDIO_P95_MS = 120.0  # alone
CROWD = 8  # speaking sessions without an under-run
PARLEY = "parley"
MODES = {
    "reference chunks, one at a time": ["--decode-batch", "1", "--speech-batch", "1", "--chunks", "25"],
    "one at a time": ["--decode-batch", "1", "--speech-batch", "1"],
    PARLEY: [],
}


@dataclass
class Level:
    """What so many sessions at once were given."""

    mode: str
    sessions: int
    first_audio_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)  # each under-run: how long nothing was there to play
    spoken_s: float = 0.0
    replies: int = 0
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)


@contextmanager
def engine(checkpoint: str, options: Sequence[str]) -> Iterator[Path]:
    """A running engine's socket."""
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "engine.sock", Path(folder) / "engine.log"
        command = [sys.executable, "-m", "model_runtime.engine", "--checkpoint", checkpoint]
        command += ["--socket", str(path), *options]
        with log.open("w") as errors, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child:  # fmt: skip
            try:
                assert child.stdout is not None
                if not child.stdout.readline().startswith("ready"):
                    raise SystemExit(f"the engine did not start:\n{log.read_text()[-2000:]}")
                yield path
            finally:
                child.terminate()


async def speak(path: Path, number: int, level: Level, until: float) -> None:
    """One session that hears the greeting over and over."""
    draw = random.Random(number)
    async with unix_connect(str(path), max_size=None, compression=None) as socket:
        await socket.send(encode(Open(f"bench {number}")))
        opened = decode_engine(await socket.recv(decode=False))
        if not isinstance(opened, Opened):
            level.failed.append(str(opened))
            return
        turn = 0
        await asyncio.sleep(draw.uniform(0, 1.0))  # callers do not speak in chorus
        while time.monotonic() < until:
            asked = time.monotonic()
            await socket.send(encode(Respond(turn, text=ASK)))
            playing_until = 0.0
            while not isinstance(message := decode_engine(await socket.recv(decode=False)), Done):
                now = time.monotonic()
                if isinstance(message, Error):
                    level.failed.append(message.message)
                elif isinstance(message, Speech) and message.pcm:
                    if not playing_until:
                        level.first_audio_ms.append(1000 * (now - asked))
                    elif now > playing_until:
                        level.late_ms.append(1000 * (now - playing_until))
                    seconds = len(message.pcm) / 2 / OUTPUT_RATE
                    level.spoken_s += seconds
                    playing_until = max(playing_until, now) + seconds
            level.replies += 1
            await socket.send(encode(Commit(turn, -1 if turn % 4 else 0)))  # as an interruption would
            turn += 1
            await asyncio.sleep(max(0.0, playing_until - time.monotonic()) + draw.uniform(0.3, 0.8))


async def load(path: Path, level: Level, seconds: float) -> None:
    """All sessions of one level."""
    begun = time.monotonic()
    await asyncio.gather(*(speak(path, n, level, begun + seconds) for n in range(level.sessions)))
    level.seconds = time.monotonic() - begun


def figures(level: Level) -> dict[str, Any]:
    """Plain data."""
    first = np.asarray(level.first_audio_ms or [np.nan])
    return {
        "mode": level.mode,
        "sessions": level.sessions,
        "replies": level.replies,
        "first_audio_ms": {
            "p50": round(float(np.percentile(first, 50)), 1),
            "p95": round(float(np.percentile(first, 95)), 1),
            "max": round(float(first.max()), 1),
        },
        "under_runs": len(level.late_ms),
        "longest_under_run_ms": round(max(level.late_ms, default=0.0), 1),
        "speaking_at_once": round(level.spoken_s / max(level.seconds, 1e-9), 2),
        "failed": level.failed,
    }


def plot(levels: Sequence[Level], path: Path) -> None:
    """Time to first audio by sessions at once."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for mode in dict.fromkeys(level.mode for level in levels):
        told = [figures(level) for level in levels if level.mode == mode]
        at = [one["sessions"] for one in told]
        (line,) = axes.plot(at, [one["first_audio_ms"]["p50"] for one in told], "o-", label=f"{mode}, p50")
        p95 = [one["first_audio_ms"]["p95"] for one in told]
        axes.plot(at, p95, "o--", color=line.get_color(), label=f"{mode}, p95")
    axes.set_xlabel("sessions at once")
    axes.set_ylabel("time to first audio, ms")
    axes.set_ylim(bottom=0)
    axes.legend()
    canvas.savefig(path, dpi=130)


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default=str(NANO))
    parser.add_argument("--levels", default="1,4,8,16", help="sessions at once")
    parser.add_argument("--seconds", type=float, default=30.0, help="of every level")
    options = parser.parse_args()
    console, where = Console(), report.machine()
    levels: list[Level] = []
    for mode, extra in MODES.items():
        with engine(options.checkpoint, ["--max-sessions", "256", *extra]) as path:
            for sessions in track([int(n) for n in options.levels.split(",")], mode, console=console):
                levels.append(Level(mode, sessions))
                asyncio.run(load(path, levels[-1], options.seconds))
    columns = ["mode", "sessions", "replies", "first audio p50", "p95", "max ms"]
    table = Table(*columns, "under-runs", "longest ms", "speaking at once", title="engine")
    for level in levels:
        told = figures(level)
        first = told["first_audio_ms"]
        row = [told["sessions"], told["replies"], first["p50"], first["p95"], first["max"]]
        row += [told["under_runs"], told["longest_under_run_ms"], told["speaking_at_once"]]
        table.add_row(level.mode, *map(str, row))
    console.print(table)
    batched = {level.sessions: figures(level) for level in levels if level.mode == PARLEY}
    goals = []
    if 1 in batched:
        p95 = batched[1]["first_audio_ms"]["p95"]
        goals.append(Goal.at_most("first audio alone, p95", p95, FIRST_AUDIO_P95_MS, "ms"))
    if CROWD in batched:
        late = batched[CROWD]["under_runs"]
        goals.append(Goal.at_most(f"under-runs, {CROWD} speaking", late, 0, "under-runs"))
    goals.append(Goal.at_most("failures", sum(len(level.failed) for level in levels), 0, "sessions"))
    report.show(goals, console)
    path = report.write("engine", where, {"levels": [figures(level) for level in levels]}, goals)
    plot(levels, path.with_suffix(".png"))
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
