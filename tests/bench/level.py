"""So many sessions at once that speak, and what they were given."""

from __future__ import annotations

import asyncio
import math
import random
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import WebSocketException

from model_runtime.engine.figures import Figures, Work
from model_runtime.protocol import (
    INPUT_RATE,
    OUTPUT_RATE,
    Audio,
    Commit,
    Done,
    Error,
    Open,
    Opened,
    Respond,
    Speech,
    decode_engine,
    encode,
)
from tests.bench.report import percentile
from tests.bench.served import figures as ask

GREETING = "Hello, this is Bluebird Outdoor. How can I help you?"
ASK = f"The call has just begun. Greet the caller with these words: {GREETING}"
RUSH = 16  # calls a second that begin: more do not come to one engine, whatever it can carry
MEMORY_AT = 0.8  # of a level: sessions have a past by then
PATIENCE_S = 120.0  # for one message: an engine that says nothing for longer has failed
TOLD = 5  # failures told in words


@dataclass
class Level:
    """What so many sessions at once were given. ``heard_s``: what each caller says before every answer."""

    mode: str
    sessions: int
    heard_s: float = 0.0
    first_audio_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)  # each under-run: how long nothing was there to play
    real_time_factor: list[float] = field(default_factory=list)  # of each reply: made in, by its length
    spoken_s: float = 0.0
    replies: int = 0
    unanswered: int = 0  # whose turn to be answered, one after another, did not come
    seconds: float = 0.0
    joules: float | None = None
    engine: Figures | None = None  # what the engine did meanwhile, and what was in memory near the end
    failed: list[str] = field(default_factory=list)


class Session:
    """One session that is answered over and over, and hears it at the speed at which it is spoken."""

    def __init__(self, number: int, level: Level, turns: AbstractAsyncContextManager[Any]) -> None:
        """``turns`` is entered for each reply until it is made: a lock makes one after another of them."""
        self._number, self._level, self._turns = number, level, turns
        self._draw = random.Random(number)
        noise = np.random.default_rng(number).integers(
            -8000, 8000, round(level.heard_s * INPUT_RATE), np.int16
        )
        self._noise = noise.tobytes()

    async def run(self, path: Path, until: float) -> None:
        """Connected, until then; whatever goes wrong is told in ``level.failed``."""
        try:
            async with unix_connect(str(path), max_size=None, compression=None) as socket:
                await self._speak(socket, until)
        except (OSError, WebSocketException, TimeoutError) as error:
            self._level.failed.append(f"{type(error).__name__}: {error}")

    async def _speak(self, socket: ClientConnection, until: float) -> None:
        level, draw = self._level, self._draw
        await socket.send(encode(Open(f"bench {self._number}")))
        opened = await _read(socket)
        if not isinstance(opened, Opened):
            level.failed.append(str(opened))
            return
        turn = 0
        await asyncio.sleep(
            draw.uniform(0, max(1.0, level.sessions / RUSH))
        )  # callers do not speak in chorus
        while time.monotonic() < until:
            if self._noise:
                await socket.send(encode(Audio(self._noise)))
            asked = time.monotonic()
            async with self._turns:
                if time.monotonic() >= until:  # the lock was long in coming
                    level.unanswered += 1
                    return
                playing_until = await self._answer(socket, turn, asked)
            await socket.send(encode(Commit(turn, -1 if turn % 4 else 0)))  # as an interruption would
            turn += 1
            await asyncio.sleep(max(0.0, playing_until - time.monotonic()) + draw.uniform(0.3, 0.8))

    async def _answer(self, socket: ClientConnection, turn: int, asked: float) -> float:
        """Have one reply made; returns when it will have been heard."""
        level, said = self._level, len(self._noise) // 2
        spans = [(turn * said, (turn + 1) * said)] if said else []
        begun = time.monotonic()
        await socket.send(encode(Respond(turn, spans, "" if said else ASK)))
        playing_until = made = 0.0
        while not isinstance(message := await _read(socket), Done):
            now = time.monotonic()
            if isinstance(message, Error):
                level.failed.append(message.message)
            elif isinstance(message, Speech) and message.pcm:
                if not playing_until:
                    level.first_audio_ms.append(1000 * (now - asked))
                elif now > playing_until:
                    level.late_ms.append(1000 * (now - playing_until))
                seconds = len(message.pcm) / 2 / OUTPUT_RATE
                made += seconds
                playing_until = max(playing_until, now) + seconds
        level.replies += 1
        level.spoken_s += made
        if made:
            level.real_time_factor.append((time.monotonic() - begun) / made)
        return playing_until


async def _read(socket: ClientConnection) -> Any:
    return decode_engine(await asyncio.wait_for(socket.recv(decode=False), PATIENCE_S))


async def load(path: Path, level: Level, seconds: float, one_by_one: bool) -> None:
    """All sessions of a level, on the engine at that socket; ``one_by_one``: one reply is made at a time."""
    before = await ask(path)
    begun = time.monotonic()
    turns: AbstractAsyncContextManager[Any] = asyncio.Lock() if one_by_one else nullcontext()
    looking = asyncio.create_task(_look(path, MEMORY_AT * seconds))
    sessions = [Session(number, level, turns) for number in range(level.sessions)]
    await asyncio.gather(*(session.run(path, begun + seconds) for session in sessions))
    level.seconds = time.monotonic() - begun
    held, after = await looking, await ask(path)
    if before is None or after is None or held is None:
        level.failed.append("the engine did not tell its figures")
    else:
        level.engine = after.since(before)
        level.engine.memory = held.memory


async def _look(path: Path, seconds: float) -> Figures | None:
    await asyncio.sleep(seconds)
    return await ask(path)


# --- what came of it ---


def figures(level: Level, bandwidth: float = math.nan) -> dict[str, Any]:
    """Plain data. ``bandwidth`` in bytes a second is what the floor of a decode step is reckoned by."""
    first = np.asarray(level.first_audio_ms or [np.nan])
    told: dict[str, Any] = {
        "mode": level.mode,
        "sessions": level.sessions,
        "seconds": round(level.seconds, 1),
        "replies": level.replies,
        "first_audio_ms": {
            "p50": round(float(np.percentile(first, 50)), 1),
            "p95": round(float(np.percentile(first, 95)), 1),
            "max": round(float(first.max()), 1),
        },
        "under_runs": len(level.late_ms),
        "longest_under_run_ms": round(max(level.late_ms, default=0.0), 1),
        "real_time_factor": {
            f"p{percent}": _figure(percentile(level.real_time_factor, percent), 3) for percent in (50, 95)
        },
        "speaking_at_once": round(level.spoken_s / max(level.seconds, 1e-9), 2),
        "unanswered": level.unanswered,
        "failures": len(level.failed),
        "failed": level.failed[:TOLD],
    }
    if level.joules is not None:
        told["joules_for_1_s"] = _figure(_ratio(level.joules, level.spoken_s), 1)
    if level.engine is not None:
        told |= _work(level.engine, level.spoken_s, level.seconds, bandwidth)
    return told


def _work(engine: Figures, spoken_s: float, seconds: float, bandwidth: float) -> dict[str, Any]:
    """What the engine did for so many seconds of speech, and how that compares with what it had to read."""
    decode, vocode, memory = engine.work["decode"], engine.work["vocode"], engine.memory
    floor_ms = 1000 * _ratio(decode.read, decode.units) / bandwidth
    step_ms, pass_ms = _times_ms(decode), _times_ms(vocode)
    return {
        "decode": {
            "steps": decode.units,
            "calls_a_step": _figure(_ratio(decode.items, decode.units), 2),
            "ms": {name: _figure(value, 3) for name, value in step_ms.items()},
            "floor_ms": _figure(floor_ms, 3),
            "percent_of_floor": _figure(100 * step_ms["p50"] / floor_ms, 0),
        },
        "token2wav": {
            "chunks": vocode.items,
            "ms_a_chunk": _figure(1000 * _ratio(vocode.seconds, vocode.items), 2),
            "chunks_a_pass": _figure(_ratio(vocode.items, vocode.units), 2),
            "pass_ms": {name: _figure(value, 2) for name, value in pass_ms.items()},
        },
        "seconds_for_1_s": {
            kind: _figure(_ratio(work.seconds, spoken_s), 4) for kind, work in engine.work.items()
        },
        "waited": _figure(_ratio(engine.waited, seconds), 3),
        "memory_mb": {
            kind: round(getattr(memory, kind) / 1e6, 1) for kind in ("weights", "kv_cache", "flow", "rest")
        },
    }


def _times_ms(work: Work) -> dict[str, float]:
    mean = _ratio(work.seconds, work.units)
    return {"p50": 1000 * work.percentile(50), "p95": 1000 * work.percentile(95), "mean": 1000 * mean}


def _ratio(value: float, by: float) -> float:
    return value / by if by else math.nan


def _figure(value: float, digits: int) -> float | None:
    """Rounded; ``None`` for what there is none of, since JSON has no nan."""
    return None if math.isnan(value) else round(value, digits)
