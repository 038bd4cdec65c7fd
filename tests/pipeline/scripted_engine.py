"""An engine for tests: a real WebSocket server that speaks the protocol and says what the test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve

from model_runtime import protocol
from model_runtime.protocol import (
    GROUP_SAMPLES,
    Audio,
    ClientMessage,
    Done,
    EngineMessage,
    Open,
    Opened,
    Respond,
    Speech,
)

M = TypeVar("M", bound=ClientMessage)

OPENED = Opened("scripted", label="a script", voice="v", voices=["v"], transcribes=True, examples=["Hello?"])


def spoken(turn: int, *texts: str, per_piece: int = 2) -> list[EngineMessage]:
    """An answer of one group a text, in pieces of some groups, and its ``Done``."""
    messages: list[EngineMessage] = []
    for start in range(0, len(texts), per_piece):
        piece = list(texts[start : start + per_piece])
        groups = start + len(piece)
        pcm = b"".join(
            (turn * 100 + start + i + 1).to_bytes(2, "little") * GROUP_SAMPLES for i in range(len(piece))
        )
        messages.append(Speech(turn, pcm, groups, piece))
    messages.append(Done(turn, "end", len(texts), "".join(texts)))
    return messages


Script = Callable[[Respond], Iterable[EngineMessage]]


class ScriptedEngine:
    """Answers each ``Respond`` by ``script``, or when the test calls ``say``. Remembers what it was told."""

    def __init__(self, script: Script | None = None, answer_open: EngineMessage = OPENED) -> None:
        self.script: Script = script or (lambda _: ())
        self.answer_open = answer_open
        self.accepts_timbre: EngineMessage | None = None  # the answer to who brings a voice along
        self.told: list[ClientMessage] = []  # everything but audio, of all sessions
        self.samples = 0  # of caller audio in the present session
        self.sessions = 0
        self.open_now = 0
        self._server: Server | None = None
        self._port = 0
        self._connection: ServerConnection | None = None
        self._news = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.crash()

    async def start(self) -> None:
        """Listen; after a crash, on the same port as before."""
        self._server = await serve(self._serve, "127.0.0.1", self._port)
        self._port = next(iter(self._server.sockets)).getsockname()[1]

    async def crash(self) -> None:
        """Die without a word, like a killed process."""
        if self._connection:
            self._connection.transport.abort()
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def say(self, *messages: EngineMessage) -> None:
        assert self._connection is not None
        for message in messages:
            await self._connection.send(protocol.encode(message))

    async def say_raw(self, frame: str | bytes) -> None:
        assert self._connection is not None
        await self._connection.send(frame)

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.told if isinstance(message, kind)]

    async def wait_for(self, kind: type[M], count: int = 1) -> M:
        """The ``count``-th message of a kind, when it has come."""
        await self.wait_until(lambda: len(self.all(kind)) >= count, f"{count} x {kind.__name__}")
        return self.all(kind)[count - 1]

    async def wait_until(self, fact: Callable[[], bool], what: str = "") -> None:
        try:
            async with asyncio.timeout(10), self._news:
                await self._news.wait_for(fact)
        except TimeoutError:
            raise AssertionError(f"never came: {what}; the engine was told {self.told}") from None

    async def _serve(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.sessions += 1
        self.open_now += 1
        self.samples = 0
        try:
            async for frame in connection:
                assert isinstance(frame, bytes)
                await self._take(protocol.decode_client(frame))
        except OSError:
            pass
        finally:
            self.open_now -= 1
            await self._tell()

    async def _take(self, message: ClientMessage) -> None:
        if isinstance(message, Audio):
            self.samples += len(message.pcm) // 2
        else:
            self.told.append(message)
        if isinstance(message, Open):
            brought = self.accepts_timbre if message.timbre else None
            await self.say(brought or self.answer_open)
        if isinstance(message, Respond):
            await self.say(*self.script(message))
        await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


async def eventually(fact: Callable[[], bool], what: str = "it") -> None:
    """Wait for something the test has no event for."""
    for _ in range(2000):
        if fact():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{what} never happened")
