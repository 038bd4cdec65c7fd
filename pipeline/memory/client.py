"""Asking Redis: a client that fails at once, a limit of time, and what went wrong in a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, ReadOnlyError

from pipeline.memory.address import FORMS, parse
from pipeline.memory.cancelling import heeding_cancellation
from pipeline.memory.keys import Keys
from pipeline.memory.masters import follow
from pipeline.memory.writing import WRITE_S, reason

READ_ALL_S = 3.0  # for everything about a call: an hour of the largest model's is 100 MB


class MemoryUnavailable(Exception):  # noqa: N818 - reads as what it is
    """Redis could not be asked. The message says why."""


@asynccontextmanager
async def asking(seconds: float) -> AsyncIterator[None]:
    """Redis has so long. Raises ``MemoryUnavailable``."""
    with heeding_cancellation():
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise MemoryUnavailable(f"Redis did not answer in {seconds:g} s") from None
        except (RedisError, OSError) as error:
            raise MemoryUnavailable(reason(error)) from error


def connect(url: str, keys: Keys) -> Redis:
    """A client that fails at once rather than try again: whoever uses it knows better what to do then.

    With Sentinels or a Cluster it is one of the master that has ``keys``. ``masters.let_go`` closes it.
    Raises ``ValueError`` for a URL that cannot be one, without repeating it.
    """
    options: dict[str, Any] = {
        "protocol": 2,  # any Redis speaks it, and nothing of the third is needed
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": READ_ALL_S,
        "socket_connect_timeout": WRITE_S,
    }
    try:
        address = parse(url)
        if address.kind == "server":
            client: Redis = Redis.from_url(url, **options)
        else:
            client = follow(address, keys.call(""), **options)
        # Connects nothing, but looks at the URL's options.
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call] # redis-py's
    except (ValueError, TypeError):  # their words may repeat a part of the password
        raise ValueError(
            f"The URL of Redis cannot be used. It should be like {', '.join(FORMS[:-1])} or {FORMS[-1]}; "
            "special characters in a password have to be percent-encoded."
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
    if isinstance(cause, ReadOnlyError) or (isinstance(cause, ResponseError) and "READONLY" in str(cause)):
        return "Redis is read-only, as a replica is: its master has to be asked."
    if isinstance(cause, ResponseError):
        return f"Redis answers, but does not do as asked: {reason(cause)}."
    if cause is not None:
        return f"Redis cannot be reached: {cause}".rstrip(".") + "."
    return f"{error}."
