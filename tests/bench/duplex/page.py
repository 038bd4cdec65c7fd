"""The scenes of ``tests.bench.duplex`` as one page: both sides of each call on one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from tests.bench.duplex.reading import Seen
from tests.bench.report import Goal

PIXELS_A_S, HEIGHT = 90, 44
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
h2 { margin-top: 2rem } figure { margin: 0 0 1.2rem; overflow-x: auto } figcaption { margin-bottom: .2rem }
.bad { color: #b00020; font-weight: 600 } .caller { fill: #3b6fb6 } .bot { fill: #d0812b }
.over { fill: #3b6fb6; opacity: .12 } line { stroke-width: 1.5 } text { font-size: 11px; fill: #555 }
.lowered { stroke: #8a6d00 } .silent { stroke: #b00020 } .back { stroke: #1b7f3b }
"""


def page(seen: Sequence[Seen], goals: Sequence[Goal]) -> str:
    """HTML, with nothing to load."""
    rows = "".join(
        f"<li{'' if goal.met else ' class=bad'}>{escape(goal.name)}: {goal.value:g} {goal.unit}, "
        f"at most {goal.goal:g}</li>"
        for goal in goals
    )
    kinds = list(dict.fromkeys(one.kind for one in seen))
    scenes = "".join(
        f"<h2>{escape(kind)}</h2>{''.join(_scene(one) for one in seen if one.kind == kind)}" for kind in kinds
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Who has the floor</title>"
        f"<style>{STYLE}</style><h1>Who has the floor</h1><p>Above the caller, below the bot. Shaded: what "
        "was said over the bot; lines: its voice is lowered (ochre), silent (red), back (green).</p>"
        f"<ul>{rows}</ul>{scenes}</html>\n"
    )


def _scene(one: Seen) -> str:
    caption = f"{escape(one.name)}: {escape(_outcome(one))}"
    if one.caller is None or one.bot is None:
        return f"<figure><figcaption class=bad>{caption}</figcaption></figure>"
    width = PIXELS_A_S * len(one.caller) / 100
    marks = ""
    if one.over_s is not None:
        start, end = one.over_s
        marks = f"<rect class=over x={_x(start)} width={_x(end - start)} height={2 * HEIGHT} />"
        for name, ms, since in (
            ("lowered", one.lowered_ms, start),
            ("silent", one.silent_ms, start),
            ("back", one.back_ms, end),
        ):
            if ms is not None:
                x = _x(since + ms / 1000)
                marks += f"<line class={name} x1={x} x2={x} y1=0 y2={2 * HEIGHT} />"
    seconds = "".join(
        f"<text x={_x(s)} y={2 * HEIGHT + 12}>{s} s</text>" for s in range(len(one.caller) // 100 + 1)
    )
    waves = _wave(one.caller, "caller", HEIGHT / 2) + _wave(one.bot, "bot", 1.5 * HEIGHT)
    drawing = f"<svg width={width:.0f} height={2 * HEIGHT + 16} role=img>{marks}{waves}{seconds}</svg>"
    return f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>"


def _outcome(one: Seen) -> str:
    if one.failed:
        return f"failed: {one.failed}"
    said = ["taken over"] * one.taken_over
    if one.voice_to_voice_ms is not None:
        said.append(f"answered after {one.voice_to_voice_ms:.0f} ms")
    if one.over_s is not None:
        said.append("it stopped" if one.yielded else "it went on")
        said += [f"{one.missing_ms:.0f} ms missing"] * (one.missing_ms > 40)
    return ", ".join(said)


def _wave(levels: Sequence[float], name: str, middle: float) -> str:
    """The envelope, mirrored, as one shape."""
    scale = 0.45 * HEIGHT / max(*levels, 1e-6)
    above = [f"{_x(i / 100)},{middle - level * scale:.1f}" for i, level in enumerate(levels)]
    below = [f"{_x(i / 100)},{middle + level * scale:.1f}" for i, level in enumerate(levels)]
    return f"<polygon class={name} points='{' '.join(above + below[::-1])}' />"


def _x(seconds: float) -> str:
    return f"{np.round(PIXELS_A_S * seconds, 1):g}"
