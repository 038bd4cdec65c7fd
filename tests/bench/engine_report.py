"""What the engine's bench says of its figures: goals, a table, a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.bench.report import Goal

Told = dict[str, Any]
"""One level's figures, see ``level.figures``."""

PARLEY = "parley"
FIRST_AUDIO_P95_MS = 120.0  # nano on two cores, alone
CROWD = 8  # sessions of nano there that speak without an under-run
# The published dimensions on one H200, by sessions at once.
GPU_FIRST_AUDIO_MS = {1: ("p50", 100.0), 64: ("p95", 250.0), 128: ("p95", 400.0)}
GPU_CROWD = 128
PERCENT_OF_FLOOR = 150.0  # a decode step alone, of what reading its weights takes
# The table: name of a row, and where its figure stands.
ROWS = (
    {
        "replies": "replies",
        "first audio p50, ms": "first_audio_ms.p50",
        "first audio p95, ms": "first_audio_ms.p95",
        "first audio max, ms": "first_audio_ms.max",
        "under-runs": "under_runs",
        "longest under-run, ms": "longest_under_run_ms",
        "real-time factor p50": "real_time_factor.p50",
        "real-time factor p95": "real_time_factor.p95",
        "speaking at once": "speaking_at_once",
        "unanswered": "unanswered",
        "failures": "failures",
    },
    {
        "decode step p50, ms": "decode.ms.p50",
        "decode step p95, ms": "decode.ms.p95",
        "decode step floor, ms": "decode.floor_ms",
        "p50, % of the floor": "decode.percent_of_floor",
        "calls a step": "decode.calls_a_step",
    },
    {
        "token2wav, ms a chunk": "token2wav.ms_a_chunk",
        "token2wav pass p50, ms": "token2wav.pass_ms.p50",
        "token2wav pass p95, ms": "token2wav.pass_ms.p95",
        "chunks a pass": "token2wav.chunks_a_pass",
    },
    {
        "hearing, s for 1 s of speech": "seconds_for_1_s.hear",
        "prefill": "seconds_for_1_s.prefill",
        "decoding": "seconds_for_1_s.decode",
        "token2wav": "seconds_for_1_s.vocode",
        "other": "seconds_for_1_s.other",
        "part of the time without work": "waited",
    },
    {
        "weights, MB": "memory_mb.weights",
        "KV cache": "memory_mb.kv_cache",
        "flow caches": "memory_mb.flow",
        "rest": "memory_mb.rest",
        "energy, J for 1 s of speech": "joules_for_1_s",
    },
)


def goals(levels: Sequence[Told], checkpoint: str, kind: str) -> list[Goal]:
    """What is asked of this checkpoint on this kind of device; of others only that nothing fails."""
    by = {level["sessions"]: level for level in levels if level["mode"] == PARLEY}
    found = []
    if checkpoint == "published" and kind == "cuda":
        for sessions, (percent, most) in GPU_FIRST_AUDIO_MS.items():
            if sessions in by:
                found.append(_first_audio(by[sessions], percent, most))
        if GPU_CROWD in by:
            found.append(_under_runs(by[GPU_CROWD]))
        if 1 in by:
            percent_of = by[1].get("decode", {}).get("percent_of_floor")
            value = math.nan if percent_of is None else percent_of
            found.append(Goal.at_most("decode step alone", value, PERCENT_OF_FLOOR, "% of its floor"))
    elif checkpoint == "nano" and kind == "cpu":
        if 1 in by:
            found.append(_first_audio(by[1], "p95", FIRST_AUDIO_P95_MS))
        if CROWD in by:
            found.append(_under_runs(by[CROWD]))
    failures = sum(level["failures"] for level in levels)
    return [*found, Goal.at_most("failures", failures, 0, "sessions")]


def _first_audio(level: Told, percent: str, most: float) -> Goal:
    who = "alone" if level["sessions"] == 1 else f"{level['sessions']} speaking"
    return Goal.at_most(f"first audio, {who}, {percent}", level["first_audio_ms"][percent], most, "ms")


def _under_runs(level: Told) -> Goal:
    """None in the time that was run, which the goal's name says: an hour proves more than a minute."""
    name = f"under-runs, {level['sessions']} speaking for {level['seconds']:.0f} s"
    return Goal.at_most(name, level["under_runs"], 0, "under-runs")


def table(levels: Sequence[Told]) -> Table:
    """What callers were given, and what that cost: a column a level."""
    shown = Table("", *(f"{level['mode']}\n{level['sessions']}" for level in levels), title="engine")
    for section in ROWS:
        for name, path in section.items():
            shown.add_row(name, *(_cell(level, path) for level in levels))
        shown.add_section()
    return shown


def _cell(level: Told, path: str) -> str:
    value: Any = level
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return "n/a" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def plot(levels: Sequence[Told], path: Path) -> None:
    """By sessions at once: time to first audio, a decode step and its floor, memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, (heard, stepped, held) = pyplot.subplots(1, 3, figsize=(16, 4.5), layout="constrained")
    for mode in dict.fromkeys(level["mode"] for level in levels):
        told = [level for level in levels if level["mode"] == mode and level["replies"]]
        at = [level["sessions"] for level in told]
        (line,) = heard.plot(
            at, [level["first_audio_ms"]["p50"] for level in told], "o-", label=f"{mode}, p50"
        )
        p95 = [level["first_audio_ms"]["p95"] for level in told]
        heard.plot(at, p95, "o--", color=line.get_color(), label=f"{mode}, p95")
        worked = [level for level in told if level.get("decode", {}).get("steps")]
        at = [level["sessions"] for level in worked]
        for name, style in (("p50", "o-"), ("p95", "o--")):
            values = [level["decode"]["ms"][name] for level in worked]
            stepped.plot(at, values, style, color=line.get_color(), label=f"{mode}, {name}")
        floor = [level["decode"]["floor_ms"] for level in worked]
        stepped.plot(at, floor, ":", color=line.get_color(), label=f"{mode}, floor")
    measured = [level for level in levels if level["mode"] == PARLEY and "memory_mb" in level]
    below = [0.0] * len(measured)
    for kind in ("weights", "kv_cache", "flow", "rest"):
        values = [level["memory_mb"][kind] / 1000 for level in measured]
        names = [str(level["sessions"]) for level in measured]
        held.bar(names, values, bottom=below, label=kind.replace("_", " "))
        below = [base + value for base, value in zip(below, values, strict=True)]
    marks = sorted({level["sessions"] for level in levels if level["replies"]})
    for axes in (heard, stepped):
        axes.set_xscale("log", base=2)
        axes.set_xticks(marks, [str(sessions) for sessions in marks])
    for axes, what in (
        (heard, "time to first audio, ms"),
        (stepped, "decode step, ms"),
        (held, "memory, GB"),
    ):
        axes.set_xlabel("sessions at once")
        axes.set_ylabel(what)
        axes.set_ylim(bottom=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    canvas.savefig(path, dpi=110)
    pyplot.close(canvas)
