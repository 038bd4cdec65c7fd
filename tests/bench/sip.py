"""How many phones one Parley bears: calls at once with speech both ways, what they cost, and what they hear.

The engine answers in a steady tone and runs beside, so what is measured is the phone alone: the worker (SIP,
RTP, codecs) and the media process (pipeline, turns). Most calls are sipp's; a few ask by hand and time on the
wire how long an answer takes. What load adds to that is the difference to the median of those few alone. Run
it with ``make bench-sip``.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.bench.report import Goal, machine, percentile, show, write
from tests.bench.sip_asker import PACKET_S, Asker
from tests.e2e.phone_line import PhoneLine, phone_line, voice, wait_until
from tests.e2e.sipp import sipp, write_speech
from tests.e2e.speakers import silence
from tests.e2e.test_phone import worker_of
from tests.ports import free_port

TICK = os.sysconf("SC_CLK_TCK")
ASKERS = 3
A_SECOND = 10  # calls that sipp places
ENDED = re.compile(r"call ended: [\w-]+ after ([\d.]+) s.*sent_packets=(\d+), received_packets=(\d+)")
LOST = re.compile(r"lost_packets=(\d+).*concealed_frames=(\d+)")


@dataclass(frozen=True)
class Level:
    """What ``calls`` at once cost and how they went. Times in ms."""

    calls: int
    failed: int
    worker_cpu: float  # % of a core a call
    media_cpu: float
    packets_off: float  # %: the greatest difference of a call's packets, either way, to one in 20 ms
    lost_packets: int  # of the callers', in all calls
    concealed_frames: int
    setup_p50: float  # INVITE to 200, of sipp's calls
    setup_p95: float
    delays: list[float]  # of the askers: last packet of a question to the answer's first sound
    missing: float  # of an answer's tone, at most

    def added(self, alone: float, percent: float) -> float:
        """To what an answer takes ``alone``: so many percent add no more."""
        return percentile([delay - alone for delay in self.delays], percent)


def cpu_seconds(process: int) -> float:
    """User and system time of a process so far (proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def measure(line: PhoneLine, calls: int, seconds: float, folder: Path) -> Level:
    """Hold ``calls`` at once for ``seconds``."""
    folder.mkdir()
    others, told = calls - ASKERS, len(line.log())
    asking_s = seconds - 2 - others / A_SECOND  # when all the others are up
    askers = [Asker(line.port, asking_s) for _ in range(ASKERS)]
    with sipp_calls(line, others, seconds, folder) as codes:
        for asker in askers:
            asker.start()
        time.sleep(1)
        worker, media = cpu_of((worker_of(line), line.server.process.pid), asking_s - 3)
        for asker in askers:
            asker.join()
    with suppress(AssertionError):  # then those calls count as failed
        wait_until(lambda: len(ENDED.findall(line.log()[told:])) >= calls, "the end of all calls")
    log = line.log()[told:]
    ended = [tuple(map(float, found)) for found in ENDED.findall(log)]
    whole = [counts for lasted, *counts in ended if lasted > seconds - 0.5]  # sipp's: the askers' are shorter
    off = [abs(count * PACKET_S / seconds - 1) for counts in whole for count in counts]
    off += [abs(asker.received * PACKET_S - 1) for asker in askers]
    quality = [tuple(map(int, found)) for found in LOST.findall(log)]
    setup = setup_times(folder)
    return Level(
        calls,
        calls - len(ended) + sum(asker.unanswered for asker in askers) + sum(code != 0 for code in codes),
        worker / calls * 100,
        media / calls * 100,
        max(off) * 100,
        sum(lost for lost, _ in quality),
        sum(concealed for _, concealed in quality),
        percentile(setup, 50),
        percentile(setup, 95),
        [delay * 1000 for asker in askers for delay in asker.delays],
        max(missing for asker in askers for missing in [0.0, *asker.missing]),
    )


@contextmanager
def sipp_calls(line: PhoneLine, calls: int, seconds: float, folder: Path) -> Iterator[list[int]]:
    """``calls`` of ``seconds`` each; they are up, and over at the end. Then sipp's status is there."""
    codes: list[int] = []
    if not calls:
        yield codes
        return
    speech = np.concatenate([silence(1, 8000), voice(1.2, 8000), silence(3, 8000)])
    write_speech(folder / "speech.ulaw", speech)
    where = (f"127.0.0.1:{line.port}", "-s", "bot", "-p", str(free_port()), "-trace_rtt", "-rtt_freq", "1")
    load = ("-m", str(calls), "-l", str(calls), "-r", str(A_SECOND), "-d", str(round(seconds * 1000)))
    running = threading.Thread(
        target=lambda: codes.append(sipp("call", folder, *where, *load, seconds=seconds + 60).returncode)
    )
    running.start()
    try:
        time.sleep(1 + calls / A_SECOND)
        yield codes
    finally:
        running.join()


def cpu_of(processes: Sequence[int], seconds: float) -> list[float]:
    """Cores that each takes in the next ``seconds``, which are waited for."""
    before, began = [cpu_seconds(process) for process in processes], time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    return [(cpu_seconds(process) - used) / took for process, used in zip(processes, before, strict=True)]


def setup_times(folder: Path) -> list[float]:
    """ms that sipp waited for its 200s; none without calls of its own."""
    return [
        float(row[1])
        for path in folder.glob("*_rtt.csv")
        for row in csv.reader(path.open(), delimiter=";")
        if row and row[0][0].isdigit()
    ]


def main() -> None:
    """Print the table, write ``build/bench/sip.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", default="10,30", help=f"calls at once, {ASKERS} of which ask by hand")
    parser.add_argument("--seconds", type=float, default=30, help="how long each level lasts")
    options = parser.parse_args()
    levels = [ASKERS, *(int(level) for level in options.levels.split(","))]
    where, console = machine(), Console()
    with (
        tempfile.TemporaryDirectory() as folder,
        # What ends a turn has to be the same in every call: not what a second opinion has time for.
        phone_line(
            Path(folder), PARLEY_MAX_CALLS=str(max(levels) + 2), PARLEY_TURNS__SMART_TURN="false"
        ) as line,
    ):
        measured = [measure(line, calls, options.seconds, Path(folder) / str(calls)) for calls in levels]
    alone = median(measured[0].delays)
    console.print(table(measured, alone))
    most = measured[-1]
    goals = [
        Goal.at_most(f"of {most.calls} calls failed", most.failed, 0, ""),
        Goal.at_most("packets off, a call", most.packets_off, 1, "%"),
        Goal.at_most("added latency p99", most.added(alone, 99), 20, "ms"),
        Goal.at_most("INVITE to 200 p95", most.setup_p95, 20, "ms"),
        Goal.at_most("missing of an answer", most.missing, 20, "ms"),
        Goal.at_most("CPU, of both cores", (most.worker_cpu + most.media_cpu) * most.calls / 2, 100, "%"),
    ]
    show(goals, console)
    metrics = {"alone_ms": alone, "levels": [asdict(level) for level in measured]}
    console.print(write("sip", where, metrics, goals))


def table(measured: Sequence[Level], alone: float) -> Table:
    """A line a level."""
    columns = ("calls", "failed", "worker, of a core a call", "media", "packets off", "lost, stood in for")
    shown = Table(*columns, "set-up p50, p95", "added latency p50, p95, p99", "missing")
    for level in measured:
        shown.add_row(
            str(level.calls),
            str(level.failed),
            f"{level.worker_cpu:.1f} %",
            f"{level.media_cpu:.1f} %",
            f"{level.packets_off:.1f} %",
            f"{level.lost_packets}, {level.concealed_frames}",
            f"{level.setup_p50:.0f}, {level.setup_p95:.0f} ms",
            ", ".join(f"{level.added(alone, percent):.0f}" for percent in (50, 95, 99))
            + f" ms of {len(level.delays)}",
            f"{level.missing:.0f} ms",
        )
    return shown


if __name__ == "__main__":
    main()
