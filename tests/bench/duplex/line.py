"""A bad line: packets of the caller that are lost, in bursts or alone, late, or overtaken.

It sits where aiortc hands a packet to SRTP, so what the server's jitter buffer gets is what a network would
bring it. Only the way to the bot is bad: the way back is what is measured.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass

from aiortc import RTCPeerConnection
from aiortc.rtp import is_rtcp


@dataclass(frozen=True)
class Line:
    """What it does to packets."""

    loss: float = 0.0  # share that never arrives
    burst: float = 1.0  # packets lost in a row, on average (Gilbert's model)
    jitter_ms: float = 0.0  # up to so late, in order
    overtaken: float = 0.0  # share that arrives after the packet behind it

    def loses(self, losing: bool, draw: random.Random) -> bool:
        """Whether the next packet is lost; ``losing``: whether the last one was."""
        begins = stays = self.loss
        if self.burst > 1:
            stays = 1 - 1 / self.burst
            begins = self.loss * (1 - stays) / (1 - self.loss)
        return draw.random() < (stays if losing else begins)


class BadLine:
    """One call's: ``install`` once it is connected, ``close`` after it."""

    def __init__(self, line: Line, draw: random.Random) -> None:
        self._line = line
        self._draw = draw
        self._losing = False
        self._last_at = 0.0
        self._gone_until = 0.0  # on the event loop's clock
        self._under_way: set[asyncio.Task[None]] = set()

    def install(self, peer: RTCPeerConnection) -> None:
        transport = peer.getSenders()[0].transport
        send = transport._send_rtp

        async def arrives(data: bytes, delay: float) -> None:
            await asyncio.sleep(delay)
            with suppress(ConnectionError):  # it was on its way when the caller hung up
                await send(data)

        async def sent(data: bytes) -> None:
            if is_rtcp(data):
                await send(data)
            elif asyncio.get_running_loop().time() >= self._gone_until and not self._lost():
                task = asyncio.create_task(arrives(data, self._delay()))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

        transport._send_rtp = sent  # type: ignore[method-assign] # the one place before SRTP

    def lose_all(self, seconds: float) -> None:
        """From now on, for so long, nothing arrives."""
        self._gone_until = asyncio.get_running_loop().time() + seconds

    async def close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _lost(self) -> bool:
        self._losing = self._line.loses(self._losing, self._draw)
        return self._losing

    def _delay(self) -> float:
        now = asyncio.get_running_loop().time()
        if self._line.jitter_ms:
            # In order, as queues on the way keep it.
            self._last_at = max(self._last_at, now + self._draw.uniform(0, self._line.jitter_ms) / 1000)
            return self._last_at - now
        return 0.03 if self._draw.random() < self._line.overtaken else 0.0
