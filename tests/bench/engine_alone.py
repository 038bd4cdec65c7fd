"""The engine as on two cores of its own, however busy they are: ``python -m tests.bench.engine_alone``.

The load of ``engine.py`` without processes, sockets and threads, on a clock that only work moves: every unit
of work takes the processor time that it took. What is rendered beside the language model takes its time on a
second core. So neighbours who take the cores do not show, except in what they do to the caches; nor do the
event loop and the interpreter's lock, by which the two threads of a real engine hold each other up.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from model_runtime.engine import kit as engine_kit
from model_runtime.engine import settings
from model_runtime.engine.beside import Beside
from model_runtime.engine.kit import Kit
from model_runtime.engine.ops import Vocode
from model_runtime.engine.worker import Piece, Worker
from model_runtime.protocol import OUTPUT_RATE, Commit, Done, EngineMessage, Error, Open, Respond, Speech
from tests.bench import report
from tests.bench.engine import NANO
from tests.bench.engine_report import CROWD, FIRST_AUDIO_P95_MS
from tests.bench.level import ASK, Level, figures
from tests.bench.report import Goal


class Alone:
    """A worker whose time is virtual, and what happens at which moment of it."""

    def __init__(self, kit: Kit) -> None:
        """Nothing opened; ``used`` has the processor seconds of each kind of work."""
        self.now = 0.0
        self.used: defaultdict[str, float] = defaultdict(float)
        self.worker = Worker(lambda: kit, clock=self._clock)
        self.worker._kit = kit
        self.worker._beside = _SecondCore(kit, self)
        self._begun: float | None = None  # processor time when the unit in work began
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have ``what`` called then."""
        heapq.heappush(self._events, (when, next(self._order), what))

    def run(self, until: float) -> None:
        """Let time pass until then, and whatever was begun to its end."""
        worker = self.worker
        while True:
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            worker._take(wait=False)
            if pieces := worker._next():
                self._work(pieces)
            elif self._events and self._events[0][0] < until:
                self.now = self._events[0][0]
            else:
                return

    def _clock(self) -> float:
        return self.now if self._begun is None else self.now + time.process_time() - self._begun

    def _work(self, pieces: list[Piece]) -> None:
        op = pieces[0].job.op
        if isinstance(op, Vocode):
            self.worker._work(pieces)
            return
        self._begun = time.process_time()
        self.worker._work(pieces)
        took, self._begun = time.process_time() - self._begun, None
        self.used["Begin" if op is None else type(op).__name__] += took
        self.now += took


class _SecondCore(Beside):
    """Renders at once, and says so when it would have been done."""

    def __init__(self, kit: Kit, alone: Alone) -> None:
        super().__init__(kit)
        self._alone = alone

    def begin(self, chunks: Sequence[Vocode], done: Callable[[list[Future[Any]]], None]) -> None:
        self.busy = True
        begun = time.process_time()
        told: list[list[Future[Any]]] = []
        self._run(chunks, told.append)
        self._alone.used["Vocode"] += (took := time.process_time() - begun)
        self._alone.at(self._alone.now + took, lambda: done(told[0]))


class Caller:
    """Hears the greeting over and over, at the speed at which it is spoken."""

    stalled = False

    def __init__(self, alone: Alone, number: int, level: Level, until: float) -> None:
        """Opened at once; asks within the first second."""
        self._alone, self._level, self._until = alone, level, until
        self._draw = random.Random(number)
        self._turn = -1
        alone.worker.open(self, Open(f"bench {number}"))
        alone.at(self._draw.uniform(0, 1.0), self._ask)

    def _ask(self) -> None:
        if self._alone.now < self._until:
            self._turn += 1
            self._asked = self._alone.now
            self._playing_until = 0.0
            self._alone.worker.message(self, Respond(self._turn, text=ASK))

    def deliver(self, message: EngineMessage) -> None:
        """What the engine says, when it says it."""
        now, level = self._alone.now, self._level
        if isinstance(message, Error):
            level.failed.append(message.message)
        elif isinstance(message, Speech) and message.pcm:
            if not self._playing_until:
                level.first_audio_ms.append(1000 * (now - self._asked))
            elif now > self._playing_until:
                level.late_ms.append(1000 * (now - self._playing_until))
            seconds = len(message.pcm) / 2 / OUTPUT_RATE
            level.spoken_s += seconds
            self._playing_until = max(self._playing_until, now) + seconds
        elif isinstance(message, Done):
            level.replies += 1
            level.seconds = max(now, self._until)
            self._alone.worker.message(self, Commit(self._turn, -1 if self._turn % 4 else 0))
            self._alone.at(max(now, self._playing_until) + self._draw.uniform(0.3, 0.8), self._ask)

    def finish(self) -> None:
        """The session is over."""


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default=str(NANO))
    parser.add_argument("--levels", default="1,4,8", help="sessions at once")
    parser.add_argument("--seconds", type=float, default=30.0, help="virtual, of every level")
    options, engines = parser.parse_known_args()  # what is left are options of the engine
    console, where = Console(), report.machine()
    given = settings.parse(["--checkpoint", options.checkpoint, "--max-sessions", "256", *engines])
    kit = engine_kit.load(given)
    columns = ["sessions", "replies", "first audio p50", "p95", "max ms", "under-runs", "longest ms"]
    columns += ["speaking at once", "processor s for 1 s of speech"]
    table = Table(*columns, title="engine on two cores of its own")
    told: dict[int, dict[str, Any]] = {}
    for sessions in map(int, options.levels.split(",")):
        level = Level("alone", sessions)
        with torch.inference_mode():
            alone = Alone(kit)
            _callers = [Caller(alone, number, level, options.seconds) for number in range(sessions)]
            alone.run(float("inf"))
            alone.worker._beside.stop()
        cost = {kind: round(used / level.spoken_s, 4) for kind, used in alone.used.items()}
        told[sessions] = one = {**figures(level), "processor_s_for_1_s": cost}
        first = one["first_audio_ms"]
        row = [sessions, one["replies"], first["p50"], first["p95"], first["max"], one["under_runs"]]
        row += [one["longest_under_run_ms"], one["speaking_at_once"]]
        spent = ", ".join(f"{kind} {used:.3f}" for kind, used in cost.items())
        table.add_row(*map(str, row), f"{sum(cost.values()):.3f} ({spent})")
    console.print(table)
    goals = []
    if 1 in told:
        p95 = told[1]["first_audio_ms"]["p95"]
        goals.append(Goal.at_most("first audio alone, p95", p95, FIRST_AUDIO_P95_MS, "ms"))
    if CROWD in told:
        goals.append(
            Goal.at_most(f"under-runs, {CROWD} speaking", told[CROWD]["under_runs"], 0, "under-runs")
        )
    goals.append(Goal.at_most("failures", sum(len(one["failed"]) for one in told.values()), 0, "sessions"))
    report.show(goals, console)
    report.write("engine_alone", where, {"levels": list(told.values())}, goals)
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
