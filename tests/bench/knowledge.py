"""How quickly and how well knowledge is found: ``python -m tests.bench.knowledge``.

Speed: a base of 100,000 generated passages, whose words are as frequent as in any language (Zipf's law,
without the commonest, which no index has), searched for questions of 2 to 8 of these words; by words alone,
and with the vectors of an encoder of random weights and of the size of all-MiniLM-L6-v2 (6 layers of 384, 12
heads). One search at a time, in one thread. The goal is of processor time: by the clock, what else the
machine does is measured, too. ``--redis`` names a Redis 8 that is asked what is near, too; writing the
vectors there takes minutes, and they are kept there for an hour.

Recall: what callers might ask of the shop in docs/bluebird (knowledge_questions.yaml), by words, and by
meaning too if ``--encoder`` names a real encoder: is the right paragraph the first, among the first three,
and is nothing found for what is not there?
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from redis.asyncio import Redis
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bot.knowledge.adding import add, files
from bot.knowledge.base import Base, Encoder
from bot.knowledge.knowledge import LIMIT, Knowledge, load_encoder
from bot.knowledge.passages import Passage
from bot.knowledge.store import Store, names
from bot.knowledge.vectors import coded
from bot.settings import KnowledgeSettings
from model_runtime.sentences import SentenceEncoder
from pipeline.memory import VectorStore
from pipeline.memory.client import connect
from pipeline.memory.keys import Keys
from pipeline.memory.masters import let_go
from tests.bench import report
from tests.bench.report import Goal
from tests.bot.knowledge.encoders import random_encoder

P95_MS = 25.0
DOCUMENT = 50  # passages
VOCABULARY = 60_000
COMMONEST = 100  # of a language's words, which are stop words: the ranks below begin after them
LEAST_LIKENESS = KnowledgeSettings().least_likeness
QUESTIONS = Path(__file__).with_name("knowledge_questions.yaml")
SHOP = report.ROOT / "docs" / "bluebird"


class Language:
    """Words that nobody knows, as frequent as words are."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
        made: dict[str, None] = {}
        while len(made) < VOCABULARY:
            made["".join(self._draw.choices(syllables, k=self._draw.randint(2, 4))) + "k"] = None
        self._words = list(made)
        self._weights = list(accumulate(1 / (rank + COMMONEST) for rank in range(VOCABULARY)))

    def say(self, least: int, most: int) -> str:
        return " ".join(
            self._draw.choices(self._words, cum_weights=self._weights, k=self._draw.randint(least, most))
        )


def fill(store: Store, encoder: Encoder, passages: int, language: Language, console: Console) -> None:
    """Documents of realistic passages: 25 to 110 words under two headings. Their vectors are random, as the
    encoder's are: encoding them all would take an hour and change nothing of a search's speed."""
    draw = np.random.default_rng(1)
    for number in track(range(passages // DOCUMENT), "filling", console=console):
        title = language.say(1, 4)
        told = [
            Passage(language.say(25, 110), (title, language.say(1, 4)), line)
            for line in range(1, DOCUMENT + 1)
        ]
        codes = coded(draw.standard_normal((DOCUMENT, encoder.width), dtype=np.float32))
        store.put(f"{number}.md", str(number), 0, told, codes, encoder.name)


def timed(base: Base, questions: Sequence[str]) -> tuple[list[float], list[float]]:
    """Milliseconds of each search: by the clock, and of processor time in all threads of this process."""
    clock, cpu = [], []
    for question in questions:
        at, used = time.perf_counter(), time.process_time()
        base.search(question, LIMIT)
        clock.append(1000 * (time.perf_counter() - at))
        cpu.append(1000 * (time.process_time() - used))
    return clock, cpu


async def timed_in_redis(
    folder: Path, made: Path, url: str, questions: Sequence[str]
) -> tuple[list[float], list[float], dict[str, float]]:
    """The same with a Redis, as a Parley does it. What that one's processor does is not in these times, but
    told apart, as is how long it took until Redis was asked, and how often it was too late."""
    keys = Keys("bench")
    redis, clock, cpu = connect(url, keys), [], []
    settings = KnowledgeSettings(folder=folder, encoder=made)
    try:
        async with Knowledge(settings, vectors=VectorStore(redis, keys)) as knowledge:
            began, asked = time.perf_counter(), await _asked(redis)
            while await _asked(redis) == asked:
                await knowledge.search("large", questions[0])
                await asyncio.sleep(1)
            written_s, asked, used_s = time.perf_counter() - began, await _asked(redis), await _cpu_s(redis)
            for question in questions:
                at, used = time.perf_counter(), time.process_time()
                await knowledge.search("large", question)
                clock.append(1000 * (time.perf_counter() - at))
                cpu.append(1000 * (time.process_time() - used))
            told = {
                "written_s": written_s,
                "redis_cpu_ms": 1000 * (await _cpu_s(redis) - used_s) / len(questions),
                "searched_here": len(questions) - (await _asked(redis) - asked),
            }
    finally:
        await let_go(redis)
    return clock, cpu, {name: round(value, 1) for name, value in told.items()}


async def _asked(redis: Redis) -> int:
    """How often Redis was asked what is near."""
    return int((await redis.info("commandstats")).get("cmdstat_VSIM", {}).get("calls", 0))


async def _cpu_s(redis: Redis) -> float:
    about = await redis.info("cpu")
    return float(about["used_cpu_user"] + about["used_cpu_sys"])


def figures(values: Sequence[float]) -> dict[str, float]:
    return {
        "p50": round(report.percentile(values, 50), 1),
        "p95": round(report.percentile(values, 95), 1),
        "max": round(max(values), 1),
    }


def recall(folder: Path, encoder: Encoder | None) -> dict[str, Any]:
    """How many questions are answered by the first passage, by one of those given, and rightly by none."""
    with closing(Store(folder, "shop", create=True, writing=True)) as store:
        for file in files([SHOP]):
            add(store, encoder, file)
    asked = yaml.safe_load(QUESTIONS.read_text(encoding="utf-8"))
    first = among = total = 0
    missed: list[str] = []
    with closing(Base(folder, "shop", encoder, LEAST_LIKENESS)) as base:
        for heading, questions in asked["answered"].items():
            for question in questions:
                found = [hit.headings[-1] for hit in base.search(question, LIMIT)]
                total += 1
                first += found[:1] == [heading]
                among += heading in found
                if heading not in found:
                    missed.append(question)
        nothing = [question for question in asked["unanswerable"] if not base.search(question, LIMIT)]
    return {
        "questions": total,
        "first": round(100 * first / total, 1),
        "among": round(100 * among / total, 1),
        "unanswerable": len(asked["unanswerable"]),
        "nothing_found": round(100 * len(nothing) / len(asked["unanswerable"]), 1),
        "missed": missed,
    }


def plot(times: dict[str, list[float]], path: Path) -> None:
    """The share of searches that took at most so many milliseconds of a core."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for name, values in times.items():
        axes.plot(np.sort(values), np.linspace(0, 100, len(values)), label=name)
    axes.axvline(P95_MS, color="gray", linestyle=":")
    axes.axhline(95, color="gray", linestyle=":")
    axes.set_xlabel("ms of one core a search, at most")
    axes.set_ylabel("% of searches")
    axes.set_xlim(left=0)
    axes.legend()
    canvas.savefig(path, dpi=130)


def measured(
    folder: Path, passages: int, asked: int, redis: str, console: Console
) -> Iterator[tuple[str, list[float], list[float], dict[str, float]]]:
    """Speed by words alone, with vectors, and with vectors in Redis, if there is one."""
    language, made = Language(1), folder / "encoder"
    if not names(folder):
        made.mkdir(parents=True)
        encoder = random_encoder(made, layers=6, width=384, heads=12, hidden=1536)
        with closing(Store(folder, "large", create=True, writing=True)) as store:
            fill(store, encoder, passages, language, console)
    encoder = SentenceEncoder(made)
    questions = [language.say(2, 8) for _ in range(asked)]
    for name, used in (("words", None), ("words and vectors", encoder)):
        with closing(Base(folder, "large", used, LEAST_LIKENESS)) as base:
            base.search(questions[0], LIMIT)  # opens, and loads the vectors
            yield name, *timed(base, questions), {}
    if redis:
        with console.status("writing the vectors to Redis"):
            found = asyncio.run(timed_in_redis(folder, made, redis, questions))
        yield "words and vectors in Redis", *found


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--encoder", type=Path, help="a real encoder, for recall by meaning")
    parser.add_argument(
        "--keep", type=Path, help="a folder to keep the large base in, filled by the first run"
    )
    parser.add_argument("--redis", default="", metavar="URL", help="a Redis 8 to ask what is near, too")
    options = parser.parse_args()
    console, where = Console(stderr=True), report.machine()
    folder = Path(tempfile.mkdtemp(prefix="parley-knowledge-"))
    try:
        speed: dict[str, dict[str, Any]] = {}
        times, goals = {}, []
        for name, clock, cpu, told in measured(
            options.keep or folder / "large", options.passages, options.questions, options.redis, console
        ):
            times[name] = cpu
            speed[name] = {"clock_ms": figures(clock), "cpu_ms": figures(cpu), **told}
            if told:
                console.print(name, told)
            goals.append(Goal.at_most(f"{name}, p95", report.percentile(cpu, 95), P95_MS, "ms of one core"))
        found = {"words": recall(folder / "a", None)}
        if options.encoder is not None:
            found["words and meaning"] = recall(folder / "b", load_encoder(options.encoder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    out = Console() if sys.stdout.isatty() else Console(width=100)
    table = Table("search", "p50", "p95", "max", "processor p50", "p95", "max", title="ms a search")
    for name, one in speed.items():
        table.add_row(
            name, *(f"{one[kind][n]:g}" for kind in ("clock_ms", "cpu_ms") for n in ("p50", "p95", "max"))
        )
    out.print(table)
    table = Table(
        "search", "questions", "first %", f"in {LIMIT} %", "not there", "nothing found %", title="recall"
    )
    for name, told in found.items():
        table.add_row(
            name, *(f"{told[n]:g}" for n in ("questions", "first", "among", "unanswerable", "nothing_found"))
        )
    out.print(table)
    report.show(goals, out)
    path = report.write("knowledge", where, {"speed": speed, "recall": found}, goals)
    plot(times, path.with_suffix(".png"))
    console.print(f"written: {path.relative_to(report.ROOT)} and {path.with_suffix('.png').name}")
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
