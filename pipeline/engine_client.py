"""The media process's end of the engine protocol: one WebSocket, one session, one call.

``async with`` owns the connection: leaving it, for whatever reason, closes the session and frees its place
in the engine. Sending never waits, so that the caller's audio path never stands still for an engine that
does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import InvalidHandshake, InvalidURI, WebSocketException

from model_runtime import protocol
from model_runtime.protocol import (
    INPUT_RATE,
    Audio,
    ClientMessage,
    Close,
    EngineMessage,
    Error,
    HistoryEntry,
    Open,
    Opened,
)

# The caller's audio goes 100 ms at a time: the engine needs none of it before it is asked for an answer, and
# is sent all of it then; each message takes both processes a tenth of a millisecond, whatever is in it.
HELD_BYTES = 2 * INPUT_RATE // 10
OUTBOX_MESSAGES = 200  # about 20 s of audio: an engine that far behind is as good as gone
CLOSE_TIMEOUT = 1.0  # s, for the closing handshake; a dead engine must not hold up the end of a call
PING_INTERVAL = 5.0  # s; with the timeout below, how long a frozen engine goes unnoticed at most
PING_TIMEOUT = 10.0  # s; an engine that is loading or compiling may answer late


class EngineRefused(Exception):  # noqa: N818 - it reads as what happened
    """The engine will not open the session. ``code`` is the protocol's ``Error.code``."""

    def __init__(self, code: str, message: str) -> None:
        """``message``: the engine's own words."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class EngineGone(Exception):  # noqa: N818 - as above
    """There is no engine at the other end, or not any more."""


class EngineClient:
    """One session with an engine. Made by ``open``, used within ``async with``."""

    def __init__(self, connection: ClientConnection, opened: Opened) -> None:
        """A session that the engine has accepted; see ``open``."""
        self.opened = opened
        self._connection = connection
        self._outbox: asyncio.Queue[ClientMessage] = asyncio.Queue(OUTBOX_MESSAGES)
        self._held = bytearray()
        self._sender: asyncio.Task[None] | None = None
        self._gone = False

    @classmethod
    async def open(
        cls, url: str, message: Open, within: float = 10.0, history: Sequence[HistoryEntry] = ()
    ) -> Self:
        """Connect to ``ws://...`` or ``unix:PATH`` and open a session ``within`` seconds.

        With ``history``, as many entries as ``message`` announces, it goes on where another session stopped.

        Raises:
            EngineRefused: the engine answered with an error.
            EngineGone: nobody answered, or not in time, or not in this protocol.
        """
        try:
            async with asyncio.timeout(within):
                connection = await _connect(url)
                try:
                    await connection.send(protocol.encode(message))
                    answer = _decode(await connection.recv())
                    for entry in history if isinstance(answer, Opened) else ():
                        await connection.send(protocol.encode(entry))
                except BaseException:
                    connection.transport.abort()  # no handshake with a peer that broke the first one
                    raise
        except (OSError, InvalidHandshake, InvalidURI, WebSocketException) as error:
            raise EngineGone(f"no engine at {url}: {error}") from error  # a TimeoutError is an OSError
        if isinstance(answer, Opened):
            return cls(connection, answer)
        await _close(connection)
        if isinstance(answer, Error):
            raise EngineRefused(answer.code, answer.message)
        raise EngineGone(f"the engine at {url} opened with {type(answer).__name__}")

    async def __aenter__(self) -> Self:
        """Start sending."""
        self._sender = asyncio.create_task(self._send_all(), name="engine-sender")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session, saying goodbye if anybody listens."""
        assert self._sender is not None
        self._gone = True
        self._sender.cancel()
        with suppress(asyncio.CancelledError):
            await self._sender
        with suppress(WebSocketException, OSError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._connection.send(protocol.encode(Close()))
        await _close(self._connection)

    def send(self, message: ClientMessage) -> None:
        """Queue a message; audio a little later. Never waits.

        Raises ``EngineGone`` when the engine is gone or reads nothing.
        """
        if self._gone:
            raise EngineGone("the connection to the engine is closed")
        if isinstance(message, Audio):
            self._held += message.pcm
        if self._held and (not isinstance(message, Audio) or len(self._held) >= HELD_BYTES):
            self._queue(Audio(bytes(self._held)))
            self._held.clear()
        if not isinstance(message, Audio):
            self._queue(message)

    def _queue(self, message: ClientMessage) -> None:
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:
            self._gone = True
            self._connection.transport.abort()  # wakes ``events``, which tells the call
            raise EngineGone("the engine reads nothing") from None

    async def events(self) -> AsyncIterator[EngineMessage]:
        """What the engine says, in order. Ends by raising ``EngineGone``: no session ends of itself."""
        try:
            async for frame in self._connection:
                yield _decode(frame)
        except (WebSocketException, OSError) as error:
            raise EngineGone(f"the connection to the engine broke: {error}") from error
        finally:
            self._gone = True
        raise EngineGone("the engine closed the session")

    async def _send_all(self) -> None:
        try:
            while True:
                await self._connection.send(protocol.encode(await self._outbox.get()))
        except (WebSocketException, OSError):
            self._gone = True  # ``events`` sees the same break and tells the call


async def _connect(url: str) -> ClientConnection:
    if url.startswith("unix:"):
        return await unix_connect(
            url.removeprefix("unix:"),
            max_size=protocol.MAX_FRAME_BYTES,
            compression=None,
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
        )
    return await connect(
        url,
        max_size=protocol.MAX_FRAME_BYTES,
        compression=None,  # PCM does not deflate
        proxy=None,  # an engine is a neighbour, whatever HTTP_PROXY says
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
    )


async def _close(connection: ClientConnection) -> None:
    with suppress(WebSocketException, OSError):
        await connection.close()


def _decode(frame: str | bytes) -> EngineMessage:
    """Raises ``EngineGone`` on anything that is not this protocol."""
    if isinstance(frame, str):
        raise EngineGone("the engine speaks text, not this protocol")
    try:
        return protocol.decode_engine(frame)
    except msgspec.MsgspecError as error:
        raise EngineGone(f"the engine does not speak this protocol: {error}") from error
