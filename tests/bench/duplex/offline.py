"""What is said over the bot, without a call: ``python -m tests.bench.duplex.offline``.

All of a set's callers say all of its words over an answer, cleanly and over a telephone, and so do noises;
the real ear, turn machine, judge and fader hear them on a virtual clock (``virtual``). Hundreds in a few
minutes, the same every time; what is left out is said there. ``--speech tuning`` is for whoever tunes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soxr
from rich.console import Console
from rich.table import Table

from bot.headset import RATE
from bot.talk import read_wav
from bot.waveform import Pcm
from model_runtime.interjections import MODEL, Interjections
from model_runtime.training import augment
from pipeline.interjection import Kinds
from tests.bench import report
from tests.bench.duplex.figures import share
from tests.bench.duplex.reading import Seen
from tests.bench.duplex.scenes import BACKGROUND_DB, Scene
from tests.bench.duplex.sounds import (
    QUIET_DB,
    SPEECH,
    Speech,
    breath,
    cough,
    laughter,
    quieter,
    silence,
    typing,
)
from tests.bench.duplex.virtual import Decided, play, settings
from tests.bench.report import FOLDER, Goal, percentile

HOLDS = ("back-channel", "cough", "breath", "laughter", "typing", "recorded noise")  # what must not stop it
STOPS = ("one word", "few words", "halting", "sentence", "person")
NOISES = {"cough": cough, "breath": breath, "laughter": laughter, "typing": typing}
TIMES = ("lowered_ms", "silent_ms", "back_ms", "dimmed_ms", "again_ms")
HALT_MS = (250, 450)  # a pause of who cuts in with two words
PHONE_HISS_DB = -55.0
SCENES_SEED = 5


@dataclass(frozen=True)
class Case:
    """A scene, by whom, and what the line is like."""

    scene: Scene
    voice: str
    line: str


def cases(speech: str, noises: int, people: Path | None) -> Iterator[Case]:
    """All that is said in a set of speech, over either line; the same every time."""
    talk = SPEECH[speech]
    draw = random.Random(f"{speech} {SCENES_SEED}")
    for line in ("clean", "phone"):
        for voice in talk.voices:
            for kind, text, sound in _spoken(talk, voice):
                yield _case(kind, text, sound, talk, voice, line, draw)
        for kind, make in NOISES.items():
            for number in range(noises):
                sound = partial(make, random.Random(f"{speech} {line} {kind} {number}"))
                voice = talk.voices[number % len(talk.voices)]
                yield _case(kind, f"{number}", sound, talk, voice, line, draw)
    for kind, name, sound in _recorded(people) if people else ():
        yield _case(kind, name, sound, talk, talk.voices[0], "clean", draw)


def _spoken(talk: Speech, voice: str) -> Iterator[tuple[str, str, Callable[[], Pcm]]]:
    """Kind, text and sound of all that a voice can say."""

    def say(text: str, who: str = voice, db: float = 0.0) -> Callable[[], Pcm]:
        return lambda: quieter(kept(talk.say, text, who), db)

    def halting(first: Callable[[], Pcm], ms: int, second: Callable[[], Pcm]) -> Callable[[], Pcm]:
        return lambda: np.concatenate([first(), silence(ms), second()])

    for text in talk.back_channels:
        if "diphone" in voice or not text.startswith("["):  # others have no phones to be told
            yield "back-channel", text, say(text, db=QUIET_DB)
    for kind, texts in (
        ("one word", talk.commands),
        ("few words", talk.few_words),
        ("sentence", talk.interruptions),
    ):
        for text in texts:
            yield kind, text, say(text)
    for number, text in enumerate(talk.commands):
        then = talk.commands[(number + 1) % len(talk.commands)]
        yield "halting", f"{text}, ... {then}", halting(say(text), HALT_MS[number % 2], say(then))
    other = talk.voices[(talk.voices.index(voice) + 1) % len(talk.voices)]
    for text in talk.background:
        yield "background talk", text, say(text, other, BACKGROUND_DB)


def _case(
    kind: str, text: str, sound: Callable[[], Pcm], talk: Speech, voice: str, line: str, draw: random.Random
) -> Case:
    question = partial(kept, talk.say, talk.questions[0], voice)
    seed = draw.randrange(2**32)
    if line == "phone":
        question, sound = (partial(by_phone, one, seed) for one in (question, sound))
    return Case(Scene(kind, text, question, sound, draw.uniform(0.5, 1.0), seed=seed), voice, line)


def by_phone(sound: Callable[[], Pcm], seed: int) -> Pcm:
    """Over G.711, 6 dB softer, with a microphone of its own."""
    draw = np.random.default_rng(seed)
    wave = augment.shaped(soxr.resample(sound(), RATE, augment.RATE), draw, 5.0)
    wave = augment.telephone(0.5 * wave, bool(draw.integers(2)), 200.0, 3700.0)
    back: Pcm = soxr.resample(wave, augment.RATE, RATE).astype(np.float32)
    return back


def kept(say: Callable[[str, str], Pcm], text: str, voice: str) -> Pcm:
    """Said once, and kept for the next time: the engines take longer than the calls."""
    name = hashlib.sha256(f"{say.__module__} {say.__name__} {voice} {text}".encode()).hexdigest()[:24]
    path = FOLDER / "duplex" / "sounds" / f"{name}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, say(text, voice))
    sound: Pcm = np.load(path)
    return sound


def _recorded(folder: Path) -> Iterator[tuple[str, str, Callable[[], Pcm]]]:
    """People's sentences and words, and every 2.5 s of recorded noises."""
    for path in sorted(folder.glob("sentences/*.wav")):
        yield "person", path.stem, partial(_excerpt, path, 0.0)
    for path in sorted(folder.glob("digits/*_[01].wav")):
        yield "spoken digit", path.stem, partial(_excerpt, path, 0.0)
    for path in sorted(folder.glob("noise/*.wav")):
        for second in range(0, max(1, round(len(read_wav(path)) / RATE) - 2), 2):
            yield "recorded noise", f"{path.stem} {second} s", partial(_excerpt, path, float(second))


def _excerpt(path: Path, start_s: float) -> Pcm:
    sound = read_wav(path)[round(start_s * RATE) :][: round(2.5 * RATE)]
    return sound * np.float32(0.5 / max(np.abs(sound).max(), 1e-6))


def run(
    todo: Sequence[Case], kinds: Kinds | None, console: Console
) -> list[tuple[Case, Seen, list[Decided]]]:
    """All of them, one after another."""
    begun, found = time.monotonic(), []
    for case in todo:
        seen, decided = asyncio.run(
            play(
                case.scene,
                settings(kinds is not None),
                kinds,
                PHONE_HISS_DB if case.line == "phone" else None,
            )
        )
        found.append((case, seen, decided))
    console.print(f"{len(found)} played in {time.monotonic() - begun:.0f} s")
    return found


def figures(seen: Sequence[Seen]) -> dict[str, float | int]:
    """What they come to: shares, and times in ms."""
    sound = [one for one in seen if one.answered]
    row: dict[str, float | int] = {
        "n": len(sound),
        "stopped": share(one.yielded for one in sound),
        "fell silent": share(one.silent_ms is not None for one in sound),
    }
    for name in TIMES:
        these = [value for one in sound if (value := getattr(one, name)) is not None]
        row |= {f"{name} p50": percentile(these, 50), f"{name} p95": percentile(these, 95)}
    return row


def goals(seen: Sequence[Seen]) -> list[Goal]:
    """Issue's, as far as they can be told without a line."""

    def of(*kinds: str) -> list[Seen]:
        return [one for one in seen if one.kind in kinds and one.answered]

    def times(name: str, *kinds: str) -> list[float]:
        return [value for one in of(*kinds) if (value := getattr(one, name)) is not None]

    def percent(values: Iterator[bool]) -> float:
        return 100 * share(values)

    noises = [kind for kind in HOLDS if kind != "back-channel"]
    found = [
        Goal.at_most(
            "sentences not yielded to", percent(not one.yielded for one in of("sentence", "person")), 1, "%"
        ),
        Goal.at_most(
            "back-channels that stopped it", percent(one.yielded for one in of("back-channel")), 5, "%"
        ),
        Goal.at_most("noises that stopped it", percent(one.yielded for one in of(*noises)), 5, "%"),
        Goal.at_most("onset to lowered, p95", percentile(times("lowered_ms", "sentence"), 95), 60, "ms"),
        Goal.at_most("onset to silence, p50", percentile(times("silent_ms", "sentence"), 50), 250, "ms"),
        Goal.at_most("onset to silence, p95", percentile(times("silent_ms", "sentence"), 95), 400, "ms"),
        Goal.at_most(
            "back after a back-channel, p95", percentile(times("back_ms", "back-channel"), 95), 200, "ms"
        ),
        Goal.at_most("back after a noise, p95", percentile(times("back_ms", *noises), 95), 200, "ms"),
        Goal.at_most(
            "missing of answers gone on with, max", max((one.missing_ms for one in seen), default=0), 40, "ms"
        ),
    ]
    return [goal for goal in found if goal.value == goal.value]


def show(groups: dict[str, list[Seen]], title: str, console: Console) -> None:
    """A table, a line for each group."""
    heads = ("", "n", "stopped", "fell silent", "lowered", "silent", "back", "dimmed", "again")
    table = Table(*heads, title=f"{title} (ms: p50 / p95)")
    for name, seen in groups.items():
        row = figures(seen)
        times = [
            "-"
            if row[f"{time} p50"] != row[f"{time} p50"]
            else f"{row[f'{time} p50']:.0f} / {row[f'{time} p95']:.0f}"
            for time in TIMES
        ]
        table.add_row(name, str(row["n"]), f"{row['stopped']:.2f}", f"{row['fell silent']:.2f}", *times)
    console.print(table)


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speech", choices=SPEECH, default="figures")
    parser.add_argument("--noises", type=int, default=15, help="of each kind, over each line")
    parser.add_argument("--kind", action="append", help="only these; all without")
    parser.add_argument("--human", type=Path, help="a folder of recordings: sentences, digits, noise/*.wav")
    parser.add_argument("--net", type=Path, default=MODEL, help="another judge's")
    parser.add_argument("--unjudged", action="store_true", help="by length alone")
    parser.add_argument("--each", action="store_true", help="tell of each utterance what was decided when")
    options = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=130)
    todo = [
        case
        for case in cases(options.speech, options.noises, options.human)
        if case.scene.kind in (options.kind or [case.scene.kind])
    ]
    found = run(todo, None if options.unjudged else Interjections(options.net).kinds, console)
    if options.each:
        for case, seen, decided in found:
            told = " ".join(f"{type(one.action).__name__}@{one.at // 16}" for one in decided[:12])
            what = f"{case.scene.kind}, {case.scene.name} ({case.voice}, {case.line})"
            mark = "STOP" if seen.yielded else "goes on"
            console.print(f"{what}: {mark}, back {seen.back_ms}: {told}", markup=False, soft_wrap=True)
    by_kind: dict[str, list[Seen]] = {}
    by_voice: dict[str, list[Seen]] = {}
    for case, seen, _ in found:
        by_kind.setdefault(case.scene.kind, []).append(seen)
        if case.scene.kind in ("back-channel", "one word", "few words", "halting", "sentence"):
            by_voice.setdefault(f"{case.scene.kind}, {case.voice}, {case.line}", []).append(seen)
    show(by_kind, f"{options.speech}, by kind", console)
    show(dict(sorted(by_voice.items())), f"{options.speech}, by voice", console)
    every = [seen for _, seen, _ in found]
    met = goals(every)
    report.show(met, console)
    metrics = {
        "kinds": {kind: figures(seen) for kind, seen in by_kind.items()},
        "voices": {name: figures(seen) for name, seen in by_voice.items()},
        "utterances": [asdict(seen) | {"voice": case.voice, "line": case.line} for case, seen, _ in found],
    }
    path = report.write(
        f"duplex_offline-{options.speech}", report.machine(), json.loads(json.dumps(metrics)), met
    )
    console.print(f"written: {path.relative_to(report.ROOT)}")
    for one in every:
        if not one.answered:
            console.print(f"not answered: {one.kind} {one.name}", markup=False)
    return 0 if all(goal.met for goal in met) else 1


if __name__ == "__main__":
    sys.exit(main())
