"""Asking Redis: a client that fails at once, a limit of time, and what went wrong in a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError

from pipeline.memory.writing import WRITE_S, reason

READ_ALL_S = 3.0  # for everything about a call: an hour of the largest model's is 100 MB


class MemoryUnavailable(Exception):  # noqa: N818 - reads as what it is
    """Redis could not be asked. The message says why."""


@asynccontextmanager
async def asking(seconds: float) -> AsyncIterator[None]:
    """Redis has so long. Raises ``MemoryUnavailable``."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise MemoryUnavailable(f"Redis did not answer in {seconds:g} s") from None
    except (RedisError, OSError) as error:
        raise MemoryUnavailable(reason(error)) from error


def connect(url: str) -> Redis:
    """A client that fails at once rather than try again: whoever uses it knows better what to do then.

    Raises ``ValueError`` for a URL that cannot be one, without repeating it.
    """
    try:
        client: Redis = Redis.from_url(
            url,
            protocol=2,  # any Redis speaks it, and nothing of the third is needed
            retry=Retry(NoBackoff(), 0),
            socket_timeout=READ_ALL_S,
            socket_connect_timeout=WRITE_S,
        )
        # Connects nothing, but looks at the URL's options.
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call] # redis-py's
    except (ValueError, TypeError):  # their words may repeat a part of the password
        raise ValueError(
            "The URL of Redis cannot be used. It should be like redis://:password@host:6379/0, rediss://host "
            "or unix:///path; special characters in a password have to be percent-encoded."
        ) from None
    return client


def in_words(error: MemoryUnavailable) -> str:
    """What stands in the way, as a sentence for whoever runs Parley."""
    cause = error.__cause__
    if cause is not None and isinstance(cause.__cause__, RedisError):  # what went wrong as it connected
        cause = cause.__cause__
    if isinstance(cause, AuthenticationError):
        return "Redis refuses the user or the password, or wants one."
    if isinstance(cause, NoPermissionError):
        return f"Redis does not allow its user to do that: {cause}."
    if isinstance(cause, BusyLoadingError):
        return "Redis is still reading its data. Please try again in a moment."
    if isinstance(cause, ResponseError) and "READONLY" in str(cause):
        return "Redis is read-only, as a replica is: its master has to be asked."
    if isinstance(cause, ResponseError):
        return f"Redis answers, but does not do as asked: {reason(cause)}."
    if cause is not None:
        return f"Redis cannot be reached: {cause}".rstrip(".") + "."
    return f"{error}."
