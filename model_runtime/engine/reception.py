"""Whom an engine serves: sockets in, sessions on the worker's thread behind them.

One WebSocket is one session. This side only checks frames, counts places and moves bytes; which server the
sockets come from (``server``, ``asgi``) makes no difference to a client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Any, Protocol

import msgspec

from model_runtime import protocol
from model_runtime.engine.refusal import Refusal
from model_runtime.engine.settings import Settings
from model_runtime.engine.worker import Worker
from model_runtime.protocol import ClientMessage, EngineMessage, Open

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 10.0  # a connection that does not say what it wants by then is closed
FIGURES_TIMEOUT_S = 5.0  # a unit of work takes far less
# Unread by the client, 87 s of speech: nothing more is made for it until it reads on.
STALL_BYTES = 4 * 1024 * 1024
BACKLOG = 5_000  # messages the worker has not taken: clients are read no faster than that


class Gone(Exception):  # noqa: N818 - it reads as what happened
    """The client has closed the WebSocket, or vanished."""


class Socket(Protocol):
    """One accepted WebSocket."""

    async def recv(self) -> bytes | str:
        """The next frame. Raises ``Gone``."""

    async def send(self, frame: bytes) -> None:
        """Send a binary frame; waits where the client reads slowly. Raises ``Gone``."""

    async def close(self) -> None:
        """Close with code 1000. Raises nothing if it is closed."""


class Connection:
    """One client: the ``Port`` of its session."""

    def __init__(self, socket: Socket, loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
        """``send_all`` has to run beside it."""
        self._socket = socket
        self._loop = loop
        self._worker = worker
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._unread = 0
        self._lock = threading.Lock()
        self.finished = asyncio.Event()

    @property
    def stalled(self) -> bool:
        """Whether more than ``STALL_BYTES`` wait to be read by the client."""
        return self._unread > STALL_BYTES

    def deliver(self, message: EngineMessage) -> None:
        """Queue a frame; any thread."""
        frame = protocol.encode(message)
        with self._lock:
            self._unread += len(frame)
        self._call(self._frames.put_nowait, frame)

    def finish(self) -> None:
        """Nothing more will be delivered; any thread."""
        self._call(self._frames.put_nowait, None)
        self._call(self.finished.set)

    def _call(self, function: object, *arguments: object) -> None:
        # The loop is closed only when the process is about to end: there is nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]  # any callable

    async def send_all(self) -> None:
        """Send what is delivered until ``finish``, then close the WebSocket."""
        try:
            while (frame := await self._frames.get()) is not None:
                await self._socket.send(frame)
                was_stalled = self.stalled
                with self._lock:
                    self._unread -= len(frame)
                if was_stalled and not self.stalled:
                    self._worker.wake()
            await self._socket.close()
        except Gone:
            pass  # ``_read`` sees the same and frees the session


class Reception:
    """Sessions for sockets, at most ``places`` at once. The worker must be ready."""

    def __init__(self, settings: Settings, worker: Worker) -> None:
        """To be made in the event loop that will serve."""
        self.sessions = 0  # places taken, from the ``Open`` until the worker has freed everything
        self.places = settings.max_sessions
        self._worker = worker
        self._dead: asyncio.Future[None] = asyncio.wrap_future(worker.ended)

    @property
    def fullness(self) -> str:
        """A line for a supervisor: how many of the places are taken."""
        return f"{self.sessions}/{self.places} sessions\n"

    async def figures(self) -> bytes:
        """``Figures`` as JSON, for whoever measures; ``{}`` if the worker does not tell them in time."""
        try:
            told = await asyncio.wait_for(asyncio.wrap_future(self._worker.figures()), FIGURES_TIMEOUT_S)
        except TimeoutError:
            return b"{}"
        return msgspec.json.encode(told)

    async def serve(self, socket: Socket) -> None:
        """One WebSocket from its first frame to its end."""
        try:
            opening = await self._opening(socket)
            if self.sessions >= self.places:
                raise Refusal("capacity", "All places of this engine are taken.", fatal=True)
        except Refusal as refusal:
            log.info("refused code=%s: %s", refusal.error.code, refusal)
            await _end(socket, refusal)
            return
        except Gone:
            return
        self.sessions += 1
        connection = Connection(socket, asyncio.get_running_loop(), self._worker)
        sender = asyncio.create_task(connection.send_all(), name=f"send {opening.call_id!r}")
        try:
            self._worker.open(connection, opening)
            await self._read(socket, connection)
        finally:
            self._worker.leave(connection)
            try:
                # The place is free when the worker has let go of the session, not before.
                await self._released(connection)
            finally:
                self.sessions -= 1
            try:
                await sender
            finally:
                sender.cancel()

    async def _released(self, connection: Connection) -> None:
        """Wait for the worker to free the session; a worker that has died will free nothing any more."""
        finished = asyncio.ensure_future(connection.finished.wait())
        either: set[asyncio.Future[Any]] = {finished, self._dead}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not connection.finished.is_set():
            finished.cancel()
            connection.finish()

    async def _opening(self, socket: Socket) -> Open:
        try:
            message = _decode(await asyncio.wait_for(socket.recv(), OPEN_TIMEOUT_S))
        except TimeoutError:
            raise Refusal("bad_request", "Nothing was opened in time.", fatal=True) from None
        if not isinstance(message, Open):
            kind = type(message).__name__
            raise Refusal("bad_request", f"The first frame must be Open, not {kind}.", fatal=True)
        if message.version != protocol.VERSION:
            text = f"This engine speaks version {protocol.VERSION} of the protocol, not {message.version}."
            raise Refusal("version", text, fatal=True)
        return message

    async def _read(self, socket: Socket, connection: Connection) -> None:
        """Pass frames on until the client goes or sends what is no message."""
        try:
            while True:
                self._worker.message(connection, _decode(await socket.recv()))
                while self._worker.backlog > BACKLOG:  # noqa: ASYNC110  its queue is another thread's
                    await asyncio.sleep(0.01)
        except Refusal as refusal:
            log.info("refused code=%s: %s", refusal.error.code, refusal)
            connection.deliver(refusal.error)
        except Gone:
            pass  # the session is freed all the same


def _decode(frame: bytes | str) -> ClientMessage:
    """Raises ``Refusal`` (fatal) on anything that is not a message."""
    if isinstance(frame, str):
        raise Refusal("bad_request", "Frames are binary msgpack, not text.", fatal=True)
    if len(frame) > protocol.MAX_FRAME_BYTES:
        text = f"A frame of {len(frame)} bytes is too long: at most {protocol.MAX_FRAME_BYTES}."
        raise Refusal("bad_request", text, fatal=True)
    try:
        return protocol.decode_client(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("bad_request", f"Not a message of this protocol: {error}", fatal=True) from None


async def _end(socket: Socket, refusal: Refusal) -> None:
    """Say why, and close."""
    with contextlib.suppress(Gone):
        await socket.send(protocol.encode(refusal.error))
        await socket.close()
