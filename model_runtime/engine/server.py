"""The engine as a server of its own: WebSockets on an address or a Unix socket."""

from __future__ import annotations

import contextlib
import http
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from model_runtime import protocol
from model_runtime.engine.reception import Gone, Reception
from model_runtime.engine.settings import Settings
from model_runtime.engine.worker import Worker

CLOSE_TIMEOUT_S = 2.0  # for the closing handshake
# A client that has vanished is given up after this: its place is all it holds.
PING_S = 10.0
# Twice what the protocol allows: a frame a little too long is refused in words, a longer one by code 1009.
READ_LIMIT = 2 * protocol.MAX_FRAME_BYTES


class WebSocket:
    """A connection of the websockets library as a ``reception.Socket``."""

    def __init__(self, connection: ServerConnection) -> None:
        """One that is open."""
        self._connection = connection

    async def recv(self) -> bytes | str:
        """See ``Socket``."""
        try:
            return await self._connection.recv()
        except ConnectionClosed:
            raise Gone from None

    async def send(self, frame: bytes) -> None:
        """See ``Socket``."""
        try:
            await self._connection.send(frame)
        except ConnectionClosed:
            raise Gone from None

    async def close(self) -> None:
        """See ``Socket``."""
        await self._connection.close()


class EngineServer:
    """Sessions over WebSockets. The worker must be ready."""

    def __init__(self, settings: Settings, worker: Worker) -> None:
        """Nobody is served before ``listening``. To be made in the event loop that will serve."""
        self._settings = settings
        self._reception = Reception(settings, worker)

    @property
    def sessions(self) -> int:
        """Places taken."""
        return self._reception.sessions

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve while the context lasts; gives the URL."""
        settings = self._settings
        options: dict[str, Any] = {
            "max_size": READ_LIMIT,
            "compression": None,  # PCM does not deflate
            "origins": [None],  # a web page has an origin and has no business here
            "process_request": self._plain,
            "ping_interval": PING_S,
            "ping_timeout": PING_S,
            "close_timeout": CLOSE_TIMEOUT_S,
            "server_header": None,
        }
        server: Server
        if settings.socket is not None:
            server = await unix_serve(self._client, str(settings.socket), **options)
            url = f"ws+unix://{settings.socket}"
        else:
            server = await serve(self._client, settings.host, settings.port, **options)
            host, port = next(iter(server.sockets)).getsockname()[:2]
            url = f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"
        try:
            yield url
        finally:
            server.close(code=1001, reason="the engine is being stopped")
            await server.wait_closed()
            if settings.socket is not None:
                settings.socket.unlink(missing_ok=True)

    async def _plain(self, connection: ServerConnection, request: Request) -> Response | None:
        """``GET /healthz`` tells a supervisor that the engine lives, and how full it is; ``GET /figures``
        whoever measures it what it has done (JSON).
        """
        match request.path:
            case "/healthz":
                return connection.respond(http.HTTPStatus.OK, self._reception.fullness)
            case "/figures":
                figures = await self._reception.figures()
                return connection.respond(http.HTTPStatus.OK, figures.decode())
            case _:
                return None

    async def _client(self, connection: ServerConnection) -> None:
        await self._reception.serve(WebSocket(connection))
