"""The form in which a call is stored: what an earlier Parley wrote is read, or told apart by its version."""

from __future__ import annotations

import pytest

from model_runtime.protocol import HistoryEntry
from pipeline.conversation import Conversation, Exchange
from pipeline.memory import Remembered
from pipeline.memory.stored import NewerSchema, Unreadable, unpack

# As version 1 stores it. If this cannot be kept readable, ``keys.SCHEMA`` has to be raised.
VERSION_1 = {
    b"schema": b"1",
    b"revision": b"c0ffee:3",
    b"facts": b"\x81\xa5agent\xa8Bluebird",
    b"conversation": b"\x81\xa9exchanges\x91\x86\xa4turn\x01\xa6caller\xa2Hi\xa3bot\xa4Yes?"
    b"\xacheard_groups\x02\xabinterrupted\xc3\xa6spoken\xc3",
    b"count": b"1",
    b"0": b"\x89\xa4type\xadhistory_entry\xa5place\x00\xa3ids\x93\x01\x02\xcd\x01\x00"
    b"\xa4rows\x91\x92\x01\xc4\x02\x00\x01\xa5dtype\xa8bfloat16\xa5short\x91\x01\xa4kept\xc3\xa4turn\x01\xa5heard\xc3",
}


def test_version_1_is_read() -> None:
    assert unpack("a", VERSION_1) == Remembered(
        "a",
        {"agent": "Bluebird"},
        [HistoryEntry(0, [1, 2, 256], [(1, b"\x00\x01")], "bfloat16", [1], True, 1, True)],
        Conversation([Exchange(1, "Hi", "Yes?", 2, True)]),
    )


def test_fields_that_a_later_parley_may_add_are_passed_over() -> None:
    assert unpack("a", VERSION_1 | {b"more": b"\xff"}) == unpack("a", VERSION_1)


def test_what_nobody_told_is_empty() -> None:
    assert unpack("a", {b"schema": b"1"}) == Remembered("a", {}, [], Conversation())


def test_a_later_version_is_told_from_an_earlier_one_and_from_none() -> None:
    with pytest.raises(NewerSchema, match="version 2"):
        unpack("a", VERSION_1 | {b"schema": b"2"})
    with pytest.raises(Unreadable, match="version 0"):
        unpack("a", VERSION_1 | {b"schema": b"0"})
    for none in (b"", b"\xff", b"one", b"9" * 5000):
        with pytest.raises(Unreadable, match="no version"):
            unpack("a", VERSION_1 | {b"schema": none})


def test_values_without_end_are_unreadable() -> None:
    with pytest.raises(Unreadable, match="facts"):
        unpack("a", VERSION_1 | {b"facts": b"\x91" * 100_000})
    with pytest.raises(Unreadable, match="history"):
        unpack("a", VERSION_1 | {b"count": b"9" * 5000})
