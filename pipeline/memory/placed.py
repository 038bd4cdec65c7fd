"""Which calls were placed for which requests: a request that is sent again has nobody called twice.

It outlives the process, and all Parleys of one tenant know it. The request is kept as a hash, since it may
hold a number and what is to be said there; who asks again sends it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from pipeline.memory.client import MemoryUnavailable, asking
from pipeline.memory.keys import PLACED_SCHEMA, Keys

CLAIM_S = 0.5  # whoever asks for a call waits for it

# KEYS: placed. ARGV: schema, request, call, at, ms. What stands there now.
CLAIM = """
if redis.call('exists', KEYS[1]) == 0 then
  redis.call('hset', KEYS[1], 'schema', ARGV[1], 'request', ARGV[2], 'call', ARGV[3], 'at', ARGV[4])
  redis.call('pexpire', KEYS[1], ARGV[5])
end
return redis.call('hmget', KEYS[1], 'schema', 'request', 'call', 'at')
"""

# KEYS: placed. ARGV: call. Another's claim stays.
GIVE_UP = (
    "if redis.call('hget', KEYS[1], 'call') == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
)


@dataclass(frozen=True)
class Claim:
    """Who was first to call for a key."""

    request: str  # its hash
    call_id: str
    at: str  # ISO 8601, UTC


class PlacedStore:
    """One tenant's. Everything raises ``MemoryUnavailable`` where Redis does not do as asked."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        """On a connection that somebody else owns."""
        self._redis = redis
        self._keys = keys

    async def claim(self, key: str, wanted: Claim, keep_s: float) -> Claim:
        """``wanted`` if nobody has claimed ``key`` in the last ``keep_s`` seconds, else theirs."""
        fields = (b"%d" % PLACED_SCHEMA, wanted.request, wanted.call_id, wanted.at, round(keep_s * 1000))
        async with asking(CLAIM_S):
            schema, *said = await cast(
                "Awaitable[list[bytes | None]]", self._redis.eval(CLAIM, 1, self._place(key), *fields)
            )
        if schema != fields[0] or None in said:
            raise MemoryUnavailable("another version of Parley wrote what stands there")
        return Claim(*(one.decode(errors="replace") for one in said if one is not None))

    async def give_up(self, key: str, call_id: str) -> None:
        """That call was not placed after all: the next request of ``key`` is the first again."""
        async with asking(CLAIM_S):
            await self._redis.eval(GIVE_UP, 1, self._place(key), call_id)

    def _place(self, key: str) -> bytes:
        return self._keys.placed(hashed(key))


def hashed(text: str) -> str:
    """What is kept in place of ``text``."""
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
