"""The engine as an ASGI application, to be served by somebody else's server: the same sessions as ``server``.

Limits of frames, pings and timeouts of the WebSocket itself are that server's.
"""

from __future__ import annotations

import contextlib

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from model_runtime.engine.reception import Gone, Reception


class AsgiSocket:
    """An accepted WebSocket of an ASGI server as a ``reception.Socket``."""

    def __init__(self, socket: WebSocket) -> None:
        """One that is open."""
        self._socket = socket
        self._gone = False

    async def recv(self) -> bytes | str:
        """See ``Socket``."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            self._gone = True
            raise Gone
        frame: bytes | None = message.get("bytes")
        if frame is not None:
            return frame
        text: str = message["text"]
        return text

    async def send(self, frame: bytes) -> None:
        """See ``Socket``."""
        if self._gone:  # servers make a fault of what is sent after the end
            raise Gone
        try:
            await self._socket.send_bytes(frame)
        except WebSocketDisconnect:
            raise Gone from None

    async def close(self) -> None:
        """See ``Socket``."""
        if not self._gone:
            with contextlib.suppress(WebSocketDisconnect):  # the client was quicker
                await self._socket.close()


def application(reception: Reception) -> Starlette:
    """``reception`` behind any path's WebSocket, and beside it ``GET /healthz`` (how many places are taken)
    and ``GET /figures``, both as the engine's own server has them.
    """

    async def client(socket: WebSocket) -> None:
        if "origin" in socket.headers:
            await socket.close(1008)  # a web page has an origin and has no business here: HTTP 403
            return
        await socket.accept()
        await reception.serve(AsgiSocket(socket))

    async def health(request: Request) -> PlainTextResponse:
        return PlainTextResponse(reception.fullness)

    async def figures(request: Request) -> Response:
        return Response(await reception.figures(), media_type="application/json")

    plain = [Route("/healthz", health), Route("/figures", figures)]
    return Starlette(routes=[*plain, WebSocketRoute("/{path:path}", client)])
