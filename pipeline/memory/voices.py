"""The library's voices in Redis: written once, whole, so that a process without the folder has them, too.

What is in a voice's file is not looked into here: a hash kept beside it says whether it is what was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Iterable, Mapping
from typing import cast

from loguru import logger
from redis.asyncio import Redis

from pipeline.memory.client import MemoryUnavailable, asking
from pipeline.memory.keys import (
    F_DIGEST,
    F_ENTRY,
    F_FILE,
    F_GROWS,
    F_SCHEMA,
    VOICE_SCHEMA,
    Keys,
)

READ_S = 0.5  # a caller waits for the voice, and half a second of silence is not yet a fault
LOOK_S = 3.0  # for what nobody waits for
LOOK_AT = 200  # voices told of in one go: some 2 kB each

# KEYS: voice, voices, set-aside. ARGV: name, digest, replace, then the hash's fields and values. 1 if it was
# written. Without ``replace`` only what is not there is written, and nothing that was removed.
PUT = """
local there = redis.call('hget', KEYS[2], ARGV[1])
local whole = redis.call('exists', KEYS[1]) == 1
if ARGV[3] == '0' and there and (there == '' or whole) then return 0 end
redis.call('unlink', KEYS[1], KEYS[3])
redis.call('hset', KEYS[1], unpack(ARGV, 4))
redis.call('hset', KEYS[2], ARGV[1], ARGV[2])
redis.call('hincrby', KEYS[2], '#', 1)
return 1
"""

# KEYS: voice, set-aside, voices. ARGV: name, mark. Whether there was one. That it was removed stays known,
# else the next Parley with its file would write it anew; with ``mark`` also of one that is not here.
REMOVE = """
local known = redis.call('unlink', KEYS[1], KEYS[2]) > 0
known = known or (redis.call('hget', KEYS[3], ARGV[1]) or '') ~= ''
if not known and ARGV[2] == '0' then return 0 end
redis.call('hset', KEYS[3], ARGV[1], '')
redis.call('hincrby', KEYS[3], '#', 1)
return known and 1 or 0
"""

# KEYS: voice, voices. ARGV: name. A voice that Redis had no more room for is one it may be brought again.
LOST = """
if redis.call('exists', KEYS[1]) == 0 and (redis.call('hget', KEYS[2], ARGV[1]) or '') ~= '' then
    redis.call('hdel', KEYS[2], ARGV[1])
    redis.call('hincrby', KEYS[2], '#', 1)
end
"""

# KEYS: voice, set-aside, voices. ARGV: name, digest as it was read. Only what was read is put away.
SET_ASIDE = """
if redis.pcall('hget', KEYS[1], 'digest') ~= ARGV[2] and ARGV[2] ~= '' then return 0 end
redis.call('rename', KEYS[1], KEYS[2])
redis.call('hdel', KEYS[3], ARGV[1])
redis.call('hincrby', KEYS[3], '#', 1)
return 1
"""


class VoiceStore:
    """The voices of one tenant. Everything raises ``MemoryUnavailable`` where Redis does not do as asked."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        """On a connection that somebody else owns."""
        self._redis = redis
        self._keys = keys

    async def put(self, name: str, entry: bytes, file: bytes, *, replace: bool = True) -> bool:
        """Write a voice; without ``replace`` only if there is none, and none of that name was removed.

        Whether it was written. ``entry``: JSON of what is told of it, ``file``: the library's.
        """
        digest = digest_of(file)
        fields = {F_SCHEMA: b"%d" % VOICE_SCHEMA, F_DIGEST: digest, F_ENTRY: entry, F_FILE: file}
        flat = [part for pair in fields.items() for part in pair]
        keys = (self._keys.voice(name), self._keys.voices, self._keys.voice_set_aside(name))
        async with asking(LOOK_S):
            return bool(await self._redis.eval(PUT, 3, *keys, name, digest, int(replace), *flat))

    async def remove(self, name: str, *, mark: bool = False) -> bool:
        """Erase a voice, and what of it was set aside, so that nobody brings it again. False: there was none.

        ``mark``: even then nobody is to bring it.
        """
        keys = (self._keys.voice(name), self._keys.voice_set_aside(name), self._keys.voices)
        async with asking(LOOK_S):
            return bool(await self._redis.eval(REMOVE, 3, *keys, name, int(mark)))

    async def file(self, name: str) -> bytes | None:
        """A voice's file as it was written; ``None`` if there is none, or it cannot be read."""
        key = self._keys.voice(name)
        try:
            async with asking(READ_S):
                schema, digest, file = await cast(
                    "Awaitable[list[bytes | None]]", self._redis.hmget(key, [F_SCHEMA, F_DIGEST, F_FILE])
                )
        except MemoryUnavailable as error:
            if "WRONGTYPE" not in str(error):
                raise
            await self._set_aside(name, b"", "is nothing that Parley writes")
            return None
        if schema is None and digest is None and file is None:
            await self._lost(name)
            return None
        if schema is not None and schema.isdigit() and int(schema) > VOICE_SCHEMA:
            logger.warning(
                f"voice {name}: is of version {int(schema)} in Redis, this Parley's is {VOICE_SCHEMA}; "
                "it is left alone"
            )
            return None
        if schema != b"%d" % VOICE_SCHEMA:
            number = (schema or b"none").decode(errors="replace")
            await self._set_aside(name, digest or b"", f"is of version {number}")
            return None
        if file is None or digest_of(file) != digest:
            await self._set_aside(name, digest or b"", "is damaged: its file is not what was written")
            return None
        return file

    async def digests(self, known: int = -1) -> tuple[int, Mapping[str, bytes]] | None:
        """A number that grows with every change, and each voice's digest by name, empty if it was removed.

        ``None``: nothing has changed since that number was ``known``.
        """
        async with asking(LOOK_S):
            grows = await cast("Awaitable[bytes | None]", self._redis.hget(self._keys.voices, F_GROWS))
            if int(grows or 0) == known:
                return None
            told = await cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(self._keys.voices))
        number = int(told.pop(F_GROWS, b"0"))
        return number, {name.decode(errors="replace"): digest for name, digest in told.items()}

    async def entries(self, names: Iterable[str]) -> dict[str, bytes]:
        """What is told of voices: JSON by name, of those that are there."""
        wanted, found = list(names), {}
        for start in range(0, len(wanted), LOOK_AT):
            some = wanted[start : start + LOOK_AT]
            async with asking(LOOK_S), self._redis.pipeline(transaction=False) as pipe:
                for name in some:
                    pipe.hmget(self._keys.voice(name), [F_SCHEMA, F_ENTRY])
                answers = await pipe.execute(raise_on_error=False)
            for name, answer in zip(some, answers, strict=True):
                if not isinstance(answer, Exception) and answer[0] == b"%d" % VOICE_SCHEMA and answer[1]:
                    found[name] = answer[1]
        return found

    async def _lost(self, name: str) -> None:
        async with asking(READ_S):
            await self._redis.eval(LOST, 2, self._keys.voice(name), self._keys.voices, name)

    async def _set_aside(self, name: str, digest: bytes, why: str) -> None:
        """Put away what cannot be read, for a person to look at, so that a good one can take its place."""
        keys = (self._keys.voice(name), self._keys.voice_set_aside(name), self._keys.voices)
        try:
            async with asking(READ_S):
                await self._redis.eval(SET_ASIDE, 3, *keys, name, digest)
        except MemoryUnavailable as error:
            logger.warning(f"voice {name}: what Redis has of it {why}; it stays there: {error}")
        else:
            logger.warning(f"voice {name}: what Redis has of it {why}; it is at {keys[1].decode()} now")


def digest_of(file: bytes) -> bytes:
    """What a file is known by: in hex, so that a person can read it."""
    return hashlib.sha256(file).hexdigest().encode()  # which many processors have instructions for
