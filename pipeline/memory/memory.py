"""The memory of calls: what a call tells, and what may be asked of it later, by this process or the next."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

from loguru import logger

from model_runtime.protocol import HistoryEntry
from pipeline.conversation import Conversation
from pipeline.memory.call_state import CallState
from pipeline.memory.callers import CallerStore
from pipeline.memory.client import READ_ALL_S, MemoryUnavailable, asking, connect
from pipeline.memory.keys import Keys
from pipeline.memory.masters import let_go
from pipeline.memory.placed import PlacedStore
from pipeline.memory.stored import NewerSchema, Remembered, Unreadable, unpack
from pipeline.memory.vectors import VectorStore
from pipeline.memory.voices import VoiceStore
from pipeline.memory.writing import RELEASE, Writer

READ_S = 0.5  # for Redis to answer at all: a caller waits
FLUSH_S = 1.0  # for what is left to be written when Parley stops

# KEYS: call, set-aside. ARGV: ms. It keeps the time that it has left; only what has no end is given one.
SET_ASIDE = """
redis.call('rename', KEYS[1], KEYS[2])
if redis.call('pttl', KEYS[2]) < 0 then redis.call('pexpire', KEYS[2], ARGV[1]) end
"""


class CallMemory:
    """What one call leaves behind. Nothing here waits or raises; after ``close`` nothing has any effect."""

    def __init__(self, state: CallState, writer: Writer) -> None:
        """Made by ``Memory.call``."""
        self._state = state
        self._writer = writer

    def entry(self, entry: HistoryEntry) -> None:
        """An entry of the engine's history: it stands at its place, and what stood there and behind is void.

        One that would leave a gap before it is not kept.
        """
        self._tell(lambda: self._state.entry(entry))

    def converse(self, conversation: Conversation) -> None:
        """What was said, as it stands now."""
        self._tell(lambda: self._state.converse(conversation))

    def note(self, **facts: str) -> None:
        """Small facts about the call, beside those noted before."""
        self._tell(lambda: self._state.note(facts))

    def close(self, **facts: str) -> None:
        """The call is over, and ``facts`` say how: its lease is released once all of it is written.

        The rest is kept ``keep_s``.
        """
        if facts:
            self.note(**facts)
        if self._writer.is_open(self._state):
            self._writer.close(self._state)

    def _tell(self, change: Callable[[], None]) -> None:
        if not self._writer.is_open(self._state):
            return
        try:
            change()
        except Exception as error:  # the call has to go on, whatever its words are made of
            logger.error(f"call {self._state.call_id}: something said is not kept: {error!r}")
        else:
            self._writer.changed(self._state)


class Memory:
    """The memory of one media process: it owns the connection, and ``run`` writes behind.

    Args:
        url: as in ``pipeline.memory.address.FORMS``.
        tenant: whose calls these are; see ``pipeline.memory.keys``.
        keep_s: seconds for which a call is remembered after its end.

    Raises:
        ValueError: a URL or a tenant that cannot be one. The message does not repeat the URL.
    """

    def __init__(self, url: str, *, tenant: str = "default", keep_s: float = 86_400.0) -> None:
        """See the class. Nothing is connected yet."""
        self._keys = Keys(tenant)
        self._redis = connect(url, self._keys)
        self.voices = VoiceStore(self._redis, self._keys)
        self.callers = CallerStore(self._redis, self._keys, keep_s)
        self.placed = PlacedStore(self._redis, self._keys)
        self.vectors = VectorStore(self._redis, self._keys)
        self._keep_s = keep_s
        self._process = uuid.uuid4().hex
        self._writer = Writer(self._redis, self._keys, self._process, keep_s)

    @property
    def behind(self) -> int:
        """Changes not yet written: entries, conversations, facts."""
        return self._writer.behind

    @property
    def lost(self) -> int:
        """Changes given up because too much was waiting."""
        return self._writer.lost

    async def run(self) -> None:
        """Write behind until cancelled; then write what is left, for at most ``FLUSH_S``, and disconnect."""
        try:
            await self._writer.run()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._writer.flush()
            if self.behind:
                logger.warning(f"{self.behind} changes of calls could not be written to Redis any more")
            await let_go(self._redis)

    def call(self, call_id: str) -> CallMemory:
        """A call begins. It has told nothing yet: one that goes on is told again what ``recall`` returned.

        What it tells replaces all that Redis has under this id. With this an earlier call of that id in this
        process has ended, whether it was closed or not.
        """
        return CallMemory(self._writer.open(call_id), self._writer)

    async def recall(self, call_id: str) -> Remembered | None:
        """What is remembered of a call; ``None`` if nothing is, or it cannot be read.

        Call ``own`` first: what another process still writes would be missing.

        Raises:
            MemoryUnavailable: Redis could not be asked within ``READ_S``, or the call not read within
                ``READ_ALL_S``.
        """
        if (state := self._writer.waiting(call_id)) is not None:
            return state.remembered()  # Redis would answer with what was before
        key = self._keys.call(call_id)
        async with asking(READ_S):
            kind = await self._redis.type(key)
        if kind == b"none":
            return None
        fields: dict[bytes, bytes] = {}
        async with asking(READ_ALL_S):
            if kind == b"hash":
                fields = await cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(key))
        try:
            return unpack(call_id, fields)
        except NewerSchema as error:
            logger.warning(f"call {call_id}: what is remembered of it {error}; it is left alone")
        except Unreadable as error:
            await self._set_aside(call_id, str(error))
        return None

    async def forget(self, call_id: str) -> None:
        """Erase a call, and what of it still waits to be written; if it goes on here, it is kept no more.

        A call that goes on in another process is kept anew by that one.

        Raises:
            MemoryUnavailable: Redis did not say so within ``READ_S``.
        """
        self._writer.drop(call_id)
        # A step of it may be under way: wait for its end.
        async with asking(READ_S), self._writer.stepping, self._redis.pipeline(transaction=True) as pipe:
            pipe.unlink(self._keys.call(call_id), self._keys.set_aside(call_id))
            pipe.eval(RELEASE, 1, self._keys.lease(call_id), self._process)
            await pipe.execute()

    async def own(self, call_id: str) -> bool:
        """Take the call's lease: it is ours for ``LEASE_S``, and for as long as the call is open here.

        False: another process has it. A Redis that cannot be asked counts as true: no caller is turned away
        for that.
        """
        try:
            async with asking(READ_S):
                return await self._writer.take_lease(call_id)
        except MemoryUnavailable as error:
            logger.warning(f"call {call_id}: taken without asking whether another process has it: {error}")
            return True

    async def _set_aside(self, call_id: str, why: str) -> None:
        """Put away what cannot be read, for a person to look at, so that it is not met with again."""
        key, aside = self._keys.call(call_id), self._keys.set_aside(call_id)
        try:
            async with asking(READ_S):
                await self._redis.eval(SET_ASIDE, 2, key, aside, round(self._keep_s * 1000))
        except MemoryUnavailable as error:
            logger.warning(f"call {call_id}: what is remembered of it {why}; it stays there: {error}")
        else:
            logger.warning(f"call {call_id}: what is remembered of it {why}; it is at {aside.decode()} now")
