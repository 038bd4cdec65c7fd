"""The scenes: what is said to the bot, and over what it says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from bot.talk import read_wav
from bot.waveform import Pcm
from tests.bench.duplex.line import Line
from tests.bench.duplex.sounds import QUIET_DB, SPEECH, Speech, cough, quieter, silence, typing

PAUSES_MS = (200, 280)  # shorter than any silence that ends a turn
LONG_PAUSES_MS = (500, 700)  # longer than what ends one of which nothing else is known
BACKGROUND_DB = -15.0
ECHO_DB = (-12.0, -24.0)
ECHO_MS = (100, 300)  # our own jitter buffer at the caller takes 80 of them
OUTAGE_MS = (300, 500)
LINES = {
    "5 % lost": Line(loss=0.05),
    "10 % lost": Line(loss=0.1),
    "20 % lost": Line(loss=0.2),
    "10 % lost in bursts": Line(loss=0.1, burst=4),
    "100 ms jitter": Line(jitter_ms=100),
    "reordering": Line(overtaken=0.1),
}
KINDS = (
    "turn end",
    "pause",
    "long pause",
    "back-channel",
    "cough",
    "typing",
    "interruption",
    "one word",
    "both at once",
    "background talk",
    *LINES,
    "echo",
    "echo interruption",
    "outage",
)
PEOPLE = ("person", "recorded noise")  # with a folder of recordings
YIELDING = ("interruption", "both at once", "person", *LINES)  # what the bot must stop at
HOLDING = ("back-channel", "cough", "typing", "background talk", "recorded noise")  # and what not


@dataclass(frozen=True)
class Echo:
    """The bot's own voice, coming back."""

    delay_ms: float
    db: float


@dataclass(frozen=True)
class Outage:
    """A stretch in which nothing of the caller arrives: ``between`` two turns, or amid one."""

    ms: float
    between: bool


@dataclass(frozen=True)
class Scene:
    """A question, and ``after_s`` of its answer ``over``, said over it. Without, the question is all.

    With an ``outage`` the question is asked before and after it.
    """

    kind: str
    name: str
    question: Callable[[], Pcm]
    over: Callable[[], Pcm] | None = None
    after_s: float = 0.0
    line: Line | None = None
    echo: Echo | None = None
    seed: int = 0  # of what its line does
    outage: Outage | None = None
    words: str = ""  # of the question
    over_words: str = ""  # or what else that is


def scenes(each: int, seed: int, speech: str, people: Path | None = None) -> Iterator[Scene]:
    """``each`` of every kind, the same from the same seed, whatever other kinds there are."""
    talk = SPEECH[speech]
    recorded = _recorded(people) if people else {}
    for number in range(each):
        for kind in (*KINDS, *recorded):
            yield _scene(kind, number, talk, recorded, random.Random(f"{seed} {kind} {number}"))


def _recorded(folder: Path) -> dict[str, list[Path]]:
    found = {
        "person": sorted(folder.glob("sentences/*.wav")),
        "recorded noise": sorted(folder.glob("noise/*.wav")),
    }
    return {kind: paths for kind, paths in found.items() if paths}


def _scene(
    kind: str, number: int, talk: Speech, recorded: dict[str, list[Path]], draw: random.Random
) -> Scene:
    voice = talk.voices[number % len(talk.voices)]
    asked = draw.choice(talk.questions)
    question, after, seed = partial(talk.say, asked, voice), draw.uniform(0.8, 2.0), draw.randrange(2**32)

    def over(texts: tuple[str, ...], db: float = 0.0, who: str = voice) -> Scene:
        text = texts[number % len(texts)]
        return Scene(
            kind,
            f"{text!r} {who}",
            question,
            lambda: quieter(talk.say(text, who), db),
            after,
            LINES.get(kind),
            seed=seed,
            words=asked,
            over_words=text,
        )

    match kind:
        case "turn end":
            return Scene(kind, f"{asked!r} {voice}", question, words=asked)
        case "pause" | "long pause":
            lengths = PAUSES_MS if kind == "pause" else LONG_PAUSES_MS
            ms = lengths[number % len(lengths)]
            halves = talk.halves[number // len(lengths) % len(talk.halves)]
            first, second = (partial(talk.say, half, voice) for half in halves)
            return Scene(
                kind,
                f"{ms} ms {voice}",
                lambda: np.concatenate([first(), silence(ms), second()]),
                words=" ... ".join(halves),
            )
        case "echo" | "echo interruption":
            echo = Echo(draw.uniform(*ECHO_MS), draw.uniform(*ECHO_DB))
            name = f"{echo.delay_ms:.0f} ms {echo.db:.0f} dB"
            if kind == "echo":
                return Scene(kind, name, question, echo=echo, words=asked)
            said = over(talk.interruptions)
            return replace(said, name=f"{said.name} over {name}", echo=echo)
        case "outage":
            outage = Outage(draw.uniform(*OUTAGE_MS), between=number % 2 == 0)
            where = "between turns" if outage.between else "amid a turn"
            name = f"{outage.ms:.0f} ms {where} {asked!r} {voice}"
            return Scene(kind, name, question, outage=outage, words=asked)
        case "back-channel":
            return over(talk.back_channels, QUIET_DB)
        case "cough" | "typing":
            sound = cough(draw) if kind == "cough" else typing(draw)
            return Scene(
                kind, f"{kind} {number}", question, lambda: sound, after, words=asked, over_words=f"({kind})"
            )
        case "one word":
            return over(talk.commands)
        case "background talk":
            return over(talk.background, BACKGROUND_DB, talk.voices[(number + 1) % len(talk.voices)])
        case "person" | "recorded noise":
            path = recorded[kind][number % len(recorded[kind])]
            return Scene(
                kind,
                path.stem,
                question,
                partial(_excerpt, path),
                after,
                words=asked,
                over_words=f"({path.stem})",
            )
        case "both at once":
            after = draw.uniform(0.0, 0.15)
    return over(talk.interruptions)


def _excerpt(path: Path) -> Pcm:
    """At most 2.5 s, as loud as the synthesised callers."""
    sound = read_wav(path)[: int(2.5 * 48_000)]
    return sound * np.float32(0.5 / max(np.abs(sound).max(), 1e-6))
