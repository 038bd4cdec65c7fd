"""The vectors of knowledge bases in Redis, where it has vector sets, as Redis 8 does by itself.

https://redis.io/docs/latest/develop/data-types/vector-sets: approximate search (HNSW) in vectors of 8 bits.
An edition is written once, under another name, by one process; when it is whole it gets its own name and is
only asked. So what is found under that name is all that the edition has.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import cast

from loguru import logger
from redis import ResponseError
from redis.asyncio import Redis

from pipeline.memory.client import MemoryUnavailable, asking
from pipeline.memory.keys import Keys
from pipeline.memory.writing import TAKE_LEASE

NEAR_S = 0.05  # a caller waits, and this process can compare by itself; Redis takes 3 to 7 ms
LOOK_S = 0.5  # for what nobody waits for
STEP_S = 5.0  # likewise, and a batch is half a second of work for a Redis that has little time
LEASE_S = 30.0  # after a process has died, so long nobody else writes its edition
KEEP_S = 3600.0  # that an edition is kept which nobody asks for any more
BATCH = 16  # vectors added in one go: some 25 ms of Redis's time, 25 kB
# How many passages HNSW keeps in sight while it searches (EF): of the nearest 50 of 100,000 it finds 99.9 %
# then, where they lie in topics as sentences do.
EFFORT = 200

# KEYS: making, an edition that may be taken apart for it. ARGV: ms. 1 if that was there.
BEGIN = """
redis.call('unlink', KEYS[1])
if redis.call('exists', KEYS[2]) == 0 then return 0 end
redis.call('rename', KEYS[2], KEYS[1])
return redis.call('pexpire', KEYS[1], ARGV[1])
"""

# KEYS: making, edition. ARGV: how many vectors it has to have, ms. 1 if it has, and is whole with that.
FINISH = """
if redis.pcall('vcard', KEYS[1]) ~= tonumber(ARGV[1]) then
    redis.call('unlink', KEYS[1])
    return 0
end
redis.call('rename', KEYS[1], KEYS[2])
return redis.call('pexpire', KEYS[2], ARGV[2])
"""

# KEYS: lease, making. ARGV: this process. What was not finished is gone, unless another process is at it.
END = """
if redis.pcall('get', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('unlink', KEYS[1], KEYS[2])
"""

# KEYS: edition, set-aside. ARGV: ms. It keeps the time that it has left; only what has no end is given one.
# 1 if it was there: who asks for it and who looks after it may find it at once.
SET_ASIDE = """
if redis.call('exists', KEYS[1]) == 0 then return 0 end
redis.call('rename', KEYS[1], KEYS[2])
if redis.call('pttl', KEYS[2]) < 0 then redis.call('pexpire', KEYS[2], ARGV[1]) end
return 1
"""


class NoVectorSets(MemoryUnavailable):
    """This Redis has none."""


class VectorStore:
    """The editions of one tenant. Everything raises ``MemoryUnavailable`` where Redis does not do as asked.

    An edition, an element: as in ``pipeline.memory.keys``. A vector [D]: float32, little-endian.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        """On a connection that somebody else owns."""
        self._redis = redis
        self._keys = keys
        self._process = uuid.uuid4().hex

    async def nearest(self, edition: str, vector: bytes, limit: int) -> dict[bytes, float]:
        """The elements whose vectors are nearest to ``vector``, best first, each with its cosine.

        Nothing at all: the edition is not there, or not whole.
        """
        options = (b"WITHSCORES", b"COUNT", limit, b"EF", max(limit, EFFORT))
        try:
            async with asking(NEAR_S):
                found = await cast(
                    "Awaitable[list[bytes]]",
                    self._do("VSIM", self._keys.vectors(edition), b"FP32", vector, *options),
                )
        except MemoryUnavailable as error:
            if not _is_foreign(error):
                raise
            await self._set_aside(edition, "is nothing that Parley writes", NEAR_S)
            return {}
        # Flat, as RESP2 has it: an element, its score. A score is (1 + cosine) / 2.
        try:
            pairs = zip(found[::2], found[1::2], strict=True)
            return {element: 2 * float(score) - 1 for element, score in pairs}
        except (TypeError, ValueError):
            raise MemoryUnavailable("Redis does not answer VSIM as Redis 8 does") from None

    async def look(self, edition: str, count: int) -> bool:
        """Whether the edition is there, with all its ``count`` vectors; it is kept ``KEEP_S`` from now on.

        What is there and has another number of vectors is put aside. Raises ``NoVectorSets``.
        """
        key = self._keys.vectors(edition)
        async with asking(LOOK_S), self._redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("VCARD", key)
            pipe.pexpire(key, _ms(KEEP_S))
            has, there = await pipe.execute(raise_on_error=False)
            for answer in (has, there):
                if isinstance(answer, Exception) and not _is_wrong_type(answer):
                    if isinstance(answer, ResponseError) and "unknown command" in str(answer):
                        raise NoVectorSets("Redis has no vector sets, which are a part of Redis 8")
                    raise answer
        if not there:
            return False
        if has != count:
            wrong = f"{has} vectors, not {count}"
            if isinstance(has, Exception):
                wrong = "nothing that Parley writes"
            await self._set_aside(edition, f"is {wrong}", LOOK_S)
            return False
        return True

    @asynccontextmanager
    async def writing(self, edition: str) -> AsyncIterator[bool]:
        """Within, this process writes the edition and no other; false: another one does.

        What is not finished within is gone.
        """
        lease, making = self._keys.vectors_lease(edition), self._keys.vectors_making(edition)
        async with asking(LOOK_S):
            ours = bool(await self._redis.eval(TAKE_LEASE, 1, lease, self._process, _ms(LEASE_S)))
        try:
            yield ours
        finally:
            if ours:
                async with asking(LOOK_S):
                    await self._redis.eval(END, 2, lease, making, self._process)

    async def begin(self, edition: str, old: str = "") -> bool:
        """Begin to write an edition: with all that the edition ``old`` has, which is gone then, or empty.

        False: it is empty.
        """
        keys = (self._keys.vectors_making(edition), self._keys.vectors(old))
        async with asking(LOOK_S):
            return bool(await self._redis.eval(BEGIN, 2, *keys, _ms(LEASE_S)))

    async def add(self, edition: str, vectors: Sequence[tuple[bytes, bytes]]) -> bool:
        """Add elements with their vectors to what is being written. False: another process writes it now."""
        return await self._write(
            edition,
            # CAS: the neighbours are looked for in a thread of Redis, which goes on serving others.
            [("VADD", b"FP32", vector, element, b"CAS", b"Q8") for element, vector in vectors],
        )

    async def remove(self, edition: str, elements: Sequence[bytes]) -> bool:
        """Remove elements from what is being written. False as with ``add``."""
        return await self._write(edition, [("VREM", element) for element in elements])

    async def finish(self, edition: str, count: int) -> bool:
        """It is whole, if it has ``count`` vectors; if not, all of it is gone and was for nothing."""
        keys = (self._keys.vectors_making(edition), self._keys.vectors(edition))
        async with asking(STEP_S):
            return bool(await self._redis.eval(FINISH, 2, *keys, count, _ms(KEEP_S)))

    async def _write(self, edition: str, commands: Sequence[tuple[str | bytes, ...]]) -> bool:
        key, lease = self._keys.vectors_making(edition), self._keys.vectors_lease(edition)
        for start in range(0, len(commands), BATCH):
            async with asking(STEP_S), self._redis.pipeline(transaction=False) as pipe:
                pipe.eval(TAKE_LEASE, 1, lease, self._process, _ms(LEASE_S))
                for name, *arguments in commands[start : start + BATCH]:
                    pipe.execute_command(name, key, *arguments)
                pipe.pexpire(key, _ms(LEASE_S))
                ours, *_ = await pipe.execute()
            if not ours:
                return False
        return True

    async def _do(self, *command: object) -> object:
        answer: object = await self._redis.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py's
        return answer

    async def _set_aside(self, edition: str, why: str, within_s: float) -> None:
        """Put away what is not an edition, for a person to look at, so that one can be written."""
        key, aside = self._keys.vectors(edition), self._keys.vectors_set_aside(edition)
        async with asking(within_s):
            moved = await self._redis.eval(SET_ASIDE, 2, key, aside, _ms(KEEP_S))
        if moved:
            logger.warning(
                f"knowledge: what Redis has at {key.decode()} {why}; it is at {aside.decode()} now"
            )


def _is_wrong_type(error: Exception) -> bool:
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


def _is_foreign(error: MemoryUnavailable) -> bool:
    """Whether what was asked is no edition: of another type, or of vectors of another width."""
    return isinstance(error.__cause__, ResponseError) and any(
        said in str(error.__cause__) for said in ("WRONGTYPE", "dimension mismatch")
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
