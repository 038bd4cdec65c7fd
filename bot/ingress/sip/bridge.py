"""Two people on the phone who hear each other through us, and what one of them hears who has to wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from loguru import logger

from bot.beside import beside
from bot.ingress.sip import messages as m
from bot.ingress.sip.leg import LegError, SipLeg
from bot.ingress.sip.resampler import Resampler
from model_runtime.protocol import INPUT_RATE, OUTPUT_RATE

BEHIND = (
    10  # frames (200 ms) that may wait for one side's line; older ones are dropped, or it would lag for good
)
RING_HZ, RING_ON_S, RING_OFF_S = 425, 1, 4  # the ring tone of most of Europe (ITU-T E.180)
RING_LEVEL = 0.1  # of full scale: -20 dBFS


class _Way:
    """From one side's mouth to the other's ear."""

    def __init__(self, mouth: SipLeg, ear: SipLeg) -> None:
        self._mouth = mouth
        self._ear = ear
        self._waiting: deque[bytes] = deque(maxlen=BEHIND)
        self._keys: deque[str] = deque()
        self._news = asyncio.Event()

    async def listen(self) -> None:
        """Until the mouth hangs up."""
        resampler = Resampler(INPUT_RATE, 1, OUTPUT_RATE, 1)
        rest = b""
        async for event in self._mouth.events():
            match event:
                case m.Heard(pcm=pcm):
                    rest += resampler(pcm)
                    while len(rest) >= m.SPOKEN_BYTES:
                        self._waiting.append(rest[: m.SPOKEN_BYTES])
                        rest = rest[m.SPOKEN_BYTES :]
                case m.Digit(digit=digit):
                    self._keys.append(digit)
            self._news.set()

    async def pass_on(self) -> None:
        """Until the ear hangs up."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._keys:
                try:
                    await self._ear.press(self._keys.popleft())
                except LegError as error:
                    logger.info("a key could not be passed on: {}", error)
            while self._waiting:
                if not await self._ear.speak(self._waiting.popleft()):
                    return


async def bridge(one: SipLeg, other: SipLeg) -> None:
    """Let two established legs hear each other, keys included, until either is over. Ends neither."""
    ways = (_Way(one, other), _Way(other, one))
    parts: list[Coroutine[Any, Any, object]] = [one.ended(), other.ended()]
    parts += [part for way in ways for part in (way.listen(), way.pass_on())]
    work = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a fault in either way is the end of both
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


@asynccontextmanager
async def ringing(leg: SipLeg) -> AsyncIterator[None]:
    """Meanwhile the far end of ``leg`` hears a phone ring."""

    async def ring() -> None:
        samples = np.arange(OUTPUT_RATE * RING_ON_S)
        tone = RING_LEVEL * np.sin(2 * np.pi * RING_HZ * samples / OUTPUT_RATE)
        cycle = (tone * 32767).astype("<i2").tobytes() + bytes(2 * OUTPUT_RATE * RING_OFF_S)
        while True:
            for start in range(0, len(cycle), m.SPOKEN_BYTES):
                if not await leg.speak(cycle[start : start + m.SPOKEN_BYTES]):
                    return

    async with beside(ring(), "ring tone"):
        yield
