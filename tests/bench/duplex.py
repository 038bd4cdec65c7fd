"""How the floor changes hands, measured on the wire: ``python -m tests.bench.duplex``.

Real WebRTC calls to a Parley whose engine answers everything in a long steady tone, so that every figure can
be read from the recorded waveforms: when the bot's voice is lowered, when it is silent, whether it comes back
and whether any of it is missing. What is tested is who has the floor, not what is said. The callers are
synthesised by festival, of which nothing in Parley has learnt (words the same, voices and engine not).
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bot.headset import RATE
from bot.talk import Caller
from bot.waveform import Pcm, first_loud, spoken
from tests.bench import report
from tests.bench.duplex_page import page
from tests.bench.report import Goal, percentile
from tests.bot.speaking_engine import ANSWER
from tests.e2e.server import parley_server
from tests.e2e.speakers import say

TIMES = 6  # the answer's words, over and over
ANSWER_S = TIMES * len(ANSWER) * 0.16
VOICES = ("ked_diphone", "cmu_us_slt_arctic_hts", "kal_diphone")
QUESTION = "How long does delivery take?"
BACK_CHANNELS = ("[m m hh m m]", "uh huh", "yeah", "okay", "right", "I see", "oh yeah", "sure")
COMMANDS = ("stop", "wait", "no", "hello")
INTERRUPTIONS = (
    "No, wait, stop for a moment.",
    "Stop please, I want to ask about something else.",
    "Hold on, that is not what I asked.",
    "Excuse me, can you tell me the price?",
    "Sorry, I meant the other one.",
)
KINDS = ("pause", "back-channel", "noise", "interruption", "one word")
HALVES = ("I would like to know", "how long the delivery takes")
PAUSES_MS = (200, 280)  # shorter than the silence that ends a turn
QUIET_DB = -8.0  # of a back-channel below the caller's other speech
BLOCK = RATE // 100  # of an envelope: 10 ms
Levels = NDArray[np.float32]
LOWERED, SILENT, BACK = 0.7, 0.05, 0.8  # of the tone's own level


@dataclass(frozen=True)
class Scene:
    """A question, and ``after_s`` of its answer ``over``, said over it. Without, the question is all."""

    kind: str
    name: str
    question: Pcm
    over: Pcm | None = None
    after_s: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What the recording of one scene shows. Times in ms from the beginning of what was said over the bot."""

    kind: str
    name: str
    over_s: tuple[float, float] | None = None  # where in the recording it was said
    lowered_ms: float | None = None
    silent_ms: float | None = None
    back_ms: float | None = None  # from the end of what was said until the voice is back, if it was away
    again_ms: float = 0.0  # the bot sounded while the caller still spoke, after it had fallen silent
    yielded: bool = False  # the answer was not gone on with
    missing_ms: float = 0.0  # of an answer that was gone on with
    taken_over: bool = False  # the bot spoke in a pause of the caller's
    voice_to_voice_ms: float | None = None
    failed: str = ""
    caller: Levels | None = None  # both sides, 10 ms a value
    bot: Levels | None = None


def cough(draw: random.Random) -> Pcm:
    """Two bursts of noise that fade, 90 to 160 ms each."""
    noise = np.random.default_rng(draw.randrange(2**32))
    bursts = []
    for _ in range(2):
        count = round(RATE * draw.uniform(0.09, 0.16))
        burst = noise.standard_normal(count) * np.exp(-np.arange(count) / (0.04 * RATE))
        bursts += [0.25 * burst / np.abs(burst).max(), np.zeros(round(RATE * draw.uniform(0.05, 0.12)))]
    return np.concatenate(bursts).astype(np.float32)


def typing(draw: random.Random) -> Pcm:
    """A second of keys."""
    noise = np.random.default_rng(draw.randrange(2**32))
    sound = np.zeros(RATE, np.float32)
    for _ in range(7):
        at = draw.randrange(RATE - RATE // 50)
        click = noise.standard_normal(RATE // 50) * np.exp(-np.arange(RATE // 50) / (0.003 * RATE))
        sound[at : at + RATE // 50] += (0.15 * click / np.abs(click).max()).astype(np.float32)
    return sound


def scenes(each: int, draw: random.Random) -> Iterator[Scene]:
    """``each`` of every kind."""
    questions = {voice: say(QUESTION, voice) for voice in VOICES}
    halves = {voice: [say(half, voice) for half in HALVES] for voice in VOICES}
    quieter = np.float32(10 ** (QUIET_DB / 20))
    for number in range(each):
        voice, after = VOICES[number % len(VOICES)], draw.uniform(0.8, 3.0)
        question = questions[voice]
        pause = PAUSES_MS[number % len(PAUSES_MS)]
        gap = np.zeros(RATE * pause // 1000, np.float32)
        first, second = halves[voice]
        yield Scene("pause", f"{pause} ms {voice}", np.concatenate([first, gap, second]))
        text = BACK_CHANNELS[number % len(BACK_CHANNELS)]
        who = VOICES[0] if text.startswith("[") else voice
        yield Scene("back-channel", f"{text!r} {who}", question, say(text, who) * quieter, after)
        yield Scene("noise", "cough", question, cough(draw), after)
        yield Scene("noise", "typing", question, typing(draw), after)
        text = INTERRUPTIONS[number % len(INTERRUPTIONS)]
        yield Scene("interruption", f"{text!r} {voice}", question, say(text, voice), after)
        text = COMMANDS[number % len(COMMANDS)]
        yield Scene("one word", f"{text!r} {voice}", question, say(text, voice), after)


async def play(scene: Scene, url: str) -> Seen:
    """One call."""
    caller = Caller(url)
    listener, microphone = caller.listener, caller.microphone
    try:
        await caller.connect()
        await caller.wait_until(lambda: microphone.began is not None, 10)
        await caller.hear_out(time.monotonic(), 10, 0.6)
        asked = microphone.say(scene.question)
        await caller.wait_until(lambda: microphone.passed(asked[1]), 30)
        over = (0, 0)
        if scene.over is not None:
            since = time.monotonic()
            await caller.wait_until(lambda: listener.last_loud_at > since, 10)
            await asyncio.sleep(scene.after_s)
            over = microphone.say(scene.over)
            await caller.wait_until(lambda: microphone.passed(over[1]), 30)
            await asyncio.sleep(1.0)
        await caller.hear_out(time.monotonic(), 5, 1.5)
    except Exception as error:  # a scene that fails is told of, and the others go on
        return Seen(scene.kind, scene.name, failed=f"{type(error).__name__}: {error}")
    finally:
        await caller.hang_up()
    assert microphone.began is not None
    said = np.concatenate(microphone.sent).astype(np.float32) / np.float32(32768)
    bot = listener.recording(microphone.began - 0.02, len(said))
    seen = look(scene, said, bot, asked, over)
    return replace(seen, caller=levels(said), bot=levels(bot))


def look(scene: Scene, said: Pcm, bot: Pcm, asked: tuple[int, int], over: tuple[int, int]) -> Seen:
    """Read a recording: both sides on one clock; where was asked, and where was said over the answer."""
    asked = spoken(said, RATE, *asked) or asked
    begun = first_loud(bot, asked[1])
    if begun is None:
        return Seen(scene.kind, scene.name, failed="there was no answer")
    if scene.over is None:
        inside = first_loud(bot, asked[0] + RATE // 10, asked[1]) is not None
        return Seen(
            scene.kind,
            scene.name,
            taken_over=inside,
            voice_to_voice_ms=None if inside else (begun - asked[1]) * 1000 / RATE,
        )
    level = levels(bot)
    start, end = (sample // BLOCK for sample in spoken(said, RATE, *over) or over)
    level = level / np.median(level[start - 30 : start])
    lowered, silent = _first(level < LOWERED, start), _first(level < SILENT, start)
    ends = _first(level < SILENT, start + 200)
    until = len(level) if ends is None else ends
    away = lowered is not None and lowered < end + 30
    back = _first(level > BACK, max(end, lowered or 0)) if away else None
    heard_s = float((level[begun // BLOCK :] > SILENT).sum()) / 100
    before_s = (start * BLOCK - begun) / RATE
    # Another whole answer follows one that was given up.
    yielded = heard_s > ANSWER_S + 0.5 * before_s
    away = away and lowered is not None and lowered < until
    return Seen(
        scene.kind,
        scene.name,
        over_s=(start / 100, end / 100),
        lowered_ms=10.0 * (lowered - start) if away and lowered is not None else None,
        silent_ms=10.0 * (silent - start) if silent is not None and silent < end + 30 else None,
        back_ms=10.0 * (back - end) if back is not None and not yielded else None,
        again_ms=0.0 if silent is None else 10.0 * float((level[silent:end] > SILENT).sum()),
        yielded=yielded,
        missing_ms=0.0 if yielded else max(0.0, 1000 * (ANSWER_S - heard_s)),
        voice_to_voice_ms=(begun - asked[1]) * 1000 / RATE,
    )


def levels(wave: Pcm) -> Levels:
    """Root mean square of every 10 ms."""
    blocks = wave[: len(wave) // BLOCK * BLOCK].reshape(-1, BLOCK)
    found: Levels = np.sqrt((blocks**2).mean(1), dtype=np.float32)
    return found


def _first(true: np.ndarray[Any, np.dtype[np.bool_]], start: int) -> int | None:
    found = np.flatnonzero(true[start:])
    return start + int(found[0]) if len(found) else None


def share(values: Sequence[bool]) -> float:
    """Of those that are true; nan without any."""
    return float(np.mean(values)) if values else float("nan")


def summary(seen: Sequence[Seen]) -> tuple[dict[str, Any], list[Goal]]:
    """Figures by kind, and the goals."""
    kinds = {kind: [one for one in seen if one.kind == kind and not one.failed] for kind in KINDS}

    def times(kind: str, name: str) -> list[float]:
        return [value for one in kinds[kind] if (value := getattr(one, name)) is not None]

    table: dict[str, Any] = {
        kind: {
            "scenes": len(of_kind),
            "yielded": share([one.yielded for one in of_kind]),
            "taken_over": share([one.taken_over for one in of_kind]),
            **{
                name: {"p50": percentile(times(kind, name), 50), "p95": percentile(times(kind, name), 95)}
                for name in ("lowered_ms", "silent_ms", "back_ms", "voice_to_voice_ms")
            },
            "missing_ms_max": max((one.missing_ms for one in of_kind), default=0.0),
            "again_ms_max": max((one.again_ms for one in of_kind), default=0.0),
        }
        for kind, of_kind in kinds.items()
    }
    held = [not one.yielded for one in kinds["back-channel"]]
    quiet = [not one.yielded for one in kinds["noise"]]
    gave_way = [one.yielded for one in kinds["interruption"]]
    silent = times("interruption", "silent_ms")
    goals = [
        Goal.at_most("pause taken over", 100 * table["pause"]["taken_over"], 5, "%"),
        Goal.at_most("interruptions not yielded to", 100 - 100 * share(gave_way), 1, "%"),
        Goal.at_most("back-channels that stopped it", 100 - 100 * share(held), 5, "%"),
        Goal.at_most("noises that stopped it", 100 - 100 * share(quiet), 5, "%"),
        Goal.at_most("onset to lowered, p95", percentile(times("interruption", "lowered_ms"), 95), 60, "ms"),
        Goal.at_most("onset to silence, p50", percentile(silent, 50), 250, "ms"),
        Goal.at_most("onset to silence, p95", percentile(silent, 95), 400, "ms"),
        Goal.at_most(
            "back after a back-channel, p95", percentile(times("back-channel", "back_ms"), 95), 200, "ms"
        ),
        Goal.at_most(
            "missing after a back-channel or noise, max",
            max(table[kind]["missing_ms_max"] for kind in ("back-channel", "noise")),
            40,
            "ms",
        ),
        Goal.at_most("scenes that failed", sum(bool(one.failed) for one in seen), 0, "scenes"),
    ]
    return table, goals


def show(table: dict[str, Any], goals: Sequence[Goal], console: Console) -> None:
    """Print it."""
    heads = ("kind", "scenes", "yielded", "lowered", "silent", "back", "missing", "again")
    rows = Table(*heads, title="ms: p50 / p95, or the longest")
    for kind, row in table.items():
        times = [f"{row[n]['p50']:.0f} / {row[n]['p95']:.0f}" for n in ("lowered_ms", "silent_ms", "back_ms")]
        longest = [f"{row[name]:.0f}" for name in ("missing_ms_max", "again_ms_max")]
        rows.add_row(kind, str(row["scenes"]), f"{row['yielded']:.2f}", *times, *longest)
    console.print(rows)
    report.show(goals, console)


def plot(seen: Sequence[Seen], path: Path) -> None:
    """When the voice was lowered, silent and back, scene by scene."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for row, kind in enumerate(KINDS[1:]):
        marks = (("v", "lowered_ms", "C0"), ("s", "silent_ms", "C3"), ("^", "back_ms", "C2"))
        for mark, name, colour in marks:
            found = [value for one in seen if one.kind == kind and (value := getattr(one, name)) is not None]
            spread = row + np.linspace(-0.25, 0.25, len(found)) if len(found) > 1 else [row] * len(found)
            axes.scatter(found, spread, s=18, marker=mark, alpha=0.7, color=colour)
    axes.set_yticks(range(len(KINDS) - 1), KINDS[1:])
    axes.set_xlabel("ms: lowered (v) and silent (square) from the onset, back (^) from the end")
    figure.savefig(path, dpi=130)


@contextmanager
def toning_parley(folder: Path) -> Iterator[str]:
    """A Parley whose engine answers in a long tone; gives its URL."""
    command = [sys.executable, "-m", "tests.bot.speaking_engine", "--times", str(TIMES)]
    command += ["--socket", str(folder / "engine.sock")]
    engine = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert engine.stdout is not None
        url = engine.stdout.readline().strip()
        with parley_server(folder / "serve.log", PARLEY_ENGINE__URL=url) as server:
            yield server.url
    finally:
        engine.terminate()
        engine.wait(10)


async def run(url: str, each: int, seed: int, kinds: Sequence[str], console: Console) -> list[Seen]:
    """The scenes of those kinds, two calls at a time."""
    todo = [scene for scene in scenes(each, random.Random(seed)) if scene.kind in kinds]
    seen: list[Seen] = []
    at_once = asyncio.Semaphore(2)
    with Progress(console=console) as progress:
        task = progress.add_task("scenes", total=len(todo))

        async def one(scene: Scene) -> None:
            async with at_once:
                seen.append(await play(scene, url))
                progress.advance(task)

        await asyncio.gather(*(one(scene) for scene in todo))
    return seen


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=8, help="scenes of every kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these kinds; all without")
    options = parser.parse_args()
    console = Console(stderr=True)
    where = report.machine()
    with tempfile.TemporaryDirectory() as folder, toning_parley(Path(folder)) as url:
        seen = asyncio.run(run(url, options.each, options.seed, options.kind or KINDS, console))
    table, goals = summary(seen)
    told = [asdict(replace(one, caller=None, bot=None)) for one in seen]
    path = report.write("duplex", where, {"kinds": table, "scenes": told}, goals)
    plot(seen, path.with_suffix(".png"))
    path.with_suffix(".html").write_text(page(seen, goals))
    show(table, goals, Console() if sys.stdout.isatty() else Console(width=100))
    for one in seen:
        if one.failed:
            console.print(f"failed: {one.kind} {one.name}: {one.failed}", markup=False)
    console.print(f"written: {path.relative_to(report.ROOT)}, {path.stem}.png and {path.stem}.html")
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
