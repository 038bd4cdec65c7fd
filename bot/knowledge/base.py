"""One base as it is searched: by words, by meaning, put together.

By meaning it is exact search in memory, which ``Nearest`` is; or somebody else has searched and tells what is
near (``bot.knowledge.shared``). Vectors are brought into memory when they are first needed there, and let go
when they were not for a while.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from loguru import logger

from bot.knowledge import ranking, words
from bot.knowledge.edition import Edition, edition_of
from bot.knowledge.store import Found, Store
from bot.knowledge.vectors import Nearest, Vectors
from model_runtime.errors import EncoderError

PATIENCE_S = 5.0  # a search that takes longer is given up: the caller waits
SPARE_S = 60.0  # vectors that were not needed so long are let go: 38 MB of 100,000 passages


class Encoder(Protocol):
    """What makes vectors: ``model_runtime.sentences.SentenceEncoder``."""

    name: str
    width: int

    def query(self, text: str) -> Vectors:
        """The vector [D] of a question."""

    def passages(self, texts: list[str]) -> Vectors:
        """The vectors [N, D] of passages."""


@dataclass(frozen=True)
class Hit:
    """A passage found. ``score`` is how near it is to the question, 0 to 1; the best to read is the first."""

    text: str
    source: str
    headings: tuple[str, ...]
    line: int
    page: int
    score: float

    @property
    def where(self) -> str:
        """As a person would look it up: "returns.md, line 12"."""
        place = f", page {self.page}" if self.page else f", line {self.line}" if self.line else ""
        return f"{self.source}{place}"


NO_EDITION = Edition("", {})


@dataclass(frozen=True)
class Asked:
    """A question, ready to be looked up. ``vector`` [D]: none without an encoder, or without words."""

    words: words.Query
    vector: Vectors | None
    edition: Edition  # of the base as it is now; empty without an encoder


class Base:
    """An open base. Used in one thread, closed by who opened it. Its methods raise ``KnowledgeError``."""

    def __init__(self, folder: Path, name: str, encoder: Encoder | None, least_likeness: float) -> None:
        """Open it for reading. Passages whose vectors another encoder made are found by words alone."""
        self._store = Store(folder, name)
        self._encoder = encoder
        self._least_likeness = least_likeness
        self._version = -1
        self._edition = NO_EDITION
        self._nearest: Nearest | None = None
        self._needed_at = 0.0  # the vectors, in memory

    def close(self) -> None:
        """Close its file."""
        self._store.close()

    def search(self, text: str, limit: int) -> list[Hit]:
        """The best passages for a question, none if none is near it."""
        return self.answer(self.ask(text), limit)

    def ask(self, text: str) -> Asked:
        """Understand a question."""
        vector = self._vector(text)
        with self._reading():
            return Asked(words.ask(text), vector, self._edition)

    def answer(self, asked: Asked, limit: int, near: Mapping[bytes, float] | None = None) -> list[Hit]:
        """The best passages for a question, none if none is near it.

        ``near``: the elements of an edition that are nearest to its vector, best first, each with its cosine;
        none: they are looked for here.
        """
        with self._reading():
            passages, usual = self._store.size()
            shares, by_words, found = self._by_words(asked.words, passages, usual)
            likeness = self._searched(asked.vector) if near is None else self._told(near)
            order = ranking.near(
                ranking.fused(by_words, list(likeness)), shares, likeness, self._least_likeness
            )[:limit]  # fmt: skip
            found |= self._store.fetch([one for one, _ in order if one not in found])
        return [_hit(found[one], score) for one, score in order]

    def vectors(self, document: str) -> list[tuple[bytes, bytes]]:
        """The elements of a document of the base's edition, each with its vector: float32, little-endian.

        None: it is not there any more.
        """
        with self._reading():
            kept = self._edition.documents.get(document)
            if kept is None:
                return []
            codes = np.frombuffer(self._store.codes(kept.document), np.int8).reshape(kept.rows, -1)
            floats = codes.astype("<f4")
            return [
                (element, row.tobytes())
                for element, row in zip(self._edition.elements(document), floats, strict=True)
            ]

    def _vector(self, text: str) -> Vectors | None:
        """What is asked as a vector, if there is an encoder and it does its work."""
        if self._encoder is None or not text.strip():
            return None
        try:
            return self._encoder.query(text)
        except EncoderError as error:
            logger.error("a question is looked up by words alone: {}", error)
            return None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """All within sees the base at one moment; what is kept of it here is of the same."""
        with self._store.reading(PATIENCE_S):
            version = self._store.version()
            if self._encoder and version != self._version:
                name = self._encoder.name
                self._nearest = None
                self._edition = edition_of(name, self._encoder.width, self._store.told(name))
            self._version = version
            yield

    def _searched(self, vector: Vectors | None) -> dict[int, float]:
        """The nearest passages by exact search. Brings the vectors into memory, whatever is asked."""
        if self._encoder is None:
            return {}
        if self._nearest is None:
            self._nearest = Nearest(self._store.vectors(self._encoder.name), self._encoder.width)
        self._needed_at = time.monotonic()
        return self._nearest.search(vector, ranking.CANDIDATES) if vector is not None else {}

    def _told(self, near: Mapping[bytes, float]) -> dict[int, float]:
        """The same by what somebody else found. Of another edition what is here, too, is right all the same:
        the names of documents tell their contents."""
        if self._nearest is not None and time.monotonic() - self._needed_at > SPARE_S:
            self._nearest = None
        return self._edition.ids(near)

    def _by_words(
        self, query: words.Query, passages: int, usual: float
    ) -> tuple[dict[int, float], list[int], dict[int, Found]]:
        """Of each passage worth a look its share of the query; the best of them in order; all of them."""
        terms = {term for token in query.tokens for term in (token.text, *token.parts)}
        frequencies = self._store.frequencies(terms)
        asked = ranking.wanted(query, frequencies, passages)
        looks = ranking.looks(asked, frequencies)
        ids = ranking.gathered(
            [(look.weight, self._store.holding(look.expression, ranking.BUDGET)) for look in looks],
            ranking.LOOKED_AT,
        )
        found = self._store.fetch(ids)
        scored = {
            one: ranking.score(asked, told.heading_terms, told.text_terms, usual)
            for one, told in found.items()
        }
        order = sorted(scored, key=lambda one: (-scored[one].score, one))
        return {one: told.share for one, told in scored.items()}, order[: ranking.CANDIDATES], found


def _hit(found: Found, score: float) -> Hit:
    told = found.passage
    return Hit(told.text, found.source, told.headings, told.line, told.page, score)
