"""Names that are the same wherever the contents are, and another one whatever else there is."""

from __future__ import annotations

from dataclasses import replace

from bot.knowledge.edition import Edition, Kept, Told, changes, edition_of

WIDTH = 4
A = Told(Kept(1, 1, 3), "a.md", "aaa", 12)
B = Told(Kept(2, 4, 2), "b.md", "bbb", 8)


def test_equal_contents_are_one_edition_whatever_their_ids_and_order() -> None:
    here = edition_of("e", WIDTH, [A, B])
    there = edition_of("e", WIDTH, [B._replace(kept=Kept(7, 1, 2)), A._replace(kept=Kept(9, 3, 3))])
    assert here.name == there.name
    assert set(here.documents) == set(there.documents)
    assert here.count == 5


def test_whatever_differs_makes_another_edition() -> None:
    kept = Kept(2, 4, 1)
    others = [
        edition_of("e", WIDTH, []),
        edition_of("e", WIDTH, [A]),
        edition_of("e", WIDTH, [A, B]),
        edition_of("f", WIDTH, [A, B]),
        edition_of("e", WIDTH, [A, B._replace(digest="ccc")]),
        edition_of("e", WIDTH, [A, B._replace(source="c.md")]),
        edition_of("e", WIDTH, [A, B._replace(kept=kept, size=4)]),
        edition_of("e", 1, [A._replace(size=3), B._replace(size=2)]),
        edition_of("e", WIDTH, [A._replace(source="a", digest=".mdaaa"), B]),
    ]
    assert len({one.name for one in others}) == len(others)


def test_vectors_of_another_width_are_left_out() -> None:
    assert edition_of("e", WIDTH, [A, B._replace(size=7)]).name == edition_of("e", WIDTH, [A]).name


def test_elements_are_passages_of_this_machine_again() -> None:
    edition = edition_of("e", WIDTH, [A, B])
    found = [element for document in edition.documents for element in edition.elements(document)]
    assert edition.ids(dict.fromkeys(reversed(found), 0.5)) == dict.fromkeys([5, 4, 3, 2, 1], 0.5)
    assert list(edition.ids(dict.fromkeys(reversed(found), 0.5))) == [5, 4, 3, 2, 1]
    document = next(iter(edition.documents))
    strange = [b"", b":", b"\xff:0", b"other:0", *(f"{document}:{p}".encode() for p in ("3", "-1", "x", ""))]
    assert edition.ids(dict.fromkeys(strange, 0.9)) == {}


def test_a_little_change_is_made_of_what_was_there() -> None:
    old = edition_of("e", WIDTH, [A, B])
    new = edition_of("e", WIDTH, [A, B, Told(Kept(3, 6, 2), "c.md", "ccc", 8)])
    gone, more = changes(old, new) or ([], [])
    assert gone == []
    assert [new.documents[one].first for one in more] == [6]
    gone, more = changes(new, old) or ([], [])
    assert [len(gone), more] == [2, []]
    assert changes(old, edition_of("e", WIDTH, [B])) is None
    assert changes(old, replace(old)) == ([], [])
    assert changes(old, Edition("", {})) is None
