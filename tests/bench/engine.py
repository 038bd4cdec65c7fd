"""How many calls one engine speaks to at once: ``python -m tests.bench.engine``.

Starts an engine as Parley does and opens 1, 4, ... sessions on it. Each asks again and again, hears the
answer at the speed at which it is spoken, and asks anew a moment after it has ended. Time to first audio runs
from the request to the first frame of speech received; an under-run is a frame that comes after what was
there has been played. What the engine's time went on, and its memory, it tells itself (``GET /figures``).

Everything is run in the same way in each mode: as Parley runs; one id and one chunk at a time; and as the
reference implementation works, which makes one reply after another, in chunks of 25 codes and 3 of
look-ahead, the flow in float32, nothing recorded.

``--checkpoint published`` measures on a GPU what the published model would cost there, by random weights of
its dimensions (``published``); the default is nano. Options that are not the bench's own are the engine's.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench import device, energy, report
from tests.bench.engine_report import PARLEY, goals, plot, table
from tests.bench.level import Level, figures, load
from tests.bench.served import EngineFailed, engine

NANO = report.ROOT / "model_runtime" / "checkpoints" / "nano"
RAM_DISK = Path("/dev/shm")  # where a large checkpoint is written and read in no time
ROOM = 20e9  # bytes that the published one needs there
WIDTH = 160  # columns of the table where no terminal says how many there are
SLACK_S = 15.0  # that a level may take beyond its seconds: the replies that are being spoken then


@dataclass(frozen=True)
class Mode:
    """One way to run the engine. ``one_by_one``: the next reply is begun when the last has been made."""

    options: tuple[str, ...] = ()
    one_by_one: bool = False


REFERENCE = "reference"
SINGLE = ("--decode-batch", "1", "--speech-batch", "1")
MODES = {
    PARLEY: Mode(),
    "single": Mode(SINGLE),
    # Whatever the engine learns to do faster than the reference has to be switched off by that option.
    REFERENCE: Mode((*SINGLE, "--like-reference"), one_by_one=True),
}


@dataclass(frozen=True)
class Setup:
    """What is measured of a checkpoint unless one says otherwise.

    ``levels`` are those of Parley's mode, ``baseline`` those of the others; ``heard_s`` is what a caller says
    before each answer, 0 to ask in writing.
    """

    levels: str
    baseline: str
    modes: tuple[str, ...] = tuple(MODES)
    options: tuple[str, ...] = ("--max-sessions", "256")
    heard_s: float = 0.0


OTHER = Setup("1,4,8,16", "1,4,8,16")
# Replies of random weights never end: they are cut at 4 s. A context of 4096 is three minutes of a call.
RANDOM = ("--max-sessions", "136", "--max-context", "4096", "--max-reply", "4")
SETUPS = {
    "nano": OTHER,
    # With all that has to be made and loaded this is meant to fit into ten minutes.
    "published": Setup("1:50,4:25,16:25,64:30,128:120", "1:25,4:25", (PARLEY, REFERENCE), RANDOM, 2.0),
    "small": Setup("1:3,4:3", "1:3,4:3", (PARLEY, REFERENCE), RANDOM, 2.0),
}


@contextmanager
def folder_of(checkpoint: str, kind: str) -> Iterator[str]:
    """Where the checkpoint lies, which is made for the purpose if it is one of random weights."""
    if checkpoint not in ("published", "small"):
        yield str(NANO) if checkpoint == "nano" else checkpoint
        return
    size = "mini" if checkpoint == "published" else checkpoint
    if size == "mini" and kind != "cuda":
        raise SystemExit("The published dimensions need a GPU; `--checkpoint small` tries the bench itself.")
    roomy = RAM_DISK.is_dir() and shutil.disk_usage(RAM_DISK).free > ROOM
    with tempfile.TemporaryDirectory(prefix="parley-bench-", dir=RAM_DISK if roomy else None) as place:
        folder = str(Path(place) / "checkpoint")
        subprocess.run([sys.executable, "-m", "tests.bench.published", folder, "--size", size], check=True)
        yield folder


def plan(levels: str, seconds: float) -> list[tuple[int, float]]:
    """``1,4:60`` as sessions and seconds. Raises ValueError on nonsense."""
    told = [level.partition(":") for level in levels.split(",")]
    return [(int(sessions), float(own or seconds)) for sessions, _, own in told]


class Bench:
    """One run: what has been measured, written again after every level, so that nothing can be lost."""

    def __init__(self, options: argparse.Namespace, found: dict[str, Any]) -> None:
        """Nothing measured yet; ``found`` is what is known of the device."""
        self.options = options
        self.console = Console(width=None if sys.stdout.isatty() else WIDTH)
        self.where = report.machine() | {"device": found}
        self.levels: list[Level] = []
        self.skipped: list[str] = []
        self._bandwidth: float = found["copy_bandwidth"]
        self._deadline = time.monotonic() + options.limit

    def run(
        self, folder: str, mode: str, levels: Sequence[tuple[int, float]], joules: energy.Joules | None
    ) -> None:
        """All levels of one mode, as far as time allows."""
        way, options = MODES[mode], self.options
        log = options.out / f"engine-{mode}.log"
        with engine(folder, [*options.engine, *way.options], log) as path:
            for sessions, seconds in levels:
                if time.monotonic() + seconds + SLACK_S > self._deadline:
                    self.skipped.append(f"{mode}, {sessions} sessions")
                    continue
                self.console.print(f"{mode}: {sessions} sessions, {seconds:g} s")
                level = Level(mode, sessions, options.hear)
                before = joules() if joules else None
                asyncio.run(load(path, level, seconds, way.one_by_one))
                if joules and before is not None:
                    level.joules = joules() - before
                self.levels.append(level)
                self.write()

    def write(self) -> None:
        """What there is, as JSON and as a plot."""
        told = [figures(level, self._bandwidth) for level in self.levels]
        metrics = {"checkpoint": self.options.checkpoint, "heard_s": self.options.hear}
        metrics |= {"engine_options": self.options.engine, "levels": told, "skipped": self.skipped}
        aims = goals(told, self.options.checkpoint, self.where["device"]["kind"])
        path = report.write("engine", self.where, metrics, aims, self.options.out)
        plot(told, path.with_suffix(".png"))

    def tell(self) -> bool:
        """Print it all. Whether every goal is met."""
        told = [figures(level, self._bandwidth) for level in self.levels]
        aims = goals(told, self.options.checkpoint, self.where["device"]["kind"])
        self.console.print(table(told))
        for skipped in self.skipped:
            self.console.print(f"[bold red]left out for want of time[/]  {skipped}")
        report.show(aims, self.console)
        return all(goal.met for goal in aims)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, those of the checkpoint's setup where none are given; ``engine`` are the engine's own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", default="nano", help="nano, published, small (both of random weights), or a folder")
    add("--levels", help="sessions at once in Parley's mode, each with :SECONDS if it wants its own")
    add("--baseline", metavar="LEVELS", help="the same for the other modes")
    add("--modes", help=f"of {', '.join(MODES)}")
    add("--seconds", type=float, default=30.0, help="of every level that has none of its own")
    add("--hear", type=float, help="seconds each caller says before an answer; 0 asks in writing")
    add("--limit", type=float, default=float("inf"), help="seconds after which no further level is begun")
    add("--out", type=Path, default=report.FOLDER, help="where the JSON, the plot and the logs go")
    options, rest = parser.parse_known_args(arguments)
    setup = SETUPS.get(options.checkpoint, OTHER)
    options.engine = [*setup.options, *rest]
    options.hear = setup.heard_s if options.hear is None else options.hear
    options.modes = (options.modes or ",".join(setup.modes)).split(",")
    if unknown := set(options.modes) - MODES.keys():
        parser.error(f"there is no mode {min(unknown)!r}")
    try:
        options.levels = plan(options.levels or setup.levels, options.seconds)
        options.baseline = plan(options.baseline or setup.baseline, options.seconds)
    except ValueError as error:
        parser.error(f"levels are numbers of sessions, as in 1,4:60: {error}")
    return options


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options, device.measured())
    with (
        folder_of(options.checkpoint, bench.where["device"]["kind"]) as folder,
        energy.meter() as (by, joules),
    ):
        bench.where["device"]["energy_by"] = by
        for mode in options.modes:
            try:
                bench.run(folder, mode, options.levels if mode == PARLEY else options.baseline, joules)
            except EngineFailed as failure:
                failed = Level(mode, 0)
                failed.failed.append(f"the engine did not start: {failure}")
                bench.levels.append(failed)
                bench.console.print(str(failure))
    bench.write()
    return 0 if bench.tell() else 1


if __name__ == "__main__":
    sys.exit(main())
