"""Playing a scene: one real call, both sides recorded on one clock."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bot.headset import FRAME, RATE, Listener, Microphone
from bot.talk import Caller
from bot.waveform import Pcm
from tests.bench.duplex.line import BadLine, Line
from tests.bench.duplex.reading import Seen, levels, look
from tests.bench.duplex.scenes import Echo, Scene


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
    listener = caller.listener
    if scene.echo is not None:
        caller.microphone = EchoingMicrophone(scene.echo, listener)
    microphone = caller.microphone
    line = BadLine(scene.line or Line(), random.Random(scene.seed))
    question, over_sound = scene.question(), scene.over() if scene.over else None
    try:
        await caller.connect()
        if scene.line is not None:
            line.install(caller.peer)
        await caller.wait_until(lambda: microphone.began is not None, 10)
        await caller.hear_out(time.monotonic(), 10, 0.6)
        asked = microphone.say(question)
        await caller.wait_until(lambda: microphone.passed(asked[1]), 30)
        over = None
        if over_sound is not None:
            since = time.monotonic()
            await caller.wait_until(lambda: listener.last_loud_at > since, 10)
            await asyncio.sleep(scene.after_s)
            over = microphone.say(over_sound)
            end = over[1]
            await caller.wait_until(lambda: microphone.passed(end), 30)
            await asyncio.sleep(1.0)
        await caller.hear_out(time.monotonic(), 5, 1.0)
    except Exception as error:  # a scene that fails is told of, and the others go on
        return Seen(scene.kind, scene.name, failed=f"{type(error).__name__}: {error}")
    finally:
        await line.close()
        await caller.hang_up()
    assert microphone.began is not None
    said = np.concatenate(microphone.sent).astype(np.float32) / np.float32(32768)
    bot = listener.recording(microphone.began - 0.02, len(said))
    seen = look(scene, said, bot, asked, over, toned)
    return replace(seen, caller=_drawn(said), bot=_drawn(bot))


def _drawn(wave: Pcm) -> list[float]:
    return [round(float(level), 4) for level in levels(wave)]
