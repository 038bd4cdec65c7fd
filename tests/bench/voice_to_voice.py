"""How long a caller waits for an answer, measured on the wire: ``python -m tests.bench.voice_to_voice``.

Starts Parley as a user does and calls it over real WebRTC: 20 calls one after another, then 4 at once. Every
figure is read from the recorded waveforms: voice-to-voice is the time from the caller's last sound sent to
the bot's first sound received. A gap is a hole in an answer: digital silence that cuts into sound, or a
packet too late for a listener who holds 60 ms back. The caller shares the machine with Parley.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from bot.talk import CallFailed, PlacedCall, Turn, place_call
from bot.waveform import Pcm, dropouts, underruns
from tests.bench import report
from tests.bench.report import Goal, percentile
from tests.e2e.server import parley_server
from tests.e2e.speakers import VOICES, say

QUESTIONS = (
    "What is your address?",
    "How long is the warranty?",
    "Do you have tents?",
    "Can I order online?",
    "Are you open on Sunday?",
)
P50_MS, P95_MS = 700.0, 1000.0  # the goals, for calls one after another


@dataclass(frozen=True)
class Measured:
    """One question, measured."""

    call: int
    answer: str
    voice_to_voice_ms: float | None
    cut_in: bool
    reported_ms: int | None
    gaps_ms: list[float]


@dataclass(frozen=True)
class Round:
    """Some calls under the same conditions."""

    name: str
    turns: list[Measured]
    setup_ms: list[float]
    failed: list[str]

    @property
    def delays(self) -> list[float]:
        return [turn.voice_to_voice_ms for turn in self.turns if turn.voice_to_voice_ms is not None]

    @property
    def gaps(self) -> list[float]:
        return [gap for turn in self.turns for gap in turn.gaps_ms]

    @property
    def unanswered(self) -> int:
        return len(self.failed) + sum(
            turn.voice_to_voice_ms is None and not turn.cut_in for turn in self.turns
        )

    @property
    def cut_in(self) -> int:
        return sum(turn.cut_in for turn in self.turns)


def measure(call: int, record: PlacedCall, turn: Turn) -> Measured:
    """Read one turn from its recording."""
    gaps: list[float] = []
    if turn.answered_from_s is not None and turn.answered_to_s is not None:
        start, end = turn.answered_from_s, turn.answered_to_s
        holes = dropouts(record.bot, record.rate, round(start * record.rate), round(end * record.rate))
        gaps += [hole.ms(record.rate) for hole in holes]
        within = (record.packet_s >= start) & (record.packet_s < end)
        gaps += underruns(record.packet_s[within], record.packet_media_s[within])
    return Measured(
        call,
        turn.answer,
        turn.voice_to_voice_ms,
        turn.cut_in,
        turn.reported_ms,
        [round(gap, 1) for gap in gaps],
    )


async def run_round(
    name: str, url: str, plans: Sequence[Sequence[Pcm]], together: bool, progress: Progress
) -> Round:
    """Place one call a plan, one after another or all at once."""
    task = progress.add_task(name, total=len(plans))
    turns: list[Measured] = []
    setup_ms: list[float] = []
    failed: list[str] = []

    async def one(number: int, questions: Sequence[Pcm]) -> None:
        try:
            record = await place_call(url, questions)
        except CallFailed as error:
            failed.append(str(error))
        else:
            turns.extend(measure(number, record, turn) for turn in record.turns)
            setup_ms.append(record.setup_s * 1000)
        progress.advance(task)

    if together:
        await asyncio.gather(*(one(number, plan) for number, plan in enumerate(plans)))
    else:
        for number, plan in enumerate(plans):
            await one(number, plan)
    return Round(name, turns, setup_ms, failed)


def metrics(rounds: Iterable[Round]) -> dict[str, Any]:
    """Every figure of every round, as plain data."""
    return {
        one.name: {
            "turns": len(one.turns),
            "unanswered": one.unanswered,
            "cut_in": one.cut_in,
            "failed_calls": one.failed,
            "voice_to_voice_ms": {
                "p50": percentile(one.delays, 50) if one.delays else None,
                "p95": percentile(one.delays, 95) if one.delays else None,
                "max": max(one.delays, default=None),
                "all": [round(delay, 1) for delay in one.delays],
            },
            "gaps": {"count": len(one.gaps), "longest_ms": max(one.gaps, default=0.0), "all_ms": one.gaps},
            "setup_ms_p50": statistics.median(one.setup_ms) if one.setup_ms else None,
            "by_turn": [vars(turn) for turn in one.turns],
        }
        for one in rounds
    }


def goals(alone: Round, at_once: Round) -> list[Goal]:
    """What issue and README promise."""
    return [
        Goal.at_most("voice to voice alone, p50", percentile(alone.delays, 50), P50_MS, "ms"),
        Goal.at_most("voice to voice alone, p95", percentile(alone.delays, 95), P95_MS, "ms"),
        Goal.at_most("audio gaps, calls at once", len(at_once.gaps), 0, "gaps"),
        Goal.at_most("questions without an answer", alone.unanswered + at_once.unanswered, 0, "questions"),
        Goal.at_most("questions cut into", alone.cut_in + at_once.cut_in, 0, "questions"),
    ]


def show(rounds: Sequence[Round], reached: Sequence[Goal], console: Console) -> None:
    """Print the tables."""
    table = Table(
        Column("calls", no_wrap=True),
        "answers",
        "p50 ms",
        "p95 ms",
        "max ms",
        "gaps",
        "no answer",
        "cut into",
        title="voice to voice",
    )
    for one in rounds:
        figures = [
            percentile(one.delays, 50),
            percentile(one.delays, 95),
            max(one.delays, default=float("nan")),
        ]
        table.add_row(
            one.name,
            str(len(one.delays)),
            *(f"{figure:.0f}" for figure in figures),
            str(len(one.gaps)),
            str(one.unanswered),
            str(one.cut_in),
        )
    console.print(table)
    report.show(reached, console)


def plot(rounds: Sequence[Round], path: Path) -> None:
    """Every answer's delay, round by round."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for position, one in enumerate(rounds):
        spread = np.linspace(-0.25, 0.25, len(one.delays)) if len(one.delays) > 1 else [0.0] * len(one.delays)
        axes.scatter(one.delays, position + np.asarray(spread), s=22, alpha=0.75, label=one.name)
        for percent, style in ((50, "-"), (95, "--")):
            at = percentile(one.delays, percent)
            axes.plot([at, at], [position - 0.35, position + 0.35], style, color="black", linewidth=1)
    axes.axvline(P50_MS, color="tab:green", linewidth=1, label=f"goal p50 {P50_MS:.0f} ms")
    axes.axvline(P95_MS, color="tab:red", linewidth=1, label=f"goal p95 {P95_MS:.0f} ms")
    axes.set_yticks(range(len(rounds)), [one.name for one in rounds])
    axes.set_xlim(left=0)
    axes.set_xlabel("voice to voice, ms (black: p50 solid, p95 dashed)")
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=130)


async def bench(
    url: str, calls: int, at_once: int, questions_each: int, console: Console
) -> tuple[Round, Round]:
    """Both rounds, with a progress bar."""
    questions = [say(text, voice) for voice in VOICES for text in QUESTIONS]
    columns = (
        SpinnerColumn(),
        *Progress.get_default_columns()[:2],
        TextColumn("{task.completed} calls"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        one_by_one = [[questions[number % len(questions)]] for number in range(calls)]
        alone = await run_round("one after another", url, one_by_one, False, progress)
        together = [
            [questions[(number + 3 * turn) % len(questions)] for turn in range(questions_each)]
            for number in range(at_once)
        ]
        crowd = await run_round(f"{at_once} at once", url, together, True, progress)
    return alone, crowd


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="", help="a running Parley; without, one is started")
    parser.add_argument("--calls", type=int, default=20, help="calls one after another")
    parser.add_argument("--at-once", type=int, default=4, help="calls at the same time")
    parser.add_argument("--questions", type=int, default=3, help="questions in each of the calls at once")
    options = parser.parse_args()
    console = Console(stderr=True)
    where = report.machine()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "serve.log"
        running = (
            nullcontext()
            if options.url
            else parley_server(log, PARLEY_MAX_CALLS=str(max(4, options.at_once)))
        )
        with running as server:
            url = options.url or (server.url if server is not None else "")
            rounds = asyncio.run(bench(url, options.calls, options.at_once, options.questions, console))
    reached = goals(*rounds)
    path = report.write("voice_to_voice", where, metrics(rounds), reached)
    plot(rounds, path.with_suffix(".png"))
    show(rounds, reached, Console() if sys.stdout.isatty() else Console(width=100))
    console.print(f"written: {path.relative_to(report.ROOT)} and {path.with_suffix('.png').name}")
    return 0 if all(goal.met for goal in reached) else 1


if __name__ == "__main__":
    sys.exit(main())
