"""The knowledge that calls ask: every base of this Parley, searched beside the event loop.

    async with Knowledge(settings.knowledge) as knowledge:
        answer = await knowledge.search("bluebird", "do you repair tents")
        answer.said()  # for the model; answer.hits for the transcript: text, where, headings, score

One thread has all files and vectors open, so nothing needs a lock: a search takes some milliseconds, and
calls that ask at the same moment wait for one another. Whatever is wrong with a base, a call that asks it is
told so and goes on. A Redis that may be asked what is near by meaning is asked in the event loop, between
two visits to the thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from loguru import logger

from bot.beside import beside
from bot.knowledge.base import Base, Encoder, Hit
from bot.knowledge.shared import SharedVectors
from bot.knowledge.store import KnowledgeError, NoSuchBase
from model_runtime.errors import EncoderError
from pipeline.memory import VectorStore

if TYPE_CHECKING:
    from bot.settings import KnowledgeSettings

_T = TypeVar("_T")

LIMIT = 3  # passages for one question: more is not listened to, and the model has to read it all
MOST_SAID = 1_900  # characters that a model is given: about 500 tokens, beside which a conversation has room
MOST_QUESTION = 1_000  # characters that are searched for
NOTHING = "Nothing was found about that. Say that you do not know it; do not guess."
AWAY = "The knowledge base cannot be read right now. Say that you cannot look it up; do not guess."


@dataclass(frozen=True)
class Answer:
    """What a search brought. Without ``hits`` nothing is near the question, or ``fault`` says why."""

    question: str
    hits: tuple[Hit, ...] = ()
    fault: str = ""

    def said(self) -> str:
        """For the model: each passage under its source, or what to do without one."""
        if self.fault:
            return AWAY
        if not self.hits:
            return NOTHING
        return "\n\n".join(self._told())

    @property
    def sources(self) -> tuple[str, ...]:
        """Where what is said stands."""
        return tuple(hit.where for hit, _ in zip(self.hits, self._told(), strict=False))

    def _told(self) -> list[str]:
        told = [f"[{hit.where}] {' / '.join(hit.headings)}\n{hit.text}" for hit in self.hits]
        while len(told) > 1 and sum(map(len, told)) > MOST_SAID:
            told.pop()  # whole passages, the last first: half of one misleads
        return told


class Knowledge:
    """All bases in a folder. Enter it before use; leaving it frees everything."""

    def __init__(
        self, settings: KnowledgeSettings, limit: int = LIMIT, vectors: VectorStore | None = None
    ) -> None:
        """``limit`` is how many passages a search gives at most; ``vectors`` a Redis that may be asked, too.

        Nothing is opened yet.
        """
        self._settings = settings
        self._limit = limit
        self._thread = ThreadPoolExecutor(1, "knowledge")
        self._shared = SharedVectors(vectors, self._vectors) if vectors else None
        self._resources = AsyncExitStack()
        self._bases: dict[str, Base] = {}
        self._encoder: Encoder | None = None
        self._encoder_loaded = False
        self._told: set[str] = set()

    async def __aenter__(self) -> Self:
        """Begin to look after what is shared."""
        self._resources.callback(self._thread.shutdown, wait=False)
        self._resources.push_async_callback(self._beside, self._close)
        if self._shared is not None:
            await self._resources.enter_async_context(beside(self._shared.run(), "vectors"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is open, after what is being searched."""
        await self._resources.aclose()

    async def search(self, base: str, question: str, limit: int | None = None) -> Answer:
        """What ``base`` has about a question. Does not raise for what may be wrong: the answer says so."""
        question = question[:MOST_QUESTION]
        most = self._limit if limit is None else limit
        try:
            found = await self._search(base, question, most)
        except KnowledgeError as error:
            if str(error) not in self._told:  # once, not in every call
                self._told.add(str(error))
                logger.error("calls go on without knowledge: {}", error)
            return Answer(question, fault=str(error))
        return Answer(question, tuple(found))

    async def prepare(self, base: str) -> str:
        """Load what a first search would wait for. Returns what is wrong with it, "" if nothing."""
        return (await self.search(base, "")).fault

    async def _search(self, name: str, question: str, limit: int) -> list[Hit]:
        shared = self._shared
        if shared is None:
            return await self._with(name, lambda base: base.search(question, limit))
        asked = await self._with(name, lambda base: base.ask(question))
        near = await shared.nearest(name, asked)
        return await self._with(name, lambda base: base.answer(asked, limit, near))

    async def _vectors(self, name: str, document: str) -> list[tuple[bytes, bytes]]:
        return await self._with(name, lambda base: base.vectors(document))

    async def _with(self, name: str, work: Callable[[Base], _T]) -> _T:
        return await self._beside(lambda: self._use(name, work))

    async def _beside(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # In the thread

    def _use(self, name: str, work: Callable[[Base], _T]) -> _T:
        if not self._encoder_loaded:
            self._encoder = self._load()
            self._encoder_loaded = True
        try:
            base = self._bases.get(name)
            if base is None:
                settings = self._settings
                base = Base(settings.folder, name, self._encoder, settings.least_likeness)
                self._bases[name] = base
            return work(base)
        except NoSuchBase:
            raise
        except KnowledgeError:
            self._forget(name)  # the next search opens it anew: somebody may have mended it
            raise

    def _load(self) -> Encoder | None:
        """The encoder of the settings. Without it, or with a broken one, words have to do."""
        try:
            return load_encoder(self._settings.encoder)
        except KnowledgeError as error:
            logger.error("the knowledge base is searched by words alone: {}", error)
            return None

    def _forget(self, name: str) -> None:
        base = self._bases.pop(name, None)
        if base is not None:
            with suppress(KnowledgeError):
                base.close()

    def _close(self) -> None:
        for name in list(self._bases):
            self._forget(name)


def load_encoder(folder: Path | None) -> Encoder | None:
    """The encoder in a folder; none without one. Raises ``KnowledgeError``."""
    if folder is None:
        return None
    from model_runtime.sentences import SentenceEncoder  # takes a while to import

    try:
        return SentenceEncoder(folder)
    except EncoderError as error:
        raise KnowledgeError(str(error)) from None
