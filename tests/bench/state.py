"""What Redis and the voices cost a call: ``python -m tests.bench.state``.

In a Redis of our own: how soon it answers after its start, how long a voice of 15 s takes to be read from it
(checked, as calls do), and how far writing behind is behind when several calls settle turns of Step-Audio 2's
size at once. Through real Sentinels: how long after a master's death the next one has all of a live call, of
which some is the time until they agree (``DOWN_MS`` and the vote). Apart from Redis: searching 10,000 made-up
voices, and whether the ten most like a voice are those that computing in double precision finds.

By the clock, what else the machine does is measured, too, so the goal of a search is of processor time. What
waits for Redis has its goal by the clock: the other half of that time is Redis's.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bot import log
from bot.voices.ranking import Known, Ranking
from model_runtime.protocol import HistoryEntry
from pipeline.conversation import Conversation, Exchange
from pipeline.memory import Memory, MemoryUnavailable, OwnRedis, VoiceStore
from tests.bench import report
from tests.bench.report import Goal
from tests.pipeline.memory.moving_redis import DOWN_MS, with_sentinels
from tests.pipeline.memory.redis_server import drop, until, writing, written

VOICE_BYTES = (
    4 * (375 + 192 + 750 * 80) + 1200
)  # 15 s: tokens, speaker embedding, mel, and what is said of it
STORED = 100  # voices
TURN_ROWS = 25  # of what was heard in a turn: 2 s of speech
ROW_BYTES = 7168  # one of Step-Audio 2: 3584 numbers in bfloat16
VOICES, NEAREST = 10_000, 10
TIMBRE_MS, SEARCH_MS, MISSED_PERCENT, FAILOVER_S = 2.0, 10.0, 2.0, 1.0

Times = dict[str, list[float]]


class Watch:
    """Milliseconds by the clock and of processor time, of whatever is done within."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.cpu: list[float] = []

    def __enter__(self) -> None:
        self._at, self._used = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.clock.append(1000 * (time.perf_counter() - self._at))
        self.cpu.append(1000 * (time.process_time() - self._used))

    def figures(self) -> dict[str, dict[str, float]]:
        return {"clock_ms": figures(self.clock), "cpu_ms": figures(self.cpu)}


def figures(values: Sequence[float]) -> dict[str, float]:
    return {
        "p50": round(report.percentile(values, 50), 2),
        "p95": round(report.percentile(values, 95), 2),
        "max": round(max(values), 2),
    }


async def starts(folder: Path, count: int) -> Watch:
    """A server with nothing in it yet, until it answers; its end is not counted."""
    watch = Watch()
    for number in range(count):
        own = OwnRedis(folder / str(number))
        with watch:
            await own.start()
        await own.stop()
    return watch


async def reads(store: VoiceStore, count: int) -> Watch:
    """Voices in a random order, each checked against its hash as a call does it."""
    draw = random.Random(1)
    for number in range(STORED):
        await store.put(f"v{number}", b"{}", draw.randbytes(VOICE_BYTES))
    watch = Watch()
    for _ in range(count):
        name = f"v{draw.randrange(STORED)}"
        with watch:
            file = await store.file(name)
        assert file is not None
    return watch


async def behind(memory: Memory, calls: int, turns: int) -> tuple[Watch, list[float]]:
    """What telling a turn costs a call, and the ms until Redis has it, ``calls`` telling at once."""
    told, lag = Watch(), []
    rows = [(0, random.Random(2).randbytes(TURN_ROWS * ROW_BYTES))]
    open_calls = [memory.call(str(number)) for number in range(calls)]
    said = Conversation()
    for turn in range(turns):
        said.add(Exchange(turn, "What is your address?", "It is 12 Harbour Street.", 20))
        at = time.perf_counter()
        for call in open_calls:
            with told:
                call.entry(HistoryEntry(turn, list(range(200)), rows, "bfloat16", turn=turn, heard=True))
                call.converse(said)
        await written(memory)
        lag.append(1000 * (time.perf_counter() - at))
        await asyncio.sleep(0.02)
    for call in open_calls:
        call.close()
    return told, lag


async def failover() -> tuple[float, float]:
    """Seconds from a master's death until there is another, and from then until that one has all."""
    async with with_sentinels() as redises, writing(Memory(redises.url)) as memory:
        call, place = memory.call("a"), 0
        master, replica = redises.ports

        async def has_all() -> bool:
            other = Memory(redises.url)
            try:
                known = await other.recall("a")
            except MemoryUnavailable:
                return False
            finally:
                await drop(other)
            return known is not None and len(known.history) == place

        async def tell() -> None:
            nonlocal place
            call.entry(HistoryEntry(place, list(range(200))))
            place += 1
            await asyncio.sleep(0.02)

        await tell()
        await until(has_all)
        redises.kill(master)
        at = time.perf_counter()
        while not await redises.is_master(replica):
            await tell()
        without, at = time.perf_counter() - at, time.perf_counter()
        await until(has_all)
        return without, time.perf_counter() - at


async def failovers(count: int) -> list[tuple[float, float]]:
    """So many, one after the other."""
    return [await failover() for _ in range(count)]


def library(count: int) -> list[Known]:
    """Voices as people describe them, their embeddings around a few hundred speakers'."""
    draw, numbers = random.Random(3), np.random.default_rng(3)
    speakers = numbers.standard_normal((300, 192))
    ages, moods = ["young", "old", "middle-aged"], ["calm", "cheerful", "gruff", "warm", "bright", "soft"]
    places = ["Vienna", "Boston", "Leeds", "Lagos", "Pune", "Kyoto", "Lima", "Oslo"]
    made = []
    for number in range(count):
        direction = speakers[number % 300] + 0.4 * numbers.standard_normal(192)
        who = draw.choice(["man", "woman"])
        words = f"A {draw.choice(moods)} {draw.choice(ages)} {who} from {draw.choice(places)}."
        pitch, bright, rate = draw.uniform(75, 260), draw.uniform(800, 1900), draw.uniform(2.5, 6.5)
        made.append(
            Known(f"v{number}", words, pitch, bright, rate, tuple(direction / np.linalg.norm(direction)))
        )
    return made


def searches(count: int) -> tuple[dict[str, Watch], float]:
    """Ways to search, and the share in percent of the ten most alike that a search by likeness misses."""
    voices = library(VOICES)
    ranking = Ranking(voices)
    exact = np.array([voice.speaker for voice in voices], np.float64)
    draw, missed = random.Random(4), 0
    watches = {name: Watch() for name in ("words", "likeness", "words and likeness")}
    for _ in range(count):
        at = draw.randrange(VOICES)
        name, words = voices[at].name, draw.choice(voices).description
        with watches["words"]:
            ranking.search(words)
        with watches["words and likeness"]:
            ranking.search(f"deeper, {words}", name)
        with watches["likeness"]:
            found = ranking.search("", name, NEAREST)
        likeness = exact @ exact[at]
        likeness[at] = -np.inf
        nearest = {voices[one].name for one in np.argsort(-likeness)[:NEAREST]}
        missed += len(nearest - {hit.name for hit in found})
    return watches, 100 * missed / (NEAREST * count)


def plot(times: Times, path: Path) -> None:
    """The share that took at most so many milliseconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for name, values in times.items():
        axes.plot(np.sort(values), np.linspace(0, 100, len(values)), label=name)
    axes.axhline(95, color="gray", linestyle=":")
    axes.set_xscale("log")
    axes.set_xlabel("ms by the clock, at most")
    axes.set_ylabel("%")
    axes.legend()
    canvas.savefig(path, dpi=130)


async def in_own_redis(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Watch], list[float]]:
    watches = {"own Redis: start": await starts(folder / "starts", options.starts)}
    own = OwnRedis(folder / "own")
    url = await own.start()
    try:
        async with writing(Memory(url)) as memory:
            watches["a voice of 15 s read"] = await reads(memory.voices, options.reads)
            told, lag = await behind(memory, options.calls, options.turns)
            watches["a turn told by a call"] = told
    finally:
        await own.stop()
    return watches, lag


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--reads", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=8, help="that tell of a turn at once")
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--failovers", type=int, default=3)
    parser.add_argument("--searches", type=int, default=300)
    options = parser.parse_args()
    log.set_up("ERROR")
    console, where = Console(stderr=True), report.machine()
    folder = Path(tempfile.mkdtemp(prefix="parley-state-"))
    try:
        with console.status("our own Redis"):
            watches, lag = asyncio.run(in_own_redis(folder, options))
        with console.status("failing over"):
            without, catching_up = zip(*asyncio.run(failovers(options.failovers)), strict=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with console.status("searching voices"):
        found, missed = searches(options.searches)
    watches |= {f"{VOICES:,} voices searched by {name}": watch for name, watch in found.items()}
    read, by_likeness = watches["a voice of 15 s read"], found["words and likeness"]
    goals = [
        Goal.at_most("a voice read, p95", report.percentile(read.clock, 95), TIMBRE_MS, "ms"),
        Goal.at_most(
            "voices searched, p95", report.percentile(by_likeness.cpu, 95), SEARCH_MS, "ms of one core"
        ),
        Goal.at_most(f"of the {NEAREST} most alike missed", missed, MISSED_PERCENT, "%"),
        Goal.at_most("a live call whole at the next master after", max(catching_up), FAILOVER_S, "s"),
    ]
    out = Console() if sys.stdout.isatty() else Console(width=100)
    table = Table("ms", "p50", "p95", "max", "processor p50", "p95", "max")
    for name, watch in watches.items():
        told: dict[str, Any] = watch.figures()
        table.add_row(
            name, *(f"{told[kind][n]:g}" for kind in ("clock_ms", "cpu_ms") for n in ("p50", "p95", "max"))
        )
    written_by = f"Redis has the turns of {options.calls} calls"
    table.add_row(written_by, *(f"{value:g}" for value in figures(lag).values()))
    out.print(table)
    table = Table(f"a master is killed, and missed after {DOWN_MS} ms", "p50, s", "max, s")
    for name, values in (("until there is another", without), ("until that has all", catching_up)):
        table.add_row(name, f"{report.percentile(values, 50):.2f}", f"{max(values):.2f}")
    out.print(table)
    report.show(goals, out)
    metrics: dict[str, Any] = {name: watch.figures() for name, watch in watches.items()}
    metrics |= {written_by: {"clock_ms": figures(lag)}, "missed_percent": missed}
    metrics |= {"failover_s": {"without_master": without, "catching_up": catching_up}}
    path = report.write("state", where, metrics, goals)
    plot({name: watch.clock for name, watch in watches.items()} | {written_by: lag}, path.with_suffix(".png"))
    console.print(f"written: {path.relative_to(report.ROOT)} and {path.with_suffix('.png').name}")
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
