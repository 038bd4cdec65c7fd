"""A knowledge base: one SQLite file of documents, their passages, an index of their terms, and their vectors.

Everything a document brings is written in one transaction, so whoever reads sees it whole or as it was
before, also after a crash. Readers and one writer go on side by side (write-ahead log), each process with its
own connection.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot.knowledge import words
from bot.knowledge.edition import Kept, Told
from bot.knowledge.passages import Passage

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
SUFFIX = ".knowledge"
APPLICATION = 0x50726C79  # SQLite's application_id: "Prly"
SCHEMA = 1
BUSY_MS = 30_000  # that a writer waits for another one
_CREATE = f"""
    PRAGMA application_id = {APPLICATION};
    PRAGMA user_version = {SCHEMA};
    CREATE TABLE meta (words_version INTEGER NOT NULL);
    INSERT INTO meta VALUES ({words.VERSION});
    CREATE TABLE documents (
        id INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, bytes INTEGER NOT NULL,
        passages INTEGER NOT NULL, terms INTEGER NOT NULL, added REAL NOT NULL
    );
    CREATE TABLE passages (
        id INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
        text TEXT NOT NULL, headings TEXT NOT NULL, line INTEGER NOT NULL, page INTEGER NOT NULL,
        heading_terms TEXT NOT NULL, text_terms TEXT NOT NULL
    );
    CREATE INDEX passages_of ON passages (document);
    CREATE TABLE vectors (
        document INTEGER PRIMARY KEY REFERENCES documents ON DELETE CASCADE, encoder TEXT NOT NULL,
        first INTEGER NOT NULL, rows INTEGER NOT NULL, codes BLOB NOT NULL
    );
    CREATE VIRTUAL TABLE terms USING fts5 (
        heading_terms, text_terms, content='passages', content_rowid='id',
        tokenize="unicode61 remove_diacritics 0"
    );
    CREATE TABLE frequencies (term TEXT PRIMARY KEY, passages INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TRIGGER passage_added AFTER INSERT ON passages BEGIN
        INSERT INTO terms (rowid, heading_terms, text_terms)
        VALUES (new.id, new.heading_terms, new.text_terms);
    END;
    CREATE TRIGGER passage_removed AFTER DELETE ON passages BEGIN
        INSERT INTO terms (terms, rowid, heading_terms, text_terms)
        VALUES ('delete', old.id, old.heading_terms, old.text_terms);
    END;
"""
_PARTING = "\x1f"  # between headings: ASCII's unit separator, which no text should have

Codes = NDArray[np.int8]


class KnowledgeError(Exception):
    """Something cannot be done with a knowledge base. The message is a sentence that says what and why."""


class NoSuchBase(KnowledgeError):  # noqa: N818 - reads as what it is
    """There is no base of that name."""


@dataclass(frozen=True)
class Document:
    """One that a base has. ``added`` in seconds since 1970."""

    source: str
    digest: str
    bytes: int
    passages: int
    added: float
    encoder: str = ""  # which made its vectors; "" without


@dataclass(frozen=True)
class Found:
    """A passage as it is kept, with the terms it is found by."""

    passage: Passage
    source: str
    heading_terms: str
    text_terms: str


def path_of(folder: Path, name: str) -> Path:
    """The file of a base. Raises ``KnowledgeError`` for a name that is none."""
    if not NAME.fullmatch(name):
        raise KnowledgeError(
            f"{name!r} cannot be the name of a knowledge base: "
            "it may have lower-case letters, digits and dashes, 64 at most."
        )
    return folder / f"{name}{SUFFIX}"


def names(folder: Path) -> list[str]:
    """The bases in a folder, which need not exist."""
    found = (path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
    return sorted(name for name in found if NAME.fullmatch(name))


class Store:
    """An open base. Used in one thread, closed by who opened it. Every method raises ``KnowledgeError``."""

    def __init__(self, folder: Path, name: str, create: bool = False, writing: bool = False) -> None:
        """Open the base ``name`` for reading or ``writing``; with ``create`` make it if it is not there."""
        self.path = path_of(folder, name)
        self.name = name
        if not self.path.is_file():
            if not create:
                raise NoSuchBase(
                    f"There is no knowledge base {name!r} in {folder}: "
                    f"parley knowledge add --base {name} DOCS makes one."
                )
            self._make(folder)
        with self._told():
            self._db = sqlite3.connect(
                self.path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
            )
        try:
            with self._told():
                self._check()
                if not writing:
                    self._db.execute("PRAGMA query_only = ON")
                self._db.execute("PRAGMA foreign_keys = ON")
                self._db.execute("PRAGMA secure_delete = ON")  # what is removed is overwritten
                # A crash of the machine may lose the last document added, and no other.
                self._db.execute("PRAGMA synchronous = NORMAL")
                # In KiB. Not mapped into memory: a file that somebody cuts short would end the process.
                self._db.execute("PRAGMA cache_size = -65536")
        except KnowledgeError:
            self._db.close()
            raise

    def _make(self, folder: Path) -> None:
        """An empty base, whole or not at all: readers look only at its final name."""
        part = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.touch(mode=0o600)
            with self._told(), closing(sqlite3.connect(part)) as db:
                db.executescript(_CREATE)
                db.execute("PRAGMA journal_mode = WAL")  # kept in the file
            with suppress(FileExistsError):  # another process was quicker
                self.path.hardlink_to(part)
        except OSError as error:
            raise KnowledgeError(
                f"{self.path}: the knowledge base cannot be made ({error.strerror}). "
                "PARLEY_KNOWLEDGE__FOLDER names another folder."
            ) from None
        finally:
            for rest in (part, Path(f"{part}-wal"), Path(f"{part}-shm")):
                with suppress(OSError):
                    rest.unlink()

    def _check(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (schema,) = self._db.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION:
            raise KnowledgeError(f"{self.path}: is not a knowledge base of Parley.")
        # There is one schema so far. A later one brings older bases up to itself here.
        made = self._db.execute("SELECT words_version FROM meta").fetchone() if schema == SCHEMA else None
        if made != (words.VERSION,):
            raise KnowledgeError(
                f"{self.path}: was made by another version of Parley. "
                "Move it away and add the documents again."
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors, in a sentence."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                said = "is damaged. Move it away and add the documents again."
            elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                said = "is being written by another process. Try again when that is done."
            elif code == sqlite3.SQLITE_INTERRUPT:
                said = "took too long to search."
            else:
                said = f"cannot be used ({error})."
            raise KnowledgeError(f"{self.path}: {said}") from None

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._told():
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def reading(self, seconds: float) -> Iterator[None]:
        """All that is read within is of one moment, and takes no longer than so many seconds."""
        end = time.monotonic() + seconds
        self._db.set_progress_handler(lambda: time.monotonic() > end, 10_000)  # SQLite's steps: about 1 ms
        try:
            self._rows("BEGIN")
            yield
        finally:
            self._db.set_progress_handler(None, 0)
            with self._told():
                self._db.rollback()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.rollback()

    # What a person does

    def documents(self) -> list[Document]:
        """All of them, by their sources."""
        rows = self._rows(
            "SELECT source, digest, bytes, passages, added, coalesce(encoder, '') FROM documents "
            "LEFT JOIN vectors ON vectors.document = documents.id ORDER BY source"
        )
        return [Document(*row) for row in rows]

    def passages(self, source: str) -> list[Passage]:
        """All of one document's, in its order."""
        rows = self._rows(
            "SELECT text, headings, line, page FROM passages WHERE document = "
            "(SELECT id FROM documents WHERE source = ?) ORDER BY id",
            (source,),
        )
        return [_passage(*row) for row in rows]

    def put(
        self,
        source: str,
        digest: str,
        size: int,
        told: Sequence[Passage],
        codes: Codes | None = None,
        encoder: str = "",
    ) -> None:
        """Add a document, in place of the one of that source. ``codes`` is [len(told), D] or nothing."""
        prepared = [
            (one.text, _PARTING.join(one.headings), one.line, one.page,
             " ".join(words.terms(" . ".join(one.headings))), " ".join(words.terms(one.text)))
            for one in told
        ]  # fmt: skip
        counts = _counted(row[4:] for row in prepared)
        length = sum(len(row[4].split()) + len(row[5].split()) for row in prepared)
        with self._writing():
            self._forget(source)
            document = self._db.execute(
                "INSERT INTO documents (source, digest, bytes, passages, terms, added) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (source, digest, size, len(told), length, time.time()),
            ).lastrowid
            self._db.executemany(
                "INSERT INTO frequencies VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET passages = passages + excluded.passages",
                counts.items(),
            )
            (first,) = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM passages").fetchone()
            self._db.executemany(
                "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                ((first + at, document, *row) for at, row in enumerate(prepared)),
            )
            if codes is not None:
                self._db.execute(
                    "INSERT INTO vectors VALUES (?, ?, ?, ?, ?)",
                    (document, encoder, first, len(codes), codes.tobytes()),
                )

    def remove(self, sources: Sequence[str]) -> None:
        """Forget documents, or none if one of them is not there. Nothing of them stays in the file."""
        with self._writing():
            for source in sources:
                if not self._forget(source):
                    raise KnowledgeError(f"The knowledge base {self.name!r} has no document {source!r}.")
            # Of what was removed the index would keep the words until it merges its parts by itself.
            self._db.execute("INSERT INTO terms (terms) VALUES ('optimize')")
        with self._told():
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _forget(self, source: str) -> bool:
        """Whether there was such a document. Within a transaction."""
        found = self._db.execute("SELECT id FROM documents WHERE source = ?", (source,)).fetchone()
        if found is None:
            return False
        rows = self._db.execute("SELECT heading_terms, text_terms FROM passages WHERE document = ?", found)
        self._db.executemany(
            "UPDATE frequencies SET passages = passages - ? WHERE term = ?",
            [(count, term) for term, count in _counted(rows).items()],
        )
        self._db.execute("DELETE FROM frequencies WHERE passages <= 0")
        self._db.execute("DELETE FROM documents WHERE id = ?", found)
        return True

    # What a search needs

    def version(self) -> int:
        """A number that changes when another connection has written."""
        return int(self._rows("PRAGMA data_version")[0][0])

    def size(self) -> tuple[int, float]:
        """How many passages there are, and how many terms one has on average."""
        passages, terms = self._rows("SELECT total(passages), total(terms) FROM documents")[0]
        return int(passages), terms / max(1, passages)

    def frequencies(self, terms: Collection[str]) -> dict[str, int]:
        """How many passages have each term; of a term that none has, nothing."""
        marks = ",".join("?" * len(terms))
        return dict(
            self._rows(f"SELECT term, passages FROM frequencies WHERE term IN ({marks})", list(terms))
        )

    def holding(self, expression: str, most: int) -> list[int]:
        """The first ``most`` passages that an FTS5 expression finds. (Its own BM25 takes 4 us for each.)"""
        rows = self._rows("SELECT rowid FROM terms WHERE terms MATCH ? LIMIT ?", (expression, most))
        return [row[0] for row in rows]

    def vectors(self, encoder: str) -> Iterator[tuple[int, int, bytes]]:
        """Of each document with vectors by ``encoder``: its first passage's id, how many, their codes."""
        yield from self._rows(
            "SELECT first, rows, codes FROM vectors WHERE encoder = ? ORDER BY first", (encoder,)
        )

    def told(self, encoder: str) -> list[Told]:
        """What ``edition_of`` has to know of each document with vectors by ``encoder``."""
        rows = self._rows(
            "SELECT document, first, rows, source, digest, length(codes) FROM vectors "
            "JOIN documents ON documents.id = document WHERE encoder = ?",
            (encoder,),
        )
        return [Told(Kept(*row[:3]), *row[3:]) for row in rows]

    def codes(self, document: int) -> bytes:
        """The vectors of a document, given its id; empty if there are none."""
        rows = self._rows("SELECT codes FROM vectors WHERE document = ?", (document,))
        return bytes(rows[0][0]) if rows else b""

    def fetch(self, ids: Sequence[int]) -> dict[int, Found]:
        """Passages by their ids."""
        marks = ",".join("?" * len(ids))
        rows = self._rows(
            "SELECT passages.id, source, heading_terms, text_terms, text, headings, line, page "
            f"FROM passages JOIN documents ON documents.id = document WHERE passages.id IN ({marks})",
            ids,
        )
        return {row[0]: Found(_passage(*row[4:]), *row[1:4]) for row in rows}


def _passage(text: str, headings: str, line: int, page: int) -> Passage:
    return Passage(text, tuple(headings.split(_PARTING)) if headings else (), line, page)


def _counted(rows: Iterable[Sequence[str]]) -> Counter[str]:
    """In how many passages each term is, given the heading's terms and the text's of each."""
    return Counter(term for heading, text in rows for term in {*heading.split(), *text.split()})
