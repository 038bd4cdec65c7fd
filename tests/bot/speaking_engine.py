"""An engine for tests: any number of sessions, and an answer in a steady tone to whatever it is asked.

It measures nothing and understands nothing; it lets a whole call be placed before there is a model.
Run by itself it serves a page to look at: ``python -m tests.bot.speaking_engine --socket PATH``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from types import TracebackType
from typing import Any, Self

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.exceptions import ConnectionClosed

from model_runtime import protocol
from model_runtime.protocol import (
    GROUP_SAMPLES,
    OUTPUT_RATE,
    Done,
    Open,
    Opened,
    Respond,
    Speech,
    ToolCall,
    Transcript,
)

LABEL = "demo model for tests, not Step-Audio 2"
EXAMPLES = ["When are you open?", "How long does delivery take?", "Do you have tents?", "Can I send it back?"]
ANSWER = ["Delivery", " takes", " two", " to", " three", " days."]
GREETING = ["Hello,", " this", " is", " Bluebird", " Outdoor."]


def tone(groups: int) -> bytes:
    """``groups`` times 160 ms of a 300 Hz tone, a quarter of full scale."""
    at = np.arange(groups * GROUP_SAMPLES) / OUTPUT_RATE
    return (8000 * np.sin(2 * np.pi * 300 * at)).astype("<i2").tobytes()


class SpeakingEngine:
    """Serves while the context lasts.

    ``hold_s`` keeps every answer back for so long; ``stumble_s`` is waited after the first piece of each;
    ``times`` the answer is said in each. ``calls``: what every answer to a voice asks for, if the agent has
    such a tool.
    """

    def __init__(
        self,
        socket: str = "",
        hold_s: float = 0.0,
        stumble_s: float = 0.0,
        times: int = 1,
        calls: tuple[str, dict[str, Any]] | None = None,
    ) -> None:
        self.sessions = 0
        self._calls = calls
        self._times = times
        self._socket = socket
        self._hold_s = hold_s
        self._stumble_s = stumble_s
        self._server: Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        if self._socket:
            return f"unix:{self._socket}"
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await (
            unix_serve(self._session, self._socket) if self._socket else serve(self._session, "127.0.0.1", 0)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _session(self, connection: ServerConnection) -> None:
        self.sessions += 1
        has_tools = False
        try:
            async for frame in connection:
                assert isinstance(frame, bytes)
                message = protocol.decode_client(frame)
                if isinstance(message, Open):
                    has_tools = bool(message.tools)
                    opened = Opened("tone", label=LABEL, voice="slt", transcribes=True, examples=EXAMPLES)
                    await connection.send(protocol.encode(opened))
                elif isinstance(message, Respond):
                    await self._answer(connection, message, has_tools)
        except ConnectionClosed:
            pass
        finally:
            self.sessions -= 1

    async def _answer(self, connection: ServerConnection, asked: Respond, has_tools: bool) -> None:
        words = ANSWER * self._times if asked.spans else GREETING
        if asked.spans:
            await connection.send(protocol.encode(Transcript(asked.turn, "how long does delivery take")))
        await asyncio.sleep(self._hold_s)
        for end in range(2, len(words) + 2, 2):
            piece = words[end - 2 : end]
            speech = Speech(asked.turn, tone(len(piece)), min(end, len(words)), piece)
            await connection.send(protocol.encode(speech))
            if end == 2:
                await asyncio.sleep(self._stumble_s)
        if self._calls and has_tools and asked.spans:
            await connection.send(protocol.encode(ToolCall(asked.turn, *self._calls)))
        await connection.send(protocol.encode(Done(asked.turn, "end", len(words), "".join(words))))


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", default="")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--calls", nargs=2, metavar=("TOOL", "ARGUMENTS"))
    options = parser.parse_args()
    calls = (options.calls[0], json.loads(options.calls[1])) if options.calls else None
    async with SpeakingEngine(options.socket, times=options.times, calls=calls) as engine:
        print(engine.url, flush=True)
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(_main())
