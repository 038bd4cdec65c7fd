"""Playing a scene: one real call, both sides recorded on one clock."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bot.headset import FRAME, RATE, Listener, Microphone
from bot.talk import Caller, CallFailed
from bot.waveform import Pcm
from tests.bench.duplex.line import BadLine, Line
from tests.bench.duplex.reading import Said, Seen, Told, levels, look, look_after
from tests.bench.duplex.scenes import Echo, Outage, Scene

ANSWER_WAIT_S = 10.0  # a question without an answer by then has none
SAYING_S = 30.0  # longest that anything may take to be said
AFTER_OUTAGE_S = 1.0  # from an outage to the end of the next question: latency is to be normal by then
TOLD = ("bot-text", "user-text", "bot-done", "interrupted", "withdrawn", "decided", "notice")  # what is kept
Span = tuple[int, int]  # samples said


class EchoingMicrophone(Microphone):
    """One that stands before the loudspeaker: what the bot says comes back into it."""

    def __init__(self, echo: Echo, listener: Listener) -> None:
        super().__init__()
        self._gain = np.float32(10 ** (echo.db / 20))
        self._listener = listener
        self._heard = 0  # of the listener's frames
        self._way = np.zeros(round(echo.delay_ms * RATE / 1000), np.float32)  # what is under way

    def next_samples(self) -> NDArray[np.int16]:
        new = [samples for _, samples in self._listener.frames[self._heard :]]
        self._heard += len(new)
        self._way = np.concatenate([self._way, *new])
        back, self._way = self._way[:FRAME], self._way[FRAME:]
        own = super().next_samples().astype(np.float32)
        own[: len(back)] += back * self._gain
        return np.clip(own, -32768, 32767).astype(np.int16)


async def play(scene: Scene, url: str, toned: bool) -> Seen:
    """One call. ``toned``: the bot answers in the steady tone, which more can be read from."""
    caller = Caller(url)
    if scene.echo is not None:
        caller.microphone = EchoingMicrophone(scene.echo, caller.listener)
    microphone = caller.microphone
    line = BadLine(scene.line or Line(), random.Random(scene.seed))
    question, over_sound = scene.question(), scene.over() if scene.over else None
    over: Span | None = None
    gone: Span | None = None
    try:
        await caller.connect()
        if scene.line is not None or scene.outage is not None:
            line.install(caller.peer)
        if not await caller.wait_until(lambda: microphone.began is not None, 10):
            raise CallFailed("Nobody took what the microphone had to say.")
        await caller.hear_out(time.monotonic(), 10, 0.6)
        asked = await _say(caller, question)
        if scene.outage is not None:
            await caller.hear_out(time.monotonic(), ANSWER_WAIT_S, 1.0)
            gone = await _outage(caller, line, scene.outage, question)
            again = await _say(caller, question)
        elif over_sound is not None:
            since = time.monotonic()
            if await caller.wait_until(lambda: caller.listener.last_loud_at > since, ANSWER_WAIT_S):
                await asyncio.sleep(scene.after_s)
                over = await _say(caller, over_sound)
                await asyncio.sleep(1.0)
        await caller.hear_out(time.monotonic(), ANSWER_WAIT_S, 1.0)
        if not caller.listener.arrivals:
            raise CallFailed("Not one packet came from the other side.")
    except Exception as error:  # a scene that fails is told of, and the others go on
        return Seen(scene.kind, scene.name, failed=f"{type(error).__name__}: {error}")
    finally:
        await line.close()
        await caller.hang_up()
    assert microphone.began is not None
    began = microphone.began - FRAME / RATE
    said = np.concatenate(microphone.sent).astype(np.float32) / np.float32(32768)
    bot = caller.listener.recording(began, len(said))
    if gone is not None:
        seen = look_after(scene, said, bot, asked, gone, again)
        words = [_said(asked, scene.words), _said(again, scene.words)]
    else:
        seen = look(scene, said, bot, asked, over, toned)
        words = [_said(asked, scene.words)] + ([_said(over, scene.over_words)] if over else [])
    return replace(seen, caller=_drawn(said), bot=_drawn(bot), said=words, told=_told(caller, began, toned))


async def _say(caller: Caller, sound: Pcm) -> Span:
    """Say it to its end."""
    span = caller.microphone.say(sound)
    await _reach(caller, span[1])
    return span


async def _reach(caller: Caller, sample: int) -> None:
    if not await caller.wait_until(lambda: caller.microphone.passed(sample), SAYING_S):
        raise CallFailed("The microphone stood still.")


async def _outage(caller: Caller, line: BadLine, outage: Outage, question: Pcm) -> Span:
    """Lose all for a while, and wait until the next question may be asked, so that it tests the goal.

    Between turns, it is asked so that it ends as soon as latency is to be normal, but not before. Amid a
    turn, that turn is the question itself, once more, and its answer is heard out.
    """
    microphone, lost = caller.microphone, round(outage.ms * RATE / 1000)
    if outage.between:
        start = microphone.position
        line.lose_all(outage.ms / 1000)
        await _reach(caller, start + lost + max(0, round(AFTER_OUTAGE_S * RATE) - len(question)))
    else:
        asked = microphone.say(question)
        await _reach(caller, (asked[0] + asked[1] - lost) // 2)
        start = microphone.position
        line.lose_all(outage.ms / 1000)
        await _reach(caller, asked[1])
        await caller.hear_out(time.monotonic(), ANSWER_WAIT_S, 1.0)
    return start, start + lost


def _said(span: Span, words: str) -> Said:
    return span[0] / RATE, span[1] / RATE, words


def _told(caller: Caller, began: float, toned: bool) -> list[Told]:
    """What the page was told, on the recording's clock. The tone's engine hears no words, but writes some."""
    kinds = [kind for kind in TOLD if not (toned and kind == "user-text")]
    return [
        (round(at - began, 3), data["type"], data.get("turn", -1), data.get("text", data.get("what", "")))
        for at, data in caller.messages
        if data.get("type") in kinds
    ]


def _drawn(wave: Pcm) -> list[float]:
    return [round(float(level), 4) for level in levels(wave)]
