"""Looking things up while the caller still speaks, so that it is done when the question is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from bot.knowledge import words
from bot.knowledge.knowledge import Answer
from bot.knowledge.ranking import settled, worthwhile

Search = Callable[[str, bool], Awaitable[Answer]]  # the words, and whether more may come


class EarlySearch:
    """One question in the making. Enter it; leaving it ends what is still being searched for nobody."""

    def __init__(self, search: Search) -> None:
        """``search`` as ``Knowledge.search`` does for one base."""
        self._search = search
        self._running: asyncio.Task[Answer] | None = None
        self._latest: Answer | None = None

    async def __aenter__(self) -> Self:
        """Nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End a search that runs."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    def hear(self, text: str) -> None:
        """All words of the question so far. Begins a search if they are worth one and none is running."""
        self._take()
        looked_for = self._latest.terms if self._latest else ()
        if self._running is None and worthwhile(words.ask(text, unfinished=True), looked_for):
            self._running = asyncio.ensure_future(self._search(text, True))

    async def answer(self, question: str) -> Answer:
        """What there is about the whole question: the early answer if that is as good, else a new one."""
        if self._running is not None:
            await asyncio.wait({self._running})
        self._take()
        early = self._latest
        if early is not None and not early.fault and settled(early.terms, words.ask(question)):
            return early
        return await self._search(question, False)

    def _take(self) -> None:
        """The answer of a search that has ended; one that failed brought none."""
        if self._running is None or not self._running.done():
            return
        if not self._running.cancelled() and self._running.exception() is None:
            self._latest = self._running.result()
        self._running = None
