"""How the floor changes hands, measured on the wire: ``python -m tests.bench.duplex``.

Real WebRTC calls to a Parley whose engine answers everything in a long steady tone, so that every figure can
be read from the recorded waveforms: when the bot's voice is lowered, when it is silent, whether it comes back
and whether any of it is missing. What is tested is who has the floor, not what is said. With ``--url`` it
calls a Parley that runs, whose answers are speech: then only what can be known of a voice with pauses of its
own is told (pauses, ends of turns, interruptions), and nothing of back-channels and noises.

Many scenes are played in parts (``--part 1/4``), and told of together. Two sets of callers have nothing in
common, so that nothing is tuned on what the figures are of: ``--speech tuning`` for the one, the default for
the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress
from rich.text import Text

from tests.bench import report
from tests.bench.duplex.calling import play
from tests.bench.duplex.figures import show, summary
from tests.bench.duplex.page import page
from tests.bench.duplex.reading import TIMES, Seen
from tests.bench.duplex.scenes import KINDS, PEOPLE, Scene, scenes
from tests.bench.duplex.sounds import SPEECH
from tests.bench.report import FOLDER
from tests.e2e.server import parley_server

BLACK_BOX = (
    "turn end",
    "pause",
    "long pause",
    "interruption",
    "person",
    "outage",
)  # what a voice of its own leaves to be read
SEEDS = {"tuning": 1, "figures": 2026}


@contextmanager
def toning_parley(folder: Path, echo_guard: bool) -> Iterator[str]:
    """A Parley whose engine answers in a long tone; gives its URL."""
    command = [sys.executable, "-m", "tests.bot.speaking_engine", "--times", str(TIMES)]
    command += ["--socket", str(folder / "engine.sock")]
    engine = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert engine.stdout is not None
        url = engine.stdout.readline().strip()
        with parley_server(
            folder / "serve.log",
            PARLEY_ENGINE__URL=url,
            PARLEY_ECHO_GUARD=str(echo_guard),
            PARLEY_TURNS__TELL="true",
        ) as server:
            yield server.url
    finally:
        engine.terminate()
        engine.wait(10)


async def run(
    url: str, todo: Sequence[Scene], at_once: int, toned: bool, until: float, console: Console
) -> list[Seen]:
    """All of them that can be begun ``until`` then (monotonic), ``at_once`` calls at a time."""
    seen: list[Seen] = []
    free = asyncio.Semaphore(at_once)
    with Progress(console=console) as progress:
        task = progress.add_task("scenes", total=len(todo))

        async def one(scene: Scene) -> None:
            async with free:
                if time.monotonic() < until:
                    seen.append(await play(scene, url, toned))
                progress.advance(task)

        await asyncio.gather(*(one(scene) for scene in todo))
    return seen


def played(todo: Sequence[Scene], at_once: int, until: float, console: Console) -> list[Seen]:
    """On Parleys of our own; scenes with an echo need one that guards against it, as a browser would."""
    seen = []
    for echoes in (False, True):
        these = [scene for scene in todo if (scene.echo is not None) == echoes]
        if these and time.monotonic() < until:
            with (
                tempfile.TemporaryDirectory() as folder,
                toning_parley(Path(folder), echoes) as url,
            ):
                seen += asyncio.run(run(url, these, at_once, True, until, console))
    return seen


def together(seen: list[Seen], run_name: str, part: str) -> list[Seen]:
    """What this part saw and the others of the same run have seen."""
    folder = FOLDER / "duplex" / run_name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part.replace('/', '-of-')}.json").write_text(json.dumps([asdict(one) for one in seen]))
    found = [Seen(**one) for path in sorted(folder.glob("*.json")) for one in json.loads(path.read_text())]
    return sorted(found, key=lambda one: (*KINDS, *PEOPLE).index(one.kind))


def tell_of_bad(seen: Sequence[Seen], console: Console) -> None:
    """Which questions were not answered, and, for all to see, what could not be played."""
    for one in seen:
        if one.unanswered:
            console.print(f"not answered: {one.kind} {one.name}", markup=False)
    failed = [one for one in seen if one.failed]
    if failed:
        text = "\n".join(f"{one.kind} {one.name}: {one.failed}" for one in failed)
        title = f"{len(failed)} of {len(seen)} scenes could not be played and are in none of the figures"
        console.print(Panel(Text(text), title=title, border_style="bold red"))


def plot(seen: Sequence[Seen], path: Path) -> None:
    """When the voice was lowered, silent and back, scene by scene."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 6), layout="constrained")
    kinds = list(dict.fromkeys(one.kind for one in seen if one.over_s is not None))
    for row, kind in enumerate(kinds):
        for mark, name, colour in (
            ("v", "lowered_ms", "C0"),
            ("s", "silent_ms", "C3"),
            ("^", "back_ms", "C2"),
        ):
            found = [value for one in seen if one.kind == kind and (value := getattr(one, name)) is not None]
            spread = [row - 0.25 + 0.5 * n / max(len(found) - 1, 1) for n in range(len(found))]
            axes.scatter(found, spread, s=18, marker=mark, alpha=0.7, color=colour)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xlabel("ms: lowered (v) and silent (square) from the onset, back (^) from the end")
    figure.savefig(path, dpi=130)


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=4, help="scenes of every kind")
    parser.add_argument("--speech", choices=SPEECH, default="figures")
    parser.add_argument("--seed", type=int, help="by default each set of speech has its own")
    parser.add_argument(
        "--kind", choices=(*KINDS, *PEOPLE), action="append", help="only these kinds; all without"
    )
    parser.add_argument("--part", default="1/1", help="play the I-th of N parts: I/N")
    parser.add_argument("--at-once", type=int, default=2, help="calls at a time")
    parser.add_argument("--minutes", type=float, default=60, help="begin no scene after so many")
    parser.add_argument("--human", type=Path, help="a folder of recordings: sentences/*.wav and noise/*.wav")
    parser.add_argument("--url", help="a Parley that runs, instead of one of our own")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    console = Console(stderr=True)
    where = report.machine()
    seed = SEEDS[options.speech] if options.seed is None else options.seed
    every = [
        scene
        for scene in scenes(options.each, seed, options.speech, options.human)
        if scene.kind in (options.kind or (*KINDS, *PEOPLE)) and (not options.url or scene.kind in BLACK_BOX)
    ]
    number, parts = (int(part) for part in options.part.split("/"))
    todo = every[number - 1 :: parts]
    if options.url:
        seen = asyncio.run(run(options.url, todo, options.at_once, False, until, console))
    else:
        seen = played(todo, options.at_once, until, console)
    kinds = "-".join(kind.replace(" ", "_") for kind in options.kind or ["all"])
    seen = together(
        seen, f"{report.commit()[:12]}-{options.speech}-{seed}-{options.each}-{kinds}", options.part
    )
    metrics, goals = summary(seen)
    metrics["scenes"] = [asdict(replace(one, caller=None, bot=None)) for one in seen]
    path = report.write("duplex", where, metrics, goals)
    plot(seen, path.with_suffix(".png"))
    path.with_suffix(".html").write_text(page(seen, goals))
    show(metrics["kinds"], goals, Console() if sys.stdout.isatty() else Console(width=120))
    tell_of_bad(seen, console)
    console.print(
        f"{len(seen)} scenes; written: {path.relative_to(report.ROOT)}, {path.stem}.png and {path.stem}.html"
    )
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
