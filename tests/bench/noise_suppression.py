"""What taking noise out does to what nano understands: ``python -m tests.bench.noise_suppression``.

Festival's voices ask known wordings over white noise and G.711, each line once as it is and once through
WebRTC's suppression as calls have it, which has had two seconds of the noise by then. What counts is nano's
own text. Pairs: the same voice, words and noise.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from model_runtime.protocol import INPUT_RATE
from model_runtime.training.gate import Caller, wilson
from model_runtime.training.hearings import over_the_test_line
from model_runtime.training.synthesise import FESTIVAL, Voice, speak
from model_runtime.training.texts import Question, intents, question, shop
from pipeline.echo_guard import EchoGuard
from tests.bench import report
from tests.bench.engine import NANO

NOISE_DB = (15.0, 8.0)  # below the voice
LEAD = 2 * INPUT_RATE  # samples of noise before the question

Wave = NDArray[np.float32]


def said(one: Question, draw: random.Random) -> Wave:
    """The question, 16 kHz, behind silence for the noise."""
    voice = Voice("festival", draw.choice(FESTIVAL), pace=draw.uniform(0.9, 1.15))
    with tempfile.TemporaryDirectory() as scratch:
        pcm, _ = speak(one.words, voice, Path(scratch))
    return np.pad(np.asarray(pcm / np.float32(32768), dtype=np.float32), (LEAD, 0))


async def suppressed(line: Wave) -> Wave:
    """What a call with noise suppression hears of a line."""
    guard = EchoGuard(echo_cancellation=False, noise_suppression=True)
    await guard.start(INPUT_RATE)
    try:
        cleaned = await guard.filter((np.clip(line, -1, 1) * 32767).astype("<i2").tobytes())
    finally:
        await guard.stop()
    return np.frombuffer(cleaned, np.int16).astype(np.float32) / np.float32(32768)


def main() -> None:
    """Print the table, write ``build/bench/noise_suppression.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-intent", type=int, default=2)
    parser.add_argument("--seed", type=int, help="to make a set again (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(10**8) if options.seed is None else options.seed
    console, where, draw = Console(), report.machine(), random.Random(seed)
    asked = [question(intent, draw) for intent in intents() for _ in range(options.per_intent)]
    caller = Caller(NANO)
    right: dict[tuple[float, str], int] = {}
    for number, one in enumerate(tqdm(asked, desc="questions")):
        wave, wanted = said(one, draw), shop().answer(one.intent, "")
        for decibels in NOISE_DB:
            line = over_the_test_line(wave, np.random.default_rng([seed, number]), decibels)
            for way, heard in (("as it is", line), ("suppressed", asyncio.run(suppressed(line)))):
                reply = caller.ask(heard[LEAD:], seed * 100_000 + number, greeted=False)
                right[decibels, way] = right.get((decibels, way), 0) + (reply.text.strip() == wanted)
    shown = Table("noise below the voice", "line", "n", "understood", "95 %", title=f"nano, seed {seed}")
    for (decibels, way), hits in right.items():
        low, high = wilson(hits, len(asked))
        shown.add_row(
            f"{decibels:g} dB", way, str(len(asked)), f"{hits / len(asked):.2f}", f"{low:.2f}-{high:.2f}"
        )
    console.print(shown)
    metrics = {
        "seed": seed,
        "asked": len(asked),
        "right": [{"decibels": d, "line": way, "hits": hits} for (d, way), hits in right.items()],
    }
    console.print(report.write("noise_suppression", where, metrics, []))


if __name__ == "__main__":
    main()
