"""What every benchmark writes: ``build/bench/NAME.json`` with its figures and whether its goals are met."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Goal:
    """A figure and what it should be at most."""

    name: str
    value: float
    goal: float
    unit: str
    met: bool

    @classmethod
    def at_most(cls, name: str, value: float, goal: float, unit: str) -> Goal:
        """Met if ``value`` is not above ``goal``; never by a figure that is missing (nan)."""
        return cls(name, round(value, 1), goal, unit, value <= goal)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of all do not exceed; nan without values."""
    if not values:
        return float("nan")
    return float(np.percentile(np.asarray(values), percent, method="inverted_cdf"))


def show(goals: Sequence[Goal], console: Console) -> None:
    """Print which goals are met."""
    for goal in goals:
        mark = "[green]met[/]" if goal.met else "[bold red]not met[/]"
        console.print(f"{mark}  {goal.name}: {goal.value:g} {goal.unit}, at most {goal.goal:g}")


def machine() -> dict[str, Any]:
    """Where the figures were made, and how busy it was."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def commit() -> str:
    """The commit that was measured; ``-dirty`` if the tree differed from it.

    A copy of the tree that knows nothing of git is told it in ``BENCH_COMMIT``.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    if told := os.environ.get("BENCH_COMMIT"):
        return told
    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return (git("rev-parse", "HEAD") or "unknown") + ("-dirty" if changed else "")
    except OSError:
        return "unknown"


def write(
    name: str, where: dict[str, Any], metrics: dict[str, Any], goals: list[Goal], folder: Path = FOLDER
) -> Path:
    """Write the JSON. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": where,
        "metrics": metrics,
        "goals": [asdict(goal) for goal in goals],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
