"""What nano can do, against what it should: ``python -m tests.bench.nano``, or ``make bench-nano``.

A test set made afresh, of a seed of its own each time: festival's voices, which no training has heard, ask
known wordings, wordings that were kept back, and things to be refused, on a clean line and over 15 dB of
noise and G.711; with ``--human FOLDER`` people's recorded sentences are to be refused, too. What it answers
is what an independent recogniser hears (`model_runtime.training.gate`). The answer's voice is told by the
checkpoint's own speaker model. What nano was never taught counts as 0 and says so.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from rich.console import Console
from rich.table import Table

from model_runtime.interleave import ToolCall
from model_runtime.protocol import INPUT_RATE, OUTPUT_RATE
from model_runtime.training.conversations import GOODBYE
from model_runtime.training.conversations import TOOLS as SCHEMAS
from model_runtime.training.gate import KINDS, Caller, examine, summary, test_set, wilson
from model_runtime.training.hearings import over_the_test_line
from model_runtime.training.judge import nearest, recognise
from model_runtime.training.synthesise import FESTIVAL, Voice, speak
from model_runtime.training.texts import Question, intents, question, shop
from model_runtime.training.tokenizer import ANSWERS
from tests.bench import report
from tests.bench.engine import NANO
from tests.bench.report import Goal

QUIET_DB = 60.0  # of the clean line's noise
LINES = {"clean": QUIET_DB, "15 dB, G.711": 15.0}
WANTED = {  # share that should be right, by line
    "known": (0.98, 0.95),
    "new": (0.85, 0.75),
    "refused": (0.9, 0.9),
}
PER_REQUEST = 6  # of each thing that a tool does
PER_VOICE = 3  # answers in each voice
LEAST_CODES = 50  # of an answer whose voice is told, 2 s: "Sure." is too short to tell
UNTAUGHT = ("4-digit strings exact", "3-digit strings of people exact")
TOOLS = (0.9, 0.85)  # wanted of requests: the right tool and arguments, by line
UNASKED = 0.98  # ... and of other questions: no tool


def refused_people(folder: Path, decibels: float, seed: int) -> list[dict[str, Any]]:
    """Sentences that people read, which are about no shop: a record of each, as the gate's are."""
    caller, records = Caller(NANO), []
    answers = list(dict.fromkeys(shop().spoken))
    for number, path in enumerate(sorted((folder / "sentences").glob("*.wav"))):
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = soxr.resample(wave[:, 0], rate, INPUT_RATE)[: 20 * INPUT_RATE]
        line = over_the_test_line(mono, np.random.default_rng([seed, number]), decibels)
        reply = caller.ask(line, seed * 100_000 + number, greeted=number % 2 == 0)
        heard = recognise(reply.pcm, OUTPUT_RATE) if len(reply.pcm) else ""
        right = bool(heard) and nearest(heard, answers) == shop().refuse
        records.append({"words": path.stem, "voice": "people", "judge": heard, "spoken_right": right})
    return records


def tool_calls(asked: Sequence[Question], decibels: float, seed: int) -> list[dict[str, Any]]:
    """Questions in calls that have all of nano's tools: which it called, and whether that was right."""
    caller, records = Caller(NANO), []
    tools = list(json.loads(SCHEMAS.read_text()).values())
    for number, one in enumerate(asked):
        draw = random.Random(f"{seed}/tools/{number}")
        voice = Voice("festival", draw.choice(FESTIVAL), pace=draw.uniform(0.9, 1.15))
        with tempfile.TemporaryDirectory() as scratch:
            pcm, _ = speak(one.words, voice, Path(scratch))
        said = np.asarray(pcm / np.float32(32768), dtype=np.float32)
        line = over_the_test_line(said, np.random.default_rng([seed, number, 1]), decibels)
        reply = caller.ask(line, seed * 100_000 + number, greeted=number % 2 == 0, tools=tools)
        called = [
            (c.name, c.arguments) if isinstance(c, ToolCall) else ("malformed", {}) for c in reply.calls
        ]
        request = shop().requests.get(one.intent)
        wanted = [(request.tool, request.arguments)] if request else []
        about = {"words": one.words, "intent": one.intent, "voice": voice.name, "called": called}
        records.append({**about, "right": called == wanted})
    return records


def tool_questions(seed: int) -> dict[str, list[Question]]:
    """What a tool does, and as many other questions that no tool is for, known wordings of both."""
    draw = random.Random(f"{seed}/tools")
    requests = [question(intent, draw) for intent in shop().requests for _ in range(PER_REQUEST)]
    others = [name for name in intents() if name != GOODBYE]
    return {
        "right tool and arguments": requests,
        "no tool where none is asked for": [question(draw.choice(others), draw) for _ in requests],
    }


def own_voice(per_voice: int, seed: int) -> list[bool]:
    """Whether what is said in each voice is, to the speaker model, nearer its prompt than another voice's."""
    caller, draw = Caller(NANO), random.Random(seed)
    token2wav, voices = caller.model.token2wav, caller.model.voices
    names = sorted(voices)
    prompts = torch.stack([torch.nn.functional.normalize(voices[name].speaker, dim=0) for name in names])
    codes = [codes for codes in json.loads(ANSWERS.read_text()).values() if len(codes) >= LEAST_CODES]
    found = []
    for place, name in enumerate(names):
        for _ in range(per_voice):
            said = token2wav.offline(draw.choice(codes), voices[name])
            heard = token2wav.prepare_voice(said, OUTPUT_RATE).speaker
            found.append(int((prompts @ heard).argmax()) == place)
    return found


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-intent", type=int, default=2)
    parser.add_argument("--refused", type=int, default=60)
    parser.add_argument("--human", type=Path, help="a folder with sentences/*.wav that people read")
    parser.add_argument("--seed", type=int, help="to make a set again (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(10**8) if options.seed is None else options.seed
    console, where = Console(), report.machine()
    asked = test_set(options.per_intent, options.refused, seed)
    shown = Table("measure", "line", "n", "share", "95 %", "goal", title=f"nano, seed {seed}")
    goals: list[Goal] = []
    metrics: dict[str, Any] = {"seed": seed}

    def tell(name: str, line: str, hits: int, count: int, wanted: float) -> None:
        share, (low, high) = hits / max(count, 1), wilson(hits, count)
        shown.add_row(name, line, str(count), f"{share:.2f}", f"{low:.2f}-{high:.2f}", f"{wanted:.2f}")
        goals.append(Goal(f"{name}, {line}", round(share, 3), wanted, "share", share >= wanted))

    for place, (line, decibels) in enumerate(LINES.items()):
        records = examine(NANO, asked, seed, decibels, processes=2)
        table = summary(records)
        people = refused_people(options.human, decibels, seed) if options.human else []
        tools = {name: tool_calls(ones, decibels, seed) for name, ones in tool_questions(seed).items()}
        metrics[line] = {"table": table, "people": people, "records": records, "tools": tools}
        for (name, called), wanted in zip(tools.items(), (TOOLS[place], UNASKED), strict=True):
            tell(name, line, sum(one["right"] for one in called), len(called), wanted)
        for kind in KINDS:
            hits, count = table[kind]["spoken_right"]["hits"], table[kind]["n"]
            if kind == "refused":
                hits, count = hits + sum(one["spoken_right"] for one in people), count + len(people)
            tell(kind, line, hits, count, WANTED[kind][place])
    own = own_voice(PER_VOICE, seed)
    tell(f"timbre nearest its own prompt, of {len(own) // PER_VOICE}", "clean", sum(own), len(own), 0.9)
    console.print(shown)
    console.print(f"Not taught, and so 0: {', '.join(UNTAUGHT)}.")
    goals += [Goal(name, 0.0, 0.8, "share", met=False) for name in UNTAUGHT]
    report.write("nano", where, metrics, goals)
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
