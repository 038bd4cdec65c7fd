"""What is remembered of a caller beyond a call: the voice they chose, where the agent is to remember it.

It is kept as long as a call is, counted from the end of the caller's last one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from typing import cast

from redis.asyncio import Redis

from pipeline.memory.client import READ_ALL_S, asking
from pipeline.memory.keys import CALLER_SCHEMA, F_CALLER, F_SCHEMA, Keys, f_voice

RECALL_S = 0.2  # the greeting waits for it
KEEP_S = 0.5  # the call is over, and its place is not free before
PORTION = 1000  # keys that Redis looks at in one go

# KEYS: caller. Erases what is of no agent any more.
TIDY = "if redis.call('hlen', KEYS[1]) <= 2 then return redis.call('del', KEYS[1]) end return 0"


# KEYS: caller. Their URI; what is no hash there is nobody's.
WHOSE = "local uri = redis.pcall('hget', KEYS[1], 'caller') return type(uri) == 'string' and uri or false"


class CallerStore:
    """The callers of one tenant. Everything raises ``MemoryUnavailable`` where Redis does not do as asked."""

    def __init__(self, redis: Redis, keys: Keys, keep_s: float) -> None:
        """On a connection that somebody else owns."""
        self._redis = redis
        self._keys = keys
        self._keep_s = keep_s

    async def voice(self, caller: str, agent: str) -> str:
        """The voice that they chose when they last spoke with this agent; empty: none."""
        key = self._keys.caller(known_as(caller))
        async with asking(RECALL_S):
            found = await cast(
                "Awaitable[list[bytes | None]]", self._redis.hmget(key, [F_SCHEMA, f_voice(agent)])
            )
        schema, voice = found
        if voice is None or schema != b"%d" % CALLER_SCHEMA:
            return ""
        return voice.decode(errors="replace")

    async def keep_voice(self, caller: str, agent: str, voice: str) -> None:
        """They chose it; empty: they have no choice any more."""
        key = self._keys.caller(known_as(caller))
        async with asking(KEEP_S), self._redis.pipeline(transaction=True) as pipe:
            if voice:
                fields = {F_SCHEMA: b"%d" % CALLER_SCHEMA, F_CALLER: caller, f_voice(agent): voice}
                pipe.hset(key, mapping=fields)  # type: ignore[arg-type] # bytes are fine
                pipe.pexpire(key, round(self._keep_s * 1000))
            else:
                pipe.hdel(key, f_voice(agent))
                pipe.eval(TIDY, 1, key)
            await pipe.execute()

    async def forget(self, asked: str) -> int:
        """Erase all callers who are the one asked for. How many there were."""
        erased, cursor = 0, 0
        while True:
            async with asking(READ_ALL_S):
                cursor, keys = await self._redis.scan(cursor, match=self._keys.callers, count=PORTION)
            for key in keys:
                async with asking(READ_ALL_S):
                    stored = await self._redis.eval(WHOSE, 1, key)
                    if stored is not None and is_caller(asked, stored.decode(errors="replace")):
                        erased += await self._redis.unlink(key)
            if not cursor:
                return erased


def is_somebody(caller: str) -> bool:
    """Whether a SIP URI tells one caller from others; anybody may withhold theirs (RFC 3323, section 4.1)."""
    user, at, host = _address(caller).partition("@")
    return bool(at and user) and user != "anonymous" and host != "anonymous.invalid"


def is_caller(asked: str, stored: str) -> bool:
    """Whether a stored ``caller`` is the one asked for: the same URI or, asked without a host, the same user.

    Scheme, display name, parameters and case do not count (RFC 3261, section 19.1.4, is stricter: a caller
    who asks to be forgotten should not be missed for a parameter).
    """
    wanted, there = _address(asked), _address(stored)
    return bool(wanted) and (wanted == there or wanted == there.partition("@")[0])


def known_as(caller: str) -> str:
    """What a caller's key is made of: always the same, and no number that a log of keys would show."""
    return hashlib.sha256(_address(caller).encode(errors="backslashreplace")).hexdigest()[:32]


def _address(uri: str) -> str:
    if "<" in uri:
        uri = uri.partition("<")[2].partition(">")[0]
    scheme, colon, rest = uri.strip().partition(":")
    if colon and scheme.lower() in ("sip", "sips", "tel"):
        uri = rest
    return uri.partition(";")[0].partition("?")[0].strip().casefold()
