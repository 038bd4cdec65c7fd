"""May nano answer the phone? ``python -m model_runtime.training.gate --out FILE.json``

A test set made afresh: festival's voices (an engine never trained on) ask wordings that were trained on,
wordings that were not, and things of other worlds that were not. Each goes through 15 dB of white noise and
G.711, then through the product's own model, sampled as its card says, and its streaming token2wav.
Pocketsphinx, which knows nothing of nano, hears the spoken answer; which of the fixed answers it is nearest
to (by letters) is what was answered.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model_runtime.interleave import Code, Group, MalformedToolCall, SpeechEnd, ToolCall
from model_runtime.model import SpeechModel
from model_runtime.protocol import OUTPUT_RATE
from model_runtime.training.conversations import BLUEBIRD, GREET
from model_runtime.training.encoder import NANO
from model_runtime.training.hearings import over_the_test_line
from model_runtime.training.judge import nearest, recognise
from model_runtime.training.synthesise import FESTIVAL, Voice, speak
from model_runtime.training.texts import Question, intents, negative, question, shop

GOALS = {"known": 0.95, "refused": 0.8}
LONGEST = 60  # groups: nano's longest answer has 27
KINDS = ("known", "new", "refused")


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if count == 0:
        return 0.0, 1.0
    share = hits / count
    middle = share + z * z / (2 * count)
    spread = z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    scale = 1 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


@dataclass
class Reply:
    """What nano answered: its own text, its sound at 24 kHz, whether it ended by itself, its tool calls."""

    text: str
    pcm: NDArray[np.float32]
    ended: bool
    calls: Sequence[ToolCall | MalformedToolCall] = ()


class Caller:
    """Asks the product's model one question a call."""

    def __init__(self, checkpoint: Path, voice: str = "") -> None:
        """Raises CheckpointError when the folder cannot be used."""
        self.model = SpeechModel.load(checkpoint)
        self.voice = self.model.voices[voice or self.model.card.default_voice]

    def ask(
        self, wave: NDArray[np.float32], seed: int, greeted: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> Reply:
        """The answer to 16 kHz audio, after the greeting or as the first thing in a call.

        ``tools``: schemas of those the call has.
        """
        reply, codes = self.write(wave, seed, greeted, tools)
        stream = self.model.token2wav.stream(self.voice)
        sound = [stream.push(codes[at : at + 4], last=False) for at in range(0, len(codes), 4)]
        sound.append(stream.push([], last=True))
        return replace(reply, pcm=np.concatenate(sound).astype(np.float32))

    def write(
        self, wave: NDArray[np.float32], seed: int, greeted: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> tuple[Reply, list[int]]:
        """As ``ask``, but without sound, which takes longest: the codes of it instead."""
        model, template = self.model, self.model.template
        rows = model.hear_pieces(wave)
        pieces = model.conversation(BLUEBIRD, tools)
        cache = model.new_cache(2048)
        if greeted:
            ids, embeddings = model.prompt(
                [*pieces, *template.human(text=GREET.format(greeting=shop().greeting)), *template.opening()]
            )
            pieces = template.assistant(self._write(cache, ids, embeddings, seed)[0])
            cache_at = len(ids) - len(template.lay_out(template.opening())[0])
            cache.truncate(cache_at)
        ids, embeddings = model.prompt([*pieces, *model.human(rows), *template.opening()], rows)
        _, reply, codes = self._write(cache, ids, embeddings, seed + 1)
        return reply, codes

    def _write(
        self, cache: Any, ids: list[int], embeddings: torch.Tensor, seed: int
    ) -> tuple[list[int], Reply, list[int]]:
        """What follows the prompt: ids less the final ``<|EOT|>``, the reply without sound, audio codes."""
        model = self.model
        parser, sampler = model.parser(), model.sampler(seed=seed)
        scores = model.prefill(cache, ids, embeddings)
        written: list[int] = []
        text, codes = "", []
        calls: list[ToolCall | MalformedToolCall] = []

        def reply(ended: bool) -> Reply:
            return Reply(text, np.zeros(0, np.float32), ended, calls)

        while len(written) < 5 * LONGEST:
            drawn = sampler.draw(scores, 0, parser.slot) if model.card.slot_masking else sampler.draw(scores)
            for event in parser.push([drawn]):
                if isinstance(event, Code):
                    codes.append(event.code)
                elif isinstance(event, Group | SpeechEnd):
                    text += getattr(event, "text", "")
                elif isinstance(event, ToolCall | MalformedToolCall):
                    calls.append(event)
            if parser.over:
                return written, reply(ended=True), codes
            written.append(drawn)
            scores = model.step(cache, drawn)
        return written, reply(ended=False), codes


def test_set(per_intent: int, refused: int, seed: int) -> list[tuple[str, Question]]:
    """(kind, question).

    Every intent as often, known and new, and what is to be refused (unheard wordings only).
    """
    draw = random.Random(seed)
    asked = [
        (kind, question(intent, draw, kind))
        for kind in ("known", "new")
        for intent in intents()
        for _ in range(per_intent)
    ]
    return [*asked, *(("refused", negative(draw, "new")) for _ in range(refused))]


class Examiner:
    """Puts questions to a caller and has the answers judged. Every question's line and voice follow from the
    seed and its number alone, so that the work can be shared out.
    """

    def __init__(self, checkpoint: Path, seed: int, decibels: float) -> None:
        """Loads the checkpoint."""
        torch.set_num_threads(1)
        self.caller, self.seed, self.decibels = Caller(checkpoint), seed, decibels
        self.answers = list(dict.fromkeys(shop().spoken))

    def put(self, number: int, kind: str, one: Question) -> dict[str, Any]:
        """The record of one question."""
        draw, noise = random.Random(f"{self.seed}/{number}"), np.random.default_rng([self.seed, number])
        voice = Voice("festival", draw.choice(FESTIVAL), pace=draw.uniform(0.9, 1.15))
        with tempfile.TemporaryDirectory() as scratch:
            pcm, _ = speak(one.words + draw.choice(["", "?", "."]), voice, Path(scratch))
        said = np.asarray(pcm / np.float32(32768), dtype=np.float32)
        greeted = number % 2 == 0
        line = over_the_test_line(said, noise, self.decibels)
        reply = self.caller.ask(line, self.seed * 100_000 + number, greeted)
        heard = recognise(reply.pcm, OUTPUT_RATE) if len(reply.pcm) else ""
        wanted = shop().answer(one.intent, shop().greeting if greeted else "")
        told = nearest(heard, self.answers) if heard else ""
        return {
            "kind": kind,
            "words": one.words,
            "intent": one.intent,
            "voice": voice.name,
            "wanted": wanted,
            "text": reply.text.strip(),
            "judge": heard,
            "told": told,
            "ended": reply.ended,
            "spoken_right": told == wanted,
            "text_right": reply.text.strip() == wanted,
        }


_examiner: Examiner | None = None


def _begin(checkpoint: Path, seed: int, decibels: float) -> None:
    global _examiner
    _examiner = Examiner(checkpoint, seed, decibels)


def _put(numbered: tuple[int, tuple[str, Question]]) -> dict[str, Any]:
    assert _examiner is not None
    number, (kind, one) = numbered
    return _examiner.put(number, kind, one)


def examine(
    checkpoint: Path, asked: Sequence[tuple[str, Question]], seed: int, decibels: float, processes: int
) -> list[dict[str, Any]]:
    """One record a question, in their order."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _begin, (checkpoint, seed, decibels)) as pool:
        return list(tqdm(pool.map(_put, enumerate(asked)), total=len(asked), desc="gate"))


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares with their intervals, by kind and by voice."""
    table: dict[str, Any] = {}
    for kind in KINDS:
        of_kind = [r for r in records if r["kind"] == kind]
        row: dict[str, Any] = {"n": len(of_kind)}
        for what in ("spoken_right", "text_right", "ended"):
            hits = sum(r[what] for r in of_kind)
            low, high = wilson(hits, len(of_kind))
            row[what] = {
                "hits": hits,
                "share": round(hits / max(1, len(of_kind)), 4),
                "wilson95": [round(low, 3), round(high, 3)],
            }
        voices = sorted({r["voice"] for r in of_kind})
        row["spoken_right_by_voice"] = {
            v: round(float(np.mean([r["spoken_right"] for r in of_kind if r["voice"] == v])), 3)
            for v in voices
        }
        table[kind] = row
    return table


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--checkpoint", type=Path, default=NANO)
    parse.add_argument("--out", type=Path, required=True)
    parse.add_argument("--per-intent", type=int, default=4)
    parse.add_argument("--refused", type=int, default=80)
    parse.add_argument(
        "--seed", type=int, required=True, help="a seed not used before: the set is opened once"
    )
    parse.add_argument("--decibels", type=float, default=15.0)
    parse.add_argument("--processes", type=int, default=2)
    args = parse.parse_args()
    begun = time.monotonic()
    asked = test_set(args.per_intent, args.refused, args.seed)
    records = examine(args.checkpoint, asked, args.seed, args.decibels, args.processes)
    table = summary(records)
    shares = {kind: table[kind]["spoken_right"]["share"] for kind in GOALS}
    goals = [
        {"name": kind, "value": shares[kind], "goal": goal, "unit": "share", "met": shares[kind] >= goal}
        for kind, goal in GOALS.items()
    ]
    print(f"{'kind':8} {'n':>4} {'spoken right':>22} {'own text right':>22} {'ended':>6}")
    for kind, row in table.items():
        cells = [
            f"{row[w]['share']:.3f} ({row[w]['wilson95'][0]:.2f}-{row[w]['wilson95'][1]:.2f})"
            for w in ("spoken_right", "text_right")
        ]
        print(f"{kind:8} {row['n']:>4} {cells[0]:>22} {cells[1]:>22} {row['ended']['share']:>6.2f}")
    for reached in goals:
        met = "met" if reached["met"] else "NOT MET"
        print(f"goal {reached['name']}: {reached['value']:.3f} of {reached['goal']} {met}")
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "seed": args.seed,
        "decibels": args.decibels,
        "seconds": round(time.monotonic() - begun),
        "goals": goals,
        "table": table,
        "records": records,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
