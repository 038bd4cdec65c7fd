"""Ends of turns and pauses, without a call: ``python -m tests.bench.duplex.ends``.

All of a set's callers say all of its turns, whole and with a pause where they cannot be over, cleanly and
over a telephone; the real segmenter and turn machine hear them on a virtual clock, with nobody's second
opinion, with Smart Turn's, with the net's, and with both. Hundreds in some minutes, the same every time.
``--human`` adds people's recorded sentences, which pause as people do. The times are from the last sample to
the decision that the answer may speak; a line adds about 60 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bot.smart_turn import SmartTurn
from bot.talk import read_wav
from bot.turn_end_judges import TurnEndJudges
from bot.turn_settings import TurnSettings as Settings
from bot.waveform import Pcm
from model_runtime import turn_ends
from model_runtime.protocol import INPUT_RATE
from pipeline.ear import Ear
from pipeline.segmenter import FRAME_SAMPLES, SegmenterSettings
from pipeline.turns import Drop, Opinion, Sounds, Speak, Speculate, Turns, TurnSettings
from tests.bench import report
from tests.bench.duplex.figures import share
from tests.bench.duplex.offline import PHONE_HISS_DB, by_phone, kept
from tests.bench.duplex.sounds import SPEECH, silence
from tests.bench.duplex.virtual import at_16_khz, settings
from tests.bench.report import Goal, percentile

PAUSES_MS = (200, 280, 500, 700)
SMART_TURN_MS = 100  # until it has answered
LEAD_S, WAIT_S = 0.5, 2.0
Judge = Callable[[bytes], Awaitable[tuple[Opinion, int]]]
"""What is made of a turn, and after how many ms."""


@dataclass(frozen=True)
class Turn:
    """Something said, over which line, and where it pauses (nowhere: 0)."""

    kind: str
    text: str
    voice: str
    line: str
    sound: Callable[[], Pcm]  # 48 kHz
    seed: int


@dataclass(frozen=True)
class Told:
    """What became of it: after how many ms the answer spoke; less than 0 is into the turn."""

    turn: Turn
    spoke_ms: float
    opinion: Opinion  # the last

    def plain(self) -> dict[str, str | float]:
        """For the file."""
        turn = self.turn
        names = {"kind": turn.kind, "text": turn.text, "voice": turn.voice, "line": turn.line}
        return names | {"spoke_ms": self.spoke_ms, "opinion": self.opinion}


def turns(speech: str, people: Path | None) -> Iterator[Turn]:
    """All that is said in a set of speech, over either line; the same every time."""
    talk = SPEECH[speech]
    draw = random.Random(speech)

    def over(line: str, kind: str, text: str, voice: str, sound: Callable[[], Pcm]) -> Turn:
        seed = draw.randrange(2**32)
        return Turn(
            kind, text, voice, line, partial(by_phone, sound, seed) if line == "phone" else sound, seed
        )

    for line in ("clean", "phone"):
        for voice in talk.voices:
            for text in (*talk.questions, *talk.turns):
                yield over(line, "turn end", text, voice, partial(kept, talk.say, text, voice))
            for ms in PAUSES_MS:
                for halves in talk.halves:
                    parts = [partial(kept, talk.say, half, voice) for half in halves]
                    yield over(
                        line, f"pause of {ms} ms", " ... ".join(halves), voice, partial(_halting, parts, ms)
                    )
    for path in sorted(people.glob("sentences/*.wav")) if people else ():
        yield Turn("person", path.stem, "", "clean", partial(read_wav, path), draw.randrange(2**32))


def _halting(parts: Sequence[Callable[[], Pcm]], ms: int) -> Pcm:
    return np.concatenate([parts[0](), silence(ms), parts[1]()])


async def hear(turn: Turn, rules: TurnSettings, judge: Judge | None) -> Told:
    """Let it be said, until it is answered."""
    ear, machine = Ear(SegmenterSettings(), None), Turns(rules)
    hiss = 10 ** ((PHONE_HISS_DB if turn.line == "phone" else -66.0) / 20)
    draw = np.random.default_rng(turn.seed)
    said = at_16_khz(turn.sound())
    ends = round(LEAD_S * INPUT_RATE) + len(said)
    line = np.pad(said, (round(LEAD_S * INPUT_RATE), round(WAIT_S * INPUT_RATE)))
    line = line[: len(line) // FRAME_SAMPLES * FRAME_SAMPLES]
    pcm = np.clip(line + hiss * draw.standard_normal(len(line)), -1, 1)
    frames = (pcm * 32767).astype("<i2").reshape(-1, FRAME_SAMPLES)
    waiting: list[tuple[int, Sounds]] = []  # opinions on their way
    opinion: Opinion = "open"
    for number, frame in enumerate(frames):
        now = number * FRAME_SAMPLES
        due = [sounds for at, sounds in waiting if at <= now]
        waiting = [(at, sounds) for at, sounds in waiting if at > now]
        for event in (*due, *ear.push(frame.tobytes()), ear.tick):
            if isinstance(event, Sounds):
                opinion = event.opinion
            for action in machine.handle(event):
                match action:
                    case Speculate(_, spans, ended_at) if spans and judge is not None:
                        told, late_ms = await judge(ear.turn(spans))
                        waiting.append((now + late_ms * INPUT_RATE // 1000, Sounds(ended_at, told)))
                    case Speak():
                        return Told(turn, 1000 * (now + FRAME_SAMPLES - ends) / INPUT_RATE, opinion)
                    case Drop():
                        opinion = "open"
    return Told(turn, float("nan"), opinion)


def judges(net: Path) -> dict[str, Judge | None]:
    """Who is asked: the net answers at once, Smart Turn, where it is asked, later."""
    own, smart = turn_ends.TurnEnds(net).finished, SmartTurn()

    def judge(net_too: bool, smart_turn_too: bool) -> Judge:
        async def told(pcm: bytes) -> tuple[Opinion, int]:
            late_ms = 0

            async def patient(pcm: bytes) -> float | None:
                nonlocal late_ms
                late_ms = SMART_TURN_MS
                smart._rests_until = 0.0  # on a virtual clock it is never tired
                return await smart(pcm)

            asked = TurnEndJudges(own if net_too else None, patient if smart_turn_too else None)
            return await asked(pcm), late_ms

        return told

    return {
        "silence": None,
        "Smart Turn": judge(False, True),
        "the net": judge(True, False),
        "both": judge(True, True),
    }


def figures(told: Sequence[Told]) -> dict[str, float | int]:
    """What they come to: shares, and times in ms."""
    after = [one.spoke_ms for one in told if one.spoke_ms >= 0]
    return {
        "n": len(told),
        "taken over": share(one.spoke_ms < 0 for one in told),
        "finished": share(one.opinion == "finished" for one in told),
        "unfinished": share(one.opinion == "unfinished" for one in told),
        "p50": percentile(after, 50),
        "p95": percentile(after, 95),
    }


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speech", choices=SPEECH, default="figures")
    parser.add_argument("--human", type=Path, help="a folder of recordings: sentences/*.wav")
    parser.add_argument("--net", type=Path, default=turn_ends.MODEL, help="another net")
    parser.add_argument("--each", action="store_true", help="tell of each turn")
    chosen = Settings()
    for name in ("finished_ms", "end_ms", "unfinished_ms"):
        wanted = f"--{name.replace('_', '-')}"
        parser.add_argument(wanted, type=int, default=getattr(chosen, name), help="PARLEY_TURNS__...")
    options = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=130)
    said = list(turns(options.speech, options.human))
    rules = replace(
        settings(),
        finished_ms=options.finished_ms,
        end_ms=options.end_ms,
        unfinished_ms=options.unfinished_ms,
    )
    found = {
        name: [asyncio.run(hear(turn, rules, judge)) for turn in said]
        for name, judge in judges(options.net).items()
    }
    kinds = list(dict.fromkeys(turn.kind for turn in said))
    table = Table("judged by", "", "n", "taken over", "finished", "unfinished", "answered after, p50", "p95")
    rows = {}
    for name, told in found.items():
        for kind in kinds:
            row = rows[f"{name}: {kind}"] = figures([one for one in told if one.turn.kind == kind])
            shares = [f"{row[key]:.2f}" for key in ("taken over", "finished", "unfinished")]
            table.add_row(name, kind, str(row["n"]), *shares, f"{row['p50']:.0f} ms", f"{row['p95']:.0f} ms")
    console.print(table)
    if options.each:
        for one in found["both"]:
            what = f"{one.turn.kind}, {one.turn.voice} {one.turn.line}: {one.turn.text}"
            console.print(f"{one.spoke_ms:6.0f} ms  {one.opinion:10} {what}")
    pauses = [one for one in found["both"] if one.turn.kind.startswith("pause")]
    whole = [one for one in found["both"] if one.turn.kind == "turn end"]
    after = [one.spoke_ms for one in whole if one.spoke_ms >= 0]
    goals = [
        Goal.at_most("pauses taken over", 100 * share(one.spoke_ms < 0 for one in pauses), 5, "%"),
        Goal.at_most("turns not answered", 100 * share(not one.spoke_ms >= 0 for one in whole), 1, "%"),
        Goal.at_most("end of turn to answer, p50", percentile(after, 50), 400 - 60, "ms"),
        Goal.at_most("end of turn to answer, p95", percentile(after, 95), 700 - 60, "ms"),
    ]
    report.show(goals, console)
    each = {name: [one.plain() for one in told] for name, told in found.items()}
    metrics = {"rows": rows, "turns": each}
    path = report.write(f"duplex_ends-{options.speech}", report.machine(), metrics, goals)
    console.print(f"written: {path.relative_to(report.ROOT)}")
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
