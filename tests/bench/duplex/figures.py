"""What the scenes come to, by the names of those who measure the same.

* Full-Duplex-Bench v1 (arXiv 2503.04721): TOR, the share of scenes in which the bot takes the floor (low in
  pauses, high at the end of a turn and after an interruption), and the latency of doing so.
* tau-voice: R_R and L_R (responds, and how soon), R_Y and L_Y (yields to an interruption, and how soon), I_A
  (the agent interrupts) and selectivity, the share of what is no interruption that does not stop the bot.

Ours are read from waveforms, not from transcripts or ticks of 200 ms, and the speech is our own: so numbers
with the same name are like theirs, not comparable with theirs to the digit.

A question that nobody answered counts against TOR and R_R. There was no voice then that could yield or go on,
so it counts neither for nor against those. Scenes that could not be played are left out, and told of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import report
from tests.bench.duplex.reading import Seen
from tests.bench.duplex.scenes import HOLDING, KINDS, PEOPLE, YIELDING
from tests.bench.report import Goal, percentile

PAUSES = ("pause", "long pause")
TIMES = ("lowered_ms", "silent_ms", "back_ms", "answered_ms", "voice_to_voice_ms", "later_ms")
NAN = float("nan")
# An answer after an outage may be later than before it by what the same question twice in a calm call differs
# by; a jitter buffer that keeps what it waited for makes it later by 200 ms or the outage's length.
BACK_TO_NORMAL_MS = 100


def summary(seen: Sequence[Seen]) -> tuple[dict[str, Any], list[Goal]]:
    """Figures by kind, the same by others' names, and the goals."""
    sound = [one for one in seen if not one.failed]
    table = {
        kind: _of_kind(these)
        for kind in (*KINDS, *PEOPLE)
        if (these := [one for one in sound if one.kind == kind])
    }
    named = {"full_duplex_bench_v1": _full_duplex_bench(sound), "tau_voice": _tau_voice(sound)}
    return {"kinds": table, **named}, _goals(sound, len(seen) - len(sound))


def share(values: Iterable[bool]) -> float:
    """Of those that are true; nan without any."""
    found = list(values)
    return sum(found) / len(found) if found else NAN


def _times(seen: Iterable[Seen], name: str) -> dict[str, float]:
    found = [value for one in seen if (value := getattr(one, name)) is not None]
    return {"p50": percentile(found, 50), "p95": percentile(found, 95)}


def _of_kind(seen: Sequence[Seen]) -> dict[str, Any]:
    return {
        "scenes": len(seen),
        "unanswered": sum(one.unanswered for one in seen),
        "yielded": share(one.yielded for one in seen if one.answered),
        "taken_over": share(one.taken_over for one in seen),
        **{name: _times(seen, name) for name in TIMES},
        "missing_ms_max": max(one.missing_ms for one in seen),
        "again_ms_max": max(one.again_ms for one in seen),
        "dimmed_ms_max": max(one.dimmed_ms for one in seen),
    }


def _kinds(seen: Iterable[Seen], *kinds: str) -> list[Seen]:
    return [one for one in seen if one.kind in kinds]


def _full_duplex_bench(seen: Sequence[Seen]) -> dict[str, Any]:
    ends, cut_in = _kinds(seen, "turn end"), _kinds(seen, "interruption", "person")
    return {
        "pause_handling": {"TOR": share(one.taken_over for one in _kinds(seen, *PAUSES))},
        "smooth_turn_taking": {
            "TOR": share(one.voice_to_voice_ms is not None for one in ends),
            "latency_ms": _times(ends, "voice_to_voice_ms"),
        },
        "user_interruption": {
            "TOR": share(one.yielded and one.answered_ms is not None for one in cut_in),
            "latency_ms": _times(cut_in, "answered_ms"),
        },
    }


def _tau_voice(seen: Sequence[Seen]) -> dict[str, Any]:
    answered = [one for one in seen if one.answered]
    cut_in, asked = _kinds(answered, *YIELDING, "echo interruption"), _kinds(seen, "turn end", *PAUSES)
    yielded = [one for one in cut_in if one.yielded]

    def kept(*kinds: str) -> float:
        return share(not one.yielded for one in _kinds(answered, *kinds))

    return {
        "R_R": share(one.voice_to_voice_ms is not None for one in asked),
        "L_R_ms": _times(asked, "voice_to_voice_ms"),
        "R_Y": share(one.yielded for one in cut_in),
        "L_Y_ms": _times(yielded, "silent_ms"),
        "I_A": share(one.taken_over for one in asked),
        "selectivity": {
            "backchannel": kept("back-channel"),
            "vocal_tic": kept("cough"),
            "non_directed": kept("background talk"),
        },
    }


def _goals(played: Sequence[Seen], failed: int) -> list[Goal]:
    seen = [one for one in played if one.answered]
    clean, over_echo = _kinds(seen, "interruption"), _kinds(seen, "echo interruption")
    turn_ends = _kinds(played, "turn end")
    ends = _times(turn_ends, "voice_to_voice_ms")
    later = _times(_kinds(seen, "outage"), "later_ms")
    back = _times(_kinds(seen, "back-channel"), "back_ms")
    quiet = _kinds(seen, "cough", "typing", "recorded noise")
    went_on = [one for one in _kinds(seen, *HOLDING) if not one.yielded]

    def percent(values: Iterable[bool]) -> float:
        return 100 * share(values)

    goals = [
        Goal.at_most(f"{kind} taken over", percent(one.taken_over for one in _kinds(played, kind)), 5, "%")
        for kind in PAUSES
    ]
    goals += [
        Goal.at_most(
            "ends of turns not taken",
            percent(one.voice_to_voice_ms is None for one in turn_ends),
            1,
            "%",
        ),
        Goal.at_most("end of turn to voice, p50", ends["p50"], 400, "ms"),
        Goal.at_most("end of turn to voice, p95", ends["p95"], 700, "ms"),
        Goal.at_most("interruptions not yielded to", percent(not one.yielded for one in clean), 1, "%"),
        Goal.at_most(
            "... bad lines, people and both at once too",
            percent(not one.yielded for one in _kinds(seen, *YIELDING)),
            1,
            "%",
        ),
        Goal.at_most(
            "interruptions over an echo not yielded to",
            percent(not one.yielded for one in over_echo),
            1,
            "%",
        ),
        Goal.at_most(
            "back-channels that stopped it",
            percent(one.yielded for one in _kinds(seen, "back-channel")),
            5,
            "%",
        ),
        Goal.at_most("noises that stopped it", percent(one.yielded for one in quiet), 5, "%"),
        Goal.at_most(
            "background talk that stopped it",
            percent(one.yielded for one in _kinds(seen, "background talk")),
            25,
            "%",
        ),
        Goal.at_most("echoes that stopped it", percent(one.yielded for one in _kinds(seen, "echo")), 5, "%"),
        Goal.at_most("onset to lowered, p95", _times(clean, "lowered_ms")["p95"], 60, "ms"),
        Goal.at_most("onset to silence, p50", _times(clean, "silent_ms")["p50"], 250, "ms"),
        Goal.at_most("onset to silence, p95", _times(clean, "silent_ms")["p95"], 400, "ms"),
        Goal.at_most("back after a back-channel, p95", back["p95"], 200, "ms"),
        Goal.at_most("back after a noise, p95", _times(quiet, "back_ms")["p95"], 200, "ms"),
        Goal.at_most(
            "missing of answers gone on with, max",
            max((one.missing_ms for one in went_on), default=NAN),
            40,
            "ms",
        ),
        Goal.at_most(
            "answer after an outage later than before it, p95", later["p95"], BACK_TO_NORMAL_MS, "ms"
        ),
        Goal.at_most("questions not answered", percent(one.unanswered for one in played), 1, "%"),
    ]
    # What no scene was played of is no goal missed.
    return [goal for goal in goals if goal.value == goal.value] + [
        Goal.at_most("scenes that failed", failed, 0, "scenes")
    ]


def show(kinds: dict[str, Any], goals: Sequence[Goal], console: Console) -> None:
    """Print them."""
    times_of = ("lowered", "silent", "back", "answered", "V2V", "later")
    heads = ("kind", "scenes", "stopped", *times_of, "missing", "dimmed")
    rows = Table(*heads, title="ms: p50 / p95, or the longest", caption="scenes: all - not answered")
    for kind, row in kinds.items():
        times = [
            "-" if row[name]["p50"] != row[name]["p50"] else f"{row[name]['p50']:.0f}/{row[name]['p95']:.0f}"
            for name in TIMES
        ]
        longest = [f"{row[name]:.0f}" for name in ("missing_ms_max", "dimmed_ms_max")]
        scenes = f"{row['scenes']}" + (f" - {row['unanswered']}" if row["unanswered"] else "")
        rows.add_row(kind, scenes, f"{row['yielded']:.2f}", *times, *longest)
    console.print(rows)
    report.show(goals, console)
