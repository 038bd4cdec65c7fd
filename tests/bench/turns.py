"""What a caller's turn costs the engine: ``python -m tests.bench.turns``, or ``make bench-turns``.

One session with nano, its work done at once and timed by the processor's clock, so that neighbours wear out
caches but are not counted. First, turns of several lengths, each asked for twice: at a pause a second before
its end, which is dropped, and at its end. Then a call that goes on until its context is full, and beyond.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from model_runtime.engine.kit import Kit, load
from model_runtime.engine.scheduler import Candidate, pick
from model_runtime.engine.session import Session
from model_runtime.engine.settings import Settings
from model_runtime.protocol import (
    INPUT_RATE,
    Audio,
    Commit,
    Done,
    Drop,
    EngineMessage,
    Open,
    Respond,
    Timings,
)
from tests.bench import report
from tests.bench.engine import NANO
from tests.bench.report import Goal, percentile

LENGTHS = (2, 8, 25, 40, 60)  # s
PAUSE_S = 0.5
TURN_S = 3.0  # of the long call
WAITED_MS = 120.0  # for first audio at most: the goal of one session alone (see bench-engine)


class Caller:
    """One session, and noise for it to hear."""

    def __init__(self, kit: Kit) -> None:
        """Opened, with nothing said."""
        self._kit = kit
        self._done: list[Done] = []
        self._noise = np.random.default_rng(0)
        self._heard = 0
        self._session = Session(kit, Open("bench", instructions="Be kind."), self._told, time.thread_time)
        self._work()

    def talk(self, seconds: float) -> tuple[int, int]:
        """Say something; returns where it lies, [from, to) in samples."""
        start, self._heard = self._heard, self._heard + int(seconds * INPUT_RATE)
        noise = self._noise.normal(0, 3000, self._heard - start)
        self._session.handle(Audio(noise.astype("<i2").tobytes()))
        return start, self._heard

    def answer(self, turn: int, *spans: tuple[int, int]) -> Timings:
        """Have it answered, to the end."""
        self._session.handle(Respond(turn, spans=list(spans)))
        self._work()
        return self._done[-1].timings

    def settle(self, message: Commit | Drop) -> None:
        """Keep the answer, or do not."""
        self._session.handle(message)
        self._work()

    def leave(self) -> None:
        """Give the session back."""
        self._session.close()

    def _told(self, message: EngineMessage) -> None:
        if isinstance(message, Done):
            self._done.append(message)

    def _work(self) -> None:
        with torch.inference_mode():
            while True:
                waiting = self._session.waiting(time.thread_time())
                if (job := pick(Candidate(job, due) for job, due in waiting)) is None:
                    return
                job.step(self._kit.execute)
                self._session.stepped(job)


def asked_twice(kit: Kit, seconds: float) -> Timings:
    """The second answer to a turn of that length."""
    caller = Caller(kit)
    begun = caller.talk(seconds - 1)
    caller.answer(0, begun)
    caller.settle(Drop(0))
    caller.talk(PAUSE_S)
    timings = caller.answer(1, begun, caller.talk(1))
    caller.leave()
    return timings


def long_call(kit: Kit, turns: int) -> list[Timings]:
    """The answers of a call of so many turns."""
    caller = Caller(kit)
    found = []
    for turn in range(turns):
        found.append(caller.answer(turn, caller.talk(TURN_S)))
        caller.settle(Commit(turn))
    caller.leave()
    return found


def row(name: str, all_: list[Timings], percent: float) -> dict[str, Any]:
    """So many of a hundred took no longer: ms to the end of encoding, to the first id and to first audio."""
    return {
        "turn": name,
        "encoding_ms": percentile([one.encode_ms for one in all_], percent),
        "first_id_ms": percentile([one.encode_ms + one.prefill_ms for one in all_], percent),
        "first_audio_ms": percentile([one.first_audio_ms for one in all_], percent),
    }


def main() -> int:
    """Measure, print, write. 1: the long call's replies wait for more than their own turn."""
    parser = argparse.ArgumentParser(description="What a caller's turn costs the engine, by its length.")
    parser.add_argument("--times", type=int, default=5, help="answers a length (default %(default)s)")
    parser.add_argument("--turns", type=int, default=24, help="of the long call (default %(default)s)")
    arguments = parser.parse_args()
    where = report.machine()
    kit = load(Settings(str(NANO), device="cpu", threads=1, max_sessions=1, max_reply_s=4.0))
    rows = [
        row(f"{seconds} s", [asked_twice(kit, seconds) for _ in range(arguments.times)], 50)
        for seconds in LENGTHS
    ]
    call = long_call(kit, arguments.turns)
    rows += [row(f"a long call's, {name}", call, percent) for name, percent in (("p50", 50), ("worst", 100))]
    table = Table("turn", "encoding, ms", "first id", "first audio")
    for one in rows:
        table.add_row(one["turn"], *(f"{one[key]:.0f}" for key in list(one)[1:]))
    console = Console()
    console.print(table)
    goals = [Goal.at_most("first audio of a long call, worst", rows[-1]["first_audio_ms"], WAITED_MS, "ms")]
    report.show(goals, console)
    console.print(f"written: {report.write('turns', where, {'turns': rows}, goals)}")
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
