"""A call without a line: the real ear, turn machine, judge and fader, 20 ms at a time on a virtual clock.

What becomes of a scene is computed, the same every time, in a fiftieth of the time that a call takes, and
read from a recording as that of a real call is. What is left out of a real call is the way there and back:
Opus, packets, event loops. It is made up for by ``LATE_MS`` and what is drawn beside it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from bot.headset import RATE
from bot.turn_settings import TurnSettings as Settings
from bot.waveform import Pcm
from model_runtime.protocol import INPUT_RATE, OUTPUT_RATE
from pipeline.ear import Ear
from pipeline.fader import AnswerBegins, Fader
from pipeline.interjection import Kinds
from pipeline.segmenter import FRAME_SAMPLES, SegmenterSettings, SpeechStart, SpeechStop
from pipeline.turns import (
    Action,
    Dip,
    Drop,
    Duck,
    Event,
    Finished,
    Heard,
    Hold,
    Judge,
    Judged,
    Resume,
    Speak,
    Stop,
    Tick,
    Turns,
    TurnSettings,
)
from tests.bench.duplex.reading import ANSWER_S, Seen, look
from tests.bench.duplex.scenes import Scene

# From the caller's packet to our packet, beside the 20 ms that each of them is long: Opus looks 6.5 ms ahead
# either way, and an event loop each passes on what has come. A real call had 60 ms (p50) from onset to
# lowered, of which this machine needs 30.
LATE_MS = 20
CHUNK = OUTPUT_RATE // 50  # samples: what the transport takes at a time
HEARD = OUTPUT_RATE * 160 // 1000  # the first group of an answer
LEAD_S, AFTER_S = 1.0, 1.0  # before the question, and after what was said over the answer
SPINS = 5  # of the event loop, in which a chunk that may be heard gets through
MOST_S = 60.0


def settings(judged: bool = True) -> TurnSettings:
    """What calls have by default."""
    said = Settings()
    return TurnSettings(
        end_ms=said.end_ms,
        hold_ms=said.hold_ms,
        barge_in_ms=said.barge_in_ms,
        judge_ms=said.judge_ms if judged else 0,
        min_speech_ms=said.min_speech_ms,
    )


@dataclass(frozen=True)
class Decided:
    """An action of the turn machine, and at which sample of the caller's (16 kHz) it was decided."""

    at: int
    action: Action


class VirtualCall:
    """One call. The bot answers everything at once, in a steady tone of ``ANSWER_S``."""

    def __init__(self, turns: TurnSettings, kinds: Kinds | None, hiss_db: float | None, seed: int) -> None:
        """``hiss_db``: of full scale, the noise of the caller's line at all times."""
        self.decided: list[Decided] = []
        self.said: list[NDArray[np.float32]] = []  # 16 kHz
        self.heard: list[NDArray[np.int16]] = []  # 24 kHz, from the end of the first frame on
        self._ear = Ear(SegmenterSettings(), kinds)
        self._turns = Turns(turns)
        self._fader = Fader()
        self._fader.at_line = True
        self._draw = np.random.default_rng(seed)
        self._hiss = 0.0 if hiss_db is None else 10 ** (hiss_db / 20)
        self._to_say: NDArray[np.float32] = np.zeros(0, np.float32)
        self._answer: int | None = None  # whose tone is played
        self._played = 0  # of it, samples
        self._track: NDArray[np.int16] | None = None  # a chunk that waits to be taken for a packet
        self._passing: asyncio.Task[bytes] | None = None  # a chunk in the fader

    @property
    def now(self) -> int:
        """Samples said so far, 16 kHz."""
        return len(self.said) * FRAME_SAMPLES

    @property
    def speaking(self) -> bool:
        """Whether there is more of an answer to be heard."""
        return self._answer is not None

    def say(self, sound: NDArray[np.float32]) -> tuple[int, int]:
        """From the next frame on; where it will lie, 16 kHz."""
        self._to_say = sound
        return self.now, self.now + len(sound)

    async def frame(self) -> None:
        """The next 20 ms."""
        sound, self._to_say = self._to_say[:FRAME_SAMPLES], self._to_say[FRAME_SAMPLES:]
        sound = np.pad(sound, (0, FRAME_SAMPLES - len(sound)))
        self.said.append(sound)
        line = sound + self._hiss * self._draw.standard_normal(FRAME_SAMPLES)
        pcm = (np.clip(line, -1, 1) * 32767).astype("<i2").tobytes()
        events: Sequence[SpeechStart | SpeechStop | Tick] = [*self._ear.push(pcm), self._ear.tick]
        for event in events:
            await self._handle(event)
        taken, self._track = self._track, None
        line_out = np.zeros(CHUNK, np.int16) if taken is None else taken
        self.heard.append(self._fader.lower(line_out, OUTPUT_RATE))
        await self._pass()

    async def close(self) -> None:
        """Let go of what is under way."""
        if self._passing is not None:
            self._passing.cancel()
            with suppress(asyncio.CancelledError):
                await self._passing

    async def _handle(self, event: Event) -> None:
        for action in self._turns.handle(event):
            self.decided.append(Decided(self.now, action))
            match action:
                case Speak(turn):
                    self._answer, self._played = turn, 0
                    await self._fader.process_frame(AnswerBegins())
                case Drop():
                    self._answer = None
                case Stop():
                    self._answer = self._track = None  # as an interruption empties what waits
                    self._fader.discard()
                case Dip():
                    self._fader.dip()
                case Duck():
                    self._fader.duck()
                case Hold():
                    self._fader.hold()
                case Resume():
                    self._fader.resume()
                case Judge(turn, span):
                    await self._handle(Judged(turn, self._ear.meaning(span)))

    async def _pass(self) -> None:
        """The transport has room for a chunk."""
        if self._passing is None and self._answer is not None:
            at = np.arange(self._played, self._played + CHUNK) / OUTPUT_RATE
            chunk = (8000 * np.sin(2 * np.pi * 300 * at)).astype("<i2").tobytes()
            self._passing = asyncio.create_task(self._fader.filter(chunk))
        if self._passing is None:
            return
        for _ in range(SPINS):
            await asyncio.sleep(0)
        if not self._passing.done():
            return
        passed, self._passing = np.frombuffer(self._passing.result(), np.int16), None
        if not len(passed) or self._answer is None:
            return
        self._track = passed
        before, self._played = self._played, self._played + CHUNK
        if before < HEARD <= self._played:
            await self._handle(Heard(self._answer))
        if self._played >= ANSWER_S * OUTPUT_RATE:
            turn, self._answer = self._answer, None
            await self._handle(Finished(turn))


async def play(
    scene: Scene, turns: TurnSettings, kinds: Kinds | None, hiss_db: float | None = None
) -> tuple[Seen, list[Decided]]:
    """What is seen of a scene without a line, and what was decided over the answer."""
    draw = random.Random(scene.seed)
    call = VirtualCall(turns, kinds, hiss_db, scene.seed)
    over: tuple[int, int] | None = None
    try:
        await _pass(call, LEAD_S)
        asked = call.say(_within(at_16_khz(scene.question()), draw))
        while call.now < asked[1] or not call.speaking:
            await call.frame()
            if call.now > MOST_S * INPUT_RATE:
                return Seen(scene.kind, scene.name, unanswered=True), []
        if scene.over is not None:
            await _pass(call, scene.after_s)
            over = call.say(_within(at_16_khz(scene.over()), draw))
            while call.now < over[1]:
                await call.frame()
            await _pass(call, AFTER_S)
        while call.speaking and call.now < MOST_S * INPUT_RATE:
            await call.frame()
        await _pass(call, AFTER_S)
    finally:
        await call.close()
    said = np.concatenate(call.said)
    late = round((0.02 + LATE_MS / 1000 + draw.uniform(0, 0.02)) * OUTPUT_RATE)
    bot = np.pad(np.concatenate(call.heard).astype(np.float32) / np.float32(32768), (late, 0))
    seen = look(
        scene,
        _up(said, INPUT_RATE),
        _up(bot, OUTPUT_RATE),
        _at_48_khz(asked),
        over and _at_48_khz(over),
        toned=True,
    )
    begun = over[0] if over else 0
    return seen, [Decided(one.at - begun, one.action) for one in call.decided if one.at > begun]


async def _pass(call: VirtualCall, seconds: float) -> None:
    for _ in range(round(50 * seconds)):
        await call.frame()


def at_16_khz(sound: Pcm) -> NDArray[np.float32]:
    """48 kHz -> 16 kHz."""
    heard: NDArray[np.float32] = soxr.resample(sound, RATE, INPUT_RATE).astype(np.float32)
    return heard


def _within(sound: NDArray[np.float32], draw: random.Random) -> NDArray[np.float32]:
    """It begins somewhere within a packet."""
    return np.pad(sound, (draw.randrange(FRAME_SAMPLES), 0))


def _up(wave: NDArray[np.float32], rate: int) -> Pcm:
    """To 48 kHz, by repetition: only levels are read from it."""
    return np.repeat(wave, RATE // rate)


def _at_48_khz(span: tuple[int, int]) -> tuple[int, int]:
    times = RATE // INPUT_RATE
    return times * span[0], times * span[1]
