"""One scene as SVG: who said what, both waveforms and what was decided, on one time axis.

From above: the caller's words, the caller, the bot, what of the bot's words was heard, how far its voice gave
way, and what the turn machine was told and decided, each at the moment at which it was known at the caller.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape

from tests.bench.duplex.reading import Seen, Told

GUTTER, PIXELS_A_S = 58, 80
WAVE, LINE, GAP = 46, 13, 5  # heights: a waveform, a line of text, what is between two rows
LETTER = 5.9  # width of one, on average
MOST_LINES = 4
GROUP_S = 0.16  # a word of the bot's is told of when its sound is over
BLOCKS = 2  # of 10 ms that are drawn as one
GIVING_WAY = {"dip": "dip", "duck": "duck", "hold": "hold", "stop": "", "resume": "", "drop": ""}
WORDS = {
    "speculate": "begins an answer",
    "speak": "lets it be heard",
    "drop": "drops it",
    "stop": "stops",
    "dip": "dips",
    "duck": "ducks",
    "hold": "holds still",
    "resume": "goes on",
    "finished": "sounds finished",
    "unfinished": "sounds unfinished",
    "open": "may be anything",
    "noise": "a noise",
    "back-channel": "a back-channel",
    "likely back-channel": "likely a back-channel",
    "barge-in": "words",
}
ACTIONS = ("speculate", "speak", "drop", "stop", "dip", "duck", "hold", "resume")
"""The others are what it was told."""


@dataclass(frozen=True)
class Words:
    """Some that belong to a stretch of time, and how they ended."""

    start_s: float
    end_s: float
    text: str
    ended: str = ""  # "interrupted" or "withdrawn"


@dataclass(frozen=True)
class Label:
    """What was decided when; ``times`` in a row."""

    at_s: float
    what: str
    times: int = 1

    @property
    def text(self) -> str:
        """In words."""
        said = WORDS.get(self.what, self.what)
        return f"{said} ×{self.times}" if self.times > 1 else said


def spoken_by_bot(told: Sequence[Told]) -> list[Words]:
    """What of each turn was heard."""
    found: dict[int, Words] = {}
    for at, kind, turn, text in told:
        if kind == "bot-text":
            so_far = found.get(turn, Words(at - GROUP_S, at, ""))
            found[turn] = replace(so_far, end_s=at, text=so_far.text + text)
        elif kind in ("interrupted", "withdrawn") and turn in found:
            found[turn] = replace(found[turn], ended=kind)
    return list(found.values())


def spoken_by_caller(one: Seen) -> list[Words]:
    """What the scene has them say, and what the model understood, where it hears words."""
    said = [Words(*span) for span in one.said or []]
    for at, kind, _, text in one.told or []:
        if kind == "user-text":
            said.append(Words(at, at + LETTER * (len(text) + 9) / PIXELS_A_S, f"heard: {text}"))
    return said


def decisions(told: Sequence[Told]) -> list[Label]:
    """All that was decided and opined; the same opinion again and again is one."""
    found: list[Label] = []
    for at, kind, _, what in told:
        if kind != "decided":
            continue
        if found and found[-1].what == what and what not in ACTIONS:
            found[-1] = replace(found[-1], times=found[-1].times + 1)
        else:
            found.append(Label(at, what))
    return found


def rows(labels: Sequence[Label]) -> list[int]:
    """Which row each is in: the first in which neither it nor the line down to it meets one that is later."""
    free_to: list[float] = []
    found = []
    for label in reversed(labels):
        x = PIXELS_A_S * label.at_s
        right = x + LETTER * len(label.text) + 8
        row = next((n for n, limit in enumerate(free_to) if right <= limit), len(free_to))
        free_to[: row + 1] = [x] * (row + 1)
        found.append(row)
    return found[::-1]


def drawing(one: Seen) -> str:
    """The whole of it. ``one`` has both waveforms."""
    assert one.caller is not None
    assert one.bot is not None
    told = one.told or []
    seconds = max(len(one.caller), len(one.bot)) / 100
    above, top = _words(spoken_by_caller(one), "caller", 0)
    caller, bot = top, top + WAVE + GAP
    end = bot + WAVE
    strip, y = end + GAP, end + GAP + 6
    below, y = _words(spoken_by_bot(told), "bot", y + GAP)
    decided, bottom = _decisions(decisions(told), end, y)
    parts = [
        _axis(seconds, caller, bottom),
        _outage(one, caller),
        _over(one, caller, end),
        _wave(one.caller, "caller", caller + WAVE / 2),
        _wave(one.bot, "bot", bot + WAVE / 2),
        _measured(one, bot, end),
        _gave_way(told, strip, seconds),
        decided,  # behind the words
        above,
        below,
        *(_name(name, y) for name, y in (("caller", caller + WAVE / 2), ("bot", bot + WAVE / 2))),
        _name("decided", y + LINE / 2 + 2) if decided else "",
    ]
    width, height = _x(seconds) + 10, bottom + LINE + 4
    return (
        f'<svg width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escape(one.name)}">'
        f"{''.join(parts)}</svg>"
    )


def _x(seconds: float) -> float:
    return round(GUTTER + PIXELS_A_S * seconds, 1)


def _name(name: str, y: float) -> str:
    return f'<text class="name" x="0" y="{y + 4:g}">{name}</text>'


def _axis(seconds: float, top: float, bottom: float) -> str:
    ticks = range(int(seconds) + 1)
    return "".join(
        f'<line class="grid" x1="{_x(s):g}" x2="{_x(s):g}" y1="{top:g}" y2="{bottom:g}"/>'
        f'<text class="tick" x="{_x(s):g}" y="{bottom + LINE:g}">{s} s</text>'
        for s in ticks
    )


def _wave(levels: Sequence[float], name: str, middle: float) -> str:
    """The envelope, mirrored, as one shape."""
    loudest = [max(levels[n : n + BLOCKS]) for n in range(0, len(levels), BLOCKS)]
    scale = 0.47 * WAVE / max(*loudest, 1e-6)
    xs = [_x((n + 0.5) * BLOCKS / 100) for n in range(len(loudest))]
    above = [f"{x:g},{middle - level * scale - 0.3:.1f}" for x, level in zip(xs, loudest, strict=True)]
    below = [f"{x:g},{middle + level * scale + 0.3:.1f}" for x, level in zip(xs, loudest, strict=True)]
    return f'<polygon class="{name} wave" points="{" ".join(above + below[::-1])}"/>'


def _words(said: Sequence[Words], name: str, y: float) -> tuple[str, float]:
    """Boxes as long as what they hold took, and where they end."""
    boxes, lines_high = "", 0
    for words in said:
        width = max(PIXELS_A_S * (words.end_s - words.start_s), 2 * LETTER)
        text = " ".join(words.text.split())
        lines = textwrap.wrap(
            text, max(4, int((width - 8) / LETTER)), max_lines=MOST_LINES, placeholder=" …"
        ) or [""]
        lines_high = max(lines_high, len(lines))
        rest = "".join(
            f'<text x="5" y="{(n + 1) * LINE - 2}">{escape(line)}</text>' for n, line in enumerate(lines)
        )
        height = len(lines) * LINE + 4
        edge = f'<rect class="cut" x="{width - 3:.1f}" width="3" height="{height}"/>' if words.ended else ""
        title = f"{words.start_s:.2f} to {words.end_s:.2f} s: {text} {words.ended}"
        boxes += (
            f'<svg class="{name} words {words.ended}" x="{_x(words.start_s):g}" y="{y:g}" '
            f'width="{width:.1f}" height="{height}"><title>{escape(title)}</title>'
            f'<rect class="box" width="100%" height="100%" rx="4"/>{edge}{rest}</svg>'
        )
    return boxes, y + (lines_high * LINE + 4 + GAP if lines_high else 0)


def _outage(one: Seen, top: float) -> str:
    if one.outage_s is None:
        return ""
    start, end = one.outage_s
    return (
        f'<rect class="outage" x="{_x(start):g}" y="{top:g}" width="{PIXELS_A_S * (end - start):.1f}" '
        f'height="{WAVE}"><title>nothing arrived: {start:.2f} to {end:.2f} s</title></rect>'
    )


def _over(one: Seen, top: float, bottom: float) -> str:
    if one.over_s is None:
        return ""
    start, end = one.over_s
    width = PIXELS_A_S * (end - start)
    return f'<rect class="over" x="{_x(start):g}" y="{top:g}" width="{width:.1f}" height="{bottom - top:g}"/>'


def _measured(one: Seen, top: float, bottom: float) -> str:
    """What was read from the bot's waveform."""
    if one.over_s is None:
        return ""
    start, end = one.over_s
    return "".join(
        f'<line class="{name} mark" x1="{x:g}" x2="{x:g}" y1="{top:g}" y2="{bottom:g}">'
        f"<title>{name} after {ms:.0f} ms</title></line>"
        for name, ms, since in (
            ("lowered", one.lowered_ms, start),
            ("silent", one.silent_ms, start),
            ("back", one.back_ms, end),
        )
        if ms is not None and (x := _x(since + ms / 1000))
    )


def stretches(told: Sequence[Told], seconds: float) -> Iterator[tuple[str, float, float]]:
    """How far the voice gave way, from when to when."""
    since, how = 0.0, ""
    for at, kind, _, what in told:
        if kind == "decided" and what in GIVING_WAY:
            if how:
                yield how, since, at
            since, how = at, GIVING_WAY[what]
    if how:
        yield how, since, seconds


def _gave_way(told: Sequence[Told], y: float, seconds: float) -> str:
    return "".join(
        f'<rect class="{how}" x="{_x(start):g}" y="{y:g}" width="{PIXELS_A_S * (end - start):.1f}" '
        f'height="6"><title>{how}: {start:.2f} to {end:.2f} s</title></rect>'
        for how, start, end in stretches(told, seconds)
    )


def _decisions(labels: Sequence[Label], top: float, y: float) -> tuple[str, float]:
    """Each below its moment, with a line up to it, and where they end."""
    parts = ""
    placed = rows(labels)
    for label, row in zip(labels, placed, strict=True):
        x, base = _x(label.at_s), y + (row + 1) * LINE
        kind = label.what if label.what in ACTIONS else "opinion"
        parts += (
            f'<g class="{kind} decision"><title>{label.at_s:.2f} s: {escape(label.text)}</title>'
            f'<line x1="{x:g}" x2="{x:g}" y1="{top:g}" y2="{base:g}"/>'
            f'<text x="{x + 4:g}" y="{base - 1:g}">{escape(label.text)}</text></g>'
        )
    return parts, y + (max(placed) + 1) * LINE + GAP if placed else y
