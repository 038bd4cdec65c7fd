"""One base as it is searched: by words, by meaning, put together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loguru import logger

from bot.knowledge import ranking, words
from bot.knowledge.store import Found, Store
from bot.knowledge.vectors import Nearest, Vectors
from model_runtime.errors import EncoderError

PATIENCE_S = 5.0  # a search that takes longer is given up: the caller waits


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


class Base:
    """An open base. Used in one thread, closed by who opened it. Its methods raise ``KnowledgeError``."""

    def __init__(self, folder: Path, name: str, encoder: Encoder | None, least_likeness: float) -> None:
        """Open it for reading. Passages whose vectors another encoder made are found by words alone."""
        self._store = Store(folder, name)
        self._encoder = encoder
        self._least_likeness = least_likeness
        self._version = -1
        self._passages, self._usual = 0, 0.0
        self._nearest: Nearest | None = None

    def close(self) -> None:
        """Close its file."""
        self._store.close()

    def search(self, text: str, limit: int) -> list[Hit]:
        """The best passages for a question, none if none is near it."""
        query = words.ask(text)
        vector = self._vector(text)
        with self._reading():
            shares, by_words, found = self._by_words(query)
            likeness = (
                self._nearest.search(vector, ranking.CANDIDATES)
                if self._nearest and vector is not None
                else {}
            )
            order = ranking.near(
                ranking.fused(by_words, list(likeness)), shares, likeness, self._least_likeness
            )[:limit]  # fmt: skip
            found |= self._store.fetch([one for one, _ in order if one not in found])
        return [_hit(found[one], score) for one, score in order]

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
            self._passages, self._usual = self._store.size()
            version = self._store.version()
            if self._encoder and version != self._version:
                self._nearest = Nearest(self._store.vectors(self._encoder.name), self._encoder.width)
            self._version = version
            yield

    def _by_words(self, query: words.Query) -> tuple[dict[int, float], list[int], dict[int, Found]]:
        """Of each passage worth a look its share of the query; the best of them in order; all of them."""
        terms = {term for token in query.tokens for term in (token.text, *token.parts)}
        frequencies = self._store.frequencies(terms)
        asked = ranking.wanted(query, frequencies, self._passages)
        looks = ranking.looks(asked, frequencies)
        ids = ranking.gathered(
            [(look.weight, self._store.holding(look.expression, ranking.BUDGET)) for look in looks],
            ranking.LOOKED_AT,
        )
        found = self._store.fetch(ids)
        scored = {
            one: ranking.score(asked, told.heading_terms, told.text_terms, self._usual)
            for one, told in found.items()
        }
        order = sorted(scored, key=lambda one: (-scored[one].score, one))
        return {one: told.share for one, told in scored.items()}, order[: ranking.CANDIDATES], found


def _hit(found: Found, score: float) -> Hit:
    told = found.passage
    return Hit(told.text, found.source, told.headings, told.line, told.page, score)
