"""Reading a scene's recording: who spoke when, and what became of the answer.

A question that is not answered is something that was seen, and counts. A scene has failed only if it could
not be played: the connection broke, or the bench itself was at fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot.headset import RATE
from bot.waveform import Pcm, delay_ms, first_loud, last_loud, spoken
from tests.bench.duplex.scenes import Scene
from tests.bot.speaking_engine import ANSWER

TIMES = 5  # the answer's words, over and over
ANSWER_S = TIMES * len(ANSWER) * 0.16
BLOCK = RATE // 100  # of an envelope: 10 ms
Levels = NDArray[np.float32]
LOWERED, SILENT, BACK = 0.7, 0.05, 0.8  # of the tone's own level: -3 dB is plainly lower
STOPPED_S = 1.5  # speech over a voice that is no tone has stopped it if that is silent by then


Said = tuple[float, float, str]
"""Words of the caller's: from, to (seconds in the recording), and which."""
Told = tuple[float, str, int, str]
"""A message to the page: when it came (seconds in the recording), its type, the turn, and what it says."""


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
    dimmed_ms: float = 0.0  # for how long its voice was lower or away, of an answer that was gone on with
    yielded: bool = False  # the answer was not gone on with
    answered_ms: float | None = None  # from the end of an interruption to the answer to it
    missing_ms: float = 0.0  # of an answer that was gone on with
    taken_over: bool = False  # the bot spoke in a pause of the caller's
    voice_to_voice_ms: float | None = None
    unanswered: bool = False  # a question got no answer, so there was none to speak over
    later_ms: float | None = None  # the answer after an outage came, than the same one before it
    outage_s: tuple[float, float] | None = None  # where in the recording nothing of the caller arrived
    failed: str = ""  # why the scene could not be played
    caller: list[float] | None = None  # both sides, 10 ms a value
    bot: list[float] | None = None
    said: list[Said] | None = None
    told: list[Told] | None = None

    @property
    def answered(self) -> bool:
        """Whether it was played and there was an answer, to be given up or gone on with."""
        return not self.failed and not self.unanswered


def look(
    scene: Scene, said: Pcm, bot: Pcm, asked: tuple[int, int], over: tuple[int, int] | None, toned: bool
) -> Seen:
    """Read it: both sides on one clock; where was asked, and where was said over the answer."""
    kind, name = scene.kind, scene.name
    if scene.echo is None:  # else the bot's own voice is among what was said
        asked = spoken(said, RATE, *asked) or asked
        over = over and (spoken(said, RATE, *over) or over)
    inside = over is None and first_loud(bot, asked[0] + RATE // 10, asked[1]) is not None
    begun = first_loud(bot, asked[1])
    if begun is None or (over is None and scene.over is not None):
        return Seen(kind, name, taken_over=inside, unanswered=True)
    latency = (begun - asked[1]) * 1000 / RATE
    if over is not None:
        return (_toned if toned else _spoken)(kind, name, bot, begun, over, latency)
    if scene.echo is not None:
        heard_s = float((levels(bot)[begun // BLOCK :] > _tone(bot) * SILENT).sum()) / 100
        missing = max(0.0, 1000 * (ANSWER_S - heard_s))
        yielded = missing > 500 or heard_s > ANSWER_S + 0.5
        dimmed = _dimmed(levels(bot)[begun // BLOCK :] / _tone(bot))
        return Seen(kind, name, yielded=yielded, missing_ms=missing, dimmed_ms=dimmed)
    return Seen(kind, name, taken_over=inside, voice_to_voice_ms=None if inside else latency)


def look_after(
    scene: Scene, said: Pcm, bot: Pcm, before: tuple[int, int], gone: tuple[int, int], after: tuple[int, int]
) -> Seen:
    """Read an outage: the same question was asked ``before`` and ``after`` nothing arrived for a while.

    Latency back to normal is that of the same call and words, so that neither the machine nor what is thought
    of the sound of the question can pass for what the outage left behind.
    """
    was = delay_ms(said, bot, RATE, *before, after[0])
    now = delay_ms(said, bot, RATE, *after, len(bot))
    silent = first_loud(bot, before[1], after[0]) is None or first_loud(bot, after[1]) is None
    return Seen(
        scene.kind,
        scene.name,
        voice_to_voice_ms=now,
        later_ms=None if was is None or now is None else now - was,
        unanswered=silent,
        taken_over=not silent and (was is None or now is None),
        outage_s=(gone[0] / RATE, gone[1] / RATE),
    )


def _toned(kind: str, name: str, bot: Pcm, begun: int, over: tuple[int, int], latency: float) -> Seen:
    level = levels(bot) / _tone(bot)
    start, end = (sample // BLOCK for sample in over)
    lowered, silent = _first(level < LOWERED, start), _first(level < SILENT, start)
    ends = _first(level < SILENT, start + 200)
    until = len(level) if ends is None else ends
    away = lowered is not None and lowered < min(end + 30, until)
    back = _first(level > BACK, max(end, lowered or 0)) if away else None
    heard_s = float((level[begun // BLOCK :] > SILENT).sum()) / 100
    before_s = (start * BLOCK - begun) / RATE
    # Another whole answer follows one that was given up.
    yielded = heard_s > ANSWER_S + 0.5 * max(before_s, 0.2)
    # What sounds next after a silence is the answer to it.
    gone = _first(level[: end + 30] < SILENT, start) if yielded else None
    answered = _first(level > SILENT, max(end, gone)) if gone is not None else None
    return Seen(
        kind,
        name,
        over_s=(start / 100, end / 100),
        lowered_ms=10.0 * (lowered - start) if away and lowered is not None else None,
        silent_ms=10.0 * (silent - start) if silent is not None and silent < end + 30 else None,
        back_ms=10.0 * (back - end) if back is not None and not yielded else None,
        again_ms=0.0 if silent is None else 10.0 * float((level[silent:end] > SILENT).sum()),
        dimmed_ms=0.0 if yielded else _dimmed(level[start : end + 100]),
        yielded=yielded,
        answered_ms=10.0 * (answered - end) if answered is not None else None,
        missing_ms=0.0 if yielded else max(0.0, 1000 * (ANSWER_S - heard_s)),
        voice_to_voice_ms=latency,
    )


def _spoken(kind: str, name: str, bot: Pcm, begun: int, over: tuple[int, int], latency: float) -> Seen:
    """Of a voice of unknown level, which has pauses of its own: only whether and when it stopped is known."""
    start, end = over
    if first_loud(bot, start - RATE // 4, start) is None:
        return Seen(kind, name, failed="the answer was over, or in a pause, before it was spoken over")
    limit = start + round(STOPPED_S * RATE)
    last = last_loud(bot, start, max(end, limit))
    stopped = last is None or last < limit
    answered = first_loud(bot, max(end, limit)) if stopped else None
    return Seen(
        kind,
        name,
        over_s=(start / RATE, end / RATE),
        silent_ms=((last or start) - start) * 1000 / RATE if stopped else None,
        yielded=stopped,
        answered_ms=(answered - end) * 1000 / RATE if answered is not None else None,
        voice_to_voice_ms=latency,
    )


def levels(wave: Pcm) -> Levels:
    """Root mean square of every 10 ms."""
    blocks = wave[: len(wave) // BLOCK * BLOCK].reshape(-1, BLOCK)
    found: Levels = np.sqrt((blocks**2).mean(1), dtype=np.float32)
    return found


def _tone(bot: Pcm) -> float:
    """The tone's own level: most of what sounds is that."""
    level = levels(bot)
    return float(np.median(level[level > 0.3 * level.max()]))


def _dimmed(level: Levels) -> float:
    """How long a voice that goes on was lower or away, in ms."""
    sounding = np.flatnonzero(level > SILENT)
    return 10.0 * float((level[: sounding[-1] if len(sounding) else 0] < LOWERED).sum())


def _first(true: np.ndarray[Any, np.dtype[np.bool_]], start: int) -> int | None:
    found = np.flatnonzero(true[start:])
    return start + int(found[0]) if len(found) else None
