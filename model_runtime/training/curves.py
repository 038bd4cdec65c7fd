"""Pictures of training: ``python -m model_runtime.training.curves --work DIR --out DIR``.

One PNG a stage whose log (`WORK/NAME.jsonl`) is there: its losses, and what was found on the way on
questions in voices it does not learn from.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

LOSSES = {
    "encoder": ("frames", "path", "intent", "mean_intent"),
    "language_model": ("speech", "opening", "intent"),
}
SHARES = ("hit", "phone_hit", "right")  # of what is practised on


def read(log: Path) -> list[dict[str, Any]]:
    """Its lines. A stage begun anew in the same folder goes on in the same log: only the last run counts."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    begun = max((at for at in range(1, len(lines)) if lines[at]["step"] <= lines[at - 1]["step"]), default=0)
    return lines[begun:]


def draw(name: str, lines: list[dict[str, Any]], out: Path) -> None:
    """``out/NAME.png``: losses on the left, shares that come out right on the right, over minutes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (losses, shares) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    minutes = [line["min"] for line in lines]
    for key in LOSSES[name]:
        losses.plot(minutes, [line.get(key) for line in lines], label=key)
    for key in SHARES:
        if key in lines[0]:
            shares.plot(minutes, [line.get(key) for line in lines], label=f"{key} (practised on)", alpha=0.5)
    examined = [line for line in lines if any(isinstance(value, dict) for value in line.values())]
    for key in sorted({key for line in examined for key, value in line.items() if isinstance(value, dict)}):
        seen = [line for line in examined if key in line]
        for part in ("intent", "right", "refused"):
            if part in seen[0][key]:
                shares.plot(
                    [line["min"] for line in seen],
                    [line[key][part] for line in seen],
                    "o-",
                    label=f"{key}: {part}",
                )
    losses.set(title=f"{name}: losses", xlabel="minutes", ylim=(0, None))
    shares.set(title="share right", xlabel="minutes", ylim=(0, 1))
    for axes in (losses, shares):
        axes.legend(fontsize="x-small")
        axes.grid(alpha=0.3)
    figure.savefig(out / f"{name}.png", dpi=90)
    pyplot.close(figure)


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--work", type=Path, required=True, help="holds the logs")
    parse.add_argument("--out", type=Path, required=True)
    args = parse.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in LOSSES:
        log = args.work / f"{name}.jsonl"
        if log.exists():
            draw(name, read(log), args.out)
            print(args.out / f"{name}.png")


if __name__ == "__main__":
    main()
