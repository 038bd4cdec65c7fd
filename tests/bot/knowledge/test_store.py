"""What a base keeps, through replacement, removal, crashes, other processes and damage."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bot.knowledge.base import Base
from bot.knowledge.passages import Passage
from bot.knowledge.store import KnowledgeError, NoSuchBase, Store, names, path_of

TENTS = [
    Passage("We repair tents in our workshop.", ("Repairs",), 3),
    Passage("Poles cost $12.", ("Repairs",), 5),
]
BOOTS = [Passage("The Ridge boots cost ninety dollars.", ("Gear", "Boots"), 1)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path, "shop", create=True, writing=True)) as made:
        yield made


def found(folder: Path, question: str) -> list[str]:
    with closing(Base(folder, "shop", None, 0.4)) as base:
        return [hit.text for hit in base.search(question, 5)]


def test_documents_are_kept_with_their_places(store: Store, tmp_path: Path) -> None:
    store.put("tents.md", "d1", 70, TENTS)
    store.put("boots.md", "d2", 40, BOOTS)
    assert [(one.source, one.digest, one.bytes, one.passages) for one in store.documents()] == [
        ("boots.md", "d2", 40, 1), ("tents.md", "d1", 70, 2)
    ]  # fmt: skip
    assert store.passages("tents.md") == TENTS
    assert store.passages("other.md") == []
    with closing(Base(tmp_path, "shop", None, 0.4)) as base:
        (hit,) = base.search("how much are the ridge boots", 3)
    assert (hit.where, hit.headings, hit.score) == ("boots.md, line 1", ("Gear", "Boots"), 1.0)


def test_adding_again_replaces(store: Store, tmp_path: Path) -> None:
    store.put("tents.md", "d1", 70, TENTS)
    store.put("tents.md", "d2", 30, [Passage("Tents are rented out.")])
    assert found(tmp_path, "workshop") == []
    assert found(tmp_path, "rented tents") == ["Tents are rented out."]
    assert store.frequencies(["tent", "workshop", "pole"]) == {"tent": 1}
    assert store.size()[0] == 1


def test_nothing_of_what_was_removed_stays_in_the_files(store: Store, tmp_path: Path) -> None:
    secret = "Xylophonics repairs Quagmire"
    store.put("secret.md", "d", 9, [Passage(secret, ("Zanzibar",))], np.ones((1, 4), np.int8), "e")
    store.put("boots.md", "d", 9, BOOTS)
    store.remove(["secret.md"])
    assert found(tmp_path, "quagmire") == []
    assert found(tmp_path, "ridge boots")
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir()).lower()
    for word in (b"xylophon", b"quagmir", b"zanzibar", b"secret.md"):
        assert word not in kept
    assert b"ridge" in kept


def test_removing_what_is_not_there_removes_nothing(store: Store) -> None:
    store.put("boots.md", "d", 9, BOOTS)
    with pytest.raises(KnowledgeError, match=r"'shop' has no document 'other.md'"):
        store.remove(["boots.md", "other.md"])
    assert len(store.documents()) == 1


def _die_while_adding(folder: str) -> None:
    store = Store(Path(folder), "shop", writing=True)
    store._db.set_trace_callback(  # after the old passages are gone and before the new ones are all there
        lambda sql: os.kill(os.getpid(), signal.SIGKILL) if sql.startswith("INSERT INTO vectors") else None
    )
    store.put("tents.md", "d2", 30, [Passage("New tents.")] * 500, np.ones((500, 4), np.int8), "e")


def test_a_crash_in_the_middle_leaves_the_old_content(store: Store, tmp_path: Path) -> None:
    store.put("tents.md", "d1", 70, TENTS)
    other = multiprocessing.get_context("spawn").Process(target=_die_while_adding, args=(str(tmp_path),))
    other.start()
    other.join(60)
    assert other.exitcode == -signal.SIGKILL
    assert found(tmp_path, "workshop") == [TENTS[0].text]
    assert found(tmp_path, "new") == []
    store.put("boots.md", "d2", 40, BOOTS)  # and it can be written again
    assert found(tmp_path, "ridge boots")


def test_who_reads_sees_a_document_whole_while_another_process_writes(store: Store, tmp_path: Path) -> None:
    store.put("tents.md", "d1", 70, TENTS)
    with closing(Base(tmp_path, "shop", None, 0.4)) as base:
        with sqlite3.connect(store.path) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("DELETE FROM passages")
            assert base.search("workshop", 3)
            writer.rollback()
        writer.close()
        store.put("tents.md", "d2", 30, [Passage("Tents are rented out.")])
        assert not base.search("workshop", 3)
        assert base.search("renting tents", 3)


def test_a_reader_cannot_write(store: Store, tmp_path: Path) -> None:
    with closing(Store(tmp_path, "shop")) as reader, pytest.raises(KnowledgeError, match="cannot be used"):
        reader.put("boots.md", "d", 1, BOOTS)


def test_a_base_that_somebody_writes_all_the_time_says_so(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.knowledge.store.BUSY_MS", 1)
    with (
        closing(Store(tmp_path, "shop", writing=True)) as second,
        closing(sqlite3.connect(store.path)) as writer,
    ):
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(KnowledgeError, match="is being written by another process"):
            second.put("boots.md", "d", 1, BOOTS)


def test_a_search_that_takes_too_long_is_given_up(store: Store) -> None:
    with pytest.raises(KnowledgeError, match="took too long"), store.reading(0):
        store._rows("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n")
    assert store.size() == (0, 0.0)  # it can be used again


def test_each_base_is_its_own_file_that_only_its_owner_can_read(store: Store, tmp_path: Path) -> None:
    Store(tmp_path, "other-2", create=True).close()
    (tmp_path / "Not A Base.knowledge").touch()
    assert names(tmp_path) == ["other-2", "shop"]
    assert names(tmp_path / "nowhere") == []
    assert store.path.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.glob("*.part*"))
    for name in ("", "../shop", "Shop", "a/b", "a" * 65):
        with pytest.raises(KnowledgeError, match="cannot be the name"):
            path_of(tmp_path, name)


def test_a_base_that_is_not_there_says_how_it_comes_to_be(tmp_path: Path) -> None:
    with pytest.raises(NoSuchBase, match="parley knowledge add --base shop DOCS"):
        Store(tmp_path, "shop")
    (tmp_path / "file").touch()
    with pytest.raises(KnowledgeError, match="PARLEY_KNOWLEDGE__FOLDER names another folder"):
        Store(tmp_path / "file", "shop", create=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("PRAGMA user_version = 2", "was made by another version of Parley"),
        ("UPDATE meta SET words_version = 99", "was made by another version of Parley"),
        ("PRAGMA application_id = 7", "is not a knowledge base of Parley"),
    ],
)
def test_another_versions_base_is_refused(store: Store, tmp_path: Path, change: str, said: str) -> None:
    with closing(sqlite3.connect(store.path, isolation_level=None)) as db:
        db.execute(change)
    with pytest.raises(KnowledgeError, match=said):
        Store(tmp_path, "shop")


def test_what_is_no_database_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "shop.knowledge").write_bytes(b"This is no database." * 500)
    with pytest.raises(KnowledgeError, match=r"is damaged\. Move it away and add the documents again"):
        Store(tmp_path, "shop")
    (tmp_path / "shop.knowledge").write_bytes(b"")
    with pytest.raises(KnowledgeError, match="is not a knowledge base"):
        Store(tmp_path, "shop")
