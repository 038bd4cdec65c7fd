"""How many phones one Parley bears: calls at once by sipp, CPU a call, and what one caller among them hears.

The engine answers in a steady tone and runs beside, so what is measured is the phone alone: the worker (SIP,
RTP, codecs) and the media process (pipeline, turns). Run it with ``make bench-sip``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bot.waveform import Pcm
from model_runtime.protocol import INPUT_RATE
from tests.bench.report import Goal, machine, show, write
from tests.e2e.measure import utterances
from tests.e2e.phone_line import ANSWER_S, PhoneLine, phone_line, voice
from tests.e2e.sipp import sipp, write_speech
from tests.e2e.speakers import silence
from tests.e2e.test_phone import worker_of
from tests.e2e.test_phone_leg import Caller, calling, own_phone
from tests.ports import free_port

TICK = os.sysconf("SC_CLK_TCK")
BLOCK = INPUT_RATE // 100  # 10 ms


@dataclass(frozen=True)
class Level:
    """What ``calls`` at once cost and how one more sounded."""

    calls: int
    well: bool  # every one of sipp's calls went as written
    worker_cpu: float  # % of a core a call
    media_cpu: float
    setup_ms: float  # INVITE to 200, of the one more
    answer_ms: float  # its question handed to its own line, 60 ms early at most, to the answer's first sound
    missing_ms: float  # of the answer's tone


def cpu_seconds(process: int) -> float:
    """User and system time of a process so far (proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


async def one_more(line: PhoneLine) -> tuple[float, float, float]:
    """Call, ask, and hear the answer: setup, answer and missing ms."""
    async with own_phone() as phone:
        began = time.monotonic()
        async with calling(phone, line.uri) as caller:
            setup = time.monotonic() - began
            await caller.hear_out(20)
            await caller.say(voice(1.2, 24_000))
            asked = len(caller.pcm())
            answer = await caller.hear_out(20)
            return setup * 1000, *_heard(caller, answer, asked)


def _heard(caller: Caller, answer: Pcm, asked: int) -> tuple[float, float]:
    start, end = utterances(answer, INPUT_RATE, 1.0)[0]
    blocks = np.abs(answer[start:end])[: (end - start) // BLOCK * BLOCK].reshape(-1, BLOCK).max(axis=1)
    missing = max(0.0, ANSWER_S * 1000 - 10 * int((blocks > 0.05).sum()))
    return (len(caller.pcm()) - len(answer) + start - asked) / INPUT_RATE * 1000, missing


def measure(line: PhoneLine, calls: int, seconds: float, folder: Path) -> Level:
    """Hold ``calls`` at once for ``seconds`` and place one more among them."""
    speech = np.concatenate([silence(1, 8000), voice(1.2, 8000), silence(3, 8000)])
    write_speech(folder / "speech.ulaw", speech)
    outcome: list[int] = []
    where = (f"127.0.0.1:{line.port}", "-s", "bot", "-p", str(free_port()))
    load = ("-m", str(calls), "-l", str(calls), "-r", "10", "-d", str(round(seconds * 1000)))

    def others() -> None:
        outcome.append(sipp("call", folder, *where, *load, seconds=seconds + 60).returncode)

    running = threading.Thread(target=others)
    running.start()
    time.sleep(2 + calls / 10)  # all are up
    processes = (worker_of(line), line.server.process.pid)
    before, began = [cpu_seconds(process) for process in processes], time.monotonic()
    setup, answer, missing = asyncio.run(one_more(line))
    took = time.monotonic() - began
    worker, media = (
        (cpu_seconds(process) - used) / took / (calls + 1) * 100
        for process, used in zip(processes, before, strict=True)
    )
    running.join()
    return Level(calls, outcome == [0], worker, media, setup, answer, missing)


def main() -> None:
    """Print the table, write ``build/bench/sip.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", default="1,4,8", help="calls at once beside the one that listens")
    parser.add_argument("--seconds", type=float, default=25, help="how long each level lasts")
    options = parser.parse_args()
    levels = [int(level) for level in options.levels.split(",")]
    where, console = machine(), Console()
    with (
        tempfile.TemporaryDirectory() as folder,
        phone_line(Path(folder), PARLEY_MAX_CALLS=str(max(levels) + 2)) as line,
    ):
        measured = [measure(line, calls, options.seconds, Path(folder)) for calls in levels]
    table = Table("calls", "all well", "worker, % of a core a call", "media", "setup", "answer", "missing")
    for level in measured:
        table.add_row(
            f"{level.calls} + 1",
            "yes" if level.well else "no",
            f"{level.worker_cpu:.1f}",
            f"{level.media_cpu:.1f}",
            f"{level.setup_ms:.0f} ms",
            f"{level.answer_ms:.0f} ms",
            f"{level.missing_ms:.0f} ms",
        )
    console.print(table)
    goals = [
        Goal.at_most("levels with a call that went wrong", sum(not level.well for level in measured), 0, ""),
        Goal.at_most("worker, % of a core a call", max(level.worker_cpu for level in measured), 5, "%"),
        Goal.at_most("missing of an answer, one caller among the most", measured[-1].missing_ms, 20, "ms"),
    ]
    show(goals, console)
    console.print(write("sip", where, {"levels": [asdict(level) for level in measured]}, goals))


if __name__ == "__main__":
    main()
