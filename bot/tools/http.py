"""Asking a service over HTTP, within bounds.

The operator names the service; a caller's words only ever fill in a query. So they choose neither host nor
path, and no redirect is followed to where an answer would.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import httpx
from loguru import logger
from pydantic import BaseModel, ValidationError

from bot.tools.function import ToolError

TIMEOUT_S = (
    5.0  # for each step (connecting, sending, the next bytes); a tool's own timeout bounds them together
)
MAX_BYTES = 512 * 1024  # of an answer: honest ones are a few KiB

Shape = TypeVar("Shape", bound=BaseModel)


def client() -> httpx.AsyncClient:
    """One for all tools of a process."""
    # Bytes are counted as they come: a compressed answer could unfold to anything.
    headers = {"Accept-Encoding": "identity", "Accept": "application/json", "User-Agent": "Parley"}
    return httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, headers=headers)


async def ask(
    http: httpx.AsyncClient,
    service: str,
    shape: type[Shape],
    url: str,
    *,
    params: dict[str, str | int | float] | None = None,
    headers: dict[str, str] | None = None,
    body: dict[str, Any] | None = None,
) -> Shape:
    """The answer of ``service`` in the shape it should have; with ``body``, posted.

    Raises ``ToolError``, which names the service; what was wrong with the answer is for the log.
    """
    try:
        async with http.stream(
            "GET" if body is None else "POST", url, params=params, headers=headers, json=body
        ) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ValueError(f"status {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise ValueError("it is compressed, though that was not asked for")
            content = bytearray()
            async for piece in answer.aiter_raw():
                content += piece
                if len(content) > MAX_BYTES:
                    raise ValueError(f"it is longer than {MAX_BYTES} bytes")
        return shape.model_validate(json.loads(content))
    except httpx.TimeoutException:
        logger.warning(f"{service} took too long")
        raise ToolError(f"{service} did not answer in time.") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        logger.warning(f"{service} cannot be reached: {error!r}")
        raise ToolError(f"{service} cannot be reached.") from None
    except ValidationError as error:
        logger.warning(f"{service} answered in another shape: {error.error_count()} faults")
        raise ToolError(f"{service} gave no usable answer.") from None
    except (ValueError, RecursionError) as error:  # of Unicode and JSON, too
        logger.warning(f"{service} gave no usable answer: {error}")
        raise ToolError(f"{service} gave no usable answer.") from None
