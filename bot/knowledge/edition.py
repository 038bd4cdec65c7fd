"""An edition: what of a base has vectors at one moment, by names that are the same on every machine. Pure.

Ids of passages are a file's own. What machines share goes by the documents' names and contents instead, so
that what one wrote another can read, and a base that has changed is another edition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.memory.keys import VECTORS_SCHEMA

LETTERS = 24  # of a hash in hex: 96 bits, so that no two of a trillion documents are one
MOST_CHANGED = 0.5  # of an edition, to be made of the one before it


class Kept(NamedTuple):
    """A document's vectors as a base has them: the document's id, its first passage's, how many in a row."""

    document: int
    first: int
    rows: int


class Told(NamedTuple):
    """The same with what makes the document another one, and the bytes of its vectors in 8 bits."""

    kept: Kept
    source: str
    digest: str
    size: int


@dataclass(frozen=True)
class Edition:
    """``name``: what it is known by. ``documents``: by the names of theirs, which vectors it has."""

    name: str
    documents: Mapping[str, Kept]

    @property
    def count(self) -> int:
        """How many passages have a vector."""
        return sum(kept.rows for kept in self.documents.values())

    def elements(self, document: str) -> list[bytes]:
        """The names of a document's passages, in its order."""
        return [f"{document}:{place}".encode() for place in range(self.documents[document].rows)]

    def ids(self, found: Mapping[bytes, float]) -> dict[int, float]:
        """Passages by their ids instead of their names, in that order; without those that are not here."""
        ids = {}
        for element, value in found.items():
            document, _, place = element.decode(errors="replace").partition(":")
            kept = self.documents.get(document)
            if kept and place.isdecimal() and int(place) < kept.rows:
                ids[kept.first + int(place)] = value
        return ids


def edition_of(encoder: str, width: int, documents: Iterable[Told]) -> Edition:
    """The edition of these documents, whose vectors [rows, ``width``] are by ``encoder``. Others are left
    out."""
    found = {
        _hash(encoder, source, digest): kept
        for kept, source, digest, size in documents
        if size == kept.rows * width
    }
    held = (f"{name}:{kept.rows}" for name, kept in sorted(found.items()))
    return Edition(_hash(f"{VECTORS_SCHEMA}", encoder, f"{width}", *held), found)


def changes(old: Edition, new: Edition) -> tuple[list[bytes], list[str]] | None:
    """What makes ``new`` of ``old``: the elements to remove, and the documents to add.

    ``None``: so much that it is better made of nothing, since to remove one costs what it does to add one.
    """
    gone = [element for one in old.documents if one not in new.documents for element in old.elements(one)]
    more = [one for one in new.documents if one not in old.documents]
    cost = len(gone) + sum(new.documents[one].rows for one in more)
    return (gone, more) if cost <= MOST_CHANGED * new.count else None


def _hash(*parts: str) -> str:
    """Of all of them, and of where each ends."""
    told = "\0".join(parts).encode(errors="surrogatepass")
    return hashlib.sha256(told).hexdigest()[:LETTERS]
