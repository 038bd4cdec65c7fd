"""A provider for tests: a real HTTP server on a socket, which answers as it should, or as it should not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any = None


@dataclass
class Raw:
    """An answer as bytes on the wire, with a pause after each piece; ``hang``: then nothing, for long."""

    pieces: list[bytes]
    pause_s: float = 0.0
    hang: bool = False


Answer = dict[str, Any] | list[Any] | str | bytes | int | Raw


def head(status: str, **headers: str) -> bytes:
    """The beginning of an answer."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}Connection: close\r\n\r\n".encode()


@dataclass
class Provider:
    """Answers by path: with JSON, text, a bare status, or ``Raw``."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: dict[str, Answer | Callable[[Asked], Answer]] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await self._read(reader)
            self.asked.append(request)
            answer = self.answers.get(request.path, 404)
            await self._write(writer, answer(request) if callable(answer) else answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines[1:-2])
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        url = urlsplit(target)
        return Asked(
            method, url.path, dict(parse_qsl(url.query)), headers, json.loads(body) if body else None
        )

    async def _write(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        if isinstance(answer, int):
            answer = Raw([head(f"{answer} Something")])
        elif not isinstance(answer, Raw):
            text = answer if isinstance(answer, str | bytes) else json.dumps(answer)
            content = text.encode() if isinstance(text, str) else text
            answer = Raw([head("200 OK", Content_Length=str(len(content))), content])
        for piece in answer.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(answer.pause_s)
        if answer.hang:
            await asyncio.sleep(30)


@asynccontextmanager
async def provider(**answers: Answer) -> AsyncIterator[Provider]:
    """One that listens; paths in ``answers`` have ``__`` for a slash."""
    made = Provider(answers={"/" + path.replace("__", "/"): answer for path, answer in answers.items()})
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()


HOSTILE: dict[str, Answer] = {
    "an error": 500,
    "not found": 404,
    "a redirect to a private address": Raw(
        [head("302 Found", Location="http://169.254.169.254/latest/meta-data")]
    ),
    "nothing": b"",
    "no JSON": "<html>sign in</html>",
    "another shape": [1, 2, 3],
    "shapes within": {"results": "all of them", "web": 3, "current": None},
    "not UTF-8": b"\xff\xfe{}",
    "nesting without end": b"[" * 200_000,
    "too much": b'{"results": [' + b"1," * 400_000 + b"1]}",
    "too much, without saying so": Raw([head("200 OK"), *[b"x" * 65_536] * 20]),
    "compressed unasked": Raw([head("200 OK", Content_Encoding="gzip"), b"\x1f\x8b" + b"x" * 100]),
    "cut off": Raw([head("200 OK", Content_Length="1000"), b'{"results"']),
    "no HTTP": Raw([b"220 mail.example.com ESMTP\r\n\r\n"]),
    "a header without end": Raw([b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000]),
    "numbers that are none": b'{"results": [{"name": "X", "latitude": NaN, "longitude": Infinity}]}',
}
"""What a provider may answer that must harm nobody, by name."""
