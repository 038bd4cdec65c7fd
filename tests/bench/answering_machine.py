"""Who has answered: ``python -m tests.bench.answering_machine [--set figures] [--human FOLDER]``.

Labelled answers of calls, over a clean line and over G.711 with noise, to ``AnsweringMachineDetector``: what
it takes each for, and how long after the end of the first phrase. Thresholds are chosen on the set
``tuning``; ``figures`` has other words, other voices (another engine, and people, if ``--human`` names a
folder with ``digits`` and ``sentences``), other tones and other noise, and was not looked at for that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from rich.console import Console
from rich.table import Table

from bot.waveform import Pcm, spoken
from model_runtime.training.augment import RATE, coloured, telephone, with_noise
from model_runtime.training.synthesise import Voice, speak
from pipeline.answering_machine import AnsweringMachineDetector, Found
from pipeline.segmenter import FRAME_BYTES, FRAME_MS
from tests.bench import report
from tests.bench.report import Goal
from tests.e2e import speakers

LATEST_MS = 1500.0  # after the end of the first phrase
MOST_WRONG = 5.0  # %
LINES = ("clean", "G.711, 20 dB", "G.711, 10 dB")

PERSONS = {
    "tuning": ["Hello?", "Yes?", "Hello, this is Anna.", "Smith speaking.", "Good morning, who is this?",
               "Hi."],
    "figures": ["Hello.", "Yes, hello?", "Speaking.", "Hello, Peter Miller here.", "Hey, what's up?",
                "Good evening, Miller and sons, how can I help you?"],
}  # fmt: skip
MACHINES = {
    "tuning": [
        ["Hi, you have reached Anna.", "I can not come to the phone right now.", "Please leave a message."],
        ["The person you are calling is not available.", "Please leave a message after the tone."],
        [
            "Your call has been forwarded to an automated voice messaging system.",
            "At the tone, please record.",
        ],
        ["Hi, it's Tom.", "Leave a message."],
    ],
    "figures": [
        [
            "Hello, this is the voice mail of Peter Miller.",
            "I am away until Monday.",
            "Speak after the beep.",
        ],
        ["We are sorry, nobody can take your call at the moment.", "Our hours are nine to five."],
        ["You have reached the mailbox of five five five, one two three four.", "Record your message now."],
        ["This is Miller and sons.", "We are closed.", "Please call again tomorrow."],
    ],
}
VOICES: dict[str, Sequence[Voice | str]] = {
    "tuning": [
        Voice("espeak-ng", "en-us+f3"),
        Voice("espeak-ng", "en-gb+m3"),
        Voice("flite", "slt"),
        Voice("flite", "rms"),
    ],
    "figures": speakers.VOICES,
}
BEEPS = {
    "tuning": [(1000, 0.5), (440, 0.3), (1400, 0.2)],
    "figures": [(880, 0.4), (620, 1.0), (1250, 0.15)],
}  # Hz, s
RINGS = {
    "tuning": [((425,), 1.0, 4.0), ((440, 480), 2.0, 4.0)],
    "figures": [((400, 450), 0.4, 2.0), ((425,), 1.0, 3.0)],
}
INTERCEPTS = {
    "tuning": [((914, 1371, 1777), (0.38, 0.28, 0.38))],
    "figures": [((985, 1429, 1777), (0.28, 0.38, 0.38)), ((914, 1429, 1777), (0.28, 0.28, 0.38))],
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What is heard from the answer on, and the end of its first phrase (s); None: there is none."""

    kind: Found
    name: str
    pcm: Pcm
    phrase_end: float | None
    beep_end: float | None = None


def tone(hertz: Sequence[float], seconds: float) -> Pcm:
    at = np.arange(round(seconds * RATE)) / RATE
    both = sum(np.sin(2 * np.pi * hz * at) for hz in hertz) / len(hertz)
    return np.asarray(0.25 * both, np.float32)


def nothing(seconds: float) -> Pcm:
    return speakers.silence(seconds, RATE)


def greeting(
    name: str, phrases: Sequence[Pcm], beep: tuple[float, float], draw: np.random.Generator
) -> Answer:
    """A machine's: the phrases with pauses for breath, and a beep after a longer one."""
    parts = [nothing(draw.uniform(0.2, 0.8))]
    first = 0.0
    for phrase in phrases:
        parts += [phrase, nothing(draw.uniform(0.25, 0.55))]
        first = first or sum(map(len, parts[:2])) / RATE
    parts += [nothing(draw.uniform(0.2, 1.0)), tone((beep[0],), beep[1])]
    end = sum(map(len, parts)) / RATE
    return Answer("machine", name, np.concatenate([*parts, nothing(3)]), first, end)


def person(name: str, said: Pcm, draw: np.random.Generator, before: Pcm | None = None) -> Answer:
    """Somebody who says a word and waits, after a ring on the line if there is one ``before``."""
    parts = [nothing(0) if before is None else before, nothing(draw.uniform(0.1, 1.2)), said]
    end = sum(map(len, parts)) / RATE
    return Answer("person", name, np.concatenate([*parts, nothing(3)]), end)


def answers(which: str, human: Path | None) -> Iterator[Answer]:
    """The set, always the same."""
    draw = np.random.default_rng(7 if which == "tuning" else 8)
    beeps = BEEPS[which]
    for number, voice in enumerate(VOICES[which]):
        for said in PERSONS[which]:
            yield person(f"{voice}: {said}", synthetic(said, voice), draw)
        for at, phrases in enumerate(MACHINES[which]):
            made = [synthetic(phrase, voice) for phrase in phrases]
            yield greeting(f"{voice}: {phrases[0]}", made, beeps[(number + at) % len(beeps)], draw)
        for hertz, on, off in RINGS[which]:
            ring = np.concatenate([tone(hertz, on), nothing(off), tone(hertz, on), nothing(0.6)])
            said = PERSONS[which][number % len(PERSONS[which])]
            yield person(f"ring {hertz}, {voice}", synthetic(said, voice), draw, ring)
        for hertz3, lengths in INTERCEPTS[which]:
            three = [tone((hz,), seconds) for hz, seconds in zip(hertz3, lengths, strict=True)]
            said3 = synthetic("The number you have dialled is not in service.", voice)
            whole = np.concatenate([nothing(0.3), *three, nothing(0.4), said3, nothing(1)])
            yield Answer("intercept", f"{hertz3}, {voice}", whole, 0.3 + sum(lengths))
    yield Answer("silence", "nobody", nothing(7), None)
    if human is not None and which == "figures":
        yield from people(human, draw)


def people(folder: Path, draw: np.random.Generator) -> Iterator[Answer]:
    """Recorded people: a word or three is a person's answer, two sentences a greeting they once recorded."""
    short = sorted((folder / "digits").glob("*_[0-2].wav"))[::3] + sorted(
        (folder / "sentences").glob("cards*.wav")
    )
    for path in short:
        yield person(f"people: {path.stem}", read(path), draw)
    long = [read(path) for path in sorted((folder / "sentences").glob("[ls]*.wav"))]
    for number in range(len(long)):
        said = [long[number], long[(number + 1) % len(long)]]
        yield greeting(f"people: greeting {number}", said, BEEPS["figures"][number % 3], draw)


def read(path: Path) -> Pcm:
    """A recording's speech, peak 0.5 at 16 kHz."""
    with wave.open(str(path)) as file:
        rate, pcm = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return level(soxr.resample(pcm.astype(np.float32), rate, RATE))


def synthetic(words: str, voice: Voice | str) -> Pcm:
    if isinstance(voice, str):
        return level(speakers.say(words, voice, RATE))
    with tempfile.TemporaryDirectory() as scratch:
        return level(speak(words, voice, Path(scratch))[0].astype(np.float32))


def level(pcm: Pcm) -> Pcm:
    """Its speech and nothing around it, peak 0.5."""
    found = spoken(pcm / np.abs(pcm).max(), RATE)
    assert found is not None
    cut: Pcm = pcm[found[0] : found[1]]
    return np.asarray(0.5 * cut / np.abs(cut).max(), np.float32)


def over(line: str, pcm: Pcm, which: str, draw: np.random.Generator) -> Pcm:
    """``pcm`` as it comes out of that line: noise that is louder below; white for the figures."""
    if line == "clean":
        return pcm
    noise = coloured(len(pcm), draw, 1.0 if which == "tuning" else 0.0)
    loud = with_noise(np.where(np.abs(pcm) > 0, pcm, 1e-6).astype(np.float32), noise, float(line[-5:-3]))
    return telephone(np.clip(loud, -1, 1), a_law=which == "figures", low=300, high=3400)


def judge(answer: Answer, pcm: Pcm) -> tuple[Found | None, float, float | None]:
    """What it is taken for and when (s), and when it was found ready for a message."""
    detector = AnsweringMachineDetector()
    samples = (np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes()
    first: tuple[Found, float] | None = None
    for at in range(0, len(samples), FRAME_BYTES):
        found = detector.push(samples[at : at + FRAME_BYTES])
        now = (at // FRAME_BYTES + 1) * FRAME_MS / 1000
        if found in (None, "ring"):
            continue
        assert found is not None
        if found != "machine":
            return (first or (found, now))[0], (first or (found, now))[1], now
        first = (found, now)
    return (*first, None) if first else (None, len(samples) / 2 / RATE, None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=("tuning", "figures"), default="figures")
    parser.add_argument("--human", type=Path, help="a folder with digits/ and sentences/ spoken by people")
    parser.add_argument(
        "--show", action="store_true", help="name each answer that was taken for something else"
    )
    options = parser.parse_args()
    out = Console() if sys.stdout.isatty() else Console(width=110)
    if options.human is None or not options.human.is_dir():
        out.print("without recordings of people: --human names a folder of them")
        options.human = None
    where = report.machine()
    confusion: dict[str, Counter[tuple[str, str]]] = {line: Counter() for line in LINES}
    delays: dict[str, list[float]] = {"person": [], "machine": [], "intercept": []}
    beeps: list[float] = []
    for answer in answers(options.set, options.human):
        for number, line in enumerate(LINES):
            draw = np.random.default_rng(number)
            found, when, ready = judge(answer, over(line, answer.pcm, options.set, draw))
            taken = "machine" if found == "beep" else str(found)
            confusion[line][answer.kind, taken] += 1
            if taken != answer.kind:
                if options.show:
                    out.print(f"{line}: {answer.kind} taken for {found}: {answer.name}", highlight=False)
                continue
            if answer.phrase_end is not None:
                delays[answer.kind].append(1000 * (when - answer.phrase_end))
            if answer.kind == "machine" and answer.beep_end is not None and ready is not None:
                beeps.append(1000 * (ready - answer.beep_end))
    goals = []
    for line, counts in confusion.items():
        kinds = sorted({kind for pair in counts for kind in pair})
        table = Table(
            "answered by", *(f"taken for {kind}" for kind in kinds), title=f"{line} ({options.set})"
        )
        for kind in sorted({true for true, _ in counts}):
            table.add_row(kind, *(str(counts[kind, other] or "-") for other in kinds))
        out.print(table)
        wrong = 100 * sum(n for (true, taken), n in counts.items() if true != taken) / counts.total()
        goals.append(Goal.at_most(f"{line}, taken for something else", wrong, MOST_WRONG, "%"))
    for kind, values in delays.items():
        late = report.percentile(values, 100)
        goals.append(Goal.at_most(f"{kind}, latest after the first phrase", late, LATEST_MS, "ms"))
    out.print(
        f"ready for a message after the beep's end: p50 {report.percentile(beeps, 50):.0f} ms, "
        f"of {len(beeps)}; before it: {sum(value < 0 for value in beeps)}"
    )
    report.show(goals, out)
    table_of = {
        line: {f"{a} as {b}": n for (a, b), n in counts.items()} for line, counts in confusion.items()
    }
    path = report.write(
        f"answering_machine-{options.set}", where, {"confusion": table_of, "beeps_ms": beeps}, goals
    )
    out.print(f"written: {path.relative_to(report.ROOT)}")
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
