"""Bringing documents into a base: which files, what is new about them, and their passages' vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bot.knowledge import words
from bot.knowledge.base import Encoder
from bot.knowledge.passages import MOST, USUAL, Passage, Unreadable
from bot.knowledge.reading import MOST_BYTES, kind_of, read
from bot.knowledge.store import Document, KnowledgeError, Store
from bot.knowledge.vectors import coded
from model_runtime.errors import EncoderError

# What a document becomes depends on these, too: if they change, adding it again is not for nothing.
_MAKING = f"{words.VERSION} {USUAL} {MOST}"


@dataclass(frozen=True)
class File:
    """A file to add, and the name that its passages will be known by."""

    path: Path
    source: str


@dataclass(frozen=True)
class Added:
    """What became of one file. ``said`` is why it was refused."""

    source: str
    what: Literal["added", "replaced", "unchanged", "refused"]
    passages: int = 0
    said: str = ""


def files(given: Iterable[Path]) -> list[File]:
    """Files by their names; of folders all documents within, by their path in the folder.

    Raises ``KnowledgeError`` if two would have one name: the second would take the place of the first.
    """
    found: dict[str, Path] = {}
    for path in given:
        for file in _within(path) if path.is_dir() else [File(path, path.name)]:
            if found.setdefault(file.source, file.path) != file.path:
                raise KnowledgeError(
                    f"{found[file.source]} and {file.path} would both be {file.source!r}. "
                    "Add the folder above both."
                )
    return [File(path, source) for source, path in found.items()]


def _within(folder: Path) -> Iterator[File]:
    """Documents of a folder and those below it; nothing hidden, and no links out of it."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if kind_of(path) and not hidden and path.is_file() and not path.is_symlink():
            yield File(path, inside.as_posix())


def add(store: Store, encoder: Encoder | None, file: File) -> Added:
    """Bring one file in. Raises ``KnowledgeError`` for what concerns all of them: the base or the encoder."""
    before = {document.source: document for document in store.documents()}.get(file.source)
    try:
        digest, size = _digest(file.path)
        if before and before.digest == digest and before.encoder == _name(encoder, before):
            return Added(file.source, "unchanged", before.passages)
        told = read(file.path)
    except Unreadable as error:
        return Added(file.source, "refused", said=str(error))
    codes = None
    if encoder is not None:
        try:
            codes = coded(encoder.passages([_as_asked(one) for one in told]))
        except EncoderError as error:
            raise KnowledgeError(str(error)) from None
    store.put(file.source, digest, size, told, codes, encoder.name if encoder else "")
    return Added(file.source, "replaced" if before else "added", len(told))


def _name(encoder: Encoder | None, before: Document) -> str:
    """Which encoder's vectors a document should have. Without one those that it has are left alone."""
    return encoder.name if encoder else before.encoder


def _as_asked(passage: Passage) -> str:
    """A passage for the encoder: what its headings say is often the very thing that is asked."""
    return ". ".join((*passage.headings, passage.text))


def _digest(path: Path) -> tuple[str, int]:
    """A hash of the content and of how it is made passages; the size in bytes. Raises ``Unreadable``."""
    try:
        if path.is_file() and 0 < path.stat().st_size <= MOST_BYTES:
            content = path.read_bytes()
            return hashlib.sha256(_MAKING.encode() + b"\n" + content).hexdigest(), len(content)
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror}).") from None
    return "", 0  # the reader will say what is wrong with it
