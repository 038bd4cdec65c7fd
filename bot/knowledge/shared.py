"""Asking the operator's Redis what is near by meaning, for as long as it has what a base has.

A search names the base's edition (``bot.knowledge.edition``). If Redis has it, Redis is asked; if not, the
caller compares in memory, and one process of all that want the edition writes it there, behind. Nothing here
is needed for a search to succeed, so whatever is wrong is told once and not in every call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from loguru import logger

from bot.knowledge.base import Asked
from bot.knowledge.edition import Edition, changes
from bot.knowledge.ranking import CANDIDATES
from bot.knowledge.store import KnowledgeError
from pipeline.memory import MemoryUnavailable, VectorStore
from pipeline.memory.vectors import NoVectorSets

LOOK_EVERY_S = 5.0  # whether Redis has what is wanted: two small commands a base
REST_S = 5.0  # after Redis did not answer, so long no call waits for it again
# Before the same edition is written a second time; doubled at each one that follows. A Redis that has not the
# room for it would otherwise be filled again and again.
FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 600.0

# Between tries of one document: a Redis that is away for a moment does not make all begin anew.
TRY_AGAIN_S = (0.5, 2.0, 5.0)

Read = Callable[[str, str], Awaitable[list[tuple[bytes, bytes]]]]


class SharedVectors:
    """What this process wants of Redis. ``run`` has to be running."""

    def __init__(self, store: VectorStore, read: Read) -> None:
        """``read``: the elements of a base's document, and their vectors; empty: it is not there any more."""
        self._store = store
        self._read = read
        self._wanted: dict[str, Edition] = {}  # by base
        self._before: dict[str, Edition] = {}  # by base: the last that Redis had
        self._whole: set[str] = set()  # editions that Redis has
        self._again: dict[str, tuple[float, float]] = {}  # by edition: when it may be written, the next pause
        self._wake = asyncio.Event()
        self._rest_until = 0.0
        self._trouble = ""  # as it was told

    async def nearest(self, base: str, asked: Asked) -> Mapping[bytes, float] | None:
        """The elements of ``asked.edition`` nearest to the question, best first, each with its cosine.

        ``None``: Redis does not say, and the caller has to look by itself. Does not wait longer than
        ``pipeline.memory.vectors.NEAR_S``.
        """
        edition = asked.edition
        if not edition.documents:
            return {}
        self._want(base, edition)
        if edition.name not in self._whole or time.monotonic() < self._rest_until:
            return None
        if asked.vector is None:
            return {}
        try:
            found = await self._store.nearest(edition.name, asked.vector.astype("<f4").tobytes(), CANDIDATES)
        except MemoryUnavailable as error:
            self._rest_until = time.monotonic() + REST_S
            self._tell(error)
            return None
        if not found:
            self._whole.discard(edition.name)
            self._wake.set()
            return None
        if self._trouble:
            self._trouble = ""
            logger.info("knowledge: Redis is asked again for what is near")
        return found

    def _want(self, base: str, edition: Edition) -> None:
        known = self._wanted.get(base)
        if known is None or known.name != edition.name:
            self._wanted[base] = edition
            self._again.pop(known.name if known else "", None)
            self._wake.set()

    async def run(self) -> None:
        """Look after what is wanted, until cancelled."""
        while True:
            self._wake.clear()
            missing = []
            try:
                for base, edition in list(self._wanted.items()):
                    if not await self._look(base, edition):
                        missing.append((base, edition))
                for base, edition in missing:
                    await self._write(base, edition)
            except MemoryUnavailable as error:
                self._tell(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()

    async def _look(self, base: str, edition: Edition) -> bool:
        if not await self._store.look(edition.name, edition.count):
            self._whole.discard(edition.name)
            return False
        if edition.name not in self._whole:
            logger.info(
                "knowledge: Redis has {}, {} passages, and is asked what is near", base, edition.count
            )
            self._whole.add(edition.name)
        before = self._before.get(base)
        if before is not None and before.name != edition.name:
            self._whole.discard(before.name)
        self._before[base] = edition
        return True

    async def _write(self, base: str, edition: Edition) -> None:
        """Bring an edition to Redis, if nobody else does and it is time to."""
        due, pause_s = self._again.get(edition.name, (0.0, FIRST_PAUSE_S))
        if time.monotonic() < due:
            return
        async with self._store.writing(edition.name) as ours:
            if not ours or await self._look(base, edition):  # another has finished it since
                return
            try:
                if await self._written(base, edition):
                    self._wake.set()  # to look at it
            finally:
                again = time.monotonic() + pause_s
                self._again[edition.name] = (again, min(2 * pause_s, LONGEST_PAUSE_S))

    async def _written(self, base: str, edition: Edition) -> bool:
        """Whether all of it is there now. If not, the base has changed, or another process took over."""
        gone: list[bytes] = []
        new = list(edition.documents)
        old = self._before.pop(base, None)
        if old is not None and (few := changes(old, edition)) is not None:
            self._whole.discard(old.name)
            if await self._store.begin(edition.name, old.name):
                gone, new = few
        else:
            await self._store.begin(edition.name)
        if not await self._store.remove(edition.name, gone):
            return False
        for document in new:
            begun = time.monotonic()
            try:
                vectors = await self._read(base, document)
            except KnowledgeError:
                return False  # which a search will be told, too
            if not vectors or not await self._added(edition.name, vectors):
                return False
            await asyncio.sleep(time.monotonic() - begun)  # half of a core for this, the other for calls
        return await self._store.finish(edition.name, edition.count)

    async def _added(self, edition: str, vectors: list[tuple[bytes, bytes]]) -> bool:
        """As ``VectorStore.add``, which may be done twice."""
        for pause_s in TRY_AGAIN_S:
            with suppress(MemoryUnavailable):
                return await self._store.add(edition, vectors)
            await asyncio.sleep(pause_s)
        return await self._store.add(edition, vectors)

    def _tell(self, error: MemoryUnavailable) -> None:
        """Say why Redis is not asked, once until it has been."""
        if not self._trouble:
            level = "INFO" if isinstance(error, NoVectorSets) else "WARNING"
            logger.log(level, "knowledge: what is near is not asked of Redis, but looked for here: {}", error)
        self._trouble = str(error)
